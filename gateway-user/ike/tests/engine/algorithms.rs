//! Every algorithm through a whole handshake, and additional key exchanges (RFC 9242, RFC 9370).

use std::sync::Arc;

use gateway_ike::crypto::{CryptoProvider, Encryption, KeyExchangeMethod, Prf};
use gateway_ike::keys::Skeyseed;
use gateway_ike::proposal::{AdditionalKes, EspProposal, IkeProposal};
use gateway_ike::wire::{
    Body, ExchangeType, KeRepr, Message, MessageBuilder, NotifyType, Payload, PayloadType,
};

use crate::config::{child, config, connection};
use crate::gateway::Gateway;
use crate::initiator::{Initiator, MyChild, clear, clear_notify};

/// A gateway that takes exactly these suites.
fn gateway(ike: &str, esp: &str) -> Gateway {
    let mut config = config();
    let mut child = child("net", "10.1.0.0/16", "10.2.0.0/16");
    child.esp_proposals = EspProposal::parse(esp).unwrap();
    let mut connection = connection("site", "peer.example.org");
    connection.proposals = IkeProposal::parse(ike).unwrap();
    connection.children = vec![Arc::new(child)];
    config.connections = vec![Arc::new(connection)];
    Gateway::new(config)
}

fn peer(seed: u64, ike: &str, esp: &str) -> Initiator {
    let mut peer = Initiator::new(seed).offer(ike);
    peer.esp = EspProposal::parse(esp).unwrap();
    peer
}

fn same_keys(gateway: &Gateway, child: &MyChild) {
    let (sa, _) = gateway.installs()[0];
    assert_eq!((&sa.key_in, &sa.key_out), (&child.key_out, &child.key_in));
    assert_eq!(sa.key_in.len(), sa.encryption.keymat_len());
}

#[test]
fn every_encryption_with_every_prf() {
    for (seed, encryption) in (0..).zip(Encryption::all()) {
        for prf in Prf::ALL {
            let suite = IkeProposal {
                encryption,
                prf,
                ke: KeyExchangeMethod::X25519,
                additional: AdditionalKes::NONE,
            };
            let esp = EspProposal {
                encryption,
                ke: None,
                additional: AdditionalKes::NONE,
                esn: seed % 2 == 0,
            };
            let (ike, esp) = (suite.to_string(), esp.to_string());
            let mut gateway = gateway(&ike, &esp);
            let mut peer = peer(seed, &ike, &esp);
            let child = peer.connect(&mut gateway).expect("a child");
            same_keys(&gateway, &child);
            peer.is_alive(&mut gateway);
        }
    }
}

#[test]
fn every_key_exchange_method() {
    for (seed, method) in (0..).zip(KeyExchangeMethod::ALL) {
        let suite = IkeProposal {
            encryption: Encryption::AesGcm16Key128,
            prf: Prf::HmacSha256,
            ke: method,
            additional: AdditionalKes::NONE,
        };
        let mut gateway = gateway(&suite.to_string(), "aes128gcm16");
        let mut peer = peer(seed, &suite.to_string(), "aes128gcm16");
        let child = peer.connect(&mut gateway).expect("a child");
        same_keys(&gateway, &child);
    }
}

/// RFC 3602 §2.1, RFC 7296 §3.14: a counter would be predictable.
#[test]
fn ivs_of_cbc_are_not_counted() {
    const SUITE: &str = "aes128-sha256-x25519";
    let mut gateway = gateway(SUITE, "aes128-sha256");
    let mut peer = peer(3, SUITE, "aes128-sha256");
    peer.connect(&mut gateway).unwrap();
    let mut ivs = Vec::new();
    for _ in 0..8 {
        let request = peer.request(ExchangeType::INFORMATIONAL, &[]);
        let response = gateway.exchange(peer.path, &request);
        peer.open(&response);
        ivs.push(u128::from_be_bytes(*response[32..].first_chunk().unwrap()));
    }
    // Of eight random numbers two neighbours are within 2^96 with probability 2^-29.
    for pair in ivs.windows(2) {
        assert!(pair[0].abs_diff(pair[1]) > 1 << 96, "{ivs:x?}");
    }
}

const HYBRID: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke3_ecp384";

/// As far as the answer to IKE_SA_INIT.
fn init(gateway: &mut Gateway, peer: &mut Initiator) {
    peer.init_notifies = vec![NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED];
    let response = gateway.exchange(peer.path, &peer.init());
    let message = Message::parse(&response).unwrap();
    let supported = NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED;
    assert!(clear(&message).has_notify(supported));
    peer.take_init(&response);
}

/// A message before encryption, lengths without IV, padding and ICV (RFC 9242 §3.3.2), put
/// together by hand: header, generic header, inner payloads.
fn covered(sealed: &[u8], first: PayloadType, inner: &[u8]) -> Vec<u8> {
    let mut octets = sealed[..24].to_vec();
    octets.extend((28 + 4 + inner.len() as u32).to_be_bytes());
    octets.extend([first.0, 0]);
    octets.extend((4 + inner.len() as u16).to_be_bytes());
    octets.extend_from_slice(inner);
    octets
}

/// One IKE_INTERMEDIATE exchange; the request and its answer.
fn exchange(
    gateway: &mut Gateway,
    peer: &mut Initiator,
    method: KeyExchangeMethod,
    so_far: &mut [Vec<u8>; 2],
) -> (Vec<u8>, Vec<u8>) {
    let ours = peer.crypto.key_exchange(method).unwrap();
    let ke = KeRepr {
        method: method.transform_id(),
        data: ours.public_value(),
    };
    let inner = |ke: KeRepr<'_>| {
        let mut octets = vec![0, 0];
        octets.extend((8 + ke.data.len() as u16).to_be_bytes());
        octets.extend(ke.method.to_be_bytes());
        octets.extend([0, 0]);
        octets.extend_from_slice(ke.data);
        octets
    };
    let request = peer.request(ExchangeType::IKE_INTERMEDIATE, &[Payload::Ke(ke)]);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(response[18], 43, "Exchange Type (RFC 9242 §3.2)");
    let opened = peer.open(&response);
    let payloads = opened.payloads().unwrap();
    let answer = payloads.require_ke().unwrap();
    assert_eq!(answer.method, method.transform_id());
    assert_eq!(answer.data.len(), method.answer_len());
    let shared = ours.agree(answer.data).unwrap();

    let crypto = Arc::clone(&peer.crypto);
    let keys = peer.keys.take().unwrap();
    let prf = peer.chosen.prf;
    let messages = [
        covered(&request, PayloadType::KE, &inner(ke)),
        covered(&response, PayloadType::KE, &inner(answer)),
    ];
    for ((so_far, message), sk_p) in so_far.iter_mut().zip(messages).zip([&keys.pi, &keys.pr]) {
        let int_auth = crypto.prf(prf, sk_p.expose(), &[so_far, &message]);
        *so_far = int_auth.expose().to_vec();
    }
    peer.int_auth = [&so_far[0][..], &so_far[1], &peer.next_id.to_be_bytes()].concat();
    let nonces = (&peer.nonce_i[..], &peer.nonce_r[..]);
    let skeyseed = Skeyseed::additional(&*crypto, prf, &keys.d, &shared, nonces);
    peer.keys = Some(peer.derive(&skeyseed));
    (request, response)
}

#[test]
fn additional_key_exchanges_before_authentication() {
    for seed in 0..4 {
        let mut gateway = gateway(HYBRID, "aes128gcm16");
        let mut peer = peer(70 + seed, HYBRID, "aes128gcm16");
        init(&mut gateway, &mut peer);
        let mut int_auth = [Vec::new(), Vec::new()];
        for method in [KeyExchangeMethod::MlKem768, KeyExchangeMethod::Ecp384] {
            let (request, response) = exchange(&mut gateway, &mut peer, method, &mut int_auth);
            // The keys have changed since; the answer is still the same.
            assert_eq!(gateway.exchange(peer.path, &request), response);
        }
        assert_eq!(peer.next_id, 3);
        let response = gateway.exchange(peer.path, &peer.auth());
        let child = peer.take_auth(&response).expect("a child");
        same_keys(&gateway, &child);
        peer.is_alive(&mut gateway);
        let sa = gateway.endpoint.sas().next().unwrap();
        assert!(
            sa.proposal.ends_with("KE1_ML_KEM_768/KE3_ECP_384"),
            "{}",
            sa.proposal
        );
    }
}

/// What was said in IKE_INTERMEDIATE is authenticated.
#[test]
fn a_transcript_that_differs_is_not_authentic() {
    type Spoil = fn(&mut Initiator);
    let cases: [Spoil; 3] = [
        |peer| peer.int_auth.clear(),
        |peer| peer.int_auth[0] ^= 1,
        |peer| *peer.int_auth.last_mut().unwrap() ^= 1,
    ];
    for spoil in cases {
        let suite = "aes128gcm16-prfsha256-x25519-ke1_mlkem512";
        let mut gateway = gateway(suite, "aes128gcm16");
        let mut peer = peer(80, suite, "aes128gcm16");
        init(&mut gateway, &mut peer);
        let mut int_auth = [Vec::new(), Vec::new()];
        exchange(
            &mut gateway,
            &mut peer,
            KeyExchangeMethod::MlKem512,
            &mut int_auth,
        );
        spoil(&mut peer);
        let response = gateway.exchange(peer.path, &peer.auth());
        let error = peer.error(&response).unwrap().0;
        assert_eq!(error, NotifyType::AUTHENTICATION_FAILED);
    }
}

#[test]
fn ike_auth_waits_for_all_key_exchanges() {
    let mut gateway = gateway(HYBRID, "aes128gcm16");
    let mut peer = peer(81, HYBRID, "aes128gcm16");
    init(&mut gateway, &mut peer);
    let mut int_auth = [Vec::new(), Vec::new()];
    exchange(
        &mut gateway,
        &mut peer,
        KeyExchangeMethod::MlKem768,
        &mut int_auth,
    );
    let early = peer.auth();
    gateway.ignores(peer.path, &early);
    peer.next_id -= 1;
    exchange(
        &mut gateway,
        &mut peer,
        KeyExchangeMethod::Ecp384,
        &mut int_auth,
    );
    // And there is no further one.
    let late = peer.request(ExchangeType::IKE_INTERMEDIATE, &[]);
    gateway.ignores(peer.path, &late);
    peer.next_id -= 1;
    let response = gateway.exchange(peer.path, &peer.auth());
    assert!(peer.take_auth(&response).is_some());
}

#[test]
fn a_wrong_additional_key_exchange_ends_the_negotiation() {
    let wrong: [(&str, Vec<u8>, u16); 3] = [
        ("another method", vec![1; 800], 35),
        ("another length", vec![1; 1183], 36),
        ("no ML-KEM key", vec![0xff; 1184], 36),
    ];
    for (what, data, method) in wrong {
        let mut gateway = gateway(HYBRID, "aes128gcm16");
        let mut peer = peer(82, HYBRID, "aes128gcm16");
        init(&mut gateway, &mut peer);
        let ke = KeRepr {
            method,
            data: &data,
        };
        let request = peer.request(ExchangeType::IKE_INTERMEDIATE, &[Payload::Ke(ke)]);
        let response = gateway.exchange(peer.path, &request);
        let error = peer.error(&response).unwrap().0;
        assert_eq!(error, NotifyType::INVALID_SYNTAX, "{what}");
        assert_eq!(gateway.endpoint.sas().count(), 0);
    }
}

/// RFC 9370 §2.2.1: both sides must support IKE_INTERMEDIATE.
#[test]
fn without_ike_intermediate_there_are_no_additional_key_exchanges() {
    let mut strict = gateway(HYBRID, "aes128gcm16");
    let mut peer = peer(83, HYBRID, "aes128gcm16");
    let response = strict.exchange(peer.path, &peer.init());
    assert_eq!(clear_notify(&response).0, NotifyType::NO_PROPOSAL_CHOSEN);

    let optional = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_none";
    let mut lenient = gateway(optional, "aes128gcm16");
    let mut peer = self::peer(84, "aes256gcm16-prfsha384-x25519", "aes128gcm16");
    assert!(peer.connect(&mut lenient).is_some());
}

/// IKE_INTERMEDIATE in fragments, which it was made for.
#[test]
fn a_large_key_exchange_in_fragments() {
    let suite = "aes128gcm16-prfsha256-x25519-ke1_mlkem1024";
    let mut gateway = gateway(suite, "aes128gcm16");
    let mut peer = peer(85, suite, "aes128gcm16");
    peer.init_notifies = vec![
        NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED,
        NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
    ];
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let method = KeyExchangeMethod::MlKem1024;
    let ours = peer.crypto.key_exchange(method).unwrap();
    let ke = Payload::Ke(KeRepr {
        method: method.transform_id(),
        data: ours.public_value(),
    });
    let builder = peer.next(ExchangeType::IKE_INTERMEDIATE).with(&ke);
    let ours_covered = builder.int_auth_content().unwrap();
    let fragments = peer.fragments(builder, 600);
    assert!(fragments.len() > 2);
    let mut answer = Vec::new();
    for fragment in &fragments {
        answer.extend(gateway.receive(peer.path, fragment));
    }
    let answer: Vec<u8> = answer.into_iter().flat_map(|t| t.bytes).collect();
    let opened = peer.open(&answer);
    let payloads = opened.payloads().unwrap();
    let theirs = payloads.require_ke().unwrap();
    let header = *Message::parse(gateway_ike::wire::messages(&answer).next().unwrap())
        .unwrap()
        .header();
    let theirs_covered = MessageBuilder::new(header)
        .with(&Payload::Ke(theirs))
        .int_auth_content()
        .unwrap();
    let shared = ours.agree(theirs.data).unwrap();
    let crypto = Arc::clone(&peer.crypto);
    let keys = peer.keys.take().unwrap();
    let i = crypto.prf(peer.chosen.prf, keys.pi.expose(), &[&ours_covered]);
    let r = crypto.prf(peer.chosen.prf, keys.pr.expose(), &[&theirs_covered]);
    peer.int_auth = [i.expose(), r.expose(), &peer.next_id.to_be_bytes()].concat();
    let nonces = (&peer.nonce_i[..], &peer.nonce_r[..]);
    let skeyseed = Skeyseed::additional(&*crypto, peer.chosen.prf, &keys.d, &shared, nonces);
    peer.keys = Some(peer.derive(&skeyseed));
    let response = gateway.exchange(peer.path, &peer.auth());
    assert!(peer.take_auth(&response).is_some());
    let sealed = Message::parse(&fragments[0]).unwrap();
    assert!(matches!(sealed.body(), Body::Fragment(..)));
}
