//! REDIRECT (RFC 5685), sent.

use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::Gateway as NewGateway;
use gateway_ike::endpoint::Command;
use gateway_ike::output::Output;
use gateway_ike::wire::{
    DeleteRepr, ExchangeType, HeaderRepr, Message, MessageBuilder, NotifyRepr, NotifyType, Payload,
};

use crate::config::connection;
use crate::gateway::Gateway;
use crate::initiator::{Initiator, clear_notify};
use crate::transport::transport;

fn elsewhere() -> NewGateway {
    NewGateway::Address("192.0.2.99".parse().unwrap())
}

fn peer(seed: u64) -> Initiator {
    let mut peer = Initiator::new(seed);
    peer.init_notifies = vec![NotifyType::REDIRECT_SUPPORTED];
    peer
}

#[test]
fn a_new_peer_is_redirected_before_anything_is_spent_on_it() {
    let mut gateway = Gateway::new(transport(|t| t.redirect_to = Some(elsewhere())));
    let mut peer = peer(1);
    let response = gateway.exchange(peer.path, &peer.init());
    let (kind, data) = clear_notify(&response);
    assert_eq!(kind, NotifyType::REDIRECT);
    let expected = [&[1, 4, 192, 0, 2, 99], &peer.nonce_i[..]].concat();
    assert_eq!(data, expected, "RFC 5685 §9.2, with the nonce");
    assert_eq!(gateway.endpoint.half_open(), 0);
    assert_eq!(gateway.endpoint.counters().redirects_sent, 1);
    let deltas = gateway.log.iter().any(|o| matches!(o, Output::Delta(_)));
    assert!(!deltas, "nothing to remember");
}

#[test]
fn who_cannot_be_redirected_is_served() {
    let mut gateway = Gateway::new(transport(|t| t.redirect_to = Some(elsewhere())));
    let mut peer = Initiator::new(2);
    assert!(peer.connect(&mut gateway).is_some());
}

#[test]
fn nobody_is_sent_back_to_where_he_comes_from() {
    for (from, redirected) in [([192, 0, 2, 99], false), ([192, 0, 2, 98], true)] {
        let mut gateway = Gateway::new(transport(|t| t.redirect_to = Some(elsewhere())));
        let mut peer = Initiator::new(3);
        let data = [&[1, 4], &from[..]].concat();
        let notify = NotifyRepr::new(NotifyType::REDIRECTED_FROM, &data);
        peer.init_request = peer
            .init_builder()
            .with(&Payload::Notify(notify))
            .finish()
            .unwrap();
        let request = peer.init_request.clone();
        let response = gateway.exchange(peer.path, &request);
        let message = Message::parse(&response).unwrap();
        let payloads = crate::initiator::clear(&message);
        assert_eq!(payloads.has_notify(NotifyType::REDIRECT), redirected);
    }
}

/// Two connections for the same addresses: only the identity tells which.
#[test]
fn ike_auth_redirects_by_identity_after_authentication() {
    let mut config = transport(|_| ());
    let mut moved = connection("moved", "peer.example.org");
    moved.transport.redirect_to = Some(NewGateway::Fqdn("gw2.example.org".into()));
    let other = connection("other", "other.example.org");
    config.connections = vec![Arc::new(moved), Arc::new(other)];
    let mut gateway = Gateway::new(config);
    let mut peer = peer(4);
    // Authentication comes first.
    let mut impostor = Initiator::new(5);
    impostor.init_notifies = peer.init_notifies.clone();
    impostor.psk = b"wrong".to_vec();
    let response = gateway.exchange(impostor.path, &impostor.init());
    impostor.take_init(&response);
    let auth = impostor.auth();
    let response = gateway.exchange(impostor.path, &auth);
    let error = impostor.error(&response).map(|(kind, _)| kind);
    assert_eq!(error, Some(NotifyType::AUTHENTICATION_FAILED));

    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let auth = peer.auth();
    let response = gateway.exchange(peer.path, &auth);
    assert!(peer.take_auth(&response).is_none(), "no CHILD_SA");
    let opened = peer.open(&response);
    let payloads = opened.payloads().unwrap();
    let redirect = payloads.notify(NotifyType::REDIRECT).unwrap();
    assert_eq!(redirect.data, b"\x03\x0fgw2.example.org");
    assert!(gateway.installs().is_empty());
    // A peer that does not close it is not waited for for ever.
    gateway.advance(Duration::from_secs(61));
    gateway.advance(Duration::from_secs(600));
    for _ in 0..20 {
        gateway.advance(Duration::from_secs(60));
    }
    assert_eq!(gateway.endpoint.sas().count(), 0);
}

#[test]
fn an_established_peer_is_redirected_by_command_and_closes() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = peer(6);
    peer.connect(&mut gateway).unwrap();
    let local_spi = gateway.endpoint.sas().next().unwrap().local_spi;
    let command = Command::Redirect {
        local_spi,
        gateway: elsewhere(),
    };
    gateway.endpoint.handle_command(gateway.now, command);
    let sent = gateway.drain();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].after.is_some(), "the record has the request");
    let opened = peer.open_request(&sent[0].bytes);
    let payloads = opened.payloads().unwrap();
    let notify = payloads.notify(NotifyType::REDIRECT).unwrap();
    assert_eq!(notify.data, [1, 4, 192, 0, 2, 99], "RFC 5685 §5: no nonce");
    let header = HeaderRepr {
        response: true,
        from_initiator: true,
        ..*Message::parse(&sent[0].bytes).unwrap().header()
    };
    let answer = peer.seal(MessageBuilder::new(header));
    gateway.ignores(peer.path, &answer);
    assert_eq!(gateway.endpoint.sas().count(), 1, "the peer closes it");
    let delete = peer.request(
        ExchangeType::INFORMATIONAL,
        &[Payload::Delete(DeleteRepr::ike())],
    );
    gateway.exchange(peer.path, &delete);
    assert_eq!(gateway.endpoint.sas().count(), 0);
}

#[test]
fn a_command_for_a_peer_that_cannot_be_redirected_says_so() {
    let mut gateway = Gateway::new(transport(|_| ()));
    let mut peer = Initiator::new(7);
    peer.connect(&mut gateway).unwrap();
    let local_spi = gateway.endpoint.sas().next().unwrap().local_spi;
    let command = Command::Redirect {
        local_spi,
        gateway: elsewhere(),
    };
    gateway.endpoint.handle_command(gateway.now, command);
    assert!(gateway.drain().is_empty());
    assert!(
        gateway
            .complaints()
            .iter()
            .any(|c| c.contains("redirected"))
    );
}
