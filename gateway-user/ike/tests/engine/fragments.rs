//! IKE fragmentation (RFC 7383), honest and hostile.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::config::{Config, Fragmentation};
use gateway_ike::endpoint::Command;
use gateway_ike::output::{Path, Transmit};
use gateway_ike::proposal::EspExchange;
use gateway_ike::record::IkeSaRecord;
use gateway_ike::wire::{
    Body, ExchangeType, Message, MessageBuilder, NotifyRepr, NotifyType, Payload, PayloadType,
    messages,
};

use crate::config::config;
use crate::gateway::Gateway;
use crate::initiator::Initiator;
use crate::pair::{Dice, Order, Pair, Weather};

/// Octets of the test initiator's fragments.
const SIZE: usize = 200;

/// What fragments of a few hundred octets cost beside their content.
const COST: usize = 128;

fn peer(seed: u64) -> Initiator {
    let mut peer = Initiator::new(seed);
    peer.init_notifies = vec![NotifyType::IKEV2_FRAGMENTATION_SUPPORTED];
    peer
}

/// A gateway whose datagrams have at most `size` octets.
fn sized(size: u16) -> Config {
    tweaked(|transport| transport.fragment_size = size)
}

fn tweaked(tweak: impl Fn(&mut gateway_ike::config::Transport)) -> Config {
    let mut config = config();
    let mut connection = (*config.connections[0]).clone();
    tweak(&mut connection.transport);
    config.connections = vec![Arc::new(connection)];
    config
}

fn negotiate(gateway: &mut Gateway, peer: &mut Initiator) {
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
}

/// IKE_AUTH, made longer than one fragment.
fn long_auth(peer: &mut Initiator) -> MessageBuilder {
    let [ts_i, ts_r] = peer.selectors();
    let padding = [7; 500];
    peer.auth_builder()
        .with(&peer.esp_offer(EspExchange::IkeAuth))
        .with(&ts_i)
        .with(&ts_r)
        .with(&Payload::Notify(NotifyRepr::new(
            NotifyType(40_000),
            &padding,
        )))
}

fn receive_all(gateway: &mut Gateway, path: Path, fragments: &[Vec<u8>]) -> Vec<Transmit> {
    fragments
        .iter()
        .flat_map(|fragment| gateway.receive(path, fragment))
        .collect()
}

#[test]
fn ike_auth_in_fragments_in_any_order_with_copies() {
    for seed in 0..20 {
        let mut gateway = Gateway::new(config());
        let mut peer = peer(seed);
        negotiate(&mut gateway, &mut peer);
        let auth = long_auth(&mut peer);
        let mut fragments = peer.fragments(auth, SIZE);
        assert!(fragments.len() >= 4);
        let mut dice = Dice::new(seed);
        for _ in 0..5 {
            let copy = fragments[dice.roll(fragments.len() as u64) as usize].clone();
            fragments.insert(dice.roll(fragments.len() as u64 + 1) as usize, copy);
        }
        let mut sent = Vec::new();
        for _ in 0..fragments.len() {
            let next = fragments.remove(dice.roll(fragments.len() as u64) as usize);
            sent.extend(gateway.receive(peer.path, &next));
        }
        // One answer; the first fragment's copy, if it comes later, gets it once more.
        assert!((1..=3).contains(&sent.len()), "seed {seed}: {}", sent.len());
        assert!(sent.iter().all(|answer| answer.bytes == sent[0].bytes));
        assert!(peer.take_auth(&sent[0].bytes).is_some());
        assert_eq!(gateway.endpoint.counters().messages_reassembled, 1);
        assert_eq!(gateway.endpoint.reassembling(), 0);
        peer.is_alive(&mut gateway);
    }
}

#[test]
fn a_long_answer_goes_in_fragments_that_fit() {
    let mut gateway = Gateway::new(sized(160));
    let mut peer = peer(1);
    negotiate(&mut gateway, &mut peer);
    let auth = peer.auth();
    let sent = gateway.receive(peer.path, &auth);
    assert!(sent.len() > 1);
    let totals: Vec<_> = sent.iter().map(|one| numbers(&one.bytes)).collect();
    let total = u16::try_from(sent.len()).unwrap();
    let wanted: Vec<_> = (1..=total).map(|number| (number, total)).collect();
    assert_eq!(totals, wanted);
    for answer in &sent {
        assert!(answer.bytes.len() <= 160 - 28, "IPv4 and UDP headers");
        assert_eq!((answer.path, answer.after), (peer.path, sent[0].after));
        assert!(answer.after.is_some(), "not before the record is safe");
    }
    let whole: Vec<u8> = sent.iter().flat_map(|one| one.bytes.clone()).collect();
    assert!(peer.take_auth(&whole).is_some());
    // A retransmitted request gets the identical fragments.
    let again = gateway.receive(peer.path, &auth);
    let again: Vec<u8> = again.iter().flat_map(|one| one.bytes.clone()).collect();
    assert_eq!(again, whole);
    assert_eq!(gateway.endpoint.counters().auth_requests, 1);
    // What is short does not.
    peer.is_alive(&mut gateway);
}

fn numbers(bytes: &[u8]) -> (u16, u16) {
    match Message::parse(bytes).unwrap().body() {
        Body::Fragment(fragment, _) => (fragment.number(), fragment.total()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn port_4500_and_ipv6_leave_less_room() {
    for (local, remote, room) in [
        ("203.0.113.10:4500", "198.51.100.7:4500", 200 - 20 - 8 - 4),
        ("[2001:db8::1]:4500", "[2001:db8::2]:4500", 200 - 40 - 8 - 4),
        ("[2001:db8::1]:500", "[2001:db8::2]:500", 200 - 40 - 8),
    ] {
        let mut gateway = Gateway::new(sized(200));
        let mut peer = peer(2);
        peer.path = crate::gateway::path(local, remote);
        (peer.own_address, peer.peer_address) = (peer.path.remote, peer.path.local);
        negotiate(&mut gateway, &mut peer);
        let auth = peer.auth();
        let sent = gateway.receive(peer.path, &auth);
        let longest = sent.iter().map(|one| one.bytes.len()).max();
        assert_eq!(longest, Some(room), "{local}");
    }
}

#[test]
fn only_the_first_fragment_of_an_old_request_gets_its_answer_again() {
    let mut gateway = Gateway::new(config());
    let mut peer = peer(3);
    negotiate(&mut gateway, &mut peer);
    let auth = long_auth(&mut peer);
    let fragments = peer.fragments(auth.clone(), SIZE);
    let sent = receive_all(&mut gateway, peer.path, &fragments);
    assert_eq!(sent.len(), 1);
    for (index, fragment) in fragments.iter().enumerate() {
        let again = gateway.receive(peer.path, fragment);
        let answers: Vec<_> = again.iter().map(|one| &one.bytes).collect();
        let wanted = if index == 0 {
            vec![&sent[0].bytes]
        } else {
            Vec::new()
        };
        assert_eq!(answers, wanted, "RFC 7383 §2.6.1");
    }
    // The peer has not heard us and makes its fragments smaller.
    let smaller = peer.fragments(auth, SIZE - 50);
    assert!(smaller.len() > fragments.len());
    let again = receive_all(&mut gateway, peer.path, &smaller);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].bytes, sent[0].bytes);
    // What nobody sealed does not.
    let mut forged = smaller[0].clone();
    *forged.last_mut().unwrap() ^= 1;
    gateway.ignores(peer.path, &forged);
    assert_eq!(gateway.endpoint.counters().auth_requests, 1);
}

#[test]
fn smaller_fragments_replace_larger_ones_and_not_the_other_way() {
    let mut gateway = Gateway::new(config());
    let mut peer = peer(4);
    negotiate(&mut gateway, &mut peer);
    let auth = long_auth(&mut peer);
    let large = peer.fragments(auth.clone(), 300);
    let small = peer.fragments(auth, 150);
    for fragment in &large[..large.len() - 1] {
        gateway.ignores(peer.path, fragment);
    }
    gateway.ignores(peer.path, &small[0]);
    let held = gateway.endpoint.reassembling();
    assert!(held < 150 + COST, "the larger ones are gone: {held}");
    gateway.ignores(peer.path, large.last().unwrap());
    assert_eq!(gateway.endpoint.counters().dropped_fragment, 1);
    let sent = receive_all(&mut gateway, peer.path, &small[1..]);
    assert!(peer.take_auth(&sent[0].bytes).is_some());
}

#[test]
fn fragments_are_agreed_on() {
    for (announced, policy) in [
        (false, Fragmentation::Yes),
        (true, Fragmentation::No),
        (true, Fragmentation::Accept),
    ] {
        let mut gateway = Gateway::new(tweaked(|transport| {
            transport.fragmentation = policy;
            transport.fragment_size = 150;
        }));
        let mut peer = peer(5);
        if !announced {
            peer.init_notifies.clear();
        }
        let response = gateway.exchange(peer.path, &peer.init());
        let message = Message::parse(&response).unwrap();
        let offers =
            crate::initiator::clear(&message).has_notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED);
        assert_eq!(offers, announced && policy.is_announced(), "{policy:?}");
        peer.take_init(&response);
        let auth = long_auth(&mut peer);
        let fragments = peer.fragments(auth, SIZE);
        let sent = receive_all(&mut gateway, peer.path, &fragments);
        if offers {
            assert_eq!(sent.len(), 1, "taken, but not sent");
            continue;
        }
        assert!(sent.is_empty());
        let dropped = gateway.endpoint.counters().dropped_fragment;
        assert_eq!(dropped, fragments.len() as u64);
        // In one piece, as without the extension, whatever its length.
        peer.next_id = 1;
        let auth = peer.auth();
        let sent = gateway.receive(peer.path, &auth);
        assert_eq!(sent.len(), 1);
        assert!(peer.take_auth(&sent[0].bytes).is_some());
    }
}

/// Every octet of every fragment is covered by its integrity check or does not matter; nothing that
/// fails it is kept.
#[test]
fn what_is_not_authentic_is_not_kept() {
    let mut gateway = Gateway::new(config());
    let mut peer = peer(6);
    negotiate(&mut gateway, &mut peer);
    let auth = long_auth(&mut peer);
    let fragments = peer.fragments(auth, SIZE);
    for fragment in &fragments {
        // A higher major version, at 17, is answered in clear (RFC 7296 §2.5).
        for at in (16..fragment.len()).filter(|at| *at != 17) {
            let mut forged = fragment.clone();
            forged[at] ^= 0x41;
            gateway.ignores(peer.path, &forged);
        }
        for end in 0..fragment.len() {
            let mut cut = fragment[..end].to_vec();
            gateway.ignores(peer.path, &cut);
            if end >= 28 {
                cut[24..28].copy_from_slice(&u32::try_from(end).unwrap().to_be_bytes());
                gateway.ignores(peer.path, &cut);
            }
        }
    }
    assert_eq!(gateway.endpoint.reassembling(), 0);
    assert_eq!(gateway.endpoint.counters().fragments_received, 0);
    let sent = receive_all(&mut gateway, peer.path, &fragments);
    assert!(peer.take_auth(&sent[0].bytes).is_some());
}

/// One peer that never authenticates, and all of them.
#[test]
fn unauthenticated_peers_hold_no_more_than_the_limits_say() {
    let mut config = config();
    config.limits.cookie_threshold = usize::MAX;
    config.limits.half_open_limit_per_source = usize::MAX;
    config.limits.reassembly_unauthenticated = 10_000;
    config.limits.reassembly_unauthenticated_total = 35_000;
    let each = config.limits.reassembly_unauthenticated;
    let all = config.limits.reassembly_unauthenticated_total;
    let timeout = config.limits.half_open_timeout;
    let mut gateway = Gateway::new(config);
    let mut most = 0;
    for number in 0..8 {
        let mut peer = peer(100 + number);
        negotiate(&mut gateway, &mut peer);
        let before = gateway.endpoint.reassembling();
        // A chain of certificates without end.
        let mut builder = peer.next(ExchangeType::IKE_AUTH);
        for _ in 0..30 {
            builder.push(&Payload::Notify(NotifyRepr::new(
                NotifyType(40_000),
                &[9; 400],
            )));
        }
        for fragment in peer.fragments(builder, 600) {
            gateway.ignores(peer.path, &fragment);
            let held = gateway.endpoint.reassembling();
            assert!(held <= all, "{held}");
            assert!(held.saturating_sub(before) <= each, "{held} after {before}");
            most = most.max(held);
        }
    }
    assert!(most > all - each, "the test comes near the limit: {most}");
    assert!(gateway.endpoint.counters().dropped_fragment_limit > 0);
    gateway.advance(timeout);
    assert_eq!(
        gateway.endpoint.reassembling(),
        0,
        "it ends with the negotiation"
    );
}

/// A total of fragments that could never be kept is not begun with.
#[test]
fn too_many_tiny_fragments_are_refused_at_once() {
    let mut gateway = Gateway::new(config());
    let mut peer = peer(7);
    negotiate(&mut gateway, &mut peer);
    let mut builder = peer.next(ExchangeType::IKE_AUTH);
    for _ in 0..60 {
        builder.push(&Payload::Notify(NotifyRepr::new(
            NotifyType(40_000),
            &[9; 900],
        )));
    }
    let fragments = peer.fragments(builder, 0);
    assert!(fragments.len() * COST > 32 << 10);
    for fragment in fragments.iter().take(5) {
        gateway.ignores(peer.path, fragment);
    }
    assert_eq!(gateway.endpoint.reassembling(), 0);
    assert_eq!(gateway.endpoint.counters().dropped_fragment_limit, 5);
}

#[test]
fn an_incomplete_request_of_an_established_sa_is_dropped_in_time() {
    let mut gateway = Gateway::new(config());
    let mut peer = peer(8);
    peer.connect(&mut gateway);
    let padding = [7; 500];
    let builder = peer
        .next(ExchangeType::INFORMATIONAL)
        .with(&Payload::Notify(NotifyRepr::new(
            NotifyType(40_000),
            &padding,
        )));
    let fragments = peer.fragments(builder, SIZE);
    gateway.ignores(peer.path, &fragments[0]);
    gateway.advance(Duration::from_secs(29));
    gateway.ignores(peer.path, &fragments[0]);
    assert_eq!(
        gateway.endpoint.counters().dropped_fragment,
        1,
        "still held"
    );
    gateway.advance(Duration::from_secs(2));
    // All have to come again; as a retransmission does.
    let sent = receive_all(&mut gateway, peer.path, &fragments[1..]);
    assert!(sent.is_empty());
    assert_eq!(gateway.receive(peer.path, &fragments[0]).len(), 1);
}

/// The member that holds half of a request dies. The peer's retransmission reaches another one.
#[test]
fn a_takeover_in_the_middle_of_a_message() {
    let mut gateway = Gateway::new(sized(150));
    let mut peer = peer(9);
    negotiate(&mut gateway, &mut peer);
    let auth = peer.auth();
    let sent = gateway.receive(peer.path, &auth);
    assert!(sent.len() > 1);
    let answer: Vec<u8> = sent.iter().flat_map(|one| one.bytes.clone()).collect();
    peer.take_auth(&answer);
    let padding = [7; 500];
    let builder = peer
        .next(ExchangeType::INFORMATIONAL)
        .with(&Payload::Notify(NotifyRepr::new(
            NotifyType(40_000),
            &padding,
        )));
    let fragments = peer.fragments(builder, SIZE);
    gateway.ignores(peer.path, &fragments[0]);
    let octets = gateway.last_record().1.encode();
    let record = IkeSaRecord::decode(octets.expose()).unwrap();
    let mut other = sized(150);
    other.member = MemberId::new(6).unwrap();
    let mut heir = Gateway::seeded(other, 77);
    heir.endpoint
        .handle_command(heir.now, Command::Import(Box::new(record)));
    // The last response comes again in the same fragments.
    let again: Vec<u8> = heir
        .receive(peer.path, &auth)
        .iter()
        .flat_map(|one| one.bytes.clone())
        .collect();
    assert_eq!(again, answer);
    // The rest of the request alone is nothing; all of it is taken.
    assert!(receive_all(&mut heir, peer.path, &fragments[1..]).is_empty());
    let sent = heir.receive(peer.path, &fragments[0]);
    assert_eq!(sent.len(), 1);
    assert_eq!(messages(&sent[0].bytes).count(), 1);
    peer.is_alive(&mut heir);
}

/// Whatever a peer seals, in whatever order and number: at most an error.
#[test]
fn authentic_nonsense() {
    let mut dice = Dice::new(5);
    let mut gateway = Gateway::new(config());
    let mut peer = peer(10);
    peer.connect(&mut gateway);
    for _ in 0..300 {
        let id = peer.next_id;
        let mut builder = peer.next(ExchangeType::INFORMATIONAL);
        for _ in 0..dice.roll(4) {
            let data = vec![0; dice.roll(300) as usize];
            let kind = NotifyType(dice.roll(0x1_0000) as u16);
            builder.push(&Payload::Notify(NotifyRepr::new(kind, &data)));
        }
        let mut fragments = peer.fragments(builder, 80 + dice.roll(300) as usize);
        for _ in 0..dice.roll(3) {
            let at = dice.roll(fragments.len() as u64) as usize;
            fragments.swap(0, at);
        }
        let mut answered = false;
        for fragment in &fragments {
            answered |= !gateway.receive(peer.path, fragment).is_empty();
        }
        if !answered || gateway.endpoint.sas().next().is_none() {
            // A verdict like AUTHENTICATION_FAILED closes it: begin anew.
            gateway = Gateway::new(config());
            peer = super::fragments::peer(1000 + u64::from(id));
            peer.connect(&mut gateway);
        }
    }
}

/// Both sides make every message of some length into fragments, in a storm, and members die.
#[test]
fn rekeying_in_fragments_through_storms_and_deaths() {
    let orders = [Order::RekeyChild, Order::RekeyIke, Order::Liveness];
    let mut fragments = 0;
    for seed in 0..150 {
        let mut dice = Dice::new(seed);
        let mut pair = Pair::tweaked(seed, |side, connection, _| {
            connection.transport.fragment_size = if side == 0 { 160 } else { 220 };
        });
        pair.weather = Weather::STORM;
        pair.points = 0;
        for _ in 0..=dice.roll(3) {
            let after = Duration::from_millis(dice.roll(400));
            pair.order(dice.roll(2) as usize, after, orders[dice.roll(3) as usize]);
        }
        for _ in 0..=dice.roll(2) {
            pair.deaths.push(1 + dice.roll(80));
        }
        pair.settle(Duration::from_secs(400));
        pair.assert_well(&format!("seed {seed}"));
        fragments += pair.wire.fragments;
    }
    assert!(fragments > 1000, "{fragments}");
}

#[test]
fn messages_stand_one_after_the_other() {
    let mut peer = peer(11);
    let mut gateway = Gateway::new(config());
    negotiate(&mut gateway, &mut peer);
    let auth = long_auth(&mut peer);
    let fragments = peer.fragments(auth, SIZE);
    for (index, fragment) in fragments.iter().enumerate() {
        let message = Message::parse(fragment).unwrap();
        let Body::Fragment(_, sealed) = message.body() else {
            panic!("no fragment");
        };
        let first = if index == 0 {
            PayloadType::IDI
        } else {
            PayloadType::NONE
        };
        assert_eq!(sealed.first(), first, "RFC 7383 §2.5");
    }
    let whole = fragments.concat();
    assert!(messages(&whole).eq(fragments.iter().map(Vec::as_slice)));
    let broken = &whole[..whole.len() - 1];
    assert_eq!(messages(broken).count(), fragments.len());
    assert_eq!(messages(&[1, 2, 3]).count(), 1);
    assert_eq!(messages(&[0; 40]).count(), 1);
    assert_eq!(messages(&[]).count(), 0);
}
