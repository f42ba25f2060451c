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
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
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
        match kind {
            IPV4 => Self::v4(frame, offset),
            IPV6 => Self::v6(frame, offset),
            _ => Err(Fault::NotIp),
        }
    }

    /// Source and destination only, of a packet that the frame holds completely: all that steering
    /// cleartext needs.
    ///
    /// # Errors
    /// [`Fault::NotIp`] and [`Fault::IpMalformed`].
    #[inline(always)]
    pub fn addresses<F: Frame>(
        frame: &F,
        kind: u16,
        offset: usize,
    ) -> Result<(Address, Address), Fault> {
        let (addresses, header, length) = match kind {
            IPV4 => {
                let ip = Self::v4(frame, offset)?;
                let addresses = (ip.source, ip.destination);
                (addresses, ip.transport - offset, ip.end - offset)
            }
            IPV6 => {
                let ip = Self::v6_fixed(frame, offset)?;
                ((ip.source, ip.destination), 40, ip.end - offset)
            }
            _ => return Err(Fault::NotIp),
        };
        if length < header || !frame.reaches(offset + length) {
            return Err(Fault::IpMalformed);
        }
        Ok(addresses)
    }

    /// RFC 791 §3.1.
    #[inline(always)]
    fn v4<F: Frame>(frame: &F, offset: usize) -> Result<Self, Fault> {
        let h: [u8; 20] = frame.read(offset).ok_or(Fault::IpMalformed)?;
        let header_length = usize::from(h[0] & 0x0f) * 4;
        let total_length = usize::from(u16::from_be_bytes([h[2], h[3]]));
        if h[0] >> 4 != 4 || header_length < 20 {
            return Err(Fault::IpMalformed);
        }
        let flags_and_offset = u16::from_be_bytes([h[6], h[7]]) & 0x3fff;
        let fragment = (flags_and_offset != 0).then(|| Fragment {
            id: u32::from(u16::from_be_bytes([h[4], h[5]])),
            first: flags_and_offset & 0x1fff == 0,
        });
        Ok(Self {
            source: Address::from_v4([h[12], h[13], h[14], h[15]]),
            destination: Address::from_v4([h[16], h[17], h[18], h[19]]),
            protocol: h[9],
            transport: offset + header_length,
            end: offset + total_length,
            fragment,
        })
    }

    /// RFC 8200 §3.
    #[inline(always)]
    fn v6_fixed<F: Frame>(frame: &F, offset: usize) -> Result<Self, Fault> {
        let h: [u8; 8] = frame.read(offset).ok_or(Fault::IpMalformed)?;
        let source = frame.read(offset + 8).ok_or(Fault::IpMalformed)?;
        let destination = frame.read(offset + 24).ok_or(Fault::IpMalformed)?;
        if h[0] >> 4 != 6 {
            return Err(Fault::IpMalformed);
        }
        let transport = offset + 40;
        Ok(Self {
            source: Address(source),
            destination: Address(destination),
            protocol: h[6],
            transport,
            end: transport + usize::from(u16::from_be_bytes([h[4], h[5]])),
            fragment: None,
        })
    }

    /// RFC 8200 §4.
    #[inline(always)]
    fn v6<F: Frame>(frame: &F, offset: usize) -> Result<Self, Fault> {
        let mut ip = Self::v6_fixed(frame, offset)?;
        for _ in 0..MAX_EXTENSIONS {
            if !ip.extension(frame)? {
                return Ok(ip);
            }
        }
        if is_extension(ip.protocol) && ip.fragment.is_none() {
            return Err(Fault::TooManyHeaders);
        }
        Ok(ip)
    }

    /// Steps over one extension header; false if there is none to step over.
    #[inline(always)]
    fn extension<F: Frame>(&mut self, frame: &F) -> Result<bool, Fault> {
        if !is_extension(self.protocol) || self.fragment.is_some() {
            return Ok(false);
        }
        let h: [u8; 8] = frame.read(self.transport).ok_or(Fault::IpMalformed)?;
        let mut length = 8 + 8 * usize::from(h[1]);
        if self.protocol == protocol::FRAGMENT {
            length = 8;
            let offset_and_more = u16::from_be_bytes([h[2], h[3]]) & 0xfff9;
            if offset_and_more != 0 {
                self.fragment = Some(Fragment {
                    id: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
                    first: offset_and_more & 0xfff8 == 0,
                });
            }
        } else if self.protocol == protocol::ROUTING && h[3] != 0 {
            return Ok(false);
        }
        self.protocol = h[0];
        self.transport += length;
        Ok(true)
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
    let o = &address.0;
    let high = u64::from_be_bytes([o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]]);
    let low = u64::from_be_bytes([o[8], o[9], o[10], o[11], o[12], o[13], o[14], o[15]]);
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
        && frame.read(offset + 6) == Some([protocol::ICMPV6])
        && matches!(frame.read(offset + 40), Some([133..=137]))
}
