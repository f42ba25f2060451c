//! Who owns an IKE message. The one decision that `gateway_ingress` takes for a frame and the
//! agent for a datagram; both must agree, or datagrams would be relayed in circles.

use crate::abi::{ANY_MESSAGE_ID, Address, IkeSaKey, NegotiationKey, NegotiationValue, SlotValue};
use crate::packet::{Direction, IkeHeader};
use crate::slot::Slot;

/// The tables that IKE messages are looked up in.
pub trait IkeTables {
    /// `IKE_SA`: an established IKE SA by our cookie.
    fn ike_sa(&self, key: &IkeSaKey) -> Option<SlotValue>;

    /// `SEP_my_IKE_packet`: a negotiation, expired ones included.
    fn negotiation(&self, key: &NegotiationKey) -> Option<NegotiationValue>;

    /// `SLOT_OWNER`: the id of the member that owns `slot`, 0 if unset.
    fn slot_owner(&self, slot: Slot) -> u32;

    /// Whether `member` is this member, or packets can be forwarded to it now.
    fn is_alive(&self, member: u32) -> bool;

    /// Monotonic nanoseconds, the clock of [`NegotiationValue::expires_ns`]. Asked only when an
    /// entry was found.
    fn now_ns(&self) -> u64;
}

/// Which table knew an IKE message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// `IKE_SA`.
    Sa,
    /// `SEP_my_IKE_packet`.
    Negotiation,
    /// None: the decision function.
    Decision,
}

/// Where an IKE message belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeRoute {
    /// Its slot.
    pub slot: Slot,
    /// The member that must process it; 0 if its slot has no owner. Alive if `via` is
    /// [`Via::Negotiation`], else check.
    pub member: u32,
    /// Which table knew it.
    pub via: Via,
}

/// Finds the slot and the member of an IKE message that we and `peer` exchange.
///
/// Version 2: our cookie in `IKE_SA` and in the negotiations (exact message id, then any): those of
/// the exchanges that open an IKE SA in the negotiations first, all others in `IKE_SA` first, so
/// that the first look-up is the right one; no cookie is in both for longer than one change of the
/// tables. If we have drawn none yet, the peer's cookie and address in the negotiations. Version 1 has no
/// flag that says whose cookie is whose: the responder's is tried first, then the initiator's.
/// What no table knows goes by the decision function. An entry that has expired, or whose member
/// is not alive, is a miss.
#[inline(always)]
pub fn route_ike<T: IkeTables>(
    header: &IkeHeader,
    peer: &Address,
    direction: Direction,
    tables: &T,
) -> IkeRoute {
    let found = if header.major() == 1 {
        by_either_cookie(header, peer, tables)
    } else {
        match header.our_cookie(direction) {
            Some(cookie) => by_our_cookie(cookie, header.message_id, header.opens(), tables),
            None => by_peer(header, peer, tables),
        }
    };
    found.unwrap_or_else(|| {
        let slot = Slot::for_negotiation(&peer.octets, &header.initiator);
        owned(slot, Via::Decision, tables)
    })
}

#[inline(always)]
fn owned<T: IkeTables>(slot: Slot, via: Via, tables: &T) -> IkeRoute {
    IkeRoute {
        slot,
        member: tables.slot_owner(slot),
        via,
    }
}

#[inline(always)]
fn by_our_cookie<T: IkeTables>(
    cookie: [u8; 8],
    message_id: [u8; 4],
    opens: bool,
    tables: &T,
) -> Option<IkeRoute> {
    let established = || {
        let value = tables.ike_sa(&IkeSaKey { cookie })?;
        Some(owned(Slot(value.slot), Via::Sa, tables))
    };
    if !opens && let Some(route) = established() {
        return Some(route);
    }
    if let Some(route) = negotiation(cookie, message_id, Address::UNSPECIFIED, tables) {
        return Some(route);
    }
    if opens { established() } else { None }
}

#[inline(always)]
fn by_peer<T: IkeTables>(header: &IkeHeader, peer: &Address, tables: &T) -> Option<IkeRoute> {
    negotiation(header.initiator, header.message_id, *peer, tables)
}

#[inline(always)]
fn by_either_cookie<T: IkeTables>(
    header: &IkeHeader,
    peer: &Address,
    tables: &T,
) -> Option<IkeRoute> {
    for cookie in [header.responder, header.initiator] {
        if u64::from_ne_bytes(cookie) != 0
            && let Some(route) = by_our_cookie(cookie, header.message_id, false, tables)
        {
            return Some(route);
        }
    }
    by_peer(header, peer, tables)
}

/// The entry for exactly this message, else the one for the whole negotiation.
#[inline(always)]
fn negotiation<T: IkeTables>(
    cookie: [u8; 8],
    message_id: [u8; 4],
    peer: Address,
    tables: &T,
) -> Option<IkeRoute> {
    let mut key = NegotiationKey {
        cookie,
        message_id,
        peer,
    };
    for id in [message_id, ANY_MESSAGE_ID] {
        key.message_id = id;
        if let Some(value) = tables.negotiation(&key)
            && tables.is_alive(u32::from(value.member))
            && tables.now_ns() < value.expires_ns
        {
            return Some(IkeRoute {
                slot: Slot(value.slot),
                member: u32::from(value.member),
                via: Via::Negotiation,
            });
        }
    }
    None
}
