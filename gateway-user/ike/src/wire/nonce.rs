//! The Nonce payload (RFC 7296 §3.9).

use super::{EncodeError, Malformation, PayloadType, WireError};

/// Fewest octets of a nonce.
pub const NONCE_MIN_LEN: usize = 16;

/// Most octets of a nonce.
pub const NONCE_MAX_LEN: usize = 256;

/// A view of a Nonce payload's body.
#[derive(Clone, Copy, Debug)]
pub struct NoncePacket<'a>(&'a [u8]);

impl<'a> NoncePacket<'a> {
    /// Fails with [`Malformation::DataLength`] outside 16–256 octets.
    pub fn new_checked(body: &'a [u8]) -> Result<Self, WireError> {
        if (NONCE_MIN_LEN..=NONCE_MAX_LEN).contains(&body.len()) {
            Ok(Self(body))
        } else {
            Err(WireError::Malformed {
                kind: PayloadType::NONCE,
                cause: Malformation::DataLength,
            })
        }
    }

    /// Nonce Data, 16–256 octets.
    pub fn data(&self) -> &'a [u8] {
        self.0
    }
}

/// A nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceRepr<'a> {
    /// Nonce Data, 16–256 octets.
    pub data: &'a [u8],
}

impl<'a> NonceRepr<'a> {
    /// Never fails beyond [`NoncePacket::new_checked`].
    pub fn parse(packet: &NoncePacket<'a>) -> Result<Self, WireError> {
        Ok(Self {
            data: packet.data(),
        })
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        self.data.len()
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !(NONCE_MIN_LEN..=NONCE_MAX_LEN).contains(&self.data.len()) {
            return Err(EncodeError::OutOfRange(PayloadType::NONCE));
        }
        out.extend_from_slice(self.data);
        Ok(())
    }
}
