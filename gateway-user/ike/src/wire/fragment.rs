//! The Encrypted Fragment payload's header (RFC 7383 §2.5), and messages one after the other.

use super::{HeaderPacket, Malformation, PayloadType, WireError};

const FIXED_LEN: usize = 4;

/// A view of an SKF payload's body.
#[derive(Clone, Copy, Debug)]
pub struct FragmentPacket<'a> {
    fixed: &'a [u8; FIXED_LEN],
    sealed: &'a [u8],
}

impl<'a> FragmentPacket<'a> {
    /// Fails below four octets.
    pub fn new_checked(body: &'a [u8]) -> Result<Self, WireError> {
        let (fixed, sealed) = body.split_first_chunk().ok_or(WireError::Malformed {
            kind: PayloadType::SKF,
            cause: Malformation::TooShort,
        })?;
        Ok(Self { fixed, sealed })
    }

    /// Fragment Number, from 1.
    pub fn number(&self) -> u16 {
        u16::from_be_bytes([self.fixed[0], self.fixed[1]])
    }

    /// Total Fragments.
    pub fn total(&self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// IV, ciphertext and integrity check value.
    pub fn sealed(&self) -> &'a [u8] {
        self.sealed
    }
}

/// Which fragment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentRepr {
    /// 1 to `total`.
    pub number: u16,
    /// At least 1.
    pub total: u16,
}

impl FragmentRepr {
    /// Fails with [`Malformation::Number`] unless 1 ≤ number ≤ total.
    pub fn parse(packet: &FragmentPacket<'_>) -> Result<Self, WireError> {
        let (number, total) = (packet.number(), packet.total());
        if number == 0 || number > total {
            return Err(WireError::Malformed {
                kind: PayloadType::SKF,
                cause: Malformation::Number,
            });
        }
        Ok(Self { number, total })
    }

    /// Octets of the two fields.
    pub const fn buffer_len(&self) -> usize {
        FIXED_LEN
    }

    /// Appends the two fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.total.to_be_bytes());
    }
}

/// The messages that stand one after the other in `octets`, each as long as its header says: what
/// [`MessageBuilder::seal_within`](super::MessageBuilder::seal_within) made, one datagram each.
/// Whatever does not look like a message comes as one piece, the last.
pub fn messages(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = HeaderPacket::new_checked(rest)
            .ok()
            .and_then(|header| usize::try_from(header.length()).ok())
            .filter(|length| *length >= super::HEADER_LEN);
        let cut = length.and_then(|length| rest.split_at_checked(length));
        let (message, behind) = cut.unwrap_or((rest, &[]));
        rest = behind;
        Some(message)
    })
}
