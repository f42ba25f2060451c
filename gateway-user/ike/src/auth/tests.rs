//! Both roles against each other, without a wire between them.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512};
use rcgen::{PKCS_ED25519, PKCS_RSA_SHA256};

use super::*;
use crate::aws_lc::AwsLc;
use crate::config::{
    Authentication, Config, Credential, Initiation, Limits, Ppk, PpkPolicy, RemotePublicKey,
    Secret, SendCert, Transport, Uniqueness,
};
use crate::crypto::CryptoProvider;
use crate::keys::{SkD, SkE, SkP};
use crate::secret::SecretBytes;
use crate::signature::SignatureHash;
use crate::wire::{Body, CertEncoding, CertRepr, ExchangeType, HeaderRepr, Message, Payload};
use crate::x509::Certificate;
use crate::x509::path::Revocation;

#[path = "../../tests/support/pki.rs"]
#[allow(dead_code)]
mod pki;

use pki::{Authority, DAY, NOW, ca_params, peer_params};

const CLOCK: Instant = Instant::from_nanos(5_000_000_000);

/// One side: what it is configured with.
struct Side {
    core: Core,
    connection: Connection,
}

fn side(local_id: &str, remote_id: &str) -> Side {
    let connection = Connection {
        name: "site".to_owned(),
        local_addrs: Vec::new(),
        remote_addrs: Vec::new(),
        proposals: Vec::new(),
        local_id: local_id.parse().unwrap(),
        remote_id: remote_id.parse().unwrap(),
        auth: Authentication::default(),
        children: Vec::new(),
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        dpd_delay: Duration::ZERO,
        unique: Uniqueness::No,
        transport: Transport::default(),
        initiation: Initiation::default(),
    };
    let config = Config {
        member: MemberId::new(1).unwrap(),
        incarnation: 1,
        connections: Vec::new(),
        secrets: vec![Secret {
            ids: Vec::new(),
            secret: SecretBytes::from(&b"secret"[..]),
        }],
        ppks: Vec::new(),
        limits: Limits::default(),
    };
    let mut core = Core::new(Arc::new(config), Arc::new(AwsLc));
    core.wall_clock = Some((Instant::from_nanos(0), NOW - 5));
    Side { core, connection }
}

impl Side {
    /// Signs with `pair`, whose certificate is the first of `chain`.
    fn signs(mut self, policy: &str, pair: &KeyPair, chain: &[&Certificate]) -> Self {
        let der = SecretBytes::from(pair.serialized_der());
        self.connection.auth.local = LocalAuth::PublicKey {
            credentials: vec![Credential {
                chain: chain.iter().map(|c| Arc::new((*c).clone())).collect(),
                key: AwsLc.signing_key(&der).unwrap(),
            }],
            policy: policy.parse().unwrap(),
        };
        self
    }

    /// Wants a signature under `authority`.
    fn trusts(mut self, policy: &str, authority: &Authority) -> Self {
        self.connection.auth.remote = RemoteAuth::PublicKey(RemotePublicKey {
            authorities: vec![authority.certificate()],
            policy: policy.parse().unwrap(),
            ..RemotePublicKey::default()
        });
        self
    }

    fn remote(&mut self) -> &mut RemotePublicKey {
        match &mut self.connection.auth.remote {
            RemoteAuth::PublicKey(remote) => remote,
            RemoteAuth::Psk => panic!("a pre-shared key"),
        }
    }

    fn ppk(mut self, id: &str, secret: &[u8], required: bool) -> Self {
        let config = Arc::get_mut(&mut self.core.config).unwrap();
        config.ppks.push(Ppk {
            id: id.to_owned(),
            secret: SecretBytes::from(secret),
        });
        self.connection.auth.ppk = Some(PpkPolicy {
            id: Some(id.to_owned()),
            required,
        });
        self
    }

    fn context<'a>(
        &'a self,
        role: Role,
        keys: &'a IkeKeys,
        transcript: &'a Transcript,
    ) -> AuthContext<'a> {
        AuthContext {
            core: &self.core,
            now: CLOCK,
            role,
            prf: Prf::HmacSha256,
            keys,
            transcript,
        }
    }
}

fn keys() -> IkeKeys {
    let key = |octet: u8| SecretBytes::from(&[octet; 32][..]);
    IkeKeys {
        d: SkD::from_secret(key(1)),
        ei: SkE::from_secret(key(2)),
        er: SkE::from_secret(key(3)),
        pi: SkP::from_secret(key(4)),
        pr: SkP::from_secret(key(5)),
    }
}

fn message() -> MessageBuilder {
    MessageBuilder::new(HeaderRepr {
        initiator_spi: [1; 8],
        responder_spi: [2; 8],
        exchange: ExchangeType::IKE_AUTH,
        from_initiator: true,
        response: false,
        message_id: 1,
    })
}

fn with_payloads<T>(message: MessageBuilder, then: impl FnOnce(&Payloads<'_>) -> T) -> T {
    let bytes = message.finish().unwrap();
    let message = Message::parse(&bytes).unwrap();
    let Body::Clear(chain) = message.body() else {
        panic!("not clear");
    };
    then(&Payloads::parse(chain.clone()).unwrap())
}

/// What came of it.
struct Met {
    /// As the responder saw the initiator, and the other way round.
    by_responder: Proven,
    by_initiator: Proven,
    /// AUTH methods and numbers of certificates, the initiator's first.
    methods: [AuthMethod; 2],
    certificates: [usize; 2],
}

fn meet(initiator: &Side, responder: &Side) -> Result<Met, String> {
    meet_changed(initiator, responder, |_| ())
}

/// `change` may do something to the initiator's proof on its way.
fn meet_changed(
    initiator: &Side,
    responder: &Side,
    change: impl FnOnce(&mut Proof),
) -> Result<Met, String> {
    let keys = keys();
    let transcript = |announced| Transcript {
        request: Box::from(&b"IKE_SA_INIT request"[..]),
        response: Box::from(&b"IKE_SA_INIT response"[..]),
        nonce_i: Box::from([6; 32]),
        nonce_r: Box::from([7; 32]),
        int_auth: Vec::new(),
        announced,
    };
    let (mut request, mut response) = (message(), message());
    let ppk_i = announce(&mut request, &AwsLc, &[&initiator.connection], None);
    let at_responder = with_payloads(request, |payloads| {
        let connections = [&responder.connection];
        let ppk = announce(&mut response, &AwsLc, &connections, Some(payloads));
        transcript(Announced::from_init(payloads, ppk))
    });
    let at_initiator = with_payloads(response, |payloads| {
        transcript(Announced::from_init(payloads, ppk_i))
    });
    let ours = initiator.context(Role::Initiator, &keys, &at_initiator);
    let theirs = responder.context(Role::Responder, &keys, &at_responder);
    let fail = |side: &'static str| move |error: IkeError| format!("{side}: {error}");

    let mut proof_i = ours
        .prove(&initiator.connection, None)
        .map_err(fail("I proves"))?;
    change(&mut proof_i);
    let mut request = message();
    push_identity(
        &mut request,
        Role::Initiator,
        &initiator.connection.local_id,
    );
    proof_i.push_onto(&mut request);
    let by_responder = with_payloads(request, |payloads| {
        let id = payloads.require_id_initiator().unwrap();
        theirs.verify(&responder.connection, &id, payloads)
    })
    .map_err(fail("R verifies"))?;

    let mixed = by_responder.keys.clone().unwrap_or_else(|| keys.clone());
    let theirs = responder.context(Role::Responder, &mixed, &at_responder);
    let proof_r = theirs
        .prove(&responder.connection, Some(&by_responder))
        .map_err(fail("R proves"))?;
    let mut response = message();
    push_identity(
        &mut response,
        Role::Responder,
        &responder.connection.local_id,
    );
    proof_r.push_onto(&mut response);
    let by_initiator = with_payloads(response, |payloads| {
        let id = payloads.require_id_responder().unwrap();
        ours.verify(&initiator.connection, &id, payloads)
    })
    .map_err(fail("I verifies"))?;
    Ok(Met {
        methods: [proof_i.method, proof_r.method],
        certificates: [proof_i.certificates.len(), proof_r.certificates.len()],
        by_responder,
        by_initiator,
    })
}

fn error(initiator: &Side, responder: &Side) -> String {
    meet(initiator, responder).err().expect("must fail")
}

/// An authority, and both sides with certificates under it.
fn both(pair_i: &KeyPair, pair_r: &KeyPair) -> (Authority, Side, Side) {
    let root = Authority::root("Root");
    let cert_i = root.issue(&peer_params("i.example.org"), pair_i);
    let cert_r = root.issue(&peer_params("r.example.org"), pair_r);
    let initiator = side("i.example.org", "r.example.org")
        .signs("pubkey", pair_i, &[&cert_i])
        .trusts("pubkey", &root);
    let responder = side("r.example.org", "i.example.org")
        .signs("pubkey", pair_r, &[&cert_r])
        .trusts("pubkey", &root);
    (root, initiator, responder)
}

#[test]
fn shared_key() {
    let met = meet(&side("i", "r"), &side("r", "i")).unwrap();
    assert_eq!(met.by_responder.remote_id, "i".parse().unwrap());
    assert_eq!(met.by_initiator.remote_id, "r".parse().unwrap());
    assert_eq!(met.methods, [AuthMethod::SHARED_KEY; 2]);
    assert_eq!(met.certificates, [0; 2]);
}

#[test]
fn every_kind_of_key() {
    let pairs: Vec<KeyPair> = [
        &PKCS_RSA_SHA256,
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P521_SHA512,
        &PKCS_ED25519,
    ]
    .map(|algorithm| KeyPair::generate_for(algorithm).unwrap())
    .into();
    for (index, pair_i) in pairs.iter().enumerate() {
        let (_, initiator, responder) = both(pair_i, &pairs[(index + 1) % pairs.len()]);
        let met = meet(&initiator, &responder).unwrap();
        assert_eq!(met.methods, [AuthMethod::DIGITAL_SIGNATURE; 2]);
        assert_eq!(met.certificates, [1; 2]);
    }
}

#[test]
fn mixed_ways() {
    let (_, initiator, mut responder) = both(&pki::key(), &pki::key());
    responder.connection.auth.local = LocalAuth::Psk;
    let mut wants_psk = initiator;
    wants_psk.connection.auth.remote = RemoteAuth::Psk;
    let met = meet(&wants_psk, &responder).unwrap();
    let expected = [AuthMethod::DIGITAL_SIGNATURE, AuthMethod::SHARED_KEY];
    assert_eq!(met.methods, expected);
    // But not the wrong way round.
    responder.connection.auth.remote = RemoteAuth::Psk;
    assert_eq!(
        error(&wants_psk, &responder),
        "R verifies: authentication failed: i.example.org authenticates by ECDSA_P256_SHA256, \
         connection site wants a pre-shared key"
    );
}

#[test]
fn a_chain_is_sent_and_followed() {
    let (root, pair) = (Authority::root("Root"), pki::key());
    let middle = root.below(ca_params("Middle"));
    let cert = middle.issue(&peer_params("i.example.org"), &pair);
    let responder = side("r", "i.example.org").trusts("pubkey", &root);
    let mut initiator = side("i.example.org", "r");
    initiator = initiator.signs("pubkey", &pair, &[&cert, &middle.certificate()]);
    assert_eq!(meet(&initiator, &responder).unwrap().certificates, [2, 0]);
    let incomplete = side("i.example.org", "r").signs("pubkey", &pair, &[&cert]);
    let error = error(&incomplete, &responder);
    assert!(
        error.contains("was issued by \"C=DE, O=Example, CN=Middle\", which is neither"),
        "{error}"
    );
}

#[test]
fn who_is_not_who_he_says() {
    let (root, mut initiator, responder) = both(&pki::key(), &pki::key());
    // Another name than that in the certificate.
    initiator.connection.local_id = "mallory.example.org".parse().unwrap();
    let error = error(&initiator, &responder);
    assert!(
        error.contains("mallory.example.org is not in the certificate"),
        "{error}"
    );
    assert!(error.contains("i.example.org"), "{error}");
    // The right certificate without its key.
    let (stolen, other) = (pki::key(), pki::key());
    let cert = root.issue(&peer_params("i.example.org"), &stolen);
    let thief = side("i.example.org", "r.example.org")
        .signs("pubkey", &other, &[&cert])
        .trusts("pubkey", &root);
    let error = self::error(&thief, &responder);
    assert!(
        error.contains("is not by the key of its certificate"),
        "{error}"
    );
}

#[test]
fn what_is_signed_counts() {
    let (_, initiator, responder) = both(&pki::key(), &pki::key());
    let met = meet_changed(&initiator, &responder, |proof| {
        let last = proof.data.len() - 1;
        proof.data[last] ^= 1;
    });
    assert!(met.is_err());
    // Every octet of it, in either message.
    for index in [0, 1, 4, 20] {
        let met = meet_changed(&initiator, &responder, |proof| proof.data[index] ^= 1);
        assert!(met.is_err(), "octet {index}");
    }
    let met = meet_changed(&initiator, &responder, |proof| proof.data.truncate(3));
    assert!(met.is_err());
}

#[test]
fn other_certificates_and_none() {
    let (_, initiator, mut responder) = both(&pki::key(), &pki::key());
    let none = |proof: &mut Proof| proof.certificates.clear();
    let error = meet_changed(&initiator, &responder, none).err().unwrap();
    assert!(
        error.contains("sent no certificate, and connection site has none"),
        "{error}"
    );
    let garbage = |proof: &mut Proof| proof.certificates[0].truncate(100);
    let error = meet_changed(&initiator, &responder, garbage).err().unwrap();
    assert!(error.contains("malformed certificate"), "{error}");
    let many = |proof: &mut Proof| {
        let one = proof.certificates[0].clone();
        proof.certificates.resize(9, one);
    };
    let error = meet_changed(&initiator, &responder, many).err().unwrap();
    assert!(error.contains("more than 8 certificates"), "{error}");
    // One that is known need not be sent, and needs no authority.
    let LocalAuth::PublicKey { credentials, .. } = &initiator.connection.auth.local else {
        panic!("no certificate");
    };
    responder.remote().certificates = credentials[0].chain.clone();
    responder.remote().authorities.clear();
    meet_changed(&initiator, &responder, none).unwrap();
    meet(&initiator, &responder).unwrap();
}

#[test]
fn when_certificates_are_sent() {
    for (policy, asked, expected) in [
        (SendCert::IfAsked, true, 1),
        (SendCert::IfAsked, false, 0),
        (SendCert::Always, false, 1),
        (SendCert::Never, true, 0),
    ] {
        let (_, mut initiator, mut responder) = both(&pki::key(), &pki::key());
        initiator.connection.auth.send_cert = policy;
        let LocalAuth::PublicKey { credentials, .. } = &initiator.connection.auth.local else {
            panic!("no certificate");
        };
        responder.remote().certificates = credentials[0].chain.clone();
        if !asked {
            initiator.connection.auth.remote = RemoteAuth::Psk;
            responder.connection.auth.local = LocalAuth::Psk;
        }
        let (mut first, keys) = (message(), keys());
        announce(&mut first, &AwsLc, &[&initiator.connection], None);
        let transcript = Transcript {
            request: Box::default(),
            response: Box::default(),
            nonce_i: Box::default(),
            nonce_r: Box::default(),
            int_auth: Vec::new(),
            announced: Announced {
                hashes: SignatureHash::ANNOUNCED.to_vec(),
                requested: if asked {
                    with_payloads(
                        {
                            let mut m = message();
                            push_request(&mut m, &[]);
                            m
                        },
                        Requested::from_payloads,
                    )
                } else {
                    Requested::default()
                },
                ppk: false,
            },
        };
        let context = initiator.context(Role::Initiator, &keys, &transcript);
        let proof = context.prove(&initiator.connection, None).unwrap();
        assert_eq!(proof.certificates.len(), expected, "{policy:?} {asked}");
    }
}

#[test]
fn who_sends_a_certificate_wants_one() {
    let silent = message();
    let mut sending = message();
    sending.push(&Payload::Cert(CertRepr {
        encoding: CertEncoding::X509_SIGNATURE,
        data: &[1, 2, 3],
    }));
    for (message, expected) in [(silent, false), (sending, true)] {
        let requested = with_payloads(message, Requested::from_payloads);
        assert_eq!(requested.send(SendCert::IfAsked), expected);
        assert!(!requested.send(SendCert::Never));
    }
}

#[test]
fn policies() {
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let (root, initiator, _) = both(&rsa, &rsa);
    let responder = |policy| side("r.example.org", "i.example.org").trusts(policy, &root);
    let mut initiator = initiator;
    initiator.connection.auth.remote = RemoteAuth::Psk;
    for good in ["pubkey", "rsa", "rsa-2048", "rsa/pss", "rsa-sha256"] {
        meet(&initiator, &responder(good)).unwrap();
    }
    for bad in ["ecdsa", "ed25519", "rsa-3072", "rsa-sha384", "rsa-sha1"] {
        let error = error(&initiator, &responder(bad));
        assert!(error.contains(&format!("remote.auth is {bad}")), "{error}");
    }
}

#[test]
fn peers_from_before_rfc_7427() {
    for (algorithm, method) in [
        (&PKCS_RSA_SHA256, AuthMethod::RSA_DIGITAL_SIGNATURE),
        (&PKCS_ECDSA_P256_SHA256, AuthMethod::ECDSA_P256_SHA256),
        (&PKCS_ECDSA_P384_SHA384, AuthMethod::ECDSA_P384_SHA384),
        (&PKCS_ECDSA_P521_SHA512, AuthMethod::ECDSA_P521_SHA512),
    ] {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let (_, initiator, responder) = both(&pair, &pair);
        let keys = keys();
        let transcript = Transcript {
            request: Box::from(&b"1"[..]),
            response: Box::from(&b"2"[..]),
            nonce_i: Box::from([6; 32]),
            nonce_r: Box::from([7; 32]),
            int_auth: Vec::new(),
            announced: Announced::default(),
        };
        let ours = initiator.context(Role::Initiator, &keys, &transcript);
        let mut proof = ours.prove(&initiator.connection, None).unwrap();
        assert_eq!(proof.method, method);
        let LocalAuth::PublicKey { credentials, .. } = &initiator.connection.auth.local else {
            panic!("no certificate");
        };
        proof.certificates = vec![credentials[0].chain[0].der().to_vec()];
        let mut request = message();
        push_identity(
            &mut request,
            Role::Initiator,
            &initiator.connection.local_id,
        );
        proof.push_onto(&mut request);
        let theirs = responder.context(Role::Responder, &keys, &transcript);
        with_payloads(request, |payloads| {
            let id = payloads.require_id_initiator().unwrap();
            theirs.verify(&responder.connection, &id, payloads)
        })
        .unwrap();
    }
}

#[test]
fn revocation_and_time() {
    let pair = pki::key();
    let (root, initiator, mut responder) = both(&pair, &pki::key());
    let LocalAuth::PublicKey { credentials, .. } = &initiator.connection.auth.local else {
        panic!("no certificate");
    };
    let serial = credentials[0].chain[0].serial().to_vec();
    responder.core.crls = vec![root.crl(&[&serial], DAY)];
    let error = error(&initiator, &responder);
    assert!(error.contains("is revoked by"), "{error}");
    responder.core.crls = vec![root.crl(&[], DAY)];
    responder.remote().revocation = Revocation::Strict;
    meet(&initiator, &responder).unwrap();
    responder.core.wall_clock = Some((CLOCK, NOW + 11 * 86_400));
    let error = self::error(&initiator, &responder);
    assert!(error.contains("expired 24 hours ago"), "{error}");
    responder.core.wall_clock = None;
    let error = self::error(&initiator, &responder);
    assert!(error.contains("time of day is not known"), "{error}");
}

#[test]
fn identities_of_all_types() {
    let root = Authority::root("Root");
    let pair = pki::key();
    let mut params = peer_params("i.example.org");
    params.subject_alt_names.extend([
        rcgen::SanType::Rfc822Name("user@example.org".try_into().unwrap()),
        rcgen::SanType::IpAddress("2001:db8::1".parse().unwrap()),
    ]);
    let cert = root.issue(&params, &pair);
    let key_id = cert
        .key_hash(&AwsLc)
        .map(|octet| format!("{octet:02x}"))
        .concat();
    let any = side("r", "%any").trusts("pubkey", &root);
    for (id, good) in [
        ("i.example.org", true),
        ("I.EXAMPLE.ORG", true),
        ("x.example.org", false),
        ("user@example.org", true),
        ("other@example.org", false),
        ("2001:db8::1", true),
        ("2001:db8::2", false),
        ("C=DE, O=Example, CN=i.example.org", true),
        ("c=de, o=example, cn=I.example.org", true),
        ("C=DE, O=Example, CN=other", false),
        ("C=DE, O=Example", false),
        (&format!("keyid:0x{key_id}"), true),
        ("keyid:0x01", false),
    ] {
        let initiator = side(id, "r").signs("pubkey", &pair, &[&cert]);
        let met = meet(&initiator, &any);
        assert_eq!(met.is_ok(), good, "{id}: {:?}", met.err());
    }
}

#[test]
fn post_quantum_keys() {
    let with = |id: &str, secret: &[u8], required| side("i", "r").ppk(id, secret, required);
    let peer = |id: &str, secret: &[u8], required| side("r", "i").ppk(id, secret, required);
    // Both have it.
    let met = meet(&with("a", b"ppk", true), &peer("a", b"ppk", true)).unwrap();
    let (ours, theirs) = (
        met.by_initiator.keys.unwrap(),
        met.by_responder.keys.unwrap(),
    );
    assert!(ours == theirs);
    assert!(ours.d != keys().d && ours.pi != keys().pi && ours.pr != keys().pr);
    assert!(ours.ei == keys().ei && ours.er == keys().er);
    // Another secret under the same name: NO_PPK_AUTH is no way out (RFC 8784 §3).
    let error = error(&with("a", b"ppk", false), &peer("a", b"other", false));
    assert!(error.contains("another pre-shared key"), "{error}");
    // Without, if both may.
    for responder in [side("r", "i"), peer("b", b"ppk", false)] {
        let met = meet(&with("a", b"ppk", false), &responder).unwrap();
        assert!(met.by_initiator.keys.is_none() && met.by_responder.keys.is_none());
    }
    // Not, if one insists.
    for (initiator, responder, why) in [
        (with("a", b"ppk", true), side("r", "i"), "I proves"),
        (
            with("a", b"ppk", true),
            peer("b", b"ppk", false),
            "the peer insists on one",
        ),
        (
            with("a", b"ppk", false),
            peer("b", b"ppk", true),
            "ppk_required insists on one",
        ),
        (
            side("i", "r"),
            peer("b", b"ppk", true),
            "the peer uses no PPK",
        ),
    ] {
        let error = self::error(&initiator, &responder);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn post_quantum_keys_with_certificates() {
    let (_, initiator, responder) = both(&pki::key(), &pki::key());
    let initiator = initiator.ppk("a", b"ppk", false);
    let met = meet(&initiator, &responder).unwrap();
    assert!(met.by_responder.keys.is_none());
    let responder = responder.ppk("a", b"ppk", true);
    let met = meet(&initiator, &responder).unwrap();
    assert!(met.by_responder.keys.is_some());
}
