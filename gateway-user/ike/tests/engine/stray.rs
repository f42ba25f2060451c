//! IKE SAs that one side does not know (RFC 7296 §1.5, §2.21.4).

use std::time::Duration;

use gateway_ike::config::Config;
use gateway_ike::output::{Output, Path, Transmit};
use gateway_ike::wire::{
    Body, ExchangeType, HeaderRepr, Message, MessageBuilder, NotifyRepr, NotifyType, Payload,
    Payloads,
};

use crate::config::config;
use crate::gateway::{Gateway, path};
use crate::initiator::Initiator;

fn config_with(invalid_ike_spi_rate: u32) -> Config {
    let mut config = config();
    config.limits.invalid_ike_spi_rate = invalid_ike_spi_rate;
    config
}

fn established(seed: u64, rate: u32) -> (Gateway, Initiator) {
    let mut gateway = Gateway::new(config_with(rate));
    let mut peer = Initiator::new(seed);
    peer.connect(&mut gateway).unwrap();
    (gateway, peer)
}

fn stray(gateway: &mut Gateway, path: Path, bytes: &[u8]) -> Vec<Transmit> {
    gateway.endpoint.handle_stray(gateway.now, path, bytes);
    gateway.drain()
}

/// A request of `peer` to an IKE SA with our SPI `responder_spi`.
fn request(peer: &mut Initiator, exchange: ExchangeType, responder_spi: [u8; 8]) -> Vec<u8> {
    let header = HeaderRepr {
        responder_spi,
        ..peer.header(exchange, 7)
    };
    peer.seal(MessageBuilder::new(header))
}

#[test]
fn a_request_to_nobodys_ike_sa_is_told_so() {
    let (mut gateway, mut peer) = established(400, 10);
    let question = request(&mut peer, ExchangeType::INFORMATIONAL, [9; 8]);
    let sent = stray(&mut gateway, peer.path, &question);
    assert_eq!(sent.len(), 1);
    let answer = &sent[0];
    assert_eq!((answer.path, answer.after), (peer.path, None));
    assert!(answer.bytes.len() <= question.len());
    let message = Message::parse(&answer.bytes).unwrap();
    let asked = *Message::parse(&question).unwrap().header();
    assert_eq!(*message.header(), asked.to_response());
    let Body::Clear(chain) = message.body() else {
        panic!("it must not be protected");
    };
    let payloads = Payloads::parse(chain.clone()).unwrap();
    assert!(payloads.has_notify(NotifyType::INVALID_IKE_SPI));
    assert_eq!(gateway.endpoint.counters().invalid_ike_spi_sent, 1);
    peer.is_alive(&mut gateway);
}

/// Only the driver knows that nobody has it; and a negotiation may be one that it has not heard of.
#[test]
fn nothing_else_is() {
    let (mut gateway, mut peer) = established(401, 10);
    let question = request(&mut peer, ExchangeType::INFORMATIONAL, [9; 8]);
    gateway.ignores(peer.path, &question);
    let ours = peer.header(ExchangeType::INFORMATIONAL, 7).responder_spi;
    let mut foreign = request(&mut peer, ExchangeType::INFORMATIONAL, ours);
    foreign[0] ^= 1;
    let response = peer.seal(MessageBuilder::new(HeaderRepr {
        responder_spi: [9; 8],
        response: true,
        ..peer.header(ExchangeType::INFORMATIONAL, 7)
    }));
    let auth = request(&mut peer, ExchangeType::IKE_AUTH, [9; 8]);
    let header = HeaderRepr {
        responder_spi: [9; 8],
        ..peer.header(ExchangeType::INFORMATIONAL, 7)
    };
    let short = MessageBuilder::new(header).finish().unwrap();
    for bytes in [foreign, response, auth, short] {
        assert!(stray(&mut gateway, peer.path, &bytes).is_empty());
    }
    assert_eq!(gateway.endpoint.counters().invalid_ike_spi_sent, 0);
    // Off by default.
    let mut gateway = Gateway::new(config());
    assert!(stray(&mut gateway, peer.path, &question).is_empty());
    assert_eq!(gateway.endpoint.counters().dropped_unknown_spi, 1);
}

#[test]
fn answers_are_rare_per_source_and_in_all() {
    let (mut gateway, mut peer) = established(402, 3);
    let question = request(&mut peer, ExchangeType::CREATE_CHILD_SA, [9; 8]);
    let from = |host: u8| path("203.0.113.10:500", &format!("198.51.100.{host}:500"));
    let count = |gateway: &mut Gateway, hosts: &[u8]| -> usize {
        let ask = |host: &u8| stray(gateway, from(*host), &question).len();
        hosts.iter().map(ask).sum()
    };
    assert_eq!(count(&mut gateway, &[1, 1, 1]), 1);
    assert_eq!(count(&mut gateway, &[1, 2, 3, 4, 5]), 2);
    gateway.advance(Duration::from_secs(1));
    assert_eq!(count(&mut gateway, &[1, 2, 1, 2]), 2);
}

/// Unprotected words change nothing, but a question follows; once.
#[test]
fn a_peer_that_denies_is_asked_whether_it_is_alive() {
    for rate in [0, 10] {
        let (mut gateway, mut peer) = established(403, rate);
        let denial = |peer: &Initiator, kind| {
            let header = HeaderRepr {
                response: true,
                ..peer.header(ExchangeType::INFORMATIONAL, 0)
            };
            MessageBuilder::new(header)
                .with(&Payload::Notify(NotifyRepr::new(kind, &[])))
                .finish()
                .unwrap()
        };
        let from = gateway.log.len();
        gateway.ignores(peer.path, &denial(&peer, NotifyType::INVALID_SYNTAX));
        let sent = gateway.receive(peer.path, &denial(&peer, NotifyType::INVALID_IKE_SPI));
        assert_eq!(sent.len(), usize::from(rate > 0));
        for transmit in &sent {
            let header = *Message::parse(&transmit.bytes).unwrap().header();
            assert_eq!(header.exchange, ExchangeType::INFORMATIONAL);
            assert!(!header.response);
        }
        gateway.ignores(peer.path, &denial(&peer, NotifyType::INVALID_IKE_SPI));
        assert_eq!(gateway.endpoint.sas().count(), 1);
        let closed = |output: &Output| matches!(output, Output::Kernel(_));
        assert!(!gateway.log[from..].iter().any(closed));
        peer.is_alive(&mut gateway);
    }
}
