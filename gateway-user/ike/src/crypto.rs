//! What the engine needs from a cryptographic library, and the algorithms it negotiates.

use std::sync::Arc;

use crate::secret::SecretBytes;
use crate::signature::{SignatureScheme, SigningKey};

/// Encryption algorithms for SK payloads and ESP (IANA "Transform Type 1"). All are combined mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// AES-GCM with a 16-octet ICV and a 128-bit key: ENCR 20, key length 128 (RFC 4106, RFC 5282).
    AesGcm16Key128,
    /// AES-GCM with a 16-octet ICV and a 256-bit key: ENCR 20, key length 256.
    AesGcm16Key256,
}

impl Encryption {
    /// IANA transform id.
    pub const fn transform_id(self) -> u16 {
        20
    }

    /// Key Length attribute, in bits.
    pub const fn key_bits(self) -> u16 {
        match self {
            Self::AesGcm16Key128 => 128,
            Self::AesGcm16Key256 => 256,
        }
    }

    /// Octets of key material: the key and the 4-octet salt (RFC 5282 §7.1, RFC 4106 §8.1).
    pub const fn keymat_len(self) -> usize {
        self.key_bits() as usize / 8 + self.salt_len()
    }

    /// Octets of salt at the end of the key material.
    pub const fn salt_len(self) -> usize {
        4
    }

    /// Octets of explicit IV.
    pub const fn iv_len(self) -> usize {
        8
    }

    /// Octets of integrity check value.
    pub const fn icv_len(self) -> usize {
        16
    }
}

/// Pseudorandom functions (IANA "Transform Type 2", RFC 4868).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256, id 5.
    HmacSha256,
    /// PRF_HMAC_SHA2_384, id 6.
    HmacSha384,
}

impl Prf {
    /// IANA transform id.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::HmacSha256 => 5,
            Self::HmacSha384 => 6,
        }
    }

    /// Output, and preferred key, in octets.
    pub const fn output_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
        }
    }
}

/// Key exchange methods (IANA "Transform Type 4").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyExchangeMethod {
    /// Curve25519, id 31 (RFC 8031).
    X25519,
    /// 256-bit random ECP group, id 19 (RFC 5903).
    Ecp256,
}

impl KeyExchangeMethod {
    /// IANA transform id.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::X25519 => 31,
            Self::Ecp256 => 19,
        }
    }

    /// The method with this transform id, if we have it.
    pub const fn from_transform_id(id: u16) -> Option<Self> {
        match id {
            31 => Some(Self::X25519),
            19 => Some(Self::Ecp256),
            _ => None,
        }
    }

    /// Octets of Key Exchange Data.
    pub const fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::Ecp256 => 64,
        }
    }
}

/// Why a cryptographic operation failed. Says nothing about secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The peer's public value is malformed or of small order (RFC 6989, RFC 8031 §5).
    #[error("invalid key exchange value")]
    InvalidPublicValue,
    /// The integrity check failed.
    #[error("integrity check failed")]
    IntegrityFailed,
    /// A key, IV or buffer has the wrong length.
    #[error("wrong length of a cryptographic input")]
    WrongLength,
    /// A signature of another kind of key, or one that the library cannot make or verify.
    #[error("unsupported signature algorithm")]
    Unsupported,
    /// The signature does not fit key and message.
    #[error("the signature is wrong")]
    BadSignature,
    /// The library refused.
    #[error("cryptographic library failure")]
    Library,
}

/// A private value whose public half is on its way to the peer.
pub trait KeyExchange: Send {
    /// Which method.
    fn method(&self) -> KeyExchangeMethod;

    /// Key Exchange Data as it stands in a KE payload (for ECP: x ‖ y, RFC 5903 §7).
    fn public_value(&self) -> &[u8];

    /// g^ir. For ECP the x coordinate only (RFC 5903 §7); an all-zero X25519 result is
    /// [`CryptoError::InvalidPublicValue`].
    fn agree(&self, peer_public_value: &[u8]) -> Result<SecretBytes, CryptoError>;

    /// The private value, for a record that another member can resume from.
    fn export(&self) -> SecretBytes;
}

/// The cryptographic library, and the only source of randomness.
pub trait CryptoProvider: Send + Sync {
    /// Fills `out` with unpredictable octets.
    fn random(&self, out: &mut [u8]);

    /// A fresh private value.
    fn key_exchange(&self, method: KeyExchangeMethod) -> Result<Box<dyn KeyExchange>, CryptoError>;

    /// A private value that [`KeyExchange::export`] gave out.
    fn import_key_exchange(
        &self,
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Box<dyn KeyExchange>, CryptoError>;

    /// prf(key, data), `data` concatenated.
    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> SecretBytes;

    /// Encrypts `buffer` in place and appends the ICV. `keymat` is key ‖ salt.
    fn seal(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8; 8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// Verifies and decrypts `buffer` (ciphertext ‖ ICV) in place and cuts the ICV off.
    fn open(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8; 8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// A private key to sign with: PKCS#8, PKCS#1 (RSA) or SEC 1 (ECDSA) in DER, not encrypted.
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`] if it is none of these, of another curve, or RSA with fewer
    /// than 2048 bits; [`CryptoError::Library`].
    fn signing_key(&self, der: &SecretBytes) -> Result<Arc<dyn SigningKey>, CryptoError>;

    /// Verifies a signature of `message`, its parts concatenated. `public_key` is a
    /// SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`CryptoError::BadSignature`], also for a key that is no good;
    /// [`CryptoError::Unsupported`].
    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: &[u8],
        message: &[&[u8]],
        signature: &[u8],
    ) -> Result<(), CryptoError>;

    /// SHA-1, only for NAT_DETECTION_*_IP (RFC 7296 §2.23) and names of keys (§3.7).
    fn sha1(&self, data: &[&[u8]]) -> [u8; 20];

    /// SHA-256, for cookies and request digests.
    fn sha256(&self, data: &[&[u8]]) -> [u8; 32];
}
