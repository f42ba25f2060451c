//! Signatures: verifying them, and private keys in memory.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED,
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1,
    ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P384_SHA512_ASN1,
    ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1, ECDSA_P521_SHA512_ASN1,
    ECDSA_P521_SHA512_ASN1_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair, RsaSignatureEncoding,
    UnparsedPublicKey, VerificationAlgorithm,
};
use gateway_ike::crypto::CryptoError;
use gateway_ike::signature::{KeyKind, SignatureHash, SignatureScheme, SigningKey};

pub(super) fn verify(
    scheme: SignatureScheme,
    public_key: &[u8],
    message: &[&[u8]],
    signature: &[u8],
) -> Result<(), CryptoError> {
    let kind = KeyKind::of_public_key(public_key).ok_or(CryptoError::Unsupported)?;
    let algorithm = verification(scheme, kind).ok_or(CryptoError::Unsupported)?;
    UnparsedPublicKey::new(algorithm, public_key)
        .verify(&message.concat(), signature)
        .map_err(|_| CryptoError::BadSignature)
}

fn verification(
    scheme: SignatureScheme,
    kind: KeyKind,
) -> Option<&'static dyn VerificationAlgorithm> {
    use KeyKind::{EcdsaP256, EcdsaP384, EcdsaP521};
    use SignatureHash::{Sha1, Sha256, Sha384, Sha512};
    use SignatureScheme::{Ecdsa, EcdsaFixed, RsaPkcs1, RsaPss};
    Some(match (scheme, kind) {
        (RsaPkcs1(Sha1), KeyKind::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
        (RsaPkcs1(Sha256), KeyKind::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA256,
        (RsaPkcs1(Sha384), KeyKind::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA384,
        (RsaPkcs1(Sha512), KeyKind::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA512,
        (RsaPss(Sha256), KeyKind::Rsa(_)) => &RSA_PSS_2048_8192_SHA256,
        (RsaPss(Sha384), KeyKind::Rsa(_)) => &RSA_PSS_2048_8192_SHA384,
        (RsaPss(Sha512), KeyKind::Rsa(_)) => &RSA_PSS_2048_8192_SHA512,
        (Ecdsa(Sha256), EcdsaP256) => &ECDSA_P256_SHA256_ASN1,
        (Ecdsa(Sha384), EcdsaP256) => &ECDSA_P256_SHA384_ASN1,
        (Ecdsa(Sha512), EcdsaP256) => &ECDSA_P256_SHA512_ASN1,
        (Ecdsa(Sha256), EcdsaP384) => &ECDSA_P384_SHA256_ASN1,
        (Ecdsa(Sha384), EcdsaP384) => &ECDSA_P384_SHA384_ASN1,
        (Ecdsa(Sha512), EcdsaP384) => &ECDSA_P384_SHA512_ASN1,
        (Ecdsa(Sha256), EcdsaP521) => &ECDSA_P521_SHA256_ASN1,
        (Ecdsa(Sha384), EcdsaP521) => &ECDSA_P521_SHA384_ASN1,
        (Ecdsa(Sha512), EcdsaP521) => &ECDSA_P521_SHA512_ASN1,
        (EcdsaFixed(Sha256), EcdsaP256) => &ECDSA_P256_SHA256_FIXED,
        (EcdsaFixed(Sha384), EcdsaP384) => &ECDSA_P384_SHA384_FIXED,
        (EcdsaFixed(Sha512), EcdsaP521) => &ECDSA_P521_SHA512_FIXED,
        (SignatureScheme::Ed25519, KeyKind::Ed25519) => &ED25519,
        _ => return None,
    })
}

/// A private key in memory. The library keeps it and scrubs it when it is dropped.
pub(super) struct AwsLcSigningKey {
    key: Key,
    kind: KeyKind,
    public_key: Vec<u8>,
}

enum Key {
    Rsa(RsaKeyPair),
    /// The same key for each encoding of signatures.
    Ecdsa {
        hash: SignatureHash,
        der: EcdsaKeyPair,
        fixed: EcdsaKeyPair,
    },
    Ed25519(Ed25519KeyPair),
}

impl AwsLcSigningKey {
    /// From DER: PKCS#8, PKCS#1 (RSA) or SEC 1 (ECDSA), not encrypted.
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`] if it is none of these, of another curve, or RSA with fewer
    /// than 2048 bits; [`CryptoError::Library`].
    pub(super) fn from_der(der: &[u8]) -> Result<Self, CryptoError> {
        if let Ok(rsa) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            let public_key = spki(rsa.public_key())?;
            return Self::new(Key::Rsa(rsa), public_key);
        }
        if let Ok(key) = Ed25519KeyPair::from_pkcs8(der) {
            let public_key = spki(key.public_key())?;
            return Self::new(Key::Ed25519(key), public_key);
        }
        let curves: [(SignatureHash, [&EcdsaSigningAlgorithm; 2]); 3] = [
            (
                SignatureHash::Sha256,
                [
                    &ECDSA_P256_SHA256_ASN1_SIGNING,
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                ],
            ),
            (
                SignatureHash::Sha384,
                [
                    &ECDSA_P384_SHA384_ASN1_SIGNING,
                    &ECDSA_P384_SHA384_FIXED_SIGNING,
                ],
            ),
            (
                SignatureHash::Sha512,
                [
                    &ECDSA_P521_SHA512_ASN1_SIGNING,
                    &ECDSA_P521_SHA512_FIXED_SIGNING,
                ],
            ),
        ];
        for (hash, algorithms) in curves {
            let [asn1, fixed] =
                algorithms.map(|algorithm| EcdsaKeyPair::from_private_key_der(algorithm, der));
            if let (Ok(der), Ok(fixed)) = (asn1, fixed) {
                let public_key = spki(der.public_key())?;
                return Self::new(Key::Ecdsa { hash, der, fixed }, public_key);
            }
        }
        Err(CryptoError::Unsupported)
    }

    fn new(key: Key, public_key: Vec<u8>) -> Result<Self, CryptoError> {
        let kind = KeyKind::of_public_key(&public_key).ok_or(CryptoError::Unsupported)?;
        Ok(Self {
            key,
            kind,
            public_key,
        })
    }
}

fn spki(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Result<Vec<u8>, CryptoError> {
    let der = key.as_der().map_err(|_| CryptoError::Library)?;
    Ok(der.as_ref().to_vec())
}

impl SigningKey for AwsLcSigningKey {
    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn kind(&self) -> KeyKind {
        self.kind
    }

    fn supports(&self, scheme: SignatureScheme) -> bool {
        match (&self.key, scheme) {
            (
                Key::Ecdsa { hash, .. },
                SignatureScheme::Ecdsa(wanted) | SignatureScheme::EcdsaFixed(wanted),
            ) => *hash == wanted,
            (Key::Rsa(_), _) => rsa_encoding(scheme).is_some(),
            (Key::Ed25519(_), SignatureScheme::Ed25519) => true,
            _ => false,
        }
    }

    fn sign(&self, scheme: SignatureScheme, message: &[&[u8]]) -> Result<Vec<u8>, CryptoError> {
        if !self.supports(scheme) {
            return Err(CryptoError::Unsupported);
        }
        let message = message.concat();
        let random = SystemRandom::new();
        match (&self.key, scheme) {
            (Key::Rsa(key), _) => {
                let encoding = rsa_encoding(scheme).ok_or(CryptoError::Unsupported)?;
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, &message, &mut signature)
                    .map_err(|_| CryptoError::Library)?;
                Ok(signature)
            }
            (Key::Ecdsa { fixed: key, .. }, SignatureScheme::EcdsaFixed(_))
            | (Key::Ecdsa { der: key, .. }, _) => key
                .sign(&random, &message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| CryptoError::Library),
            (Key::Ed25519(key), _) => key
                .try_sign(&message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| CryptoError::Library),
        }
    }
}

fn rsa_encoding(scheme: SignatureScheme) -> Option<&'static RsaSignatureEncoding> {
    use SignatureHash::{Sha256, Sha384, Sha512};
    use SignatureScheme::{RsaPkcs1, RsaPss};
    Some(match scheme {
        RsaPkcs1(Sha256) => &RSA_PKCS1_SHA256,
        RsaPkcs1(Sha384) => &RSA_PKCS1_SHA384,
        RsaPkcs1(Sha512) => &RSA_PKCS1_SHA512,
        RsaPss(Sha256) => &RSA_PSS_SHA256,
        RsaPss(Sha384) => &RSA_PSS_SHA384,
        RsaPss(Sha512) => &RSA_PSS_SHA512,
        _ => return None,
    })
}

impl fmt::Debug for AwsLcSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsLcSigningKey({})", self.kind)
    }
}
