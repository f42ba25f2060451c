//! The Vendor ID payload (RFC 7296 §3.12).

use super::EncodeError;

/// A vendor id: any octets. There is nothing to check, hence no packet type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorIdRepr<'a> {
    /// The id.
    pub data: &'a [u8],
}

impl<'a> VendorIdRepr<'a> {
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
