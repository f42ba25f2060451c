//! The Authentication payload (RFC 7296 §3.8).

use super::{EncodeError, Malformation, PayloadType, WireError};

const FIXED_LEN: usize = 4;

code_points! {
    /// IKEv2 Authentication Methods.
    AuthMethod(u8) {
        /// RFC 7296 §2.15; SHA-1 in practice.
        RSA_DIGITAL_SIGNATURE = 1,
        /// RFC 7296 §2.15.
        SHARED_KEY = 2,
        /// RFC 7296 §2.15.
        DSS_DIGITAL_SIGNATURE = 3,
        /// RFC 4754.
        ECDSA_P256_SHA256 = 9,
        /// RFC 4754.
        ECDSA_P384_SHA384 = 10,
        /// RFC 4754.
        ECDSA_P521_SHA512 = 11,
        /// RFC 6467.
        GENERIC_SECURE_PASSWORD = 12,
        /// RFC 7619.
        NULL = 13,
        /// RFC 7427.
        DIGITAL_SIGNATURE = 14,
    }
}

/// A view of an AUTH payload's body.
#[derive(Clone, Copy, Debug)]
pub struct AuthPacket<'a> {
    fixed: &'a [u8; FIXED_LEN],
    data: &'a [u8],
}

impl<'a> AuthPacket<'a> {
    /// Fails below four octets.
    pub fn new_checked(body: &'a [u8]) -> Result<Self, WireError> {
        let (fixed, data) = body.split_first_chunk().ok_or(WireError::Malformed {
            kind: PayloadType::AUTH,
            cause: Malformation::TooShort,
        })?;
        Ok(Self { fixed, data })
    }

    /// Method.
    pub fn method(&self) -> AuthMethod {
        AuthMethod(self.fixed[0])
    }

    /// Authentication Data.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

/// Proof of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthRepr<'a> {
    /// How.
    pub method: AuthMethod,
    /// Authentication Data; its length is for the method to judge.
    pub data: &'a [u8],
}

impl<'a> AuthRepr<'a> {
    /// Never fails beyond [`AuthPacket::new_checked`].
    pub fn parse(packet: &AuthPacket<'a>) -> Result<Self, WireError> {
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
        out.extend_from_slice(&[self.method.0, 0, 0, 0]);
        out.extend_from_slice(self.data);
        Ok(())
    }
}
