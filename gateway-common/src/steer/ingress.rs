//! `gateway_ingress`: packets of the peers.

use super::{Forward, Kind, Tables, Verdict, hand_over};
use crate::abi::{Address, EspOutKey, EspSaKey, Settings};
use crate::packet::{
    Direction, Ethernet, Flow, Frame, IkeHeader, IkeHeaderError, Ip, Packet, Quoted, Transport,
    classify,
};
use crate::reason::Reason;
use crate::route::{Via, route_ike};
use crate::slot::Slot;

const FRAGMENT: Kind = Kind {
    forwarded: Reason::FragmentForwarded,
    local: Reason::FragmentLocal,
    unreachable: Reason::FragmentUnreachable,
};
const IKE_SA: Kind = Kind {
    forwarded: Reason::IkeSaForwarded,
    local: Reason::IkeSaLocal,
    unreachable: Reason::IkeUnreachable,
};
const NEGOTIATION: Kind = Kind {
    forwarded: Reason::NegotiationForwarded,
    local: Reason::NegotiationLocal,
    unreachable: Reason::IkeUnreachable,
};
const NEW_IKE: Kind = Kind {
    forwarded: Reason::NewIkeForwarded,
    local: Reason::NewIkeLocal,
    unreachable: Reason::IkeUnreachable,
};
const IKE_V1: Kind = Kind {
    forwarded: Reason::IkeV1Forwarded,
    local: Reason::IkeV1Local,
    unreachable: Reason::IkeUnreachable,
};
const ESP: Kind = Kind {
    forwarded: Reason::EspForwarded,
    local: Reason::EspLocal,
    unreachable: Reason::EspUnreachable,
};
const ICMP: Kind = Kind {
    forwarded: Reason::IcmpForwarded,
    local: Reason::IcmpLocal,
    unreachable: Reason::IcmpUnreachable,
};

/// Steers a frame that arrived on a public interface.
#[inline(always)]
pub fn ingress<'a, F: Frame, T: Tables>(frame: &F, tables: &'a T) -> Verdict<'a> {
    match steer(frame, tables) {
        Ok(forward) => Verdict::Forward(forward),
        Err(reason) => Verdict::Stay(reason),
    }
}

#[inline(always)]
fn steer<'a, F: Frame, T: Tables>(frame: &F, tables: &'a T) -> Result<Forward<'a>, Reason> {
    let settings = match tables.settings() {
        Some(settings) if settings.member != 0 => settings,
        _ => return Err(Reason::NotConfigured),
    };
    if settings.enabled == 0 {
        return Err(Reason::ForwardingOff);
    }
    let ethernet = match Ethernet::read(frame) {
        Ok(ethernet) => ethernet,
        Err(fault) => return Err(fault.ingress()),
    };
    if !ethernet.is_unicast() {
        return Err(Reason::NotUnicast);
    }
    if !ethernet.is_ours(settings) {
        return Err(Reason::ForeignMac);
    }
    // Also where sync and public share a network: what was forwarded once stays.
    if ethernet.is_marked() {
        return Err(Reason::AlreadyForwarded);
    }
    let packet = classify(frame, &ethernet)?;
    let (member, kind) = owner(frame, &packet, settings, tables)?;
    hand_over(member, kind, &ethernet, settings, tables)
}

/// The member that a packet belongs to.
#[inline(always)]
fn owner<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    settings: &Settings,
    tables: &T,
) -> Result<(u32, Kind), Reason> {
    let destination = packet.ip.destination(frame);
    // A hit in ESP_SA proves that the destination is a VIP, and ESP is most of the traffic.
    if let Flow::Transport(Transport::Esp { spi }) = packet.flow {
        return esp(spi, destination, tables);
    }
    if !tables.is_vip(&destination) {
        return Err(Reason::NotToVip);
    }
    match packet.flow {
        Flow::Fragment { id } => {
            let index = fragment_index(frame, &packet.ip, id, settings.live_members);
            Ok((index.map_or(0, |index| tables.live(index)), FRAGMENT))
        }
        Flow::Transport(Transport::Ike { at, available }) => {
            let (member, via, major) = ike(
                frame,
                (at, available),
                &packet.ip.source(frame),
                Direction::Received,
                tables,
            )?;
            Ok((member, ike_kind(via, major)))
        }
        Flow::Icmp(quoted) => Ok((icmp(frame, &quoted, tables)?, ICMP)),
        Flow::Transport(Transport::Esp { .. }) => Err(Reason::EspUnknown),
    }
}

#[inline(always)]
fn esp<T: Tables>(spi: [u8; 4], vip: Address, tables: &T) -> Result<(u32, Kind), Reason> {
    // Somebody else's ESP must not cost a look-up if that can be told without one.
    if tables.is_vip_at_once(&vip) == Some(false) {
        return Err(Reason::NotToVip);
    }
    match tables.esp_sa(&EspSaKey { spi, vip }) {
        Some(value) => Ok((tables.slot_owner(Slot(value.slot)), ESP)),
        None if tables.is_vip(&vip) => Err(Reason::EspUnknown),
        None => Err(Reason::NotToVip),
    }
}

/// The member that an IKE message belongs to, how that was found, and its major version.
#[inline(always)]
fn ike<F: Frame, T: Tables>(
    frame: &F,
    (at, available): (usize, usize),
    peer: &Address,
    direction: Direction,
    tables: &T,
) -> Result<(u32, Via, u8), Reason> {
    let header = match IkeHeader::read(frame, at, available) {
        Ok(header) => header,
        Err(IkeHeaderError::Version) => return Err(Reason::IkeVersion),
        Err(_) => return Err(Reason::IkeMalformed),
    };
    let route = route_ike(&header, peer, direction, tables);
    Ok((route.member, route.via, header.major()))
}

#[inline(always)]
const fn ike_kind(via: Via, major: u8) -> Kind {
    match via {
        _ if major == 1 => IKE_V1,
        Via::Sa => IKE_SA,
        Via::Negotiation => NEGOTIATION,
        Via::Decision => NEW_IKE,
    }
}

/// Errors follow the packet they quote to its sender: it is the one whose path MTU they change.
#[inline(always)]
fn icmp<F: Frame, T: Tables>(frame: &F, quoted: &Quoted, tables: &T) -> Result<u32, Reason> {
    let peer = quoted.ip.destination(frame);
    match quoted.transport {
        Transport::Ike { at, available } => {
            let route = ike(frame, (at, available), &peer, Direction::Sent, tables);
            let (member, _, _) = route.map_err(|_| Reason::IcmpUnrelated)?;
            Ok(member)
        }
        Transport::Esp { spi } => {
            let value = tables
                .esp_out(&EspOutKey { spi, peer })
                .ok_or(Reason::IcmpUnrelated)?;
            Ok(tables.slot_owner(Slot(value.slot)))
        }
    }
}

/// All fragments of a datagram reach the same live member, by hash(src, dst, id, proto).
#[inline(always)]
fn fragment_index<F: Frame>(frame: &F, ip: &Ip, id: u32, live_members: u32) -> Option<u32> {
    let datagram = u64::from(id) << 8 | u64::from(ip.protocol);
    let source = Slot::for_negotiation(&ip.source(frame).octets, &datagram.to_be_bytes());
    let mixed = datagram << 8 | u64::from(source.0);
    let slot = Slot::for_negotiation(&ip.destination(frame).octets, &mixed.to_be_bytes());
    u32::from(slot.0).checked_rem(live_members)
}
