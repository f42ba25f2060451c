//! Ethernet with up to two VLAN tags.

use super::{Fault, Frame};
use crate::abi::{MARKED_MAC_PREFIX, Settings};

/// EtherType of IPv4.
pub(crate) const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub(crate) const IPV6: u16 = 0x86dd;
/// EtherTypes of a tag: IEEE 802.1Q and 802.1ad.
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// The Ethernet header, tags included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// EtherType behind the tags.
    pub kind: u16,
    /// Number of VLAN tags, 0 to 2.
    pub tags: u8,
}

impl Ethernet {
    /// Reads the header of `frame`.
    ///
    /// # Errors
    /// [`Fault::ShortFrame`] and [`Fault::TooManyTags`].
    #[inline(always)]
    pub fn read<F: Frame>(frame: &F) -> Result<Self, Fault> {
        let head: [u8; 14] = frame.read(0).ok_or(Fault::ShortFrame)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, k0, k1] = head;
        let mut header = Self {
            destination: [d0, d1, d2, d3, d4, d5],
            source: [s0, s1, s2, s3, s4, s5],
            kind: u16::from_be_bytes([k0, k1]),
            tags: 0,
        };
        while TAGS.contains(&header.kind) {
            if header.tags == 2 {
                return Err(Fault::TooManyTags);
            }
            // The inner EtherType follows the tag's two octets of control information.
            let offset = header.payload() + 2;
            header.kind = u16::from_be_bytes(frame.read(offset).ok_or(Fault::ShortFrame)?);
            header.tags += 1;
        }
        Ok(header)
    }

    /// Offset of what follows the header: 14, 18 or 22.
    #[inline(always)]
    pub const fn payload(&self) -> usize {
        14 + 4 * self.tags as usize
    }

    /// Whether the destination is one host, neither group nor broadcast.
    #[inline(always)]
    pub const fn is_unicast(&self) -> bool {
        self.destination[0] & 1 == 0
    }

    /// Whether a unicast destination is this member. See [`Settings::macs`].
    #[inline(always)]
    pub fn is_ours(&self, settings: &Settings) -> bool {
        let [a, b, c, d, e, f] = self.destination;
        let destination = u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]);
        let first = u64::from_ne_bytes(settings.macs[0]);
        if first == destination || first == 0 {
            return true;
        }
        let known = |mac: &[u8; 8]| u64::from_ne_bytes(*mac) == destination;
        destination != 0 && settings.macs.iter().any(known)
    }

    /// Whether the source is a marked address of any cluster.
    #[inline(always)]
    pub fn is_marked(&self) -> bool {
        let [a, b, c, d, ..] = self.source;
        [a, b, c, d] == MARKED_MAC_PREFIX
    }

    /// Cluster and member of a marked source address.
    #[inline(always)]
    pub const fn mark(&self) -> (u8, u8) {
        (self.source[4], self.source[5])
    }
}
