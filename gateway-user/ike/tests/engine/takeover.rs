//! An IKE SA goes on elsewhere from its record.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::config::Uniqueness;
use gateway_ike::endpoint::Command;
use gateway_ike::output::{Change, Output, Transmit};
use gateway_ike::proposal::IkeProposal;
use gateway_ike::record::{Contact, IkeSaRecord};
use gateway_ike::wire::{DeleteRepr, ExchangeType, Message, MessageBuilder, NotifyType, Payload};

use crate::config::config;
use crate::gateway::Gateway;
use crate::initiator::Initiator;

/// Another member, or another run of the same one.
fn member(id: u8, incarnation: u16) -> Gateway {
    let mut config = config();
    config.member = MemberId::new(id).unwrap();
    config.incarnation = incarnation;
    Gateway::seeded(config, 100 + u64::from(id))
}

pub(crate) fn ordered(gateway: &mut Gateway, command: Command) -> Vec<Transmit> {
    gateway.endpoint.handle_command(gateway.now, command);
    gateway.drain()
}

/// As it comes out of the wire of the sync network.
pub(crate) fn transfer(from: &Gateway) -> Box<IkeSaRecord> {
    let (_, record) = from.last_record();
    Box::new(IkeSaRecord::decode(record.encode().expose()).unwrap())
}

#[test]
fn another_member_goes_on() {
    let mut first = Gateway::new(config());
    let mut peer = Initiator::new(120);
    peer.connect(&mut first).unwrap();
    let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
    let response = first.exchange(peer.path, &request);
    let before: Vec<_> = first.endpoint.sas().collect();

    let mut second = member(6, 1);
    let record = transfer(&first);
    second
        .endpoint
        .handle_command(second.now, Command::Import(record));
    assert_eq!(second.endpoint.sas().collect::<Vec<_>>(), before);
    // The response was lost with the first member; the request comes again.
    assert_eq!(second.exchange(peer.path, &request), response);
    assert_eq!(second.order(0), ["transmit"]);
    peer.is_alive(&mut second);
    let old = before[0].children[0].spi_out;
    peer.spi_in = [0xc0, 0, 0, 7];
    let request = peer.create_child(Some(old), None, &[3; 32]);
    let response = second.exchange(peer.path, &request);
    assert_eq!(peer.error(&response), None);
    // Its SPIs are from its own part.
    assert_eq!(second.installs()[0].0.spi_in[3] & 0x3f, 6);
}

#[test]
fn a_request_that_was_never_answered_is_answered_elsewhere() {
    let mut first = Gateway::new(config());
    let mut peer = Initiator::new(121);
    peer.connect(&mut first).unwrap();
    let record = transfer(&first);
    // The first member took this one, and died before its delta was out.
    let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
    first.exchange(peer.path, &request);
    let mut second = member(6, 1);
    second
        .endpoint
        .handle_command(second.now, Command::Import(record));
    let response = second.exchange(peer.path, &request);
    assert_eq!(peer.error(&response), None);
    peer.is_alive(&mut second);
}

/// Invariant 2: no (key, IV) goes out twice, whoever resumes from however old a record.
#[test]
fn no_iv_comes_twice() {
    let mut ivs = BTreeSet::new();
    let mut take = |bytes: &[u8]| {
        let message = Message::parse(bytes).unwrap();
        let gateway_ike::wire::Body::Encrypted(encrypted) = message.body() else {
            panic!();
        };
        assert!(
            ivs.insert(encrypted.body()[..8].to_vec()),
            "an IV came twice"
        );
    };
    let mut first = Gateway::new(config());
    let mut peer = Initiator::new(122);
    let response = first.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    take(&first.exchange(peer.path, &peer.auth()));
    let old = transfer(&first);
    let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
    take(&first.exchange(peer.path, &request));
    // The same request, answered anew by other members and by a later run of the same one.
    for (id, incarnation) in [(6, 1), (7, 1), (5, 2), (5, 3)] {
        let mut other = member(id, incarnation);
        other
            .endpoint
            .handle_command(other.now, Command::Import(old.clone()));
        take(&other.exchange(peer.path, &request));
    }
    // The same run goes on where the record stands.
    let mut same = member(5, 1);
    same.endpoint
        .handle_command(same.now, Command::Import(transfer(&first)));
    let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
    take(&same.exchange(peer.path, &request));
    // It comes back to the same run as a member saw it that was cut off meanwhile.
    let local_spi = peer.spi_r;
    for command in [Command::Forget { local_spi }, Command::Import(old.clone())] {
        same.endpoint.handle_command(same.now, command);
    }
    peer.next_id = 2;
    let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
    take(&same.exchange(peer.path, &request));
    // And after it was deleted here.
    let delete = [Payload::Delete(DeleteRepr::ike())];
    let request = peer.request(ExchangeType::INFORMATIONAL, &delete);
    take(&same.exchange(peer.path, &request));
    same.endpoint.handle_command(same.now, Command::Import(old));
    peer.next_id = 2;
    let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
    take(&same.exchange(peer.path, &request));
}

#[test]
fn a_forgotten_ike_sa_is_left_to_the_other_member() {
    let mut first = Gateway::new(config());
    let mut peer = Initiator::new(123);
    peer.connect(&mut first).unwrap();
    let outputs = first.log.len();
    let forget = Command::Forget {
        local_spi: peer.spi_r,
    };
    first.endpoint.handle_command(first.now, forget);
    first.ignores(peer.path, &peer.request(ExchangeType::INFORMATIONAL, &[]));
    assert_eq!(first.endpoint.sas().count(), 0);
    assert_eq!(first.endpoint.child_sas(), 0);
    assert!(first.removals().is_empty());
    assert_eq!(first.order(outputs), ["event"]);
    // Only the delayed copies of IKE_SA_INIT are waited for.
    first.advance(Duration::from_secs(30));
    assert_eq!(first.endpoint.poll_timeout(), None);
}

#[test]
fn a_connection_that_is_gone_from_the_configuration() {
    let mut first = Gateway::new(config());
    let mut peer = Initiator::new(124);
    peer.connect(&mut first).unwrap();
    let mut config = config();
    config.connections.clear();
    let mut second = Gateway::seeded(config, 9);
    second
        .endpoint
        .handle_command(second.now, Command::Import(transfer(&first)));
    peer.is_alive(&mut second);
    let request = peer.create_child(None, None, &[3; 32]);
    let response = second.exchange(peer.path, &request);
    assert!(peer.error(&response).is_some());
    assert_eq!(second.endpoint.sas().next().unwrap().connection, "site");
}

/// The peer's DELETE was answered, and the answer lost with the member.
#[test]
fn a_delete_that_comes_again_elsewhere_gets_the_same_answer() {
    let mut first = Gateway::new(config());
    let mut peer = Initiator::new(125);
    peer.connect(&mut first).unwrap();
    let request = peer.request(
        ExchangeType::INFORMATIONAL,
        &[Payload::Delete(DeleteRepr::ike())],
    );
    let response = first.exchange(peer.path, &request);
    let mut tombstone = transfer(&first);
    assert_eq!(tombstone.closed, Some(Duration::from_secs(30)));
    let keys = &tombstone.keys;
    for key in [&keys.ei, &keys.er] {
        assert!(key.expose().iter().all(|octet| *octet == 0));
    }
    assert!(keys.d.expose().iter().all(|octet| *octet == 0));
    assert_eq!(tombstone.children, []);
    // Its time goes on while nobody looks at it.
    tombstone.grow_older(Duration::from_secs(10));

    let mut second = member(6, 1);
    let forget = second.log.len();
    second
        .endpoint
        .handle_command(second.now, Command::Import(tombstone));
    assert_eq!(second.endpoint.sas().count(), 0);
    assert_eq!(second.exchange(peer.path, &request), response);
    assert_eq!(second.order(forget), ["transmit"]);
    // Nothing else is taken under it.
    second.ignores(peer.path, &peer.request(ExchangeType::INFORMATIONAL, &[]));
    // 20 s later it is gone, on all members.
    second.advance(Duration::from_secs(19));
    assert_eq!(second.exchange(peer.path, &request), response);
    let from = second.log.len();
    second.advance(Duration::from_secs(1));
    assert!(matches!(
        &second.log[from..],
        [Output::Delta(delta)] if matches!(delta.change, Change::Removed { local_spi } if local_spi == peer.spi_r)
    ));
    second.ignores(peer.path, &request);
    assert_eq!(second.endpoint.poll_timeout(), None);
}

#[test]
fn a_tombstone_that_another_member_has_is_not_ours_to_end() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(126);
    peer.connect(&mut gateway).unwrap();
    let request = peer.request(
        ExchangeType::INFORMATIONAL,
        &[Payload::Delete(DeleteRepr::ike())],
    );
    gateway.exchange(peer.path, &request);
    let local_spi = peer.spi_r;
    gateway
        .endpoint
        .handle_command(gateway.now, Command::Forget { local_spi });
    let from = gateway.log.len();
    gateway.ignores(peer.path, &request);
    gateway.advance(Duration::from_secs(60));
    assert!(
        !gateway
            .order(from)
            .iter()
            .any(|word| word.starts_with("delta"))
    );
}

#[test]
fn tombstones_are_bounded_and_the_oldest_goes_first() {
    let mut config = config();
    config.limits.tombstones = 2;
    config.limits.cookie_threshold = 100;
    let mut gateway = Gateway::new(config);
    let mut ends = Vec::new();
    for n in 0..3 {
        let mut peer = Initiator::new(130 + n);
        peer.connect(&mut gateway).unwrap();
        let delete = [Payload::Delete(DeleteRepr::ike())];
        let request = peer.request(ExchangeType::INFORMATIONAL, &delete);
        let response = gateway.exchange(peer.path, &request);
        ends.push((peer.path, request, response, peer.spi_r));
        gateway.advance(Duration::from_secs(1));
    }
    let (path, request, _, spi) = &ends[0];
    gateway.ignores(*path, request);
    let removed: Vec<_> = gateway
        .log
        .iter()
        .filter_map(|output| match output {
            Output::Delta(delta) => match &delta.change {
                Change::Removed { local_spi } => Some(*local_spi),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(removed, [*spi]);
    for (path, request, response, _) in &ends[1..] {
        assert_eq!(gateway.exchange(*path, request), *response);
    }
}

/// INITIAL_CONTACT, and its absence, go with the first record, for the slot where uniqueness is
/// decided, and are forgotten with the next.
#[test]
fn what_the_peer_said_of_its_other_ike_sas_is_told_once() {
    for (said, told) in [
        (vec![NotifyType::INITIAL_CONTACT], Contact::Initial),
        (vec![], Contact::Further),
    ] {
        let mut gateway = Gateway::new(config());
        let mut peer = Initiator::new(140);
        peer.auth_notifies = said;
        peer.connect(&mut gateway).unwrap();
        assert_eq!(transfer(&gateway).contact, Some(told));
        peer.is_alive(&mut gateway);
        assert_eq!(transfer(&gateway).contact, None);
    }
}

/// A decision that comes late, after a takeover, does not touch what the peer has made since.
#[test]
fn only_older_ones_of_the_same_identities_go() {
    let mut config = config();
    let mut connection = (*config.connections[0]).clone();
    connection.unique = Uniqueness::No;
    config.connections = vec![std::sync::Arc::new(connection)];
    let mut gateway = Gateway::new(config);
    let mut spis = Vec::new();
    for n in 0..3u8 {
        let mut peer = Initiator::new(150 + u64::from(n));
        peer.spi_in = [0xc0, 0, 0, n];
        peer.connect(&mut gateway).unwrap();
        spis.push(peer.spi_r);
        gateway.advance(Duration::from_secs(1));
    }
    let decide = Command::Decide {
        local_spi: spis[1],
        contact: Contact::Initial,
    };
    gateway.endpoint.handle_command(gateway.now, decide);
    let left: BTreeSet<_> = gateway.endpoint.sas().map(|sa| sa.local_spi).collect();
    assert_eq!(left, spis[1..].iter().copied().collect());
}

/// RFC 6311 §3: an authentic message ahead of the record shows that it is stale. The peer is asked to
/// agree on Message IDs, once, if it can; otherwise, and for whatever else comes, nothing is sent.
#[test]
fn a_message_ahead_of_a_stale_record_leads_to_a_synchronisation() {
    for supported in [true, false] {
        let mut first = Gateway::new(config());
        let mut peer = Initiator::new(160);
        if supported {
            peer.auth_notifies = vec![NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED];
        }
        peer.connect(&mut first).unwrap();
        let stale = transfer(&first);
        let old = peer.request(ExchangeType::INFORMATIONAL, &[]);
        first.exchange(peer.path, &old);
        let missed = peer.request(ExchangeType::INFORMATIONAL, &[]);
        first.exchange(peer.path, &missed);
        let ahead = peer.request(ExchangeType::INFORMATIONAL, &[]);
        // Whoever has always had the IKE SA is not stale, whatever the peer does.
        let mut beyond = ahead.clone();
        let last = beyond.len() - 1;
        first.exchange(peer.path, &ahead);
        let further = peer.request(ExchangeType::INFORMATIONAL, &[]);
        let wild = peer.request(ExchangeType::INFORMATIONAL, &[]);
        first.ignores(peer.path, &wild);
        drop(further);

        let mut second = member(6, 1);
        second
            .endpoint
            .handle_command(second.now, Command::Import(stale));
        // Nobody without the keys can bring it about, nor a delayed copy.
        beyond[last] ^= 1;
        second.ignores(peer.path, &beyond);
        let sent = second.receive(peer.path, &ahead);
        second.receive(peer.path, &wild);
        let counted = second.endpoint.counters().replicas_overtaken;
        if !supported {
            assert!(sent.is_empty());
            assert_eq!(counted, 0);
            assert_eq!(second.endpoint.counters().requests_sent, 0);
            continue;
        }
        assert_eq!(counted, 1);
        assert_eq!(second.endpoint.counters().requests_sent, 1);
        let message = Message::parse(&sent[0].bytes).unwrap();
        let header = message.header();
        assert_eq!(
            (header.exchange, header.message_id, header.response),
            (ExchangeType::INFORMATIONAL, 0, false)
        );
        let opened = peer.open_any(&sent[0].bytes);
        let payloads = opened.payloads().unwrap();
        let notify = payloads.notify(NotifyType::IKEV2_MESSAGE_ID_SYNC).unwrap();
        // Above all that the first member can have used.
        assert!(u32::from_be_bytes(notify.data[4..8].try_into().unwrap()) >= 1);
        assert_eq!(notify.data[8..], 2u32.to_be_bytes());
    }
}

/// strongSwan 5.9.8 makes the IVs of AEADs of Message IDs. Where it has answered Message ID 0 it cannot
/// encrypt another answer with it, and forgets the IKE SA: a mere doubt is not worth that.
#[test]
fn a_doubt_is_no_reason_to_ask_for_a_second_answer_with_message_id_0() {
    for (proposal, asked_before, synchronises) in [
        ("aes128gcm16-prfsha256-x25519", false, true),
        ("aes128gcm16-prfsha256-x25519", true, false),
        ("aes128-sha256-x25519", true, true),
    ] {
        let mut config = config();
        let mut connection = (*config.connections[0]).clone();
        connection.proposals = IkeProposal::parse(proposal).unwrap();
        config.connections = vec![std::sync::Arc::new(connection)];
        let mut gateway = Gateway::new(config);
        let mut peer = Initiator::new(170).offer(proposal);
        peer.auth_notifies = vec![NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED];
        peer.connect(&mut gateway).unwrap();
        let local_spi = peer.spi_r;
        if asked_before {
            let sent = ordered(&mut gateway, Command::Liveness { local_spi });
            let header = *Message::parse(&sent[0].bytes).unwrap().header();
            let answer = peer.seal(MessageBuilder::new(header.to_response()));
            gateway.receive(peer.path, &answer);
        }
        let sent = ordered(&mut gateway, Command::SyncMessageIds { local_spi });
        let opened = peer.open_any(&sent[0].bytes);
        let payloads = opened.payloads().unwrap();
        let id = Message::parse(&sent[0].bytes).unwrap().header().message_id;
        assert_eq!(
            (payloads.has_notify(NotifyType::IKEV2_MESSAGE_ID_SYNC), id),
            (synchronises, u32::from(asked_before && !synchronises)),
            "{proposal}, asked before: {asked_before}"
        );
    }
}
