//! Retransmitted, duplicated and reordered requests at every step (RFC 7296 §2.1, §2.2).

use std::time::Duration;

use gateway_ike::output::DeltaId;
use gateway_ike::wire::{DeleteRepr, ExchangeType, Payload};

use crate::config::config;
use crate::gateway::{Gateway, path};
use crate::initiator::Initiator;

#[test]
fn the_same_octets_at_every_step() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(60);
    let init = peer.init();
    let response = gateway.exchange(peer.path, &init);
    let outputs = gateway.log.len();
    assert_eq!(gateway.exchange(peer.path, &init), response);
    // No second negotiation, no second key exchange: one transmit and nothing else.
    assert_eq!(gateway.order(outputs), ["transmit"]);
    assert_eq!(gateway.endpoint.half_open(), 1);
    peer.take_init(&response);

    let auth = peer.auth();
    let response = gateway.exchange(peer.path, &auth);
    for _ in 0..3 {
        let outputs = gateway.log.len();
        assert_eq!(gateway.exchange(peer.path, &auth), response);
        // It still depends on the delta of the first one, which may not be acknowledged yet.
        assert_eq!(gateway.order(outputs), ["transmit after 2"]);
    }
    assert_eq!(gateway.installs().len(), 1);

    let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(gateway.exchange(peer.path, &request), response);
    // The one before is forgotten: the window is one.
    gateway.ignores(peer.path, &auth);

    let delete = peer.request(
        ExchangeType::INFORMATIONAL,
        &[Payload::Delete(DeleteRepr::ike())],
    );
    let response = gateway.exchange(peer.path, &delete);
    let outputs = gateway.log.len();
    assert_eq!(gateway.exchange(peer.path, &delete), response);
    assert_eq!(gateway.order(outputs), ["transmit after 4"]);
    assert_eq!(gateway.endpoint.counters().retransmissions_answered, 6);
    assert_eq!(gateway.endpoint.counters().exchanges_processed, 4);
    // Not for ever.
    gateway.advance(Duration::from_secs(30));
    gateway.ignores(peer.path, &delete);
    assert_eq!(gateway.endpoint.poll_timeout(), None);
}

#[test]
fn another_message_under_the_last_message_id_is_no_retransmission() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(61);
    peer.connect(&mut gateway).unwrap();
    peer.is_alive(&mut gateway);
    peer.next_id -= 1;
    let other = peer.request(
        ExchangeType::INFORMATIONAL,
        &[Payload::Delete(DeleteRepr::ike())],
    );
    gateway.ignores(peer.path, &other);
    assert_eq!(gateway.endpoint.sas().count(), 1);
}

#[test]
fn a_retransmission_is_answered_to_where_it_came_from() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(62);
    peer.connect(&mut gateway).unwrap();
    let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
    gateway.exchange(peer.path, &request);
    let status = gateway.endpoint.sas().next().unwrap();
    // RFC 7296 §2.23: but it moves nothing, for it may be a replay.
    let elsewhere = path("203.0.113.10:500", "192.0.2.99:500");
    gateway.exchange(elsewhere, &request);
    assert_eq!(gateway.endpoint.sas().next().unwrap(), status);
}

#[test]
fn a_late_copy_of_ike_sa_init_opens_nothing() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(63);
    peer.connect(&mut gateway).unwrap();
    gateway.ignores(peer.path, &peer.init_request.clone());
    assert_eq!(gateway.endpoint.half_open(), 0);
    assert_eq!(gateway.endpoint.sas().count(), 1);
}

/// Two initiators behind one NAT that drew the same SPI (RFC 7296 §2.1).
#[test]
fn the_same_spi_from_the_same_address_with_another_request() {
    let mut gateway = Gateway::new(config());
    let mut a = Initiator::new(64);
    let mut b = Initiator::new(65);
    b.spi_i = a.spi_i;
    b.path.remote.set_port(1025);
    b.own_address = b.path.remote;
    let response = gateway.exchange(a.path, &a.init());
    a.take_init(&response);
    let response = gateway.exchange(b.path, &b.init());
    b.take_init(&response);
    assert_ne!(a.spi_r, b.spi_r);
    assert_eq!(gateway.endpoint.half_open(), 2);
    for peer in [&mut b, &mut a] {
        let response = gateway.exchange(peer.path, &peer.auth());
        assert!(peer.take_auth(&response).is_some());
    }
}

#[test]
fn a_request_ahead_of_the_window_waits_for_its_turn() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(66);
    peer.connect(&mut gateway).unwrap();
    let first = peer.request(ExchangeType::INFORMATIONAL, &[]);
    let second = peer.request(ExchangeType::INFORMATIONAL, &[]);
    gateway.ignores(peer.path, &second);
    gateway.exchange(peer.path, &first);
    gateway.exchange(peer.path, &second);
    gateway.ignores(peer.path, &first);
    assert_eq!(gateway.last_record().0, DeltaId(4));
}
