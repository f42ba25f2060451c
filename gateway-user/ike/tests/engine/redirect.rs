//! REDIRECT (RFC 5685), sent and followed.

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
use crate::opening::link::{Link, THERE, configs};
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

/// The responder sends everybody to `to`. Both of its addresses are the same endpoint.
fn link(to: &str, tweak: impl Fn(usize, &mut gateway_ike::config::Connection)) -> Link {
    let to = NewGateway::Address(to.parse().unwrap());
    Link::tweaked(1, |side, connection, _| {
        if side == 1 {
            connection.transport.redirect_to = Some(to.clone());
        }
        tweak(side, connection);
    })
}

#[test]
fn we_follow_and_say_where_we_come_from() {
    let mut link = link(THERE, |_, _| ());
    link.initiate(0);
    link.assert_one_tunnel();
    // Not redirected a second time: REDIRECTED_FROM says that we were.
    assert_eq!(link.sides[1].endpoint.counters().redirects_sent, 1);
    let said = |c: &String| c.contains("redirects us to");
    assert_eq!(
        link.sides[0]
            .complaints()
            .iter()
            .filter(|c| said(c))
            .count(),
        1
    );
}

#[test]
fn who_does_not_want_to_be_redirected_is_not() {
    let mut link = link("203.0.113.11", |side, connection| {
        connection.transport.follow_redirects = side == 1;
    });
    link.initiate(0);
    link.assert_one_tunnel();
    assert_eq!(link.sides[1].endpoint.counters().redirects_sent, 0);
}

/// Three gateways that send everybody in circles; here all of them are one endpoint. `by_identity`:
/// only IKE_AUTH tells that the peer is meant.
fn ring(by_identity: bool) -> Link {
    let [here, mut there] = configs(|_, _, _| ());
    let model = (*there.connections[0]).clone();
    let ring = [THERE, "203.0.113.11", "203.0.113.12"];
    there.connections.clear();
    for (at, address) in ring.iter().enumerate() {
        let mut moved = model.clone();
        moved.name = format!("moved-{at}");
        moved.local_addrs = vec![address.parse().unwrap()];
        let next = ring[(at + 1) % ring.len()].parse().unwrap();
        moved.transport.redirect_to = Some(NewGateway::Address(next));
        if by_identity {
            let mut other = connection("other", "other.example.org");
            other.name = format!("other-{at}");
            other.local_addrs = moved.local_addrs.clone();
            there.connections.push(Arc::new(other));
        }
        there.connections.push(Arc::new(moved));
    }
    Link::with(7, [here, there])
}

#[test]
fn loops_end() {
    let mut link = ring(false);
    link.initiate(0);
    assert_eq!(link.count(0), (0, 0));
    assert_eq!(link.sides[1].endpoint.counters().redirects_sent, 6);
    let loops = |c: &String| c.contains("loop");
    assert!(link.sides[0].complaints().iter().any(loops));
    assert_eq!(link.sides[1].endpoint.half_open(), 0);
}

#[test]
fn a_redirect_that_does_not_know_our_nonce_is_nobodys() {
    let mut link = link(THERE, |_, _| ());
    link.order(0, crate::opening::link::order());
    link.run_with(&mut |from, transmit| {
        let mut bytes = transmit.bytes.clone();
        if from == 1 {
            *bytes.last_mut().unwrap() ^= 1;
        }
        Some(bytes)
    });
    assert_eq!(link.count(0), (0, 0));
    let said = |c: &String| c.contains("redirects us to");
    assert!(!link.sides[0].complaints().iter().any(said));
}

#[test]
fn an_established_gateway_sends_us_elsewhere() {
    let mut link = Link::new(5);
    link.initiate(0);
    link.assert_one_tunnel();
    let before = link.sides[1].endpoint.sas().next().unwrap().local_spi;
    let gateway = &mut link.sides[1];
    let command = Command::Redirect {
        local_spi: before,
        gateway: NewGateway::Address(THERE.parse().unwrap()),
    };
    gateway.endpoint.handle_command(gateway.now, command);
    link.run();
    link.assert_one_tunnel();
    let after = link.sides[1].endpoint.sas().next().unwrap().local_spi;
    assert_ne!(before, after);
}

#[test]
fn ike_auth_sends_us_elsewhere_until_it_looks_like_a_loop() {
    let mut link = ring(true);
    link.initiate(0);
    assert_eq!(link.sides[1].endpoint.counters().redirects_sent, 6);
    // The last one stays, without CHILD_SA, until the gateway is tired of it.
    assert_eq!(link.count(0), (1, 0));
    let loops = |c: &String| c.contains("loop");
    assert!(link.sides[0].complaints().iter().any(loops));
}
