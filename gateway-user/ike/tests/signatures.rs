//! Keys and signatures of the real library.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../src/crypto/mod.rs"]
#[allow(unreachable_pub)]
mod aws_lc;

use aws_lc::AwsLc;
use gateway_ike::crypto::{CryptoError, CryptoProvider};
use gateway_ike::secret::SecretBytes;
use gateway_ike::signature::{KeyKind, SignatureHash, SignatureScheme};
use rcgen::{KeyPair, RsaKeySize};

const HASHES: [SignatureHash; 3] = [
    SignatureHash::Sha256,
    SignatureHash::Sha384,
    SignatureHash::Sha512,
];

fn schemes() -> Vec<SignatureScheme> {
    let mut all = vec![SignatureScheme::Ed25519];
    for hash in HASHES {
        all.extend([
            SignatureScheme::RsaPkcs1(hash),
            SignatureScheme::RsaPss(hash),
            SignatureScheme::Ecdsa(hash),
            SignatureScheme::EcdsaFixed(hash),
        ]);
    }
    all
}

/// A key, its kind, and how many schemes it signs with.
fn keys() -> Vec<(KeyPair, KeyKind, usize)> {
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let generate = |algorithm| KeyPair::generate_for(algorithm).unwrap();
    vec![
        (rsa, KeyKind::Rsa(2048), 6),
        (
            generate(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyKind::EcdsaP256,
            2,
        ),
        (
            generate(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyKind::EcdsaP384,
            2,
        ),
        (
            generate(&rcgen::PKCS_ECDSA_P521_SHA512),
            KeyKind::EcdsaP521,
            2,
        ),
        (generate(&rcgen::PKCS_ED25519), KeyKind::Ed25519, 1),
    ]
}

#[test]
fn what_a_key_signs_its_public_half_verifies() {
    for (pair, kind, expected) in keys() {
        let der = SecretBytes::from(pair.serialized_der());
        let key = AwsLc.signing_key(&der).unwrap();
        assert_eq!(key.kind(), kind);
        let mut made = 0;
        for scheme in schemes() {
            if !key.supports(scheme) {
                assert_eq!(key.sign(scheme, &[b"x"]), Err(CryptoError::Unsupported));
                continue;
            }
            made += 1;
            assert!(scheme.fits(kind));
            let signature = key.sign(scheme, &[b"a mess", b"age"]).unwrap();
            let verify = |message: &[u8], signature: &[u8]| {
                AwsLc.verify_signature(scheme, key.public_key(), &[message], signature)
            };
            verify(b"a message", &signature).unwrap();
            assert_eq!(
                verify(b"b message", &signature),
                Err(CryptoError::BadSignature)
            );
            for bad in [&signature[1..], &signature[..signature.len() - 1], &[]] {
                assert_eq!(verify(b"a message", bad), Err(CryptoError::BadSignature));
            }
        }
        assert_eq!(made, expected, "{kind}");
    }
}

/// RFC 4754 §7: r ‖ s, as long as the curve's order twice.
#[test]
fn old_methods_have_signatures_of_fixed_length() {
    for (pair, kind, _) in keys() {
        let key = AwsLc
            .signing_key(&SecretBytes::from(pair.serialized_der()))
            .unwrap();
        let (hash, len) = match kind {
            KeyKind::EcdsaP256 => (SignatureHash::Sha256, 64),
            KeyKind::EcdsaP384 => (SignatureHash::Sha384, 96),
            KeyKind::EcdsaP521 => (SignatureHash::Sha512, 132),
            _ => continue,
        };
        let signature = key
            .sign(SignatureScheme::EcdsaFixed(hash), &[b"x"])
            .unwrap();
        assert_eq!(signature.len(), len);
    }
}

#[test]
fn a_scheme_fits_its_keys_only() {
    let all = keys();
    for (pair, kind, _) in &all {
        let key = AwsLc
            .signing_key(&SecretBytes::from(pair.serialized_der()))
            .unwrap();
        for scheme in schemes() {
            if !scheme.fits(*kind) {
                let verified = AwsLc.verify_signature(scheme, key.public_key(), &[b"x"], &[0; 64]);
                assert_eq!(verified, Err(CryptoError::Unsupported), "{scheme} {kind}");
            }
        }
    }
    assert!(
        AwsLc
            .signing_key(&SecretBytes::from(&b"no key"[..]))
            .is_err()
    );
}
