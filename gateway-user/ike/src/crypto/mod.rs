//! What the engine needs from a cryptographic library, and the algorithms it negotiates.
//!
//! Each algorithm's documentation names its status for IKE by RFC 8247 and for ESP by RFC 8221.

use std::sync::Arc;

mod encryption;
mod key_exchange;
mod prf;

pub use self::encryption::{AesKey, Encryption, Integrity};
pub use self::key_exchange::{KeyExchange, KeyExchangeAnswer, KeyExchangeMethod};
pub use self::prf::Prf;
use crate::secret::SecretBytes;
use crate::signature::{SignatureScheme, SigningKey};

/// Why a cryptographic operation failed. Says nothing about secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The peer's public value is malformed, out of range or of small order (RFC 6989, RFC 8031 §5).
    #[error("invalid key exchange value")]
    InvalidPublicValue,
    /// The integrity check failed.
    #[error("integrity check failed")]
    IntegrityFailed,
    /// A key, IV or buffer has the wrong length.
    #[error("wrong length of a cryptographic input")]
    WrongLength,
    /// The library refused.
    #[error("cryptographic library failure")]
    Library,
    /// A signature of another kind of key, or one that the library cannot make or verify.
    #[error("unsupported signature algorithm")]
    Unsupported,
    /// The signature does not fit key and message.
    #[error("the signature is wrong")]
    BadSignature,
}

/// The cryptographic library, and the only source of randomness.
pub trait CryptoProvider: Send + Sync {
    /// Fills `out` with unpredictable octets.
    fn random(&self, out: &mut [u8]);

    /// A fresh private value, to initiate with.
    fn key_exchange(&self, method: KeyExchangeMethod) -> Result<Box<dyn KeyExchange>, CryptoError>;

    /// A private value that [`KeyExchange::export`] gave out.
    fn import_key_exchange(
        &self,
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Box<dyn KeyExchange>, CryptoError>;

    /// Answers the Key Exchange Data of an initiator. Errors as [`KeyExchange::agree`]; an ML-KEM
    /// encapsulation key that fails the check of FIPS 203 §7.2 is invalid, too.
    fn answer_key_exchange(
        &self,
        method: KeyExchangeMethod,
        peer: &[u8],
    ) -> Result<KeyExchangeAnswer, CryptoError>;

    /// prf(key, data), `data` concatenated.
    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> SecretBytes;

    /// Encrypts `buffer` in place and appends the ICV, which also covers `aad` and `iv`. `keymat`
    /// is as [`Encryption::keymat_len`] describes it.
    ///
    /// # Errors
    /// [`CryptoError::WrongLength`] unless `keymat` and `iv` have their lengths and `buffer` is a
    /// multiple of [`Encryption::block_len`].
    fn seal(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// Verifies and decrypts `buffer` (ciphertext ‖ ICV) in place and cuts the ICV off. Nothing is
    /// decrypted before the ICV is found right.
    ///
    /// # Errors
    /// [`CryptoError::IntegrityFailed`], whatever is wrong with `buffer`, `iv` or `aad`;
    /// [`CryptoError::WrongLength`] for `keymat`.
    fn open(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8],
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
