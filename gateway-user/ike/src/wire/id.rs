//! The Identification payloads (RFC 7296 §3.5).

use super::{EncodeError, Malformation, PayloadType, WireError};

const FIXED_LEN: usize = 4;

code_points! {
    /// IKEv2 Identification Payload ID Types.
    IdType(u8) {
        /// Four octets.
        ID_IPV4_ADDR = 1,
        /// ASCII, no terminator.
        ID_FQDN = 2,
        /// ASCII, no terminator.
        ID_RFC822_ADDR = 3,
        /// Sixteen octets.
        ID_IPV6_ADDR = 5,
        /// A distinguished name in DER.
        ID_DER_ASN1_DN = 9,
        /// A general name in DER.
        ID_DER_ASN1_GN = 10,
        /// Opaque.
        ID_KEY_ID = 11,
        /// RFC 4595.
        ID_FC_NAME = 12,
        /// RFC 7619.
        ID_NULL = 13,
    }
}

/// A view of an identification payload's body.
#[derive(Clone, Copy, Debug)]
pub struct IdPacket<'a> {
    fixed: &'a [u8; FIXED_LEN],
    data: &'a [u8],
}

impl<'a> IdPacket<'a> {
    /// `kind` (IDi or IDr) is only for the error.
    pub fn new_checked(kind: PayloadType, body: &'a [u8]) -> Result<Self, WireError> {
        let (fixed, data) = body.split_first_chunk().ok_or(WireError::Malformed {
            kind,
            cause: Malformation::TooShort,
        })?;
        Ok(Self { fixed, data })
    }

    /// Type of the identity.
    pub fn kind(&self) -> IdType {
        IdType(self.fixed[0])
    }

    /// The reserved octets as received: AUTH covers them.
    pub fn reserved(&self) -> [u8; 3] {
        [self.fixed[1], self.fixed[2], self.fixed[3]]
    }

    /// Identification Data.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

/// An identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRepr<'a> {
    /// Its type.
    pub kind: IdType,
    /// Zero when we send. Ignored, but carried, because the AUTH calculation covers the octets as
    /// they were sent (RFC 7296 §2.15, `RestOfInitIDPayload`).
    pub reserved: [u8; 3],
    /// Identification Data; the two address types have exactly 4 and 16 octets.
    pub data: &'a [u8],
}

impl<'a> IdRepr<'a> {
    /// An identity to be sent.
    pub const fn new(kind: IdType, data: &'a [u8]) -> Self {
        Self {
            kind,
            reserved: [0; 3],
            data,
        }
    }

    /// Fails with [`Malformation::DataLength`] if an address does not have its type's length.
    pub fn parse(kind: PayloadType, packet: &IdPacket<'a>) -> Result<Self, WireError> {
        let repr = Self {
            kind: packet.kind(),
            reserved: packet.reserved(),
            data: packet.data(),
        };
        if repr.has_valid_len() {
            Ok(repr)
        } else {
            Err(WireError::Malformed {
                kind,
                cause: Malformation::DataLength,
            })
        }
    }

    fn has_valid_len(&self) -> bool {
        match self.kind {
            IdType::ID_IPV4_ADDR => self.data.len() == 4,
            IdType::ID_IPV6_ADDR => self.data.len() == 16,
            _ => true,
        }
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        FIXED_LEN + self.data.len()
    }

    /// Appends the body, which is also `RestOfInitIDPayload` or `RestOfRespIDPayload`. `kind` is
    /// only for the error.
    pub fn encode(&self, kind: PayloadType, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !self.has_valid_len() {
            return Err(EncodeError::OutOfRange(kind));
        }
        out.extend_from_slice(&self.rest_of_payload());
        Ok(())
    }

    /// The body: what the AUTH calculation of RFC 7296 §2.15 takes of the payload.
    pub fn rest_of_payload(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.buffer_len());
        octets.push(self.kind.0);
        octets.extend_from_slice(&self.reserved);
        octets.extend_from_slice(self.data);
        octets
    }
}
