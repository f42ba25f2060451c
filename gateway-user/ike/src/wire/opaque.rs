//! Payloads that are carried and not looked into: Configuration (RFC 7296 §3.15), EAP (§3.16), and
//! those of types that we do not know.

use super::EncodeError;

/// A payload's body as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpaqueRepr<'a> {
    /// The body.
    pub data: &'a [u8],
}

impl<'a> OpaqueRepr<'a> {
    /// Takes the payload's body.
    pub const fn parse(body: &'a [u8]) -> Self {
        Self { data: body }
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        self.data.len()
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(self.data);
        Ok(())
    }
}
