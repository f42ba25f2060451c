//! The Encrypted payload (RFC 7296 §3.14, with combined-mode algorithms RFC 5282).

use std::fmt;

use super::{
    Chain, GENERIC_HEADER_LEN, HEADER_LEN, Malformation, PayloadType, Payloads, WireError,
};
use crate::crypto::{CryptoProvider, Encryption};

/// The IKE header's Next Payload and Length fields.
const NEXT_PAYLOAD_FIELD: usize = 16;
const LENGTH_FIELD: std::ops::Range<usize> = 24..28;

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

    /// Verifies and decrypts. `keymat` is that of the direction. Changes nothing but its
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
        let (iv, sealed) = self
            .body
            .split_at_checked(encryption.iv_len())
            .ok_or(too_short)?;
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

/// What IntAuth covers of a message (RFC 9242 §3.3.2): everything from its first octet to the end of
/// the Encrypted payload's generic header, `associated`, and the inner payloads, with the two length
/// fields as if there were neither IV nor padding nor ICV.
pub(super) fn int_auth_content(associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut content = [associated, plaintext].concat();
    // Both lengths are smaller than those of the message itself, which fitted.
    let message = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let payload = u16::try_from(GENERIC_HEADER_LEN + plaintext.len()).unwrap_or(u16::MAX);
    if let Some(field) = content.get_mut(LENGTH_FIELD) {
        field.copy_from_slice(&message.to_be_bytes());
    }
    let end = associated.len();
    if let Some(field) = content.get_mut(end.saturating_sub(2)..end) {
        field.copy_from_slice(&payload.to_be_bytes());
    }
    content
}

impl EncryptedPacket<'_> {
    /// What IntAuth covers of this message, or of the one that this is a fragment of: then the
    /// header is rebuilt as that of the whole (RFC 9242 §3.3.2). `opened` is the whole.
    pub fn int_auth_content(&self, opened: &Opened) -> Vec<u8> {
        let (Some(header), Some(generic)) = (
            self.associated.get(..HEADER_LEN),
            self.associated.get(HEADER_LEN..),
        ) else {
            return Vec::new();
        };
        if header.get(NEXT_PAYLOAD_FIELD) != Some(&PayloadType::SKF.0) {
            return int_auth_content(self.associated, &opened.plaintext);
        }
        let mut associated = header.to_vec();
        if let Some(next) = associated.get_mut(NEXT_PAYLOAD_FIELD) {
            *next = PayloadType::SK.0;
        }
        let reserved = generic.get(1).copied().unwrap_or_default();
        associated.extend_from_slice(&[opened.first.0, reserved, 0, 0]);
        int_auth_content(&associated, &opened.plaintext)
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
