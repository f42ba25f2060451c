//! `gateway_ingress`: packets of the peers.

use super::{Forward, Kind, Tables, Verdict, hand_over};
use crate::abi::{Address, EspOutKey, EspSaKey, Settings};
use crate::packet::{
    Direction, Ethernet, Flow, Frame, IkeHeader, Packet, Quoted, Transport, classify,
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
pub fn ingress<F: Frame, T: Tables>(frame: &F, tables: &T) -> Verdict {
    match steer(frame, tables) {
        Ok(forward) => Verdict::Forward(forward),
        Err(reason) => Verdict::Stay(reason),
    }
}

#[inline(always)]
fn steer<F: Frame, T: Tables>(frame: &F, tables: &T) -> Result<Forward, Reason> {
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
    let (member, kind) = owner(&packet, settings, tables)?;
    hand_over(member, kind, &ethernet, settings, tables)
}

/// The member that a packet belongs to.
#[inline(always)]
fn owner<T: Tables>(
    packet: &Packet,
    settings: &Settings,
    tables: &T,
) -> Result<(u32, Kind), Reason> {
    // A hit in ESP_SA proves that the destination is a VIP, and ESP is most of the traffic.
    if let Flow::Transport(Transport::Esp { spi }) = packet.flow {
        return esp(spi, packet.destination, tables);
    }
    if !tables.is_vip(&packet.destination) {
        return Err(Reason::NotToVip);
    }
    match packet.flow {
        Flow::Fragment { id, protocol } => Ok((
            reassembler(packet, id, protocol, settings, tables),
            FRAGMENT,
        )),
        Flow::Transport(Transport::Ike(header)) => {
            Ok(ike(&header, &packet.source, Direction::Received, tables))
        }
        Flow::Icmp(quoted) => icmp(&quoted, tables),
        Flow::Transport(Transport::Esp { .. }) => Err(Reason::EspUnknown),
    }
}

#[inline(always)]
fn esp<T: Tables>(spi: [u8; 4], vip: Address, tables: &T) -> Result<(u32, Kind), Reason> {
    match tables.esp_sa(&EspSaKey { spi, vip }) {
        Some(value) => Ok((tables.slot_owner(Slot(value.slot)), ESP)),
        None if tables.is_vip(&vip) => Err(Reason::EspUnknown),
        None => Err(Reason::NotToVip),
    }
}

#[inline(always)]
fn ike<T: Tables>(
    header: &IkeHeader,
    peer: &Address,
    direction: Direction,
    tables: &T,
) -> (u32, Kind) {
    let route = route_ike(header, peer, direction, tables);
    let kind = match route.via {
        _ if header.major() == 1 => IKE_V1,
        Via::Sa => IKE_SA,
        Via::Negotiation => NEGOTIATION,
        Via::Decision => NEW_IKE,
    };
    (route.member, kind)
}

/// Errors follow the packet they quote to its sender: it is the one whose path MTU they change.
#[inline(always)]
fn icmp<T: Tables>(quoted: &Quoted, tables: &T) -> Result<(u32, Kind), Reason> {
    let member = match quoted.transport {
        Transport::Ike(header) => ike(&header, &quoted.peer, Direction::Sent, tables).0,
        Transport::Esp { spi } => {
            let peer = quoted.peer;
            let value = tables
                .esp_out(&EspOutKey { spi, peer })
                .ok_or(Reason::IcmpUnrelated)?;
            tables.slot_owner(Slot(value.slot))
        }
    };
    Ok((member, ICMP))
}

/// All fragments of a datagram reach the same live member, by hash(src, dst, id, proto).
#[inline(always)]
fn reassembler<T: Tables>(
    packet: &Packet,
    id: u32,
    protocol: u8,
    settings: &Settings,
    tables: &T,
) -> u32 {
    if settings.live_members == 0 {
        return 0;
    }
    let [i0, i1, i2, i3] = id.to_be_bytes();
    let source = Slot::for_negotiation(&packet.source.0, &[i0, i1, i2, i3, protocol, 0, 0, 0]);
    let both = Slot::for_negotiation(&packet.destination.0, &[source.0, i0, i1, i2, i3, 0, 0, 0]);
    tables.live(u32::from(both.0) % settings.live_members)
}
