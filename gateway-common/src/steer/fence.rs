//! `gateway_egress`, the fence: what may leave in the cluster's name.

use super::{Tables, is_forwardable};
use crate::abi::{EspOutKey, MARK_IKE, MARK_SA, is_within_ceiling};
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

/// What the kernel knows of a frame that is about to leave, beside its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// How it begins.
    pub link: Link,
    /// The mark that the SA or the agent's socket gave it.
    pub mark: u32,
    /// Packets that it will be cut into, 0 or 1 for a single one. Each of them takes a sequence
    /// number, and the header says the first.
    pub segments: u32,
}

/// With more than this left of the lease the coarse clock decides. It stands still between two
/// ticks, and for five of them where the processor that keeps the time is held up; the exact clock
/// does not, but costs a read of the hardware.
const COARSE_IS_ENOUGH_NS: u64 = 100_000_000;

/// Judges a frame that is about to leave.
///
/// ESP, ESP in UDP, IKE and keepalives from a VIP leave only if the mark names a slot that this
/// member owns, while its lease runs. The mark, unlike the SPI, is also on later fragments and on
/// segments that are still one large packet. ESP must be of an SA that `ESP_OUT` knows, and its
/// sequence numbers, all of them, within the ceiling there.
#[inline(always)]
pub fn fence<F: Frame, T: Tables>(frame: &F, leaving: &Leaving, tables: &T) -> Reason {
    let member = match tables.settings() {
        Some(settings) if settings.member != 0 => settings.member,
        _ => return Reason::FenceNotConfigured,
    };
    let marked = leaving.mark & (MARK_SA | MARK_IKE) != 0;
    let Some((ip, payload)) = speaks_for_the_cluster(frame, leaving.link, marked, tables) else {
        return Reason::FenceOther;
    };
    if !marked {
        return Reason::FenceUnmarked;
    }
    let slot = (leaving.mark >> 8) as u8;
    let owner = tables.slot_owner(Slot(slot));
    if owner != member {
        return not_owned(owner, leaving.mark, tables);
    }
    if !lease_runs(tables) {
        return Reason::FenceLeaseOver;
    }
    let at = match payload {
        Payload::Opaque => return Reason::FenceOwned,
        Payload::CutOff => return Reason::FenceMalformed,
        Payload::Esp { at } => at,
    };
    // RFC 4303 §2: SPI and sequence number. In one read: of two, the compiler joins the checks so
    // that the kernel's verifier cannot follow.
    let Some(head) = frame.read(at).map(u64::from_be_bytes) else {
        return Reason::FenceMalformed;
    };
    let (spi, sequence) = (((head >> 32) as u32).to_be_bytes(), head as u32);
    let peer = ip.destination(frame);
    let Some(sa) = tables.esp_out(&EspOutKey { spi, peer }) else {
        return Reason::FenceUnknownSa;
    };
    // An SA that is on its way to another slot still has the old one in its mark.
    if sa.slot != slot {
        let owner = tables.slot_owner(Slot(sa.slot));
        if owner != member {
            return not_owned(owner, leaving.mark, tables);
        }
    }
    let last = sequence.wrapping_add(leaving.segments.saturating_sub(1));
    if is_within_ceiling(last, sa.ceiling) {
        Reason::FenceOwned
    } else {
        Reason::FenceAboveCeiling
    }
}

/// Why a packet of `owner`'s slot does not leave here.
#[inline(always)]
fn not_owned<T: Tables>(owner: u32, mark: u32, tables: &T) -> Reason {
    let alive = owner != 0 && tables.member(owner).is_some_and(is_forwardable);
    if alive && mark & MARK_SA != 0 {
        Reason::FenceStandbyCopy
    } else {
        Reason::FenceNotOwner
    }
}

/// The number of packets that a frame of `octets` will be cut into: what the kernel counted, or, as
/// it does not count what comes from a guest or a raw socket, no fewer than there will be.
#[inline(always)]
pub const fn segments(counted: u32, size: u32, octets: u32) -> u32 {
    if counted == 0 && size != 0 {
        octets / size + 1
    } else {
        counted
    }
}

#[inline(always)]
fn lease_runs<T: Tables>(tables: &T) -> bool {
    let until = tables.lease();
    let coarse = tables.now_ns();
    coarse < until && (until - coarse > COARSE_IS_ENOUGH_NS || tables.exact_now_ns() < until)
}

/// What a packet that concerns the fence carries.
#[derive(Clone, Copy)]
enum Payload {
    /// ESP, with its SPI at this offset of the frame.
    Esp { at: usize },
    /// IKE, a keepalive or a later fragment: no sequence number to judge.
    Opaque,
    /// May be ESP, but the frame ends too early to tell.
    CutOff,
}

/// The IP header and payload of ESP, ESP in UDP, IKE and keepalives from a VIP; `None` for all
/// else.
#[inline(always)]
fn speaks_for_the_cluster<F: Frame, T: Tables>(
    frame: &F,
    link: Link,
    marked: bool,
    tables: &T,
) -> Option<(Ip, Payload)> {
    let (kind, offset) = match link {
        Link::Ip(kind) => (kind, 0),
        Link::Ethernet => {
            let ethernet = Ethernet::read(frame).ok()?;
            (ethernet.kind, ethernet.payload())
        }
    };
    let ip = Ip::read_headers(frame, kind, offset).ok()?;
    let later = matches!(ip.fragment, Some(fragment) if !fragment.first);
    let payload = match ip.protocol {
        protocol::ESP if later => Payload::Opaque,
        protocol::ESP => Payload::Esp { at: ip.transport },
        // Fragments inherit the mark: one without is somebody else's.
        protocol::UDP if later && marked => Payload::Opaque,
        protocol::UDP if !later => udp(frame, ip.transport, marked)?,
        _ => return None,
    };
    tables.is_vip(&ip.source(frame)).then_some((ip, payload))
}

/// The payload of a UDP datagram from the ports of IKE and ESP (RFC 3948 §2).
#[inline(always)]
fn udp<F: Frame>(frame: &F, at: usize, marked: bool) -> Option<Payload> {
    match frame.u16(at) {
        Some(NAT_T_PORT) => {}
        Some(IKE_PORT) => return Some(Payload::Opaque),
        Some(_) => return None,
        None => return marked.then_some(Payload::CutOff),
    }
    // Too short for any SPI: a keepalive. What is still to be segmented may have no length.
    if matches!(frame.u16(at + 4), Some(8..=11)) {
        return Some(Payload::Opaque);
    }
    Some(match frame.u32(at + 8) {
        Some(0) => Payload::Opaque,
        Some(_) => Payload::Esp { at: at + 8 },
        None => Payload::CutOff,
    })
}
