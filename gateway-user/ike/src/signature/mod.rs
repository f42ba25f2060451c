//! Signatures: the algorithms, and the private keys that make them.

mod algorithm;

use std::fmt;

pub use self::algorithm::{KeyKind, SignatureHash, SignatureScheme};
use crate::crypto::CryptoError;

/// A private key. The key itself never leaves it, so that it may as well be in hardware.
///
/// `Debug` may show the public half, nothing else.
pub trait SigningKey: fmt::Debug + Send + Sync {
    /// SubjectPublicKeyInfo, DER.
    fn public_key(&self) -> &[u8];

    /// What kind of key it is.
    fn kind(&self) -> KeyKind;

    /// Whether [`Self::sign`] can do it.
    fn supports(&self, scheme: SignatureScheme) -> bool;

    /// Signs `message`, the parts concatenated.
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`] for a scheme of another kind of key, or one that the library
    /// cannot make; [`CryptoError::Library`].
    fn sign(&self, scheme: SignatureScheme, message: &[&[u8]]) -> Result<Vec<u8>, CryptoError>;
}
