//! MOBIKE (RFC 4555), as responder against the test initiator and as initiator against a record.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::endpoint::Command;
use gateway_ike::output::{ChildSa, KernelRequest, Output, Path, Transmit};
use gateway_ike::record::{IkeSaRecord, Purpose, Role};
use gateway_ike::wire::{
    ExchangeType, HeaderRepr, Message, MessageBuilder, NotifyRepr, NotifyType, Payload,
};

use crate::config::{child, ts};
use crate::gateway::{Gateway, path};
use crate::initiator::{Initiator, nat_hash};
use crate::transport::transport;

/// An established IKE SA of a mobile peer, on port 4500.
fn mobile(gateway: &mut Gateway, seed: u64) -> Initiator {
    mobile_as(gateway, Initiator::new(seed))
}

fn mobile_as(gateway: &mut Gateway, mut peer: Initiator) -> Initiator {
    peer.auth_notifies = vec![NotifyType::MOBIKE_SUPPORTED];
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    peer.float();
    let auth = peer.auth();
    let response = gateway.exchange(peer.path, &auth);
    assert!(peer.take_auth(&response).is_some());
    let opened = peer.open(&response);
    let payloads = opened.payloads().unwrap();
    assert!(payloads.has_notify(NotifyType::MOBIKE_SUPPORTED));
    peer
}

fn somewhere_else() -> Path {
    path("203.0.113.10:4500", "192.0.2.200:4500")
}

fn nat_hashes(peer: &Initiator, source: Path) -> [[u8; 20]; 2] {
    [source.remote, source.local]
        .map(|address| nat_hash(&*peer.crypto, peer.spi_i, peer.spi_r, address))
}

/// UPDATE_SA_ADDRESSES with what the peer believes about its address.
fn update(peer: &mut Initiator, believed: Path, cookie: &[u8]) -> Vec<u8> {
    let [source, destination] = nat_hashes(peer, believed);
    peer.request(
        ExchangeType::INFORMATIONAL,
        &[
            Payload::Notify(NotifyRepr::new(NotifyType::UPDATE_SA_ADDRESSES, &[])),
            Payload::Notify(NotifyRepr::new(
                NotifyType::NAT_DETECTION_SOURCE_IP,
                &source,
            )),
            Payload::Notify(NotifyRepr::new(
                NotifyType::NAT_DETECTION_DESTINATION_IP,
                &destination,
            )),
            Payload::Notify(NotifyRepr::new(NotifyType::COOKIE2, cookie)),
        ],
    )
}

/// The answer to a request of the gateway's that carries a COOKIE2.
fn copy_cookie(peer: &mut Initiator, request: &[u8], tamper: bool) -> Vec<u8> {
    let opened = peer.open_request(request);
    let payloads = opened.payloads().unwrap();
    let mut cookie = payloads.notify(NotifyType::COOKIE2).unwrap().data.to_vec();
    cookie[0] ^= u8::from(tamper);
    let header = HeaderRepr {
        response: true,
        from_initiator: true,
        ..*Message::parse(request).unwrap().header()
    };
    let notify = NotifyRepr::new(NotifyType::COOKIE2, &cookie);
    peer.seal(MessageBuilder::new(header).with(&Payload::Notify(notify)))
}

fn moved(gateway: &Gateway) -> Vec<&ChildSa> {
    let updates = gateway.log.iter().filter_map(|output| match output {
        Output::Kernel(KernelRequest::Update { child }) => Some(&**child),
        _ => None,
    });
    updates.collect()
}

fn answer_and_check(sent: &[Transmit]) -> (&Transmit, &Transmit) {
    assert_eq!(sent.len(), 2, "the answer and the check of the path");
    let is_response = |t: &&Transmit| Message::parse(&t.bytes).unwrap().header().response;
    let answer = sent.iter().find(is_response).unwrap();
    let check = sent.iter().find(|t| !is_response(t)).unwrap();
    (answer, check)
}

#[test]
fn a_peer_that_moves_proves_that_it_is_there_and_then_its_children_follow() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = mobile(&mut gateway, 1);
    let before = gateway.installs()[0].0.clone();
    assert_eq!(before.encap, None, "no NAT");
    let there = somewhere_else();
    let request = update(&mut peer, there, b"cookie-of-the-peer");
    let sent = gateway.receive(there, &request);
    let (answer, check) = answer_and_check(&sent);
    assert_eq!((answer.path, check.path), (there, there));
    assert!(answer.after.is_some() && check.after.is_some());
    let opened = peer.open(&answer.bytes);
    let payloads = opened.payloads().unwrap();
    let data = |kind| payloads.notify(kind).unwrap().data.to_vec();
    assert_eq!(data(NotifyType::COOKIE2), b"cookie-of-the-peer");
    let [theirs, ours] = nat_hashes(&peer, there);
    assert_eq!(data(NotifyType::NAT_DETECTION_SOURCE_IP), ours);
    assert_eq!(data(NotifyType::NAT_DETECTION_DESTINATION_IP), theirs);
    assert!(moved(&gateway).is_empty(), "RFC 4555 §3.7: not yet");
    assert_eq!(gateway.endpoint.sas().next().unwrap().remote, there.remote);

    let copied = copy_cookie(&mut peer, &check.bytes, false);
    gateway.ignores(there, &copied);
    let after = moved(&gateway);
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].remote, there.remote.ip());
    assert_eq!((after[0].encap, after[0].spi_in), (None, before.spi_in));
    let (_, record) = gateway.last_record();
    assert_eq!(record.children[0].sa.remote, there.remote.ip());
    assert_eq!(record.path, there);
    assert!(record.outstanding.is_none() && record.transport.mobike);
    peer.path = there;
    peer.is_alive(&mut gateway);
}

/// RFC 4555 has no word for other selectors: those of the old address stay, and a rekeying asks for
/// new ones.
#[test]
fn a_peer_whose_address_was_the_selector_gets_a_new_child_after_it_has_moved() {
    for (remote_ts, rekeyed) in [("dynamic", true), ("198.51.100.7/32", false)] {
        let mut config = transport(|_| ());
        let mut site = (*config.connections[0]).clone();
        site.children = vec![Arc::new(child("net", "10.1.0.0/16", remote_ts))];
        config.connections = vec![Arc::new(site)];
        let mut gateway = Gateway::new(config);
        let mut peer = Initiator::new(7);
        peer.ts_i = vec![ts("0.0.0.0/0")];
        let mut peer = mobile_as(&mut gateway, peer);
        let there = somewhere_else();
        let request = update(&mut peer, there, b"cookie-of-the-peer");
        let sent = gateway.receive(there, &request);
        let (_, check) = answer_and_check(&sent);
        let copied = copy_cookie(&mut peer, &check.bytes, false);
        let sent = gateway.receive(there, &copied);
        let after = moved(&gateway);
        assert_eq!(after[0].remote, there.remote.ip());
        assert_eq!(after[0].remote_ts, [ts("198.51.100.7/32")]);
        assert_eq!(sent.len(), usize::from(rekeyed), "{remote_ts}");
        for request in sent {
            let opened = peer.open_request(&request.bytes);
            let payloads = opened.payloads().unwrap();
            assert!(payloads.has_notify(NotifyType::REKEY_SA));
            let theirs = &payloads.require_ts_responder().unwrap().selectors;
            assert_eq!(*theirs, [ts("192.0.2.200/32")]);
        }
    }
}

#[test]
fn behind_a_nat_now_and_not_later() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = mobile(&mut gateway, 2);
    let nat = path("203.0.113.10:4500", "192.0.2.200:33333");
    let inner = path("203.0.113.10:4500", "10.0.0.9:4500");
    let request = update(&mut peer, inner, b"12345678");
    let sent = gateway.receive(nat, &request);
    let (_, check) = answer_and_check(&sent);
    let copied = copy_cookie(&mut peer, &check.bytes, false);
    gateway.ignores(nat, &copied);
    assert_eq!(moved(&gateway)[0].encap, Some((4500, 33333)));
    // The NAT maps to another port: the peer is where it was, so no check is needed.
    let other = path("203.0.113.10:4500", "192.0.2.200:44444");
    let request = update(&mut peer, inner, b"12345678");
    let sent = gateway.receive(other, &request);
    assert_eq!(sent.len(), 1);
    assert_eq!(moved(&gateway)[1].encap, Some((4500, 44444)));
    // Home again.
    let home = path("203.0.113.10:4500", "198.51.100.7:4500");
    let request = update(&mut peer, home, b"12345678");
    let sent = gateway.receive(home, &request);
    let (_, check) = answer_and_check(&sent);
    let copied = copy_cookie(&mut peer, &check.bytes, false);
    gateway.ignores(home, &copied);
    let last = moved(&gateway)[2];
    assert_eq!((last.encap, last.remote), (None, home.remote.ip()));
}

#[test]
fn only_an_update_moves_a_mobile_peer() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = mobile(&mut gateway, 3);
    let home = peer.path;
    peer.path = somewhere_else();
    // RFC 4555 §3.8: it may be testing a path. The answer goes there.
    peer.is_alive(&mut gateway);
    assert_eq!(gateway.endpoint.sas().next().unwrap().remote, home.remote);
    assert!(moved(&gateway).is_empty());
    // A CHILD_SA has the addresses of the IKE SA, not those of the request (§3.3).
    peer.spi_in = [0xc0, 0, 0, 2];
    let request = peer.create_child(None, None, &[5; 32]);
    gateway.exchange(peer.path, &request);
    assert_eq!(gateway.installs()[1].0.remote, home.remote.ip());
}

#[test]
fn without_mobike_nothing_of_it_counts() {
    let mut gateway = Gateway::new(transport(|t| t.mobike = false));
    let mut peer = Initiator::new(4);
    peer.auth_notifies = vec![NotifyType::MOBIKE_SUPPORTED];
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let auth = peer.auth();
    let response = gateway.exchange(peer.path, &auth);
    let opened = peer.open(&response);
    let payloads = opened.payloads().unwrap();
    assert!(!payloads.has_notify(NotifyType::MOBIKE_SUPPORTED));
    let there = somewhere_else();
    let request = update(&mut peer, there, b"12345678");
    let response = gateway.exchange(there, &request);
    let opened = peer.open(&response);
    let kinds: Vec<_> = opened
        .payloads()
        .unwrap()
        .notifies
        .iter()
        .map(|n| n.kind)
        .collect();
    assert_eq!(kinds, [NotifyType::COOKIE2], "RFC 4555 §4.2.5");
}

#[test]
fn addresses_that_cannot_be_used_are_refused() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = mobile(&mut gateway, 5);
    let home = gateway.endpoint.sas().next().unwrap().remote;
    let other_vip = path("203.0.113.11:4500", "192.0.2.200:4500");
    let request = update(&mut peer, other_vip, b"12345678");
    let response = gateway.exchange(other_vip, &request);
    let error = peer.error(&response).map(|(kind, _)| kind);
    assert_eq!(error, Some(NotifyType::UNACCEPTABLE_ADDRESSES));
    // Somebody has changed an address on the way.
    for (source, refused) in [([10, 0, 0, 9], true), ([192, 0, 2, 200], false)] {
        let there = somewhere_else();
        let protected = [
            &source[..],
            &[203, 0, 113, 10],
            &4500u16.to_be_bytes(),
            &4500u16.to_be_bytes(),
        ]
        .concat();
        let request = peer.request(
            ExchangeType::INFORMATIONAL,
            &[
                Payload::Notify(NotifyRepr::new(NotifyType::UPDATE_SA_ADDRESSES, &[])),
                Payload::Notify(NotifyRepr::new(NotifyType::NO_NATS_ALLOWED, &protected)),
            ],
        );
        let sent = gateway.receive(there, &request);
        let error = peer.error(&sent[0].bytes).map(|(kind, _)| kind);
        let expected = refused.then_some(NotifyType::UNEXPECTED_NAT_DETECTED);
        assert_eq!(error, expected);
        let remote = gateway.endpoint.sas().next().unwrap().remote;
        assert_eq!(remote, if refused { home } else { there.remote });
    }
}

#[test]
fn ike_auth_through_a_nat_that_the_peer_excludes_is_refused() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = Initiator::new(6);
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let protected = [&[10, 0, 0, 9, 203, 0, 113, 10][..], &[1, 244, 1, 244]].concat();
    let builder = peer
        .auth_builder()
        .with(&Payload::Notify(NotifyRepr::new(
            NotifyType::MOBIKE_SUPPORTED,
            &[],
        )))
        .with(&Payload::Notify(NotifyRepr::new(
            NotifyType::NO_NATS_ALLOWED,
            &protected,
        )));
    let auth = peer.seal(builder);
    let response = gateway.exchange(peer.path, &auth);
    let error = peer.error(&response).map(|(kind, _)| kind);
    assert_eq!(error, Some(NotifyType::UNEXPECTED_NAT_DETECTED));
    assert_eq!(gateway.endpoint.sas().count(), 0);
}

#[test]
fn a_peer_that_does_not_copy_the_cookie_is_closed() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = mobile(&mut gateway, 7);
    let there = somewhere_else();
    let request = update(&mut peer, there, b"12345678");
    let sent = gateway.receive(there, &request);
    let (_, check) = answer_and_check(&sent);
    let copied = copy_cookie(&mut peer, &check.bytes, true);
    let sent = gateway.receive(there, &copied);
    assert!(moved(&gateway).is_empty());
    let opened = peer.open_request(&sent[0].bytes);
    assert_eq!(opened.payloads().unwrap().deletes.len(), 1);
}

/// The peer moves on before it has answered the check of where it was.
#[test]
fn a_check_that_went_to_several_addresses_proves_none() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = mobile(&mut gateway, 8);
    let first = somewhere_else();
    let request = update(&mut peer, first, b"12345678");
    let sent = gateway.receive(first, &request);
    let (_, check) = answer_and_check(&sent);
    let second = path("203.0.113.10:4500", "192.0.2.201:4500");
    let request = update(&mut peer, second, b"12345678");
    let sent = gateway.receive(second, &request);
    assert_eq!(sent.len(), 1, "a window of one");
    let copied = copy_cookie(&mut peer, &check.bytes, false);
    let sent = gateway.receive(second, &copied);
    assert!(moved(&gateway).is_empty());
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].path, second);
    let copied = copy_cookie(&mut peer, &sent[0].bytes, false);
    gateway.ignores(second, &copied);
    assert_eq!(moved(&gateway)[0].remote, second.remote.ip());
}

/// The owner dies at each step of an update; whoever goes on finishes it.
#[test]
fn a_takeover_at_each_step_of_an_update() {
    for step in 0..3 {
        let mut gateway = Gateway::new(transport(|_| ()));
        let mut peer = mobile(&mut gateway, 9);
        let there = somewhere_else();
        let request = update(&mut peer, there, b"12345678");
        let sent = gateway.receive(there, &request);
        let (answer, check) = answer_and_check(&sent);
        let records: Vec<_> = gateway
            .log
            .iter()
            .filter_map(|output| match output {
                Output::Delta(delta) => match &delta.change {
                    gateway_ike::output::Change::Upsert(record) => Some((delta.id, record)),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        // With the answer on its way only, with the check on its way, and after it was answered.
        let record = match step {
            0 => {
                &records
                    .iter()
                    .find(|(id, _)| Some(*id) == answer.after)
                    .unwrap()
                    .1
            }
            1 => {
                &records
                    .iter()
                    .find(|(id, _)| Some(*id) == check.after)
                    .unwrap()
                    .1
            }
            _ => &records.last().unwrap().1,
        };
        let pending = matches!(
            record.outstanding.as_ref().map(|o| &o.purpose),
            Some(Purpose::VerifyPath { .. })
        );
        assert_eq!(pending, step > 0);
        let record = IkeSaRecord::decode(record.encode().expose()).unwrap();
        let mut other = transport(|_| ());
        other.member = MemberId::new(6).unwrap();
        let mut heir = Gateway::seeded(other, 99);
        heir.endpoint
            .handle_command(heir.now, Command::Import(Box::new(record)));
        // The peer has not heard the answer, and asks again.
        let again = heir.receive(there, &request);
        assert_eq!(again[0].bytes, answer.bytes);
        let sent = heir.advance(Duration::from_secs(1));
        assert_eq!(sent.len(), 1, "step {step}");
        assert_eq!(sent[0].path, there);
        if step > 0 {
            assert_eq!(sent[0].bytes, check.bytes, "the same octets again");
        }
        let copied = copy_cookie(&mut peer, &sent[0].bytes, false);
        heir.ignores(there, &copied);
        assert_eq!(moved(&heir)[0].remote, there.remote.ip());
        peer.path = there;
        peer.is_alive(&mut heir);
    }
}

#[test]
fn lists_of_addresses_replace_each_other() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = mobile(&mut gateway, 10);
    let list = |gateway: &Gateway| gateway.last_record().1.transport.peer_addresses.clone();
    let v4 = NotifyRepr::new(NotifyType::ADDITIONAL_IP4_ADDRESS, &[192, 0, 2, 1]);
    let v6 = [0x20; 16];
    let v6 = NotifyRepr::new(NotifyType::ADDITIONAL_IP6_ADDRESS, &v6);
    let short = NotifyRepr::new(NotifyType::ADDITIONAL_IP4_ADDRESS, &[192, 0, 2]);
    let none = NotifyRepr::new(NotifyType::NO_ADDITIONAL_ADDRESSES, &[]);
    let many = vec![v4; 40];
    for (notifies, count) in [(vec![v4, v6, short], 2), (many, 16), (vec![none], 0)] {
        let payloads: Vec<_> = notifies.into_iter().map(Payload::Notify).collect();
        let request = peer.request(ExchangeType::INFORMATIONAL, &payloads);
        gateway.exchange(peer.path, &request);
        assert_eq!(list(&gateway).len(), count);
    }
}

/// We are the original initiator, and the peer does not answer at the address in use.
#[test]
fn another_address_of_a_silent_peer_is_found_and_used() {
    let mut donor = Gateway::new(transport(|_| ()));
    let mut peer = mobile(&mut donor, 11);
    let octets = donor.last_record().1.encode();
    let mut record = IkeSaRecord::decode(octets.expose()).unwrap();
    // The roles of MOBIKE do not change when the IKE SA is rekeyed; so this is possible.
    assert_eq!(record.role, Role::Responder);
    record.transport.original_initiator = true;
    let others = ["192.0.2.50", "2001:db8::5", "192.0.2.51"];
    record.transport.peer_addresses = others.map(|a| a.parse::<IpAddr>().unwrap()).to_vec();
    let local_spi = record.local_spi;
    let usual = record.path.remote.ip();
    let mut gateway = Gateway::seeded(transport(|_| ()), 55);
    gateway
        .endpoint
        .handle_command(gateway.now, Command::Import(Box::new(record)));
    gateway
        .endpoint
        .handle_command(gateway.now, Command::Liveness { local_spi });
    let mut asked = Vec::new();
    let mut request = Vec::new();
    asked.extend(gateway.drain());
    for _ in 0..5 {
        let due = gateway.endpoint.poll_timeout().unwrap();
        asked.extend(gateway.advance(due - gateway.now));
    }
    let targets: Vec<_> = asked
        .iter()
        .map(|t| t.path.remote.ip().to_string())
        .collect();
    let usual = usual.to_string();
    let expected = [&usual, &usual, others[0], others[2], &usual, others[0]];
    assert_eq!(targets, expected);
    request.extend_from_slice(&asked[0].bytes);
    assert!(asked.iter().all(|t| t.bytes == request), "the same octets");

    // The peer answers at one of them.
    let header = HeaderRepr {
        response: true,
        from_initiator: true,
        ..*Message::parse(&request).unwrap().header()
    };
    let answer = peer.seal(MessageBuilder::new(header));
    let found = path("203.0.113.10:4500", "192.0.2.51:4500");
    let sent = gateway.receive(found, &answer);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].path, found);
    let opened = peer.open_request(&sent[0].bytes);
    let payloads = opened.payloads().unwrap();
    assert!(payloads.has_notify(NotifyType::UPDATE_SA_ADDRESSES));
    assert!(moved(&gateway).is_empty());
    let header = HeaderRepr {
        response: true,
        from_initiator: true,
        ..*Message::parse(&sent[0].bytes).unwrap().header()
    };
    let cookie = payloads.notify(NotifyType::COOKIE2).unwrap();
    let [theirs, ours] = nat_hashes(&peer, found);
    let builder = MessageBuilder::new(header)
        .with(&Payload::Notify(*cookie))
        .with(&Payload::Notify(NotifyRepr::new(
            NotifyType::NAT_DETECTION_SOURCE_IP,
            &theirs,
        )))
        .with(&Payload::Notify(NotifyRepr::new(
            NotifyType::NAT_DETECTION_DESTINATION_IP,
            &ours,
        )));
    let answer = peer.seal(builder);
    gateway.ignores(found, &answer);
    assert_eq!(moved(&gateway)[0].remote, found.remote.ip());
    // Nobody else's address is believed.
    gateway
        .endpoint
        .handle_command(gateway.now, Command::Liveness { local_spi });
    let sent = gateway.drain();
    let header = HeaderRepr {
        response: true,
        from_initiator: true,
        ..*Message::parse(&sent[0].bytes).unwrap().header()
    };
    let answer = peer.seal(MessageBuilder::new(header));
    gateway.ignores(path("203.0.113.10:4500", "192.0.2.66:4500"), &answer);
    let remote = gateway.endpoint.sas().next().unwrap().remote;
    assert_eq!(remote, found.remote);
}
