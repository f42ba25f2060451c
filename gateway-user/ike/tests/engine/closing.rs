//! DELETE, the end of a CHILD_SA's life, and what the peer reports (RFC 7296 §1.4).

use std::time::Duration;

use gateway_ike::output::EventKind;
use gateway_ike::wire::{
    DeleteRepr, ExchangeType, NotifyRepr, NotifyType, Payload, Payloads, ProtocolId,
};

use crate::config::config;
use crate::gateway::Gateway;
use crate::initiator::{Initiator, MyChild};

fn established(seed: u64) -> (Gateway, Initiator, MyChild) {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(seed);
    let child = peer.connect(&mut gateway).unwrap();
    (gateway, peer, child)
}

fn order(gateway: &Gateway, from: usize) -> Vec<String> {
    gateway
        .order(from)
        .into_iter()
        .filter(|w| w != "event")
        .collect()
}

#[test]
fn the_peer_deletes_the_ike_sa() {
    let (mut gateway, mut peer, child) = established(70);
    let from = gateway.log.len();
    let request = peer.request(
        ExchangeType::INFORMATIONAL,
        &[Payload::Delete(DeleteRepr::ike())],
    );
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.open(&response).payloads().unwrap(),
        Payloads::default()
    );
    assert_eq!(
        order(&gateway, from),
        ["remove", "delta 3 upsert", "transmit after 3"]
    );
    assert_eq!(gateway.removals()[0].spi_in, child.spi_out);
    assert_eq!(gateway.endpoint.sas().count(), 0);
    assert_eq!(gateway.endpoint.child_sas(), 0);
    let closed = EventKind::IkeSaClosed {
        reason: "deleted by the peer".to_owned(),
    };
    assert!(gateway.events().contains(&&closed));
    // Nothing more is taken under it.
    gateway.ignores(peer.path, &peer.request(ExchangeType::INFORMATIONAL, &[]));
}

#[test]
fn the_peer_deletes_the_child() {
    let (mut gateway, mut peer, child) = established(71);
    let from = gateway.log.len();
    let spis = [child.spi_in];
    let request = peer.request(
        ExchangeType::INFORMATIONAL,
        &[Payload::Delete(DeleteRepr::esp(&spis))],
    );
    let response = gateway.exchange(peer.path, &request);
    let opened = peer.open(&response);
    let payloads = opened.payloads().unwrap();
    assert_eq!(payloads.deletes.len(), 1);
    assert_eq!(
        payloads.deletes[0].esp_spis().collect::<Vec<_>>(),
        [child.spi_out]
    );
    assert_eq!(
        order(&gateway, from),
        ["remove", "delta 3 upsert", "transmit after 3"]
    );
    assert_eq!(gateway.last_record().1.children, []);
    assert_eq!(gateway.endpoint.child_sas(), 0);
    // Its life's end is no longer waited for.
    gateway.advance(Duration::from_secs(30));
    assert_eq!(gateway.endpoint.poll_timeout(), None);
    peer.is_alive(&mut gateway);

    // RFC 7296 §2.25.1: one that does not exist gets no DELETE.
    let request = peer.request(
        ExchangeType::INFORMATIONAL,
        &[Payload::Delete(DeleteRepr::esp(&spis))],
    );
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.open(&response).payloads().unwrap(),
        Payloads::default()
    );
    assert_eq!(gateway.removals().len(), 1);
}

#[test]
fn deletes_of_what_is_not_ours() {
    let (mut gateway, mut peer, child) = established(72);
    let ah = DeleteRepr {
        protocol: ProtocolId::AH,
        ..DeleteRepr::esp(std::slice::from_ref(&child.spi_in))
    };
    let theirs = [child.spi_out, [1, 2, 3, 4]];
    let request = peer.request(
        ExchangeType::INFORMATIONAL,
        &[
            Payload::Delete(ah),
            Payload::Delete(DeleteRepr::esp(&theirs)),
        ],
    );
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.open(&response).payloads().unwrap(),
        Payloads::default()
    );
    assert!(gateway.removals().is_empty());
}

#[test]
fn a_child_reaches_the_end_of_its_life() {
    let (mut gateway, mut peer, child) = established(73);
    gateway.advance(Duration::from_secs(3959));
    assert!(gateway.removals().is_empty());
    let from = gateway.log.len();
    gateway.advance(Duration::from_secs(1));
    assert_eq!(gateway.removals()[0].spi_in, child.spi_out);
    // The peer is told, and asked for a new one once it has confirmed.
    assert_eq!(
        order(&gateway, from),
        ["remove", "delta 3 upsert", "transmit after 3"]
    );
    assert_eq!(gateway.endpoint.sas().next().unwrap().children, []);
    peer.is_alive(&mut gateway);
}

/// RFC 7296 §2.21.2: these end the IKE SA without a DELETE; all other errors change nothing.
#[test]
fn what_the_peer_reports() {
    for (kind, fatal) in [
        (NotifyType::AUTHENTICATION_FAILED, true),
        (NotifyType::INVALID_SYNTAX, true),
        (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, true),
        (NotifyType::INVALID_SPI, false),
        (NotifyType::INVALID_SELECTORS, false),
        (NotifyType(9999), false),
    ] {
        let (mut gateway, mut peer, _) = established(74);
        let notify = Payload::Notify(NotifyRepr::new(kind, &[]));
        let request = peer.request(ExchangeType::INFORMATIONAL, &[notify]);
        let response = gateway.exchange(peer.path, &request);
        assert_eq!(
            peer.open(&response).payloads().unwrap(),
            Payloads::default()
        );
        assert_eq!(
            gateway.endpoint.sas().count(),
            usize::from(!fatal),
            "{kind}"
        );
        assert!(gateway.complaints()[0].contains(&kind.to_string()));
    }
}
