//! IPv4 with options, IPv6 with up to six extension headers.

use super::ethernet::{IPV4, IPV6};
use super::{Fault, Frame};
use crate::abi::Address;

/// IP protocol numbers.
pub(crate) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const ESP: u8 = 50;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const DESTINATION: u8 = 60;
    pub(crate) const MOBILITY: u8 = 135;
}

/// Extension headers that are walked.
const MAX_EXTENSIONS: usize = 6;

/// What identifies the datagram of a fragment, beside the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification, 16 bits in IPv4.
    pub id: u32,
    /// Whether this is the first fragment, the one with the transport header.
    pub first: bool,
}

/// The IP header, extension headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Version 4, else 6.
    is_v4: bool,
    /// Offset of the header in the frame.
    header: usize,
    /// What follows at `transport`. A routing header that names a further hop is not walked: the
    /// packet is not for its destination address yet.
    pub protocol: u8,
    /// Offset in the frame of what follows.
    pub transport: usize,
    /// Offset in the frame of the packet's end; what lies behind it is padding.
    pub end: usize,
    /// Set if this is a fragment (RFC 6946: an atomic fragment is none).
    pub fragment: Option<Fragment>,
}

impl Ip {
    /// Reads the IP header of EtherType `kind` at `offset`, and checks its length against the
    /// frame.
    ///
    /// # Errors
    /// [`Fault::NotIp`], [`Fault::IpMalformed`] and [`Fault::TooManyHeaders`].
    #[inline(always)]
    pub fn read<F: Frame>(frame: &F, kind: u16, offset: usize) -> Result<Self, Fault> {
        let ip = Self::read_headers(frame, kind, offset)?;
        if ip.transport <= ip.end && frame.reaches(ip.end) {
            Ok(ip)
        } else {
            Err(Fault::IpMalformed)
        }
    }

    /// The same with no trust in the length fields: the packets that ICMP errors quote are cut
    /// off, and in those that are still to be segmented they may be zero.
    ///
    /// # Errors
    /// As for [`Ip::read`].
    #[inline(always)]
    pub fn read_headers<F: Frame>(frame: &F, kind: u16, offset: usize) -> Result<Self, Fault> {
        let mut ip = Self::read_fixed(frame, kind, offset)?;
        if !ip.is_v4 {
            for _ in 0..MAX_EXTENSIONS {
                if !ip.step_over(frame)? {
                    return Ok(ip);
                }
            }
            if is_extension(ip.protocol) && ip.fragment.is_none() {
                return Err(Fault::TooManyHeaders);
            }
        }
        Ok(ip)
    }

    /// Reads the header that has the addresses, and no extension headers: all that steering
    /// cleartext needs. Checks its length against the frame.
    ///
    /// # Errors
    /// [`Fault::NotIp`] and [`Fault::IpMalformed`].
    #[inline(always)]
    pub fn read_addresses<F: Frame>(frame: &F, kind: u16, offset: usize) -> Result<Self, Fault> {
        let ip = Self::read_fixed(frame, kind, offset)?;
        if ip.transport <= ip.end && frame.reaches(ip.end) {
            Ok(ip)
        } else {
            Err(Fault::IpMalformed)
        }
    }

    #[inline(always)]
    fn read_fixed<F: Frame>(frame: &F, kind: u16, offset: usize) -> Result<Self, Fault> {
        let ip = match kind {
            IPV4 => Self::v4(frame, offset),
            IPV6 => Self::v6(frame, offset),
            _ => return Err(Fault::NotIp),
        };
        ip.ok_or(Fault::IpMalformed)
    }

    /// RFC 791 §3.1.
    #[inline(always)]
    fn v4<F: Frame>(frame: &F, header: usize) -> Option<Self> {
        // The last field first: it proves the others.
        frame.u32(header + 16)?;
        let first = frame.u8(header)?;
        let length = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || length < 20 {
            return None;
        }
        let flags_and_offset = frame.u16(header + 6)? & 0x3fff;
        let mut fragment = None;
        if flags_and_offset != 0 {
            fragment = Some(Fragment {
                id: u32::from(frame.u16(header + 4)?),
                first: flags_and_offset & 0x1fff == 0,
            });
        }
        Some(Self {
            is_v4: true,
            header,
            protocol: frame.u8(header + 9)?,
            transport: header + length,
            end: header + usize::from(frame.u16(header + 2)?),
            fragment,
        })
    }

    /// RFC 8200 §3.
    #[inline(always)]
    fn v6<F: Frame>(frame: &F, header: usize) -> Option<Self> {
        frame.u32(header + 36)?;
        if frame.u8(header)? >> 4 != 6 {
            return None;
        }
        let transport = header + 40;
        Some(Self {
            is_v4: false,
            header,
            protocol: frame.u8(header + 6)?,
            transport,
            end: transport + usize::from(frame.u16(header + 4)?),
            fragment: None,
        })
    }

    /// Steps over one extension header (RFC 8200 §4); false if there is none to step over.
    #[inline(always)]
    fn step_over<F: Frame>(&mut self, frame: &F) -> Result<bool, Fault> {
        if !is_extension(self.protocol) || self.fragment.is_some() {
            return Ok(false);
        }
        let at = self.transport;
        // All of them have at least eight octets, the first of them in the same format.
        let head = frame.u32(at).ok_or(Fault::IpMalformed)?;
        let tail = frame.u32(at + 4).ok_or(Fault::IpMalformed)?;
        let mut length = 8 + 8 * (head >> 16 & 0xff) as usize;
        if self.protocol == protocol::FRAGMENT {
            length = 8;
            if head & 0xfff9 != 0 {
                self.fragment = Some(Fragment {
                    id: tail,
                    first: head & 0xfff8 == 0,
                });
            }
        } else if self.protocol == protocol::ROUTING && head & 0xff != 0 {
            return Ok(false);
        }
        self.protocol = (head >> 24) as u8;
        self.transport = frame.widen(at + length);
        Ok(true)
    }

    /// Source address.
    #[inline(always)]
    pub fn source<F: Frame>(&self, frame: &F) -> Address {
        let offset = if self.is_v4 { 12 } else { 8 };
        self.address(frame, self.header + offset)
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination<F: Frame>(&self, frame: &F) -> Address {
        let offset = if self.is_v4 { 16 } else { 24 };
        self.address(frame, self.header + offset)
    }

    /// Unspecified cannot happen: the header was read.
    #[inline(always)]
    fn address<F: Frame>(&self, frame: &F, offset: usize) -> Address {
        let address = if self.is_v4 {
            frame.read(offset).map(Address::from_v4)
        } else {
            frame.read(offset).map(|octets| Address { octets })
        };
        address.unwrap_or(Address::UNSPECIFIED)
    }
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::DESTINATION
            | protocol::MOBILITY
    )
}

/// Whether packets from or to `address` stay on their link: unspecified, loopback, link-local,
/// multicast and limited broadcast addresses.
#[inline(always)]
pub(crate) fn is_link_scope(address: &Address) -> bool {
    let o = &address.octets;
    let whole = u128::from_be_bytes(*o);
    let (high, low) = ((whole >> 64) as u64, whole as u64);
    if high == 0 && low >> 32 == 0xffff {
        return match o[12] {
            0 | 127 | 224..=239 | 255 => true,
            169 => o[13] == 254,
            _ => false,
        };
    }
    // :: and ::1, fe80::/10, ff00::/8.
    (high == 0 && low <= 1) || high >> 54 == 0xfe80 >> 6 || o[0] == 0xff
}

/// Router and neighbour solicitations and advertisements, and redirects (RFC 4861 §4). They never
/// have extension headers that matter here.
#[inline(always)]
pub(crate) fn is_neighbour_discovery<F: Frame>(frame: &F, kind: u16, offset: usize) -> bool {
    kind == IPV6
        && frame.u8(offset + 6) == Some(protocol::ICMPV6)
        && matches!(frame.u8(offset + 40), Some(133..=137))
}
