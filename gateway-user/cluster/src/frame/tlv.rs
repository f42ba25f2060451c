//! Type, length, value. Types and lengths are of variable length, seven bits an octet, the lowest
//! first, the highest bit set in all but the last. Other integers are in network order, or the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::FrameError;

/// Most octets of a TLV's header.
pub(super) const HEADER: usize = 8;

/// Most octets of an integer of variable length.
pub(super) const INTEGER: usize = 10;

/// Appends TLVs to a buffer. Lengths are patched in afterwards, so nothing is buffered twice.
pub(super) struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// `capacity` should suffice: a buffer that grows leaves a copy of its secrets behind.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(capacity),
        }
    }

    pub(super) fn raw(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    pub(super) fn tlv(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |writer| writer.raw(value));
    }

    /// An integer of variable length.
    pub(super) fn integer(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    pub(super) fn nested(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        self.integer(kind.into());
        let from = self.buffer.len();
        content(self);
        // The length is known now: it goes before the content.
        let end = self.buffer.len();
        self.integer((end - from) as u64);
        let octets = self.buffer.len() - end;
        self.buffer[from..].rotate_right(octets);
    }

    pub(super) fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.tlv(kind, &v4.octets()),
            IpAddr::V6(v6) => self.tlv(kind, &v6.octets()),
        }
    }

    pub(super) fn socket(&mut self, kind: u16, address: SocketAddr) {
        self.nested(kind, |writer| {
            writer.raw(&address.port().to_be_bytes());
            match address.ip() {
                IpAddr::V4(v4) => writer.raw(&v4.octets()),
                IpAddr::V6(v6) => writer.raw(&v6.octets()),
            }
        });
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.buffer
    }
}

/// Walks over TLVs; ends after the first error.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u16, Value<'a>), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let octets = std::mem::take(&mut self.rest);
        Some(
            split_tlv(octets)
                .ok_or(FrameError::Truncated)
                .map(|(kind, value, rest)| {
                    self.rest = rest;
                    (kind, Value(value))
                }),
        )
    }
}

/// Type and value of the first TLV, and what follows it. `None` if it is cut short, or if type or
/// length are beyond all bounds.
fn split_tlv(octets: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (kind, rest) = split_integer(octets)?;
    let (length, rest) = split_integer(rest)?;
    let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((u16::try_from(kind).ok()?, value, rest))
}

/// An integer of variable length, and what follows it.
fn split_integer(octets: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, octet) in octets.iter().enumerate().take(INTEGER) {
        let bits = u64::from(octet & 0x7f);
        let shifted = bits << (7 * at);
        if shifted >> (7 * at) != bits {
            return None;
        }
        value |= shifted;
        if octet & 0x80 == 0 {
            return Some((value, &octets[at + 1..]));
        }
    }
    None
}

/// The value of a TLV, not yet interpreted.
#[derive(Clone, Copy)]
pub(super) struct Value<'a>(pub(super) &'a [u8]);

impl<'a> Value<'a> {
    pub(super) fn array<const N: usize>(self, field: &'static str) -> Result<[u8; N], FrameError> {
        self.0.try_into().map_err(|_| FrameError::Invalid(field))
    }

    /// Cuts off an integer of variable length.
    pub(super) fn integer<T: TryFrom<u64>>(
        &mut self,
        field: &'static str,
    ) -> Result<T, FrameError> {
        let invalid = FrameError::Invalid(field);
        let (value, rest) = split_integer(self.0).ok_or(invalid)?;
        self.0 = rest;
        T::try_from(value).map_err(|_| invalid)
    }

    /// Cuts off the first `N` octets.
    pub(super) fn chunk<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], FrameError> {
        let chunk = self.0.split_first_chunk();
        let (chunk, rest) = chunk.ok_or(FrameError::Invalid(field))?;
        self.0 = rest;
        Ok(*chunk)
    }

    pub(super) fn u64(self, field: &'static str) -> Result<u64, FrameError> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(super) fn u32(self, field: &'static str) -> Result<u32, FrameError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn u16(self, field: &'static str) -> Result<u16, FrameError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u8(self, field: &'static str) -> Result<u8, FrameError> {
        self.array::<1>(field).map(|[octet]| octet)
    }

    pub(super) fn address(self, field: &'static str) -> Result<IpAddr, FrameError> {
        match self.0.len() {
            4 => self.array::<4>(field).map(|v4| Ipv4Addr::from(v4).into()),
            _ => self.array::<16>(field).map(|v6| Ipv6Addr::from(v6).into()),
        }
    }

    pub(super) fn socket(self, field: &'static str) -> Result<SocketAddr, FrameError> {
        let (port, address) = self
            .0
            .split_first_chunk::<2>()
            .ok_or(FrameError::Invalid(field))?;
        let address = Value(address).address(field)?;
        Ok(SocketAddr::new(address, u16::from_be_bytes(*port)))
    }

    pub(super) const fn nested(self) -> Reader<'a> {
        Reader::new(self.0)
    }
}

/// A TLV that may come at most once.
pub(super) struct Once<T> {
    field: &'static str,
    value: Option<T>,
}

impl<T> Once<T> {
    pub(super) const fn new(field: &'static str) -> Self {
        Self { field, value: None }
    }

    /// Interprets `value` and keeps it.
    pub(super) fn set<'a>(
        &mut self,
        value: Value<'a>,
        parse: impl FnOnce(Value<'a>, &'static str) -> Result<T, FrameError>,
    ) -> Result<(), FrameError> {
        if self.value.is_some() {
            return Err(FrameError::Duplicate(self.field));
        }
        self.value = Some(parse(value, self.field)?);
        Ok(())
    }

    /// The value; an error if it did not come.
    pub(super) fn required(self) -> Result<T, FrameError> {
        self.value.ok_or(FrameError::Missing(self.field))
    }

    /// The value, if it came.
    pub(super) fn optional(self) -> Option<T> {
        self.value
    }
}
