//! Ethernet with up to two VLAN tags.

use super::{Fault, Frame};
use crate::abi::{MARKED_MAC_PREFIX, Settings};

/// EtherType of IPv4.
pub(crate) const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub(crate) const IPV6: u16 = 0x86dd;

/// The Ethernet header, tags included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination address, as the number that its octets form in network order.
    destination: u64,
    /// Source address, likewise.
    source: u64,
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
        let kind = frame.u16(12).ok_or(Fault::ShortFrame)?;
        let head = frame.read(0).ok_or(Fault::ShortFrame)?;
        let tail = frame.u32(8).ok_or(Fault::ShortFrame)?;
        let head = u64::from_be_bytes(head);
        let mut header = Self {
            destination: head >> 16,
            source: (head & 0xffff) << 32 | u64::from(tail),
            kind,
            tags: 0,
        };
        for _ in 0..2 {
            if is_tag(header.kind) {
                // The inner EtherType follows the tag's two octets of control information.
                // At a known offset the verifier would learn how long the frame is at least, and
                // tell frames with one tag from those with two by that.
                let offset = frame.widen(header.payload() + 2);
                header.kind = frame.u16(offset).ok_or(Fault::ShortFrame)?;
                header.tags = frame.widen(usize::from(header.tags + 1)) as u8;
            }
        }
        if is_tag(header.kind) {
            return Err(Fault::TooManyTags);
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
        self.destination >> 40 & 1 == 0
    }

    /// Whether a unicast destination is this member. See [`Settings::macs`].
    #[inline(always)]
    pub fn is_ours(&self, settings: &Settings) -> bool {
        // Both as the octets lie in memory, padded to eight.
        let destination = (self.destination << 16).to_be();
        let first = u64::from_ne_bytes(settings.macs[0]);
        if first == destination || first == 0 {
            return true;
        }
        let known = |mac: &[u8; 8]| u64::from_ne_bytes(*mac) == destination;
        destination != 0 && settings.macs.iter().any(known)
    }

    /// Whether the source is a marked address of any cluster.
    #[inline(always)]
    pub const fn is_marked(&self) -> bool {
        self.source >> 16 == u32::from_be_bytes(MARKED_MAC_PREFIX) as u64
    }

    /// Cluster and member of a marked source address.
    #[inline(always)]
    pub const fn marked_by(&self) -> (u32, u32) {
        ((self.source >> 8) as u32 & 0xff, self.source as u32 & 0xff)
    }
}

/// IEEE 802.1Q and 802.1ad.
#[inline(always)]
const fn is_tag(kind: u16) -> bool {
    kind == 0x8100 || kind == 0x88a8
}
