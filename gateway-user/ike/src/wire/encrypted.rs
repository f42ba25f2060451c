//! The Encrypted payload (RFC 7296 §3.14) with combined-mode algorithms (RFC 5282).

use std::fmt;

use super::{Chain, Malformation, PayloadType, Payloads, WireError};
use crate::crypto::{CryptoProvider, Encryption};

/// Octets of the explicit IV of every algorithm that we have (RFC 5282 §3.1).
pub(super) const IV_LEN: usize = 8;

/// A view of a message that ends with an Encrypted payload.
#[derive(Clone, Copy, Debug)]
pub struct EncryptedPacket<'a> {
    associated: &'a [u8],
    first: PayloadType,
    body: &'a [u8],
}

/// What was inside an Encrypted payload that verified: payloads, authentic though perhaps malformed.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// Type of the first payload, [`PayloadType::NONE`] if there is none.
    pub first: PayloadType,
    /// The payloads, padding removed.
    pub plaintext: Vec<u8>,
}

impl<'a> EncryptedPacket<'a> {
    /// `body`, without generic header, is the end of `message`.
    pub(super) fn new(message: &'a [u8], first: PayloadType, body: &'a [u8]) -> Self {
        let associated = message
            .get(..message.len().saturating_sub(body.len()))
            .unwrap_or_default();
        Self {
            associated,
            first,
            body,
        }
    }

    /// Type of the first payload inside, not yet authenticated.
    pub const fn first(&self) -> PayloadType {
        self.first
    }

    /// What the integrity check covers besides the ciphertext: the message from its first octet to
    /// the end of the Encrypted payload's generic header (RFC 5282 §5.1).
    pub const fn associated_data(&self) -> &'a [u8] {
        self.associated
    }

    /// IV, ciphertext and integrity check value.
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Verifies and decrypts. `keymat` is key ‖ salt of the direction. Changes nothing but its
    /// return value, and does not touch the key before the length is known to be enough.
    ///
    /// # Errors
    /// [`WireError::EncryptedTooShort`], [`WireError::Crypto`]: not authentic, to be dropped.
    /// [`WireError::Malformed`] with [`Malformation::Padding`]: authentic, and wrong.
    pub fn open(
        &self,
        crypto: &dyn CryptoProvider,
        encryption: Encryption,
        keymat: &[u8],
    ) -> Result<Opened, WireError> {
        let too_short = WireError::EncryptedTooShort(self.body.len());
        let (iv, sealed): (&[u8; IV_LEN], _) = self.body.split_first_chunk().ok_or(too_short)?;
        // At least the Pad Length octet is encrypted.
        if sealed.len() < 1 + encryption.icv_len() {
            return Err(too_short);
        }
        let mut plaintext = sealed.to_vec();
        crypto.open(encryption, keymat, iv, self.associated, &mut plaintext)?;
        strip_padding(&mut plaintext)?;
        Ok(Opened {
            first: self.first,
            plaintext,
        })
    }
}

/// Removes Padding and Pad Length. Any padding is accepted (RFC 7296 §3.14).
fn strip_padding(plaintext: &mut Vec<u8>) -> Result<(), WireError> {
    let malformed = WireError::Malformed {
        kind: PayloadType::SK,
        cause: Malformation::Padding,
    };
    let pad_length = plaintext.pop().ok_or(malformed)?;
    let length = plaintext
        .len()
        .checked_sub(usize::from(pad_length))
        .ok_or(malformed)?;
    plaintext.truncate(length);
    Ok(())
}

impl fmt::Debug for Opened {
    /// Without the octets: identities, proofs and nonces have no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({}, {} octets)", self.first, self.plaintext.len())
    }
}

impl Opened {
    /// The payloads, their lengths checked.
    pub fn chain(&self) -> Result<Chain<'_>, WireError> {
        Chain::new_checked(self.first, &self.plaintext)
    }

    /// The payloads, parsed.
    pub fn payloads(&self) -> Result<Payloads<'_>, WireError> {
        Payloads::parse(self.chain()?)
    }
}
