//! `gateway_inside`: cleartext of the protected networks, on its way to a peer's.

use super::{Forward, Kind, Tables, Verdict, hand_over, remote_net};
use crate::abi::Address;
use crate::packet::{Ethernet, Frame, Ip, is_link_scope, is_neighbour_discovery};
use crate::reason::Reason;
use crate::slot::Slot;

const INSIDE: Kind = Kind {
    forwarded: Reason::InsideForwarded,
    local: Reason::InsideOwned,
    unreachable: Reason::InsideUnreachable,
};

/// Steers a frame that arrived on an inside interface.
#[inline(always)]
pub fn inside<'a, F: Frame, T: Tables>(frame: &F, tables: &'a T) -> Verdict<'a> {
    match steer(frame, tables) {
        Ok(forward) => Verdict::Forward(forward),
        Err(reason) => Verdict::Stay(reason),
    }
}

#[inline(always)]
fn steer<'a, F: Frame, T: Tables>(frame: &F, tables: &'a T) -> Result<Forward<'a>, Reason> {
    let settings = match tables.settings() {
        Some(settings) if settings.member != 0 => settings,
        _ => return Err(Reason::InsideNotConfigured),
    };
    if settings.enabled == 0 {
        return Err(Reason::InsideForwardingOff);
    }
    let Ok(ethernet) = Ethernet::read(frame) else {
        return Err(Reason::InsideNotOurs);
    };
    if !ethernet.is_unicast() || !ethernet.is_ours(settings) {
        return Err(Reason::InsideNotOurs);
    }
    if ethernet.is_marked() {
        return Err(Reason::InsideAlreadyForwarded);
    }
    let destination = destination(frame, &ethernet)?;
    // The prefix first: it spares all other traffic the remaining look-up.
    let slot = match remote_net(destination, tables) {
        None => return Err(Reason::InsideUnmatched),
        Some(Err(())) => return Err(Reason::InsideLocalNet),
        Some(Ok(slot)) => slot,
    };
    if tables.is_vip(&destination) {
        return Err(Reason::InsideToVip);
    }
    let member = tables.slot_owner(Slot(slot));
    hand_over(member, INSIDE, &ethernet, settings, tables)
}

/// Where the packet goes, if it goes beyond this link.
#[inline(always)]
fn destination<F: Frame>(frame: &F, ethernet: &Ethernet) -> Result<Address, Reason> {
    let (kind, offset) = (ethernet.kind, ethernet.payload());
    let Ok(ip) = Ip::read_addresses(frame, kind, offset) else {
        return Err(Reason::InsideNotIp);
    };
    let destination = ip.destination(frame);
    if is_link_scope(&ip.source(frame))
        || is_link_scope(&destination)
        || is_neighbour_discovery(frame, kind, offset)
    {
        return Err(Reason::InsideLinkScope);
    }
    Ok(destination)
}
