//! Reading and writing fixed fields. Reading never panics and never allocates.

use gateway_common::member::MemberId;

use super::DecodeError;

/// What is left of a datagram.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn member(&mut self) -> Result<MemberId, DecodeError> {
        MemberId::new(self.u8()?).ok_or(DecodeError::Invalid("member"))
    }

    /// 0 stands for nobody.
    pub(super) fn optional_member(&mut self) -> Result<Option<MemberId>, DecodeError> {
        match self.u8()? {
            0 => Ok(None),
            id => MemberId::new(id)
                .map(Some)
                .ok_or(DecodeError::Invalid("member")),
        }
    }
}

/// A datagram in the making.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn member(&mut self, member: Option<MemberId>) {
        self.u8(member.map_or(0, MemberId::get));
    }

    /// Type, length, value: one octet, two octets, octets.
    pub(super) fn tlv(&mut self, kind: u8, content: impl FnOnce(&mut Self)) {
        self.u8(kind);
        let at = self.0.len();
        self.u16(0);
        content(self);
        let length = u16::try_from(self.0.len() - at - 2).unwrap_or(u16::MAX);
        self.0[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
}
