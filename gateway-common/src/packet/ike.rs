//! The IKE header, as far as steering needs it (RFC 7296 §3.1).

use core::fmt;

use super::{Frame, Octets};

/// The fixed header of an IKE message. Versions 1 and 2 share its layout (RFC 2408 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeHeader {
    /// IKE SA initiator's SPI; never zero.
    pub initiator: [u8; 8],
    /// IKE SA responder's SPI; zero until the responder has drawn one.
    pub responder: [u8; 8],
    /// Major and minor version, a nibble each.
    pub version: u8,
    /// Exchange type.
    pub exchange: u8,
    /// Flags.
    pub flags: u8,
    /// Message id, network order.
    pub message_id: [u8; 4],
    /// Length of the message in octets, this header included.
    pub length: u32,
}

/// Which way a message goes; decides whose cookie is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A peer sent it to us.
    Received,
    /// We sent it: an ICMP error quotes it.
    Sent,
}

/// What is wrong with an IKE header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IkeHeaderError {
    /// Fewer than [`IkeHeader::LENGTH`] octets.
    Short,
    /// The initiator's SPI is zero, or the length field is below the header's length or beyond the
    /// datagram.
    Malformed,
    /// Major version neither 1 nor 2.
    Version,
}

impl fmt::Display for IkeHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "shorter than an IKE header",
            Self::Malformed => "not an IKE header",
            Self::Version => "an unknown major version of IKE",
        })
    }
}

impl core::error::Error for IkeHeaderError {}

impl IkeHeader {
    /// Octets of the header.
    pub const LENGTH: usize = 28;

    /// The flag that the original initiator of the IKE SA sets in every message it sends.
    pub const INITIATOR: u8 = 0x08;

    /// Reads the header at the start of `message`, an IKE message without non-ESP marker.
    ///
    /// # Errors
    /// All of [`IkeHeaderError`].
    pub fn parse(message: &[u8]) -> Result<Self, IkeHeaderError> {
        Self::read(&Octets(message), 0, message.len())
    }

    /// Reads the header at `offset` of a frame, where a message of at most `available` octets
    /// starts.
    ///
    /// # Errors
    /// All of [`IkeHeaderError`].
    #[inline(always)]
    pub fn read<F: Frame>(
        frame: &F,
        offset: usize,
        available: usize,
    ) -> Result<Self, IkeHeaderError> {
        let header = Self::fields(frame, offset).ok_or(IkeHeaderError::Short)?;
        if header.major() != 1 && header.major() != 2 {
            return Err(IkeHeaderError::Version);
        }
        let length = header.length as usize;
        if is_zero(&header.initiator) || length < Self::LENGTH || length > available {
            return Err(IkeHeaderError::Malformed);
        }
        Ok(header)
    }

    #[inline(always)]
    fn fields<F: Frame>(frame: &F, at: usize) -> Option<Self> {
        let length = frame.u32(at + 24)?;
        // Next payload, version, exchange, flags, message id: one word, one check.
        let word = u64::from_be_bytes(frame.read(at + 16)?);
        Some(Self {
            length,
            initiator: frame.read(at)?,
            responder: frame.read(at + 8)?,
            version: (word >> 48) as u8,
            exchange: (word >> 40) as u8,
            flags: (word >> 32) as u8,
            message_id: (word as u32).to_be_bytes(),
        })
    }

    /// Major version: 1 or 2.
    #[inline(always)]
    pub const fn major(&self) -> u8 {
        self.version >> 4
    }

    /// Whether this is one of the exchanges that come before an IKE SA is established: IKE_SA_INIT,
    /// IKE_AUTH and IKE_INTERMEDIATE (RFC 9242).
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        matches!(self.exchange, 34 | 35 | 43)
    }

    /// Our cookie, `None` if it is still zero: the responder's if the peer is the original
    /// initiator, else the initiator's. It does not depend on who began this exchange.
    ///
    /// Meaningful for version 2 only: version 1 has no initiator flag.
    #[inline(always)]
    pub fn our_cookie(&self, direction: Direction) -> Option<[u8; 8]> {
        let sender_is_initiator = self.flags & Self::INITIATOR != 0;
        let ours = if sender_is_initiator == matches!(direction, Direction::Received) {
            self.responder
        } else {
            self.initiator
        };
        (!is_zero(&ours)).then_some(ours)
    }
}

#[inline(always)]
pub(crate) const fn is_zero(cookie: &[u8; 8]) -> bool {
    u64::from_ne_bytes(*cookie) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8) -> [u8; 28] {
        let mut octets = [0; 28];
        octets[..8].copy_from_slice(b"initiatr");
        octets[8..16].copy_from_slice(b"respondr");
        octets[17] = 0x20;
        octets[18] = 35;
        octets[19] = flags;
        octets[23] = 7;
        octets[27] = 28;
        octets
    }

    #[test]
    fn our_cookie_flips_with_the_initiator_flag_and_the_direction() {
        let from_initiator = IkeHeader::parse(&header(IkeHeader::INITIATOR)).unwrap();
        let from_responder = IkeHeader::parse(&header(0x20)).unwrap();
        let cookies = [
            (from_initiator, Direction::Received, b"respondr"),
            (from_initiator, Direction::Sent, b"initiatr"),
            (from_responder, Direction::Received, b"initiatr"),
            (from_responder, Direction::Sent, b"respondr"),
        ];
        for (header, direction, ours) in cookies {
            assert_eq!(header.our_cookie(direction).as_ref(), Some(ours));
        }
    }

    #[test]
    fn a_zero_cookie_is_no_cookie() {
        let mut octets = header(IkeHeader::INITIATOR);
        octets[8..16].fill(0);
        let first = IkeHeader::parse(&octets).unwrap();
        assert_eq!(first.our_cookie(Direction::Received), None);
    }

    #[test]
    fn lengths_versions_and_zero_initiators_are_refused() {
        let good = header(0);
        assert_eq!(IkeHeader::parse(&good[..27]), Err(IkeHeaderError::Short));
        for (index, value, error) in [
            (27, 27, IkeHeaderError::Malformed),
            (27, 29, IkeHeaderError::Malformed),
            (24, 0xff, IkeHeaderError::Malformed),
            (17, 0x30, IkeHeaderError::Version),
            (17, 0x00, IkeHeaderError::Version),
        ] {
            let mut octets = good;
            octets[index] = value;
            assert_eq!(IkeHeader::parse(&octets), Err(error), "{index}");
        }
        let mut zero = good;
        zero[..8].fill(0);
        assert_eq!(IkeHeader::parse(&zero), Err(IkeHeaderError::Malformed));
    }
}
