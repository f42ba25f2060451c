//! What a packet is to the gateway.

use super::ethernet::{Ethernet, IPV4, IPV6};
use super::ip::protocol;
use super::{Frame, IKE_PORT, IkeHeader, Ip, NAT_T_PORT};
use crate::reason::Reason;

/// A packet that may be steered, if it is to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its IP header.
    pub ip: Ip,
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
    Ike {
        /// Offset in the frame of the IKE header.
        at: usize,
        /// Octets from there to the end of the datagram.
        available: usize,
    },
    /// ESP, native or in UDP.
    Esp {
        /// SPI, network order.
        spi: [u8; 4],
    },
}

/// The packet in an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its IP header. Its destination is the peer, if we sent it.
    pub ip: Ip,
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
        Flow::Fragment { id: fragment.id }
    } else {
        match ip.protocol {
            protocol::UDP => Flow::Transport(udp(frame, &ip)?),
            protocol::ESP => Flow::Transport(esp(frame, ip.transport, ip.end)?),
            protocol::ICMP if ethernet.kind == IPV4 => icmp(frame, &ip, is_icmp_error, IPV4)?,
            protocol::ICMPV6 if ethernet.kind == IPV6 => icmp(frame, &ip, is_icmpv6_error, IPV6)?,
            _ => return Err(Reason::OtherTraffic),
        }
    };
    Ok(Packet { ip, flow })
}

/// IKE on port 500; keepalives, ESP and IKE on port 4500 (RFC 3948 §2).
#[inline(always)]
fn udp<F: Frame>(frame: &F, ip: &Ip) -> Result<Transport, Reason> {
    let port = frame.u16(ip.transport + 2).ok_or(Reason::UdpMalformed)?;
    if port != IKE_PORT && port != NAT_T_PORT {
        return Err(Reason::OtherTraffic);
    }
    let length = frame.u16(ip.transport + 4).ok_or(Reason::UdpMalformed)?;
    let end = ip.transport + usize::from(length);
    let payload = ip.transport + 8;
    if end < payload || end > ip.end {
        return Err(Reason::UdpMalformed);
    }
    if port == IKE_PORT {
        return Ok(ike(payload, end));
    }
    if end == payload + 1 && frame.u8(payload) == Some(0xff) {
        return Err(Reason::NatKeepalive);
    }
    if end < payload + 4 {
        return Err(Reason::UdpMalformed);
    }
    match frame.u32(payload) {
        None => Err(Reason::UdpMalformed),
        Some(0) => Ok(ike(payload + 4, end)),
        Some(_) => esp(frame, payload, end),
    }
}

#[inline(always)]
const fn ike(at: usize, end: usize) -> Transport {
    Transport::Ike {
        at,
        available: end.saturating_sub(at),
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
    let icmp_kind = frame.u8(ip.transport).ok_or(Reason::OtherTraffic)?;
    if !is_error(icmp_kind) || ip.transport >= ip.end {
        return Err(Reason::OtherTraffic);
    }
    let Ok(quoted) = Ip::read_headers(frame, kind, ip.transport + 8) else {
        return Err(Reason::IcmpUnrelated);
    };
    let later_fragment = matches!(quoted.fragment, Some(fragment) if !fragment.first);
    if later_fragment || quoted.source(frame) != ip.destination(frame) {
        return Err(Reason::IcmpUnrelated);
    }
    match quoted_transport(frame, &quoted, ip.end) {
        Some(transport) => Ok(Flow::Icmp(Quoted {
            ip: quoted,
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
            let source = frame.u16(at)?;
            match source {
                IKE_PORT => quoted_ike(at + 8, end),
                NAT_T_PORT if end < at + 12 => None,
                NAT_T_PORT => match frame.read(at + 8)? {
                    [0, 0, 0, 0] => quoted_ike(at + 12, end),
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
const fn quoted_ike(at: usize, end: usize) -> Option<Transport> {
    if end < at + IkeHeader::LENGTH {
        return None;
    }
    Some(Transport::Ike {
        at,
        available: usize::MAX,
    })
}
