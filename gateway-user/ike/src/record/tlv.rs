//! Type (16 bits) ‖ length (32 bits) ‖ value, big endian.

use std::net::IpAddr;
use std::time::Duration;

use gateway_common::abi::Address;
use zeroize::Zeroize;

use super::RecordError;
use crate::secret::SecretBytes;

/// One type-length-value that this release does not know, kept as it came. The value may be key
/// material of a newer release, so it is treated as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Type.
    pub kind: u16,
    /// Value.
    pub value: SecretBytes,
}

/// Builds a sequence of TLVs. Growing never leaves octets behind in freed memory.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Vec::with_capacity(needed.next_power_of_two());
            larger.extend_from_slice(&self.0);
            self.0.zeroize();
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    /// Appends one TLV whose value is the concatenation of `parts`. A value longer than 2^32 - 1
    /// octets cannot occur: the longest is an IKE message in a UDP datagram.
    pub(super) fn tlv(&mut self, kind: u16, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.raw(&kind.to_be_bytes());
        self.raw(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        for part in parts {
            self.raw(part);
        }
    }

    pub(super) fn unknown(&mut self, unknown: &[Unknown]) {
        for tlv in unknown {
            self.tlv(tlv.kind, &[tlv.value.expose()]);
        }
    }

    pub(super) fn finish(self) -> SecretBytes {
        SecretBytes::new(self.0)
    }
}

/// Reads values front to back; every read is bounds-checked.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(RecordError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(RecordError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[octet]| octet)
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn duration(&mut self) -> Result<Duration, RecordError> {
        self.u64().map(Duration::from_nanos)
    }

    pub(super) fn address(&mut self) -> Result<IpAddr, RecordError> {
        self.array().map(|octets| Address { octets }.into())
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn text(&mut self) -> Result<String, RecordError> {
        let text = std::str::from_utf8(self.rest()).map_err(|_| RecordError::Value("text"))?;
        Ok(text.to_owned())
    }

    /// The next TLV: its type and a reader over its value.
    pub(super) fn tlv(&mut self) -> Result<(u16, Reader<'a>), RecordError> {
        let kind = self.u16()?;
        let len = usize::try_from(self.u32()?).map_err(|_| RecordError::Truncated)?;
        Ok((kind, Reader(self.take(len)?)))
    }

    /// Fails unless everything was read: a longer value is of a version that we do not know.
    pub(super) fn end(self, field: &'static str) -> Result<(), RecordError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(RecordError::Value(field))
        }
    }
}

/// Nanoseconds, saturating after 584 years.
pub(super) fn nanos(duration: Duration) -> [u8; 8] {
    u64::try_from(duration.as_nanos())
        .unwrap_or(u64::MAX)
        .to_be_bytes()
}
