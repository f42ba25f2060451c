//! What a packet is to the gateway.

use super::ethernet::{Ethernet, IPV4, IPV6};
use super::ip::protocol;
use super::{Frame, IKE_PORT, IkeHeader, IkeHeaderError, Ip, NAT_T_PORT};
use crate::abi::Address;
use crate::reason::Reason;

/// A packet that may be steered, if it is to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// What it carries.
    pub flow: Flow,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Part of a fragmented datagram; its transport header may be elsewhere.
    Fragment {
        /// IP identification.
        id: u32,
        /// IP protocol, in IPv6 what the fragment header names.
        protocol: u8,
    },
    /// IKE or ESP.
    Transport(Transport),
    /// An ICMP error.
    Icmp(Quoted),
}

/// IKE or ESP, whatever it is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// IKE on port 500, or on 4500 behind the non-ESP marker.
    Ike(IkeHeader),
    /// ESP, native or in UDP.
    Esp {
        /// SPI, network order.
        spi: [u8; 4],
    },
}

/// The packet in an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its destination: the peer, if we sent it.
    pub peer: Address,
    /// What it carried.
    pub transport: Transport,
}

/// Finds out what the IP packet behind `ethernet` is. Asks no table.
///
/// # Errors
/// The reason with which `gateway_ingress` leaves the frame alone, whatever its destination.
#[inline(always)]
pub fn classify<F: Frame>(frame: &F, ethernet: &Ethernet) -> Result<Packet, Reason> {
    let ip = match Ip::read(frame, ethernet.kind, ethernet.payload()) {
        Ok(ip) => ip,
        Err(fault) => return Err(fault.ingress()),
    };
    let flow = if let Some(fragment) = ip.fragment {
        Flow::Fragment {
            id: fragment.id,
            protocol: ip.protocol,
        }
    } else {
        match ip.protocol {
            protocol::UDP => Flow::Transport(udp(frame, &ip)?),
            protocol::ESP => Flow::Transport(esp(frame, ip.transport, ip.end)?),
            protocol::ICMP if ethernet.kind == IPV4 => icmp(frame, &ip, is_icmp_error, IPV4)?,
            protocol::ICMPV6 if ethernet.kind == IPV6 => icmp(frame, &ip, is_icmpv6_error, IPV6)?,
            _ => return Err(Reason::OtherTraffic),
        }
    };
    Ok(Packet {
        source: ip.source,
        destination: ip.destination,
        flow,
    })
}

/// IKE on port 500; keepalives, ESP and IKE on port 4500 (RFC 3948 §2).
#[inline(always)]
fn udp<F: Frame>(frame: &F, ip: &Ip) -> Result<Transport, Reason> {
    let h: [u8; 8] = frame.read(ip.transport).ok_or(Reason::UdpMalformed)?;
    let port = u16::from_be_bytes([h[2], h[3]]);
    if port != IKE_PORT && port != NAT_T_PORT {
        return Err(Reason::OtherTraffic);
    }
    let end = ip.transport + usize::from(u16::from_be_bytes([h[4], h[5]]));
    let payload = ip.transport + 8;
    if end < payload || end > ip.end {
        return Err(Reason::UdpMalformed);
    }
    if port == IKE_PORT {
        return ike(frame, payload, end);
    }
    if end == payload + 1 && frame.read(payload) == Some([0xff]) {
        return Err(Reason::NatKeepalive);
    }
    if end < payload + 4 {
        return Err(Reason::UdpMalformed);
    }
    match frame.read(payload) {
        None => Err(Reason::UdpMalformed),
        Some([0, 0, 0, 0]) => ike(frame, payload + 4, end),
        Some(_) => esp(frame, payload, end),
    }
}

#[inline(always)]
fn ike<F: Frame>(frame: &F, offset: usize, end: usize) -> Result<Transport, Reason> {
    let octets = frame.read(offset).ok_or(Reason::IkeMalformed)?;
    match IkeHeader::from_octets(&octets, end.saturating_sub(offset)) {
        Ok(header) => Ok(Transport::Ike(header)),
        Err(IkeHeaderError::Version) => Err(Reason::IkeVersion),
        Err(_) => Err(Reason::IkeMalformed),
    }
}

/// RFC 4303 §2: SPI and sequence number come first.
#[inline(always)]
fn esp<F: Frame>(frame: &F, offset: usize, end: usize) -> Result<Transport, Reason> {
    if end < offset + 8 {
        return Err(Reason::EspMalformed);
    }
    let spi = frame.read(offset).ok_or(Reason::EspMalformed)?;
    Ok(Transport::Esp { spi })
}

/// RFC 792: destination unreachable, time exceeded, parameter problem. Redirects concern the link
/// that they arrive on, source quench is dead (RFC 6633).
#[inline(always)]
fn is_icmp_error(kind: u8) -> bool {
    matches!(kind, 3 | 11 | 12)
}

/// RFC 4443 §2.1: destination unreachable, packet too big, time exceeded, parameter problem.
#[inline(always)]
fn is_icmpv6_error(kind: u8) -> bool {
    matches!(kind, 1..=4)
}

/// An ICMP error and what it quotes. The quoted packet is one that the error's destination sent.
#[inline(always)]
fn icmp<F: Frame>(
    frame: &F,
    ip: &Ip,
    is_error: impl Fn(u8) -> bool,
    kind: u16,
) -> Result<Flow, Reason> {
    let [icmp_kind] = frame.read(ip.transport).ok_or(Reason::OtherTraffic)?;
    if !is_error(icmp_kind) || ip.transport >= ip.end {
        return Err(Reason::OtherTraffic);
    }
    let Ok(quoted) = Ip::read_headers(frame, kind, ip.transport + 8) else {
        return Err(Reason::IcmpUnrelated);
    };
    let later_fragment = matches!(quoted.fragment, Some(fragment) if !fragment.first);
    if later_fragment || quoted.source != ip.destination {
        return Err(Reason::IcmpUnrelated);
    }
    match quoted_transport(frame, &quoted, ip.end) {
        Some(transport) => Ok(Flow::Icmp(Quoted {
            peer: quoted.destination,
            transport,
        })),
        None => Err(Reason::IcmpUnrelated),
    }
}

/// The transport of a packet that we sent, as far as it is quoted: up to `end` of the error.
#[inline(always)]
fn quoted_transport<F: Frame>(frame: &F, quoted: &Ip, end: usize) -> Option<Transport> {
    let at = quoted.transport;
    match quoted.protocol {
        protocol::ESP => quoted_esp(frame, at, end),
        protocol::UDP => {
            let source = u16::from_be_bytes(frame.read(at)?);
            match source {
                IKE_PORT => quoted_ike(frame, at + 8, end),
                NAT_T_PORT if end < at + 12 => None,
                NAT_T_PORT => match frame.read(at + 8)? {
                    [0, 0, 0, 0] => quoted_ike(frame, at + 12, end),
                    spi => Some(Transport::Esp { spi }),
                },
                _ => None,
            }
        }
        _ => None,
    }
}

#[inline(always)]
fn quoted_esp<F: Frame>(frame: &F, offset: usize, end: usize) -> Option<Transport> {
    if end < offset + 4 {
        return None;
    }
    let spi = frame.read(offset)?;
    Some(Transport::Esp { spi })
}

/// The body is cut off, so the length field proves nothing.
#[inline(always)]
fn quoted_ike<F: Frame>(frame: &F, offset: usize, end: usize) -> Option<Transport> {
    if end < offset + IkeHeader::LENGTH {
        return None;
    }
    let octets = frame.read(offset)?;
    IkeHeader::from_octets(&octets, usize::MAX)
        .ok()
        .map(Transport::Ike)
}
