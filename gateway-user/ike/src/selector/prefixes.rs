//! Ranges as the kernel wants them: prefixes of addresses, masks of ports.

use std::fmt;
use std::net::IpAddr;

use super::{TrafficSelector, address, number, width};

/// An address prefix; the bits behind it are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// First address.
    pub address: IpAddr,
    /// Bits that count, 0–32 or 0–128.
    pub len: u8,
}

/// Ports p with p & mask == port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMask {
    /// First port.
    pub port: u16,
    /// Bits that count.
    pub mask: u16,
}

/// The lowest `bits` bits set.
pub(super) const fn host_mask(bits: u8) -> u128 {
    match 1u128.checked_shl(bits as u32) {
        Some(power) => power - 1,
        None => u128::MAX,
    }
}

impl Prefix {
    /// The prefix of length `len`, at most the family's width, that contains `address`.
    pub fn containing(address: IpAddr, len: u8) -> Self {
        let len = len.min(width(address));
        let first = number(address) & !host_mask(width(address) - len);
        Self {
            address: self::address(first, address),
            len,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// Cuts start..=end into the fewest aligned blocks: (first number, bits of the block's size),
/// ascending. There are at most 2·w − 2 of them in a space of w bits.
pub fn blocks(start: u128, end: u128) -> Vec<(u128, u8)> {
    let mut blocks = Vec::new();
    let mut next = Some(start);
    while let Some(first) = next.filter(|&first| first <= end) {
        // As large as the alignment of `first` and the rest of the range allow. Both fit an u8,
        // being at most 128.
        let aligned = first.trailing_zeros();
        let fitting = (end - first).checked_add(1).map_or(u128::BITS, u128::ilog2);
        let bits = u8::try_from(aligned.min(fitting)).unwrap_or(0);
        blocks.push((first, bits));
        next = first
            .checked_add(host_mask(bits))
            .and_then(|last| last.checked_add(1));
    }
    blocks
}

impl TrafficSelector {
    /// The address range as the fewest prefixes, ascending: at most 62 for IPv4, 254 for IPv6; none
    /// if the range is not one.
    pub fn prefixes(&self) -> Vec<Prefix> {
        if self.start.is_ipv4() != self.end.is_ipv4() {
            return Vec::new();
        }
        blocks(number(self.start), number(self.end))
            .into_iter()
            .map(|(first, bits)| Prefix {
                address: address(first, self.start),
                len: width(self.start) - bits,
            })
            .collect()
    }

    /// The prefix that the address range is, if it is one.
    pub fn as_prefix(&self) -> Option<Prefix> {
        match self.prefixes().as_slice() {
            [prefix] => Some(*prefix),
            _ => None,
        }
    }

    /// The port range as the fewest masks, ascending: at most 30; none if the range runs downwards.
    /// All ports are one mask of 0.
    pub fn port_masks(&self) -> Vec<PortMask> {
        blocks(u128::from(self.start_port), u128::from(self.end_port))
            .into_iter()
            .filter_map(|(first, bits)| {
                Some(PortMask {
                    port: u16::try_from(first).ok()?,
                    mask: !u16::try_from(host_mask(bits)).ok()?,
                })
            })
            .collect()
    }
}
