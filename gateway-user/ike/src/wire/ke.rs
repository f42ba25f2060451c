//! The Key Exchange payload (RFC 7296 §3.4).

use super::{EncodeError, Malformation, PayloadType, WireError};

const FIXED_LEN: usize = 4;

/// A view of a KE payload's body.
#[derive(Clone, Copy, Debug)]
pub struct KePacket<'a> {
    fixed: &'a [u8; FIXED_LEN],
    data: &'a [u8],
}

impl<'a> KePacket<'a> {
    /// Fails if there is no method.
    pub fn new_checked(body: &'a [u8]) -> Result<Self, WireError> {
        let too_short = WireError::Malformed {
            kind: PayloadType::KE,
            cause: Malformation::TooShort,
        };
        let (fixed, data) = body.split_first_chunk().ok_or(too_short)?;
        Ok(Self { fixed, data })
    }

    /// Diffie-Hellman Group Num, a Transform Type 4 id.
    pub fn method(&self) -> u16 {
        u16::from_be_bytes([self.fixed[0], self.fixed[1]])
    }

    /// Key Exchange Data, see [`KeRepr::data`].
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

/// A public value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeRepr<'a> {
    /// Key exchange method, a Transform Type 4 id.
    pub method: u16,
    /// Key Exchange Data. Its length is for the method's implementation to judge, that it is not
    /// empty, too: libreswan 4.10 sends an empty one when it has chosen no key exchange for a
    /// CHILD_SA that was offered with and without, and then nobody looks at it.
    pub data: &'a [u8],
}

impl<'a> KeRepr<'a> {
    /// Never fails beyond [`KePacket::new_checked`].
    pub fn parse(packet: &KePacket<'a>) -> Result<Self, WireError> {
        Ok(Self {
            method: packet.method(),
            data: packet.data(),
        })
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        FIXED_LEN + self.data.len()
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.method.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(self.data);
        Ok(())
    }
}
