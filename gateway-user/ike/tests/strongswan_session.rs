//! The recorded session of two strongSwan 5.9.8, gone through in the responder's place: from what
//! the initiator says we come to the keys, AUTH data, suites and selectors that strongSwan came to.

#![allow(clippy::unwrap_used)]

#[allow(unreachable_pub)]
#[path = "../../src/crypto/mod.rs"]
mod aws_lc;
#[path = "support/hex.rs"]
mod hex;

use std::collections::HashMap;

use aws_lc::AwsLc;
use gateway_ike::crypto::{Encryption, Prf};
use gateway_ike::identity::Identity;
use gateway_ike::keys::{
    AuthInput, ChildKeys, IkeKeys, SkD, SkP, Skeyseed, psk_auth, verify_psk_auth,
};
use gateway_ike::proposal::{EspExchange, EspProposal, IkeProposal, select_esp, select_ike};
use gateway_ike::secret::SecretBytes;
use gateway_ike::selector::{TrafficSelector, narrow_both};
use gateway_ike::wire::{Body, Chain, Message, PayloadType, Payloads};
use hex::hex;

const PRF: Prf = Prf::HmacSha256;
const GCM: Encryption = Encryption::AesGcm16Key128;

struct Recording(HashMap<&'static str, Vec<u8>>);

impl Recording {
    fn load() -> Self {
        let values = include_str!("data/strongswan-5.9.8-psk.txt")
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, value)| (name, hex(value)));
        Self(values.collect())
    }

    fn get(&self, name: &str) -> &[u8] {
        &self.0[name]
    }

    fn secret(&self, name: &str) -> SecretBytes {
        SecretBytes::from(self.get(name))
    }

    fn message(&self, number: u8) -> &[u8] {
        self.get(&format!("message_{number}"))
    }

    /// Payload type of the first payload, and the payloads in clear; messages 3 to 12 are under the
    /// keys of the first IKE SA.
    fn payloads(&self, number: u8) -> (PayloadType, Vec<u8>) {
        let message = Message::parse(self.message(number)).unwrap();
        match message.body() {
            Body::Encrypted(packet) => {
                let key = if message.header().from_initiator {
                    "sk_ei_1"
                } else {
                    "sk_er_1"
                };
                let opened = packet.open(&AwsLc, GCM, self.get(key)).unwrap();
                (opened.first, opened.plaintext.clone())
            }
            _ => (
                PayloadType(self.message(number)[16]),
                self.message(number)[28..].to_vec(),
            ),
        }
    }

    /// Ni and Nr of an exchange, by the number of its request.
    fn nonces(&self, request: u8) -> [Vec<u8>; 2] {
        [request, request + 1].map(|number| {
            let owned = self.payloads(number);
            parse(&owned).require_nonce().unwrap().data.to_vec()
        })
    }
}

fn parse((first, octets): &(PayloadType, Vec<u8>)) -> Payloads<'_> {
    Payloads::parse(Chain::new_checked(*first, octets).unwrap()).unwrap()
}

fn spis(message: &[u8]) -> ([u8; 8], [u8; 8]) {
    (
        message[..8].try_into().unwrap(),
        message[8..16].try_into().unwrap(),
    )
}

fn assert_keys(recording: &Recording, sa: u8, keys: &IkeKeys) {
    for (name, key) in [
        ("d", keys.d.expose()),
        ("ei", keys.ei.expose()),
        ("er", keys.er.expose()),
        ("pi", keys.pi.expose()),
        ("pr", keys.pr.expose()),
    ] {
        assert_eq!(key, recording.get(&format!("sk_{name}_{sa}")), "SK_{name}");
    }
}

#[test]
fn keys_of_the_first_ike_sa() {
    let recording = Recording::load();
    let [ni, nr] = recording.nonces(1);
    let skeyseed = Skeyseed::initial(&AwsLc, PRF, &ni, &nr, &recording.secret("g_ir_1"));
    assert_eq!(skeyseed.expose(), recording.get("skeyseed_1"));
    let (spi_i, spi_r) = spis(recording.message(2));
    let keys = IkeKeys::derive(&AwsLc, PRF, GCM, &skeyseed, (&ni, &nr), (&spi_i, &spi_r));
    assert_keys(&recording, 1, &keys.unwrap());
}

#[test]
fn keys_of_the_second_ike_sa() {
    let recording = Recording::load();
    let [ni, nr] = recording.nonces(9);
    let old = SkD::from_secret(recording.secret("sk_d_1"));
    let skeyseed = Skeyseed::rekeyed(&AwsLc, PRF, &old, &[recording.secret("g_ir_2")], &ni, &nr);
    assert_eq!(skeyseed.expose(), recording.get("skeyseed_2"));
    let (spi_i, spi_r) = spis(recording.message(13));
    let keys = IkeKeys::derive(&AwsLc, PRF, GCM, &skeyseed, (&ni, &nr), (&spi_i, &spi_r));
    assert_keys(&recording, 2, &keys.unwrap());
}

/// The first CHILD_SA by the nonces of IKE_SA_INIT, the second by those of CREATE_CHILD_SA and with
/// a key exchange of its own.
#[test]
fn keys_of_the_child_sas() {
    let recording = Recording::load();
    let sk_d = SkD::from_secret(recording.secret("sk_d_1"));
    let pfs = [recording.secret("child_g_ir_2")];
    for (child, request, shared) in [(1, 1, &[][..]), (2, 5, &pfs)] {
        let [ni, nr] = recording.nonces(request);
        let keys = ChildKeys::derive(&AwsLc, PRF, GCM, &sk_d, shared, &ni, &nr).unwrap();
        let (i, r) = (&keys.initiator_to_responder, &keys.responder_to_initiator);
        assert_eq!(i.expose(), recording.get(&format!("child_ei_{child}")));
        assert_eq!(r.expose(), recording.get(&format!("child_er_{child}")));
    }
}

#[test]
fn both_auth_payloads() {
    let recording = Recording::load();
    let [ni, nr] = recording.nonces(1);
    let psk = recording.secret("psk");
    for (number, first_message, peer_nonce, key) in [(3, 1, &nr, "sk_pi_1"), (4, 2, &ni, "sk_pr_1")]
    {
        let owned = recording.payloads(number);
        let payloads = parse(&owned);
        let id = if number == 3 {
            payloads.require_id_initiator()
        } else {
            payloads.require_id_responder()
        };
        let input = AuthInput {
            message: recording.message(first_message),
            int_auth: &[],
            peer_nonce,
            sk_p: &SkP::from_secret(recording.secret(key)),
            id_body: &id.unwrap().rest_of_payload(),
        };
        let auth = payloads.require_auth().unwrap().data;
        assert_eq!(psk_auth(&AwsLc, PRF, &psk, input), auth);
        assert!(verify_psk_auth(&AwsLc, PRF, &psk, input, auth));
        let wrong = SecretBytes::from(&b"another secret"[..]);
        assert!(!verify_psk_auth(&AwsLc, PRF, &wrong, input, auth));
    }
}

#[test]
fn identities() {
    let recording = Recording::load();
    let owned = recording.payloads(3);
    let payloads = parse(&owned);
    for (id, name) in [
        (payloads.require_id_initiator(), "a.example.org"),
        (payloads.require_id_responder(), "b.example.org"),
    ] {
        let id = id.unwrap();
        let identity = Identity::from_payload(id.kind, id.data).unwrap();
        assert_eq!(identity, name.parse().unwrap());
        assert_eq!(identity.to_payload(), (id.kind, id.data.to_vec()));
    }
}

/// With strongSwan's configuration we answer every SA payload as strongSwan did, SPI included.
#[test]
fn suites() {
    let recording = Recording::load();
    let ike: Vec<IkeProposal> = [
        "aes128gcm16-prfsha256-x25519",
        "aes256gcm16-prfsha384-ecp256",
    ]
    .map(|text| text.parse().unwrap())
    .into();
    let esp: Vec<EspProposal> = ["aes128gcm16-x25519", "aes256gcm16"]
        .map(|text| text.parse().unwrap())
        .into();
    for request in [1, 3, 5, 9] {
        let (owned, answered) = (recording.payloads(request), recording.payloads(request + 1));
        let offered = &parse(&owned).require_sa().unwrap().proposals.clone();
        let theirs = &parse(&answered).require_sa().unwrap().proposals[0].clone();
        let ours = match request {
            1 => select_ike(offered, &ike, 0).unwrap().answer(&theirs.spi),
            9 => select_ike(offered, &ike, 8).unwrap().answer(&theirs.spi),
            3 => select_esp(offered, &esp, EspExchange::IkeAuth)
                .unwrap()
                .answer(&theirs.spi),
            _ => select_esp(offered, &esp, EspExchange::CreateChildSa)
                .unwrap()
                .answer(&theirs.spi),
        };
        assert_eq!(&ours, theirs, "message {request}");
    }
}

#[test]
fn selectors() {
    let recording = Recording::load();
    let ts = |text: &str| -> Vec<TrafficSelector> {
        text.split(' ').map(|text| text.parse().unwrap()).collect()
    };
    let local = ts("10.2.0.0/16[tcp/80] 2001:db8:2::/48");
    let remote = ts("10.1.0.0/16 2001:db8:1::/48");
    for request in [3, 5] {
        let (owned, answered) = (recording.payloads(request), recording.payloads(request + 1));
        let (asked, answered) = (parse(&owned), parse(&answered));
        let narrowed = narrow_both(
            (&local, &remote),
            (
                &asked.require_ts_responder().unwrap().selectors,
                &asked.require_ts_initiator().unwrap().selectors,
            ),
        )
        .unwrap();
        assert_eq!(
            narrowed.local,
            answered.require_ts_responder().unwrap().selectors
        );
        assert_eq!(
            narrowed.remote,
            answered.require_ts_initiator().unwrap().selectors
        );
    }
}
