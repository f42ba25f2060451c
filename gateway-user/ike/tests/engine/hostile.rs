//! Messages that nobody should send.

use gateway_ike::output::{EventKind, Output};
use gateway_ike::wire::{
    ExchangeType, HEADER_LEN, HeaderRepr, Message, MessageBuilder, NonceRepr, NotifyType,
    OpaqueRepr, Payload, PayloadType,
};
use proptest::prelude::*;

use crate::config::config;
use crate::gateway::Gateway;
use crate::initiator::{Initiator, clear_notify};

/// A payload of a type that nobody knows.
const STRANGE: PayloadType = PayloadType(200);

/// Seals `builder` with one more payload, which is critical.
pub(crate) fn seal_with_critical(peer: &mut Initiator, builder: MessageBuilder) -> Vec<u8> {
    // The builder never sets the critical bit, so the chain is put together by hand, with the
    // strange payload in front.
    let clear = builder.finish().unwrap();
    let (header, chain) = clear.split_at(HEADER_LEN);
    let first = header[16];
    let mut plaintext = vec![first, 0x80, 0, 4];
    plaintext.extend_from_slice(chain);
    let header = Message::parse(&clear).unwrap().header().to_owned();
    seal_raw(peer, header, STRANGE, plaintext)
}

/// Seals any octets as the inside of an Encrypted payload.
fn seal_raw(
    peer: &mut Initiator,
    header: HeaderRepr,
    first: PayloadType,
    mut plaintext: Vec<u8>,
) -> Vec<u8> {
    use gateway_ike::crypto::CryptoProvider as _;
    plaintext.push(0);
    let body = 8 + plaintext.len() + 16;
    let total = u32::try_from(HEADER_LEN + 4 + body).unwrap();
    let mut message = header.encode(PayloadType::SK, total).to_vec();
    let [high, low] = u16::try_from(4 + body).unwrap().to_be_bytes();
    message.extend_from_slice(&[first.0, 0, high, low]);
    let iv = [0xee; 8];
    let key = peer.keys.as_ref().unwrap().ei.expose().to_vec();
    peer.crypto
        .seal(peer.chosen.encryption, &key, &iv, &message, &mut plaintext)
        .unwrap();
    message.extend_from_slice(&iv);
    message.extend_from_slice(&plaintext);
    message
}

/// A gateway with one established IKE SA.
fn established(seed: u64) -> (Gateway, Initiator) {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(seed);
    peer.connect(&mut gateway).unwrap();
    (gateway, peer)
}

#[test]
fn a_forged_message_changes_nothing() {
    let (mut gateway, mut peer) = established(100);
    let genuine = peer.request(ExchangeType::INFORMATIONAL, &[]);
    let from = gateway.log.len();
    for position in 0..genuine.len() {
        for bit in [0x01, 0x80] {
            let mut forged = genuine.clone();
            forged[position] ^= bit;
            for sent in gateway.receive(peer.path, &forged) {
                // A higher major version is answered, whoever sent it; nothing else is.
                assert_eq!(position, 17);
                assert_eq!(sent.after, None);
            }
        }
    }
    let only_events = gateway.log[from..].iter().all(|output| {
        matches!(output, Output::Event(e) if matches!(e.kind, EventKind::DatagramDropped { .. } | EventKind::ExchangeFailed { .. }))
            || matches!(output, Output::Transmit(_))
    });
    assert!(only_events);
    assert!(gateway.endpoint.counters().dropped_integrity > 50);
    // The genuine one is still the next.
    gateway.exchange(peer.path, &genuine);
}

#[test]
fn critical_payloads_after_authentication_are_not_fatal() {
    let (mut gateway, mut peer) = established(101);
    let builder = peer
        .next(ExchangeType::INFORMATIONAL)
        .with(&Payload::Nonce(NonceRepr { data: &[1; 16] }));
    let request = seal_with_critical(&mut peer, builder);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.error(&response),
        Some((NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![200]))
    );
    peer.is_alive(&mut gateway);
}

#[test]
fn unknown_payloads_that_are_not_critical_are_skipped() {
    let (mut gateway, mut peer) = established(102);
    let strange = Payload::Unknown(STRANGE, OpaqueRepr { data: b"what?" });
    let request = peer.request(ExchangeType::INFORMATIONAL, &[strange]);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(peer.error(&response), None);
}

/// RFC 7296 §2.21.3: INVALID_SYNTAX is fatal in both peers, without DELETE.
#[test]
fn an_authentic_malformed_request_ends_the_ike_sa() {
    let (mut gateway, mut peer) = established(103);
    let header = peer.header(ExchangeType::INFORMATIONAL, peer.next_id);
    let request = seal_raw(
        &mut peer,
        header,
        PayloadType::DELETE,
        vec![0, 0, 0, 200, 3, 4],
    );
    let from = gateway.log.len();
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.error(&response),
        Some((NotifyType::INVALID_SYNTAX, vec![]))
    );
    let order: Vec<_> = gateway
        .order(from)
        .into_iter()
        .filter(|w| w != "event")
        .collect();
    assert_eq!(order, ["remove", "delta 3 upsert", "transmit after 3"]);
    assert_eq!(gateway.endpoint.sas().count(), 0);
    assert_eq!(gateway.endpoint.child_sas(), 0);
    assert_eq!(gateway.exchange(peer.path, &request), response);
}

#[test]
fn exchanges_at_the_wrong_time() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(104);
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    // Before authentication nothing but IKE_AUTH exists.
    gateway.ignores(peer.path, &peer.request(ExchangeType::INFORMATIONAL, &[]));
    peer.next_id = 1;
    gateway.ignores(peer.path, &peer.request(ExchangeType::CREATE_CHILD_SA, &[]));
    assert_eq!(gateway.endpoint.counters().dropped_unexpected_exchange, 2);
    peer.next_id = 1;
    let response = gateway.exchange(peer.path, &peer.auth());
    assert!(peer.take_auth(&response).is_some());
    // After it, a second one is an error that must be answered.
    let again = peer.auth();
    let response = gateway.exchange(peer.path, &again);
    assert_eq!(
        peer.error(&response),
        Some((NotifyType::INVALID_SYNTAX, vec![]))
    );
    assert_eq!(gateway.endpoint.sas().count(), 0);
}

#[test]
fn message_ids_outside_the_window() {
    let (mut gateway, mut peer) = established(105);
    for id in [0, 1, 3, 4, u32::MAX] {
        let builder = MessageBuilder::new(peer.header(ExchangeType::INFORMATIONAL, id));
        let request = peer.seal(builder);
        gateway.ignores(peer.path, &request);
    }
    assert_eq!(gateway.endpoint.counters().dropped_message_id, 5);
    peer.is_alive(&mut gateway);
}

#[test]
fn responses_and_other_peoples_messages() {
    let (mut gateway, mut peer) = established(106);
    let builder = MessageBuilder::new(HeaderRepr {
        response: true,
        ..peer.header(ExchangeType::INFORMATIONAL, 2)
    });
    gateway.ignores(peer.path, &peer.seal(builder.clone()));
    assert_eq!(gateway.endpoint.counters().dropped_unexpected_response, 1);
    // The Initiator flag says whose SPI is whose.
    let builder = MessageBuilder::new(HeaderRepr {
        from_initiator: false,
        ..peer.header(ExchangeType::INFORMATIONAL, 2)
    });
    gateway.ignores(peer.path, &peer.seal(builder));
    let builder = MessageBuilder::new(HeaderRepr {
        initiator_spi: [9; 8],
        ..peer.header(ExchangeType::INFORMATIONAL, 2)
    });
    gateway.ignores(peer.path, &peer.seal(builder));
    let builder = MessageBuilder::new(HeaderRepr {
        responder_spi: [9; 8],
        ..peer.header(ExchangeType::INFORMATIONAL, 2)
    });
    gateway.ignores(peer.path, &peer.seal(builder));
    assert_eq!(gateway.endpoint.counters().dropped_unknown_spi, 3);
    peer.is_alive(&mut gateway);
}

#[test]
fn versions() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(107);
    let init = peer.init();
    let mut v1 = init.clone();
    v1[17] = 0x10;
    gateway.ignores(peer.path, &v1);
    assert_eq!(gateway.endpoint.counters().dropped_ikev1, 1);
    assert!(gateway.complaints()[0].contains("IKEv1"));

    let mut v3 = init.clone();
    v3[17] = 0x30;
    let response = gateway.exchange(peer.path, &v3);
    assert_eq!(
        clear_notify(&response),
        (NotifyType::INVALID_MAJOR_VERSION, vec![])
    );
    assert_eq!(response[17], 0x20, "the closest version that we support");
    v3[19] |= 0x20;
    gateway.ignores(peer.path, &v3);

    // The minor version is ignored (RFC 7296 §2.5).
    let mut minor = init;
    minor[17] = 0x2f;
    gateway.exchange(peer.path, &minor);
}

#[test]
fn unacceptable_ike_sa_init() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(108);
    let good = peer.init();
    type Spoil = fn(&mut Vec<u8>);
    let spoiled: [(&str, Spoil); 6] = [
        ("responder SPI", |m| m[8] = 1),
        ("Message ID", |m| m[23] = 1),
        ("no Initiator flag", |m| m[19] = 0),
        ("no initiator SPI", |m| m[..8].fill(0)),
        ("truncated", |m| {
            m.pop();
        }),
        ("trailing octet", |m| m.push(0)),
    ];
    for (what, spoil) in spoiled {
        let mut bad = good.clone();
        spoil(&mut bad);
        let sent = gateway.receive(peer.path, &bad);
        assert!(sent.is_empty(), "{what}");
    }
    for missing in [PayloadType::SA, PayloadType::KE, PayloadType::NONCE] {
        let message = Message::parse(&good).unwrap();
        let gateway_ike::wire::Body::Clear(chain) = message.body() else {
            panic!();
        };
        let mut builder = MessageBuilder::new(peer.init_header());
        for raw in chain.clone().filter(|raw| raw.kind != missing) {
            builder.push(&Payload::parse(&raw).unwrap());
        }
        gateway.ignores(peer.path, &builder.finish().unwrap());
    }
    assert_eq!(gateway.endpoint.half_open(), 0);
    assert_eq!(gateway.endpoint.counters().dropped_malformed, 9);
    assert_eq!(gateway.endpoint.counters().dropped, 9);
}

/// RFC 6989 §2.5: dropped in IKE_SA_INIT.
#[test]
fn a_key_exchange_value_of_small_order() {
    let mut gateway = Gateway::new(config());
    let peer = Initiator::new(109);
    let mut builder = MessageBuilder::new(peer.init_header());
    let wire = peer.proposals[0].to_wire(1, &[]);
    builder
        .push(&Payload::Sa(gateway_ike::wire::SaRepr {
            proposals: vec![wire],
        }))
        .push(&Payload::Ke(gateway_ike::wire::KeRepr {
            method: 31,
            data: &[0; 32],
        }))
        .push(&Payload::Nonce(NonceRepr { data: &[7; 32] }));
    gateway.ignores(peer.path, &builder.finish().unwrap());
    assert_eq!(gateway.endpoint.half_open(), 0);
}

#[test]
fn a_critical_payload_in_ike_sa_init() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(110);
    let mut init = peer.init();
    // In front: Next Payload of the header, then what it was.
    let first = std::mem::replace(&mut init[16], STRANGE.0);
    init.splice(HEADER_LEN..HEADER_LEN, [first, 0x80, 0, 4]);
    let length = u32::try_from(init.len()).unwrap();
    init[24..28].copy_from_slice(&length.to_be_bytes());
    let response = gateway.exchange(peer.path, &init);
    assert_eq!(
        clear_notify(&response),
        (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![200])
    );
    assert_eq!(gateway.endpoint.half_open(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is sealed under the right keys, the gateway answers once or closes, and never
    /// panics.
    #[test]
    fn any_authentic_plaintext_gets_one_answer(
        exchange in 34u8..=44,
        first in any::<u8>(),
        plaintext in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (mut gateway, mut peer) = established(111);
        let header = peer.header(ExchangeType(exchange), peer.next_id);
        let request = seal_raw(&mut peer, header, PayloadType(first), plaintext);
        let sent = gateway.receive(peer.path, &request);
        let is_init = exchange == 34;
        prop_assert_eq!(sent.len(), usize::from(!is_init));
    }

    /// Mutations of genuine messages, and noise, before and after authentication.
    #[test]
    fn noise_never_opens_or_closes_anything(
        noise in prop::collection::vec(any::<u8>(), 0..400),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (mut gateway, mut peer) = established(112);
        let mut mutated = peer.request(ExchangeType::INFORMATIONAL, &[]);
        let genuine = mutated.clone();
        for (index, value) in mutations {
            let position = index.index(mutated.len());
            mutated[position] = value;
        }
        gateway.receive(peer.path, &noise);
        if mutated != genuine {
            gateway.receive(peer.path, &mutated);
        }
        prop_assert_eq!(gateway.endpoint.sas().count(), 1);
        prop_assert_eq!(gateway.endpoint.half_open(), 0);
        gateway.exchange(peer.path, &genuine);
    }
}
