//! Reading packets: bounds-checked, without allocation, and the same code in eBPF and on the host.
//!
//! Parsed values hold offsets and small numbers, not copies of headers: a BPF program has ten
//! registers and 512 octets of stack, and every header kept as an array of octets costs both.

mod classify;
mod ethernet;
mod ike;
mod ip;

pub use classify::{Flow, Packet, Quoted, Transport, classify};
pub use ethernet::Ethernet;
pub use ike::{Direction, IkeHeader, IkeHeaderError};
pub use ip::{Fragment, Ip};
pub(crate) use ip::{is_link_scope, is_neighbour_discovery, protocol};

/// UDP port of IKE (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;
/// UDP port of IKE and ESP behind NAT (RFC 3948).
pub const NAT_T_PORT: u16 = 4500;

/// No header of a sane packet lies further into the frame; also the bound that the verifier of
/// the kernel needs to see before a variable offset is added to a packet pointer.
pub const MAX_OFFSET: usize = 0x0fff;

/// Greatest number that [`Frame::widen`] leaves as it is: the longest extension header (2,048
/// octets) behind one that begins before [`MAX_OFFSET`] ends below it. All bits are ones.
pub const MAX_WIDENED: usize = 0x1fff;
const _: () = assert!(MAX_OFFSET + 8 + 8 * 255 <= MAX_WIDENED);

/// A frame that can be read at any offset without fear.
pub trait Frame {
    /// The `N` octets at `offset`; `None` if the frame ends before them or `offset` is above
    /// [`MAX_OFFSET`].
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Whether the frame has at least `length` octets.
    fn reaches(&self, length: usize) -> bool;

    /// The same number, which must not be above [`MAX_WIDENED`]. Where it is one of several that
    /// the frame's headers may yield, an eBPF program hides from the kernel's verifier which: else
    /// the verifier follows each of them to the program's end, and those of one header times those
    /// of the next.
    #[inline(always)]
    fn widen(&self, value: usize) -> usize {
        debug_assert!(value <= MAX_WIDENED);
        value
    }

    /// The octet at `offset`.
    #[inline(always)]
    fn u8(&self, offset: usize) -> Option<u8> {
        self.read(offset).map(u8::from_be_bytes)
    }

    /// The number in the two octets at `offset`, network order.
    #[inline(always)]
    fn u16(&self, offset: usize) -> Option<u16> {
        self.read(offset).map(u16::from_be_bytes)
    }

    /// The number in the four octets at `offset`, network order.
    #[inline(always)]
    fn u32(&self, offset: usize) -> Option<u32> {
        self.read(offset).map(u32::from_be_bytes)
    }
}

/// A frame in memory.
#[derive(Clone, Copy, Debug)]
pub struct Octets<'a>(pub &'a [u8]);

impl Frame for Octets<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn reaches(&self, length: usize) -> bool {
        self.0.len() >= length
    }
}

/// Why the headers up to the transport cannot be followed. The caller's program decides what that
/// means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The frame ends within its Ethernet header or tags.
    ShortFrame,
    /// More than two VLAN tags.
    TooManyTags,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// An IP header that contradicts itself or the frame.
    IpMalformed,
    /// More than six IPv6 extension headers.
    TooManyHeaders,
}

impl Fault {
    /// The reason with which `gateway_ingress` passes the frame.
    #[inline(always)]
    pub const fn ingress(self) -> crate::reason::Reason {
        use crate::reason::Reason;
        match self {
            Self::ShortFrame => Reason::ShortFrame,
            Self::TooManyTags => Reason::TooManyTags,
            Self::NotIp => Reason::NotIp,
            Self::IpMalformed => Reason::IpMalformed,
            Self::TooManyHeaders => Reason::TooManyHeaders,
        }
    }
}
