//! A half-open IKE SA goes on at another member.

use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::config::Config;
use gateway_ike::output::{Change, Output, Verdict};
use gateway_ike::record::NegotiationRecord;

use crate::config::config;
use crate::decision::{careful, waiting};
use crate::gateway::Gateway;
use crate::initiator::Initiator;
use crate::transport::transport;

fn heir(mut config: Config) -> Gateway {
    config.member = MemberId::new(6).unwrap();
    Gateway::seeded(config, 106)
}

/// A member that has answered IKE_SA_INIT, with its peer.
fn half_open(config: Config, seed: u64) -> (Gateway, Initiator, Vec<u8>) {
    let mut first = Gateway::new(config);
    let mut peer = Initiator::new(seed);
    let request = peer.init();
    let response = first.exchange(peer.path, &request);
    peer.take_init(&response);
    (first, peer, request)
}

/// As it comes out of the wire of the sync network.
fn hand_over(from: &mut Gateway, peer: &Initiator) -> Option<NegotiationRecord> {
    let record = from.endpoint.hand_over(from.now, peer.spi_r)?;
    from.drain();
    Some(NegotiationRecord::decode(record.encode().expose()).unwrap())
}

fn openings(gateway: &Gateway) -> (usize, usize) {
    let count = |wanted: fn(&Change) -> bool| {
        let deltas = gateway.log.iter();
        deltas
            .filter(|output| matches!(output, Output::Delta(delta) if wanted(&delta.change)))
            .count()
    };
    (
        count(|change| matches!(change, Change::NegotiationOpened { .. })),
        count(|change| matches!(change, Change::NegotiationClosed { .. })),
    )
}

#[test]
fn another_member_answers_ike_auth() {
    for encap in [false, true] {
        let config = || transport(|transport| transport.encap = encap);
        let (mut first, mut peer, request) = half_open(config(), 160);
        let response = first.exchange(peer.path, &request);
        let record = hand_over(&mut first, &peer).unwrap();
        assert_eq!((first.endpoint.half_open(), openings(&first)), (0, (1, 1)));

        let mut second = heir(config());
        assert!(second.endpoint.take_over(second.now, record));
        second.drain();
        assert_eq!(
            (second.endpoint.half_open(), openings(&second)),
            (1, (1, 0))
        );
        // Its first response was lost with the member.
        assert_eq!(second.exchange(peer.path, &request), response);
        if encap {
            peer.float();
        }
        let auth = peer.auth();
        let response = second.exchange(peer.path, &auth);
        assert!(peer.take_auth(&response).is_some());
        assert_eq!(second.endpoint.half_open(), 0);
        let (_, record) = second.last_record();
        assert_eq!(record.transport.forced_encap, encap);
        assert_eq!(second.installs()[0].0.encap.is_some(), encap);
        peer.is_alive(&mut second);
        // The first one knows nothing of it any more.
        first.ignores(peer.path, &auth);
    }
}

#[test]
fn it_is_given_up_when_its_time_is_over() {
    let (mut first, peer, _) = half_open(config(), 161);
    let timeout = config().limits.half_open_timeout;
    first.advance(timeout / 2);
    let record = hand_over(&mut first, &peer).unwrap();
    assert_eq!((record.age, record.remaining), (timeout / 2, timeout / 2));
    let mut second = heir(config());
    assert!(second.endpoint.take_over(second.now, record));
    second.advance(timeout / 2 - Duration::from_millis(1));
    assert_eq!(second.endpoint.half_open(), 1);
    second.advance(Duration::from_millis(1));
    assert_eq!(
        (second.endpoint.half_open(), openings(&second)),
        (0, (1, 1))
    );
    // And not again where it was.
    first.advance(timeout);
    assert_eq!(first.endpoint.counters().half_open_timeouts, 0);
}

#[test]
fn what_has_come_further_stays() {
    let mut first = Gateway::new(config());
    let mut peer = Initiator::new(162);
    peer.connect(&mut first).unwrap();
    assert_eq!(hand_over(&mut first, &peer), None);
    peer.is_alive(&mut first);
    // Nor what waits for somebody's decision: the request is known to be authentic.
    let mut first = Gateway::new(careful());
    let mut peer = Initiator::new(163);
    let (_, handle) = waiting(&mut first, &mut peer);
    assert_eq!(hand_over(&mut first, &peer), None);
    let sent = first.decide(handle, Verdict::Accept);
    assert!(peer.take_auth(&sent[0].bytes).is_some());
}

#[test]
fn a_record_that_is_not_sound_changes_nothing() {
    let (mut first, peer, _) = half_open(config(), 164);
    let record = hand_over(&mut first, &peer).unwrap();
    let mut second = heir(config());
    for spoil in [
        (|r| r.local_spi[0] ^= 1) as fn(&mut NegotiationRecord),
        |r| r.remote_spi[0] ^= 1,
        |r| r.request = r.response.clone(),
        |r| r.response = r.request.clone(),
        |r| r.response = [0; 28].into(),
    ] {
        let mut spoiled = record.clone();
        spoil(&mut spoiled);
        assert!(!second.endpoint.take_over(second.now, spoiled));
    }
    assert!(second.endpoint.poll_output().is_none());
    assert!(second.endpoint.take_over(second.now, record.clone()));
    // Told twice.
    assert!(!second.endpoint.take_over(second.now, record));
    assert_eq!(second.endpoint.half_open(), 1);
}

#[test]
fn octets_of_any_kind_are_a_record_or_an_error() {
    let (mut first, peer, _) = half_open(config(), 165);
    let octets = hand_over(&mut first, &peer).unwrap().encode();
    for len in 0..octets.len() {
        assert!(NegotiationRecord::decode(&octets.expose()[..len]).is_err());
    }
    // What a newer release has added.
    let mut newer = octets.expose().to_vec();
    newer.extend_from_slice(&[0x7f, 0, 0, 0, 0, 1, 9]);
    assert!(NegotiationRecord::decode(&newer).is_ok());
}
