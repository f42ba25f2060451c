//! Building requests and walking replies.

use std::net::IpAddr;

const HEADER: usize = 16;

/// A request under construction: header, fixed part, attributes. Lengths are filled in as parts
/// are added, alignment is kept.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of type `kind` with `flags` (without the sequence number, which the socket
    /// writes) and the fixed part `body`.
    pub(crate) fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let mut request = Self { bytes };
        request.push(body);
        request
    }

    /// Adds an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.push(value);
        self
    }

    /// Adds a NUL-terminated string attribute.
    pub(crate) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute that holds the attributes which `fill` adds.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.attribute(kind, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.write_length();
        self
    }

    /// The finished request.
    pub(crate) fn finish(&mut self, sequence: u32) -> &[u8] {
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }

    fn push(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
        self.write_length();
    }

    fn write_length(&mut self) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`.
    pub(crate) sequence: u32,
    /// Everything behind the header.
    pub(crate) payload: &'a [u8],
}

/// Splits a datagram into messages; stops at the first one that does not fit.
pub(crate) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let reply = Reply {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            payload,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(reply)
    })
}

/// Walks attributes behind a fixed part of `skip` octets; stops at the first one that does not
/// fit. The nested and byte-order flags are masked out of the type.
pub(crate) fn attributes(bytes: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes.get(skip.next_multiple_of(4)..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The attribute of type `kind` behind `skip` octets.
pub(crate) fn attribute(bytes: &[u8], skip: usize, kind: u16) -> Option<&[u8]> {
    attributes(bytes, skip)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// A native-endian u16 at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let octets = bytes.get(offset..offset.checked_add(2)?)?;
    Some(u16::from_ne_bytes(octets.try_into().ok()?))
}

/// A native-endian u32 at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let octets = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_ne_bytes(octets.try_into().ok()?))
}

/// Text up to the first NUL.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// An address attribute: four or sixteen octets.
pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// The octets of an address attribute.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// `AF_INET` or `AF_INET6`.
pub(crate) const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}
