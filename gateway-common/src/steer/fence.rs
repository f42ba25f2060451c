//! `gateway_egress`, the fence: what may leave in the cluster's name.

use super::Tables;
use crate::abi::{MARK_IKE, MARK_SA};
use crate::packet::{Ethernet, Frame, IKE_PORT, Ip, NAT_T_PORT, protocol};
use crate::reason::Reason;
use crate::slot::Slot;

/// What the frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// An IP header of this EtherType: a device without link layer.
    Ip(u16),
}

/// Judges a frame that is about to leave, by the mark that the SA or the agent's socket gave it.
///
/// ESP, ESP in UDP and IKE from a VIP leave only if the mark names a slot that this member owns.
/// The mark, unlike the SPI, is also on later fragments and on segments that are still one large
/// packet.
#[inline(always)]
pub fn fence<F: Frame, T: Tables>(frame: &F, link: Link, mark: u32, tables: &T) -> Reason {
    let member = match tables.settings() {
        Some(settings) if settings.member != 0 => settings.member,
        _ => return Reason::FenceNotConfigured,
    };
    let marked = mark & (MARK_SA | MARK_IKE) != 0;
    if speaks_for_the_cluster(frame, link, marked, tables) != Some(true) {
        return Reason::FenceOther;
    }
    if !marked {
        return Reason::FenceUnmarked;
    }
    let slot = Slot((mark >> 8) as u8);
    if tables.slot_owner(slot) == member {
        Reason::FenceOwned
    } else {
        Reason::FenceNotOwner
    }
}

/// Whether this is ESP, ESP in UDP or IKE, from a VIP. `None` if it is not readable as IP.
#[inline(always)]
fn speaks_for_the_cluster<F: Frame, T: Tables>(
    frame: &F,
    link: Link,
    marked: bool,
    tables: &T,
) -> Option<bool> {
    let (kind, offset) = match link {
        Link::Ip(kind) => (kind, 0),
        Link::Ethernet => {
            let ethernet = Ethernet::read(frame).ok()?;
            (ethernet.kind, ethernet.payload())
        }
    };
    let ip = Ip::read_headers(frame, kind, offset).ok()?;
    let concerned = match ip.protocol {
        protocol::ESP => true,
        protocol::UDP => is_from_our_ports(frame, &ip, marked),
        _ => false,
    };
    Some(concerned && tables.is_vip(&ip.source(frame)))
}

/// Whether a UDP datagram comes from the ports of IKE and ESP. Later fragments do not say: there
/// the mark does, and one without a mark is somebody else's, because fragments inherit it.
#[inline(always)]
fn is_from_our_ports<F: Frame>(frame: &F, ip: &Ip, marked: bool) -> bool {
    if matches!(ip.fragment, Some(fragment) if !fragment.first) {
        return marked;
    }
    match frame.u16(ip.transport) {
        Some(port) => port == IKE_PORT || port == NAT_T_PORT,
        None => marked,
    }
}
