//! Type, length, value: two octets, four octets, octets. Integers are in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::FrameError;

/// Octets of a TLV's header.
pub(super) const HEADER: usize = 6;

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

    pub(super) fn nested(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        self.raw(&kind.to_be_bytes());
        let length_at = self.buffer.len();
        self.raw(&[0; 4]);
        content(self);
        // A frame above 4 GiB is refused by its sender long before; see `MAX_FRAME`.
        let length = u32::try_from(self.buffer.len() - length_at - 4).unwrap_or(u32::MAX);
        self.buffer[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
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
        let Some((header, rest)) = octets.split_first_chunk::<HEADER>() else {
            return Some(Err(FrameError::Truncated));
        };
        let [k0, k1, l0, l1, l2, l3] = *header;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some((value, rest)) = rest.split_at_checked(length) else {
            return Some(Err(FrameError::Truncated));
        };
        self.rest = rest;
        Some(Ok((u16::from_be_bytes([k0, k1]), Value(value))))
    }
}

/// The value of a TLV, not yet interpreted.
#[derive(Clone, Copy)]
pub(super) struct Value<'a>(pub(super) &'a [u8]);

impl<'a> Value<'a> {
    pub(super) fn array<const N: usize>(self, field: &'static str) -> Result<[u8; N], FrameError> {
        self.0.try_into().map_err(|_| FrameError::Invalid(field))
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
