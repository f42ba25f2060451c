//! IKE_SA_INIT and IKE_AUTH as initiator (RFC 7296 §1.2, §2.6, §2.7).

use std::time::Duration;

use gateway_ike::output::{Change, Output};
use gateway_ike::proposal::IkeProposal;
use gateway_ike::secret::SecretBytes;
use gateway_ike::selector::{SelectorConfig, TrafficSelector};
use gateway_ike::wire::{ExchangeType, Message, MessageBuilder, NotifyRepr, NotifyType, Payload};

use super::link::{Link, configs, order};
use crate::config::ts;

fn exchange(bytes: &[u8]) -> ExchangeType {
    Message::parse(bytes).unwrap().header().exchange
}

#[test]
fn a_tunnel_with_two_exchanges() {
    let mut link = Link::new(1);
    let mut sent = Vec::new();
    link.order(0, order());
    link.run_with(&mut |side, transmit| {
        sent.push((side, exchange(&transmit.bytes)));
        Some(transmit.bytes.clone())
    });
    link.assert_one_tunnel();
    let exchanges = [
        (0, ExchangeType::IKE_SA_INIT),
        (1, ExchangeType::IKE_SA_INIT),
        (0, ExchangeType::IKE_AUTH),
        (1, ExchangeType::IKE_AUTH),
    ];
    assert_eq!(sent, exchanges);
    assert_eq!(link.sides[0].endpoint.initiations(), 0);
}

/// The members learn the SPI before anything can come back to it, and the record when the kernel
/// has the CHILD_SA.
#[test]
fn effects_come_in_order() {
    let mut link = Link::new(2);
    link.initiate(0);
    let order = link.sides[0].order(0);
    let expected = [
        "delta 1 opened",
        "transmit after 1",
        "transmit",
        "install",
        "promote",
        "event",
        "event",
        "delta 2 upsert",
    ];
    assert_eq!(order, expected);
}

#[test]
fn a_cookie_comes_back_in_front_of_the_same_request() {
    let [ours, mut theirs] = configs(|_, _, _| ());
    theirs.limits.cookie_threshold = 0;
    let mut link = Link::with(3, [ours, theirs]);
    let mut requests = Vec::new();
    link.order(0, order());
    link.run_with(&mut |side, transmit| {
        if side == 0 && exchange(&transmit.bytes) == ExchangeType::IKE_SA_INIT {
            requests.push(transmit.bytes.clone());
        }
        Some(transmit.bytes.clone())
    });
    link.assert_one_tunnel();
    assert_eq!(requests.len(), 2);
    assert!(
        requests[1].ends_with(&requests[0][28..]),
        "all other payloads unchanged"
    );
}

#[test]
fn the_key_exchange_that_the_peer_wants() {
    let mut link = Link::tweaked(4, |side, connection, _| {
        let ke = ["x25519", "ecp256"];
        let text = format!("aes128gcm16-prfsha256-{}", ke[side]);
        connection.proposals = IkeProposal::parse(&text).unwrap();
        if side == 0 {
            let more = IkeProposal::parse("aes128gcm16-prfsha256-ecp256").unwrap();
            connection.proposals.extend(more);
        }
    });
    link.initiate(0);
    link.assert_one_tunnel();
    assert_eq!(
        link.sides[0].last_record().1.proposal.to_string(),
        "aes128gcm16-prfsha256-ecp256"
    );
}

/// RFC 7296 §2.6.1: the cookie stays in front when the key exchange is corrected.
#[test]
fn a_cookie_and_another_key_exchange() {
    let [ours, mut theirs] = configs(|side, connection, _| {
        let text = [
            "aes128gcm16-prfsha256-x25519-ecp256",
            "aes128gcm16-prfsha256-ecp256",
        ];
        connection.proposals = IkeProposal::parse(text[side]).unwrap();
    });
    theirs.limits.cookie_threshold = 0;
    let mut link = Link::with(5, [ours, theirs]);
    link.initiate(0);
    link.assert_one_tunnel();
}

/// An unprotected refusal may be forged: the real answer that comes later still counts (RFC 7296
/// §2.21.1).
#[test]
fn forged_answers_do_not_end_it() {
    let mut link = Link::new(6);
    let mut forge = true;
    link.order(0, order());
    link.run_with(&mut |side, transmit| {
        if side == 1 && std::mem::take(&mut forge) {
            let header = *Message::parse(&transmit.bytes).unwrap().header();
            let notify = NotifyRepr::new(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            let forged = MessageBuilder::new(header).with(&Payload::Notify(notify));
            return Some(forged.finish().unwrap());
        }
        Some(transmit.bytes.clone())
    });
    assert_eq!(link.count(0), (0, 0));
    link.pass(Duration::from_secs(5), &mut |_, t| Some(t.bytes.clone()));
    link.assert_one_tunnel();
}

#[test]
fn a_lost_datagram_of_each_kind_is_sent_again() {
    for lost in 0..4 {
        let mut link = Link::new(10 + lost);
        let mut count = 0;
        link.order(0, order());
        let mut tap = |_: usize, transmit: &gateway_ike::output::Transmit| {
            count += 1;
            (count != lost + 1).then(|| transmit.bytes.clone())
        };
        link.run_with(&mut tap);
        link.pass(Duration::from_secs(6), &mut tap);
        link.assert_one_tunnel();
        assert!(link.sides[0].endpoint.counters().requests_resent >= 1);
    }
}

#[test]
fn nobody_answers() {
    let mut link = Link::new(20);
    link.order(0, order());
    link.pass(Duration::from_secs(300), &mut |_, _| None);
    assert_eq!(link.sides[0].endpoint.initiations(), 0);
    assert_eq!(link.sides[0].endpoint.poll_timeout(), None);
    let complaints = link.sides[0].complaints();
    assert_eq!(complaints.len(), 1);
    assert!(
        complaints[0].contains("the peer does not answer"),
        "{complaints:?}"
    );
    let closed = link.sides[0].log.iter().any(|output| {
        matches!(output, Output::Delta(d) if matches!(d.change, Change::NegotiationClosed { .. }))
    });
    assert!(closed);
}

/// `persistent`: with growing pauses, until the peer is there.
#[test]
fn it_comes_up_when_the_peer_does() {
    let mut link = Link::new(21);
    let mut order = order();
    order.persistent = true;
    link.order(0, order);
    let mut requests = 0;
    link.pass(Duration::from_secs(3600), &mut |_, _| {
        requests += 1;
        None
    });
    assert!(
        (30..80).contains(&requests),
        "{requests} requests in an hour"
    );
    link.pass(Duration::from_secs(480), &mut |_, t| Some(t.bytes.clone()));
    link.assert_one_tunnel();
}

/// A packet that asks will ask again: the pauses grow all the same, or a busy host behind us would
/// make us hammer a peer that is not there.
#[test]
fn packets_do_not_cut_the_pauses_short() {
    let mut link = Link::new(16);
    let mut first = order();
    first.persistent = true;
    link.order(0, first);
    let mut requests = 0;
    for _ in 0..720 {
        let mut packet = order();
        packet.by_packet = true;
        link.order(0, packet);
        link.pass(Duration::from_secs(5), &mut |_, _| {
            requests += 1;
            None
        });
    }
    assert!(
        (30..80).contains(&requests),
        "{requests} requests in an hour"
    );
}

#[test]
fn another_secret_ends_it_with_a_reason_on_both_sides() {
    let [ours, mut theirs] = configs(|_, _, _| ());
    theirs.secrets[0].secret = SecretBytes::from(&b"another"[..]);
    let mut link = Link::with(22, [ours, theirs]);
    link.initiate(0);
    assert_eq!((link.count(0), link.count(1)), ((0, 0), (0, 0)));
    let complaints = link.sides[0].complaints().join("\n");
    assert!(complaints.contains("AUTHENTICATION_FAILED"), "{complaints}");
    assert!(complaints.contains("gw.example.org"), "{complaints}");
    assert_eq!(link.sides[0].endpoint.initiations(), 0);
}

/// The responder takes us for authenticated; it is told that it is not (RFC 7296 §2.21.2).
#[test]
fn a_responder_that_calls_itself_otherwise_is_told() {
    let [ours, theirs] = configs(|side, connection, _| {
        if side == 1 {
            connection.local_id = crate::config::id("other.example.org");
        } else {
            connection.remote_id = "other.example.org".parse().unwrap();
        }
    });
    // The initiator wants another name than the one that it asks for.
    let mut configs = [ours, theirs];
    configs[1].secrets[0].ids.clear();
    configs[0].secrets[0].ids.clear();
    let mut link = Link::with(23, configs);
    link.initiate(0);
    link.assert_one_tunnel();
}

/// RFC 7296 §1.2: without CHILD_SA the IKE SA stands all the same.
#[test]
fn unacceptable_selectors_leave_the_ike_sa() {
    let mut link = Link::tweaked(24, |side, _, child| {
        if side == 1 {
            child.local_ts = vec![ts("192.0.2.0/24").into()];
        }
    });
    link.initiate(0);
    assert_eq!(link.count(0).0, 1);
    assert_eq!(link.count(1), (1, 0));
    let complaints = link.sides[0].complaints().join("\n");
    assert!(complaints.contains("TS_UNACCEPTABLE"), "{complaints}");
    assert!(complaints.contains("10.2.0.0/16"), "{complaints}");
}

/// swanctl's `dynamic` on both sides: the addresses between which IKE goes.
#[test]
fn the_tunnels_own_addresses_as_selectors() {
    let mut link = Link::tweaked(26, |_, _, child| {
        child.local_ts = vec![SelectorConfig::DYNAMIC];
        child.remote_ts = vec![SelectorConfig::DYNAMIC];
    });
    link.initiate(0);
    link.assert_one_tunnel();
    for side in &link.sides {
        let sa = side.installs()[0].0;
        assert_eq!(sa.local_ts, [TrafficSelector::host(sa.local)]);
        assert_eq!(sa.remote_ts, [TrafficSelector::host(sa.remote)]);
    }
}

#[test]
fn the_kernel_of_the_initiator_refuses() {
    let mut link = Link::new(25);
    link.sides[0].kernel = crate::gateway::Kernel::Refuses;
    link.initiate(0);
    assert_eq!(link.count(0), (1, 0));
    // The peer is told that it is not there.
    assert_eq!(link.count(1), (1, 0));
}
