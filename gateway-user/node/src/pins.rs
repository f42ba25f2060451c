//! Entries of `SEP_my_IKE_packet` by an operator's word, on all members.
//!
//! Each is a register in which the last write counts: writes are numbered as Lamport clocks are, and
//! removals are remembered as long as the entry would have lived. Members tell each other when they
//! write, and everything when they meet; so those that hear each other agree, in whatever order they
//! heard. Like half-open negotiations entries are not waited for: losing one costs a detour.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_cluster::change::NEGOTIATION_LIFETIME;
use gateway_cluster::ownership::Pin;
use gateway_common::abi::{ANY_MESSAGE_ID, Address, NegotiationKey};
use gateway_common::packet::{Direction, IkeHeader};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use gateway_ike::endpoint::Command;

use crate::node::Node;
use crate::records::Spi;

/// Entries at most, removed ones included.
const MAX: usize = 4096;
/// First octet of an order that tells an entry.
const TELL: u8 = 32;
/// First octet of an order to give up a half-open negotiation.
const ABORT: u8 = 33;
/// Octets of an entry in an order, its first octet included.
const LEN: usize = 1 + 8 + 4 + 16 + 8 + 1 + 1 + 1 + 4;

/// Why an entry is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// An IKE SA of that cookie is established.
    #[error("the IKE SA of this cookie is established in {0}: move the slot (drain, failover)")]
    Established(Slot),
    /// The member owns no slot, so it may not answer.
    #[error("{0} owns no slot now: it could not answer")]
    NoSlot(MemberId),
    /// There are too many.
    #[error("there are {MAX} entries by hand already: remove some, or wait 120 s")]
    Full,
    /// Nobody who can be reached may give up the negotiation.
    #[error("{0}, which holds the negotiation, cannot be reached")]
    Unreachable(MemberId),
}

/// A write. Later ones count, of two at once the higher member's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Written {
    clock: u64,
    by: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    written: Written,
    /// `None`: removed.
    owner: Option<(MemberId, Slot)>,
    until: Instant,
}

/// All entries that were written and are not yet forgotten.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    clock: u64,
    known: BTreeMap<NegotiationKey, Known>,
}

impl Node {
    /// Writes an entry by the operator's word, here and on all members that can be reached: packets
    /// with `key` go to `member` for 120 s.
    ///
    /// # Errors
    /// [`PinError`]; then nothing was done.
    pub fn pin(
        &mut self,
        now: Instant,
        key: NegotiationKey,
        member: MemberId,
    ) -> Result<Pin, PinError> {
        let slot = self.pin_slot(key, member)?;
        self.pins.known.retain(|_, known| known.until > now);
        if self.pins.known.len() >= MAX && !self.pins.known.contains_key(&key) {
            return Err(PinError::Full);
        }
        let before = self.cluster.ownership().pinned(&key);
        let pin = Pin {
            member,
            slot,
            created: before.map_or(now, |before| before.created),
            expires: now + NEGOTIATION_LIFETIME,
        };
        self.write_pin(key, Some((member, slot)), pin.expires);
        self.cluster.pin(key, pin);
        self.tell_all(now, key);
        self.collect(now);
        Ok(pin)
    }

    /// The slot in which an entry of `member` would stand: the decision function's if that is its
    /// own, so that it may answer.
    ///
    /// # Errors
    /// [`PinError::Established`], [`PinError::NoSlot`].
    pub fn pin_slot(&self, key: NegotiationKey, member: MemberId) -> Result<Slot, PinError> {
        if key.peer == Address::UNSPECIFIED
            && let Some(slot) = self.cluster.ownership().ike_sa(key.cookie)
        {
            return Err(PinError::Established(slot));
        }
        let slots = &self.view().slots;
        let decided = Slot::for_negotiation(&key.peer.octets, &key.cookie);
        if slots.owner(decided) == Some(member) {
            return Ok(decided);
        }
        let mut owned = slots.iter().filter(|(_, owner)| *owner == Some(member));
        owned
            .next()
            .map(|(slot, _)| slot)
            .ok_or(PinError::NoSlot(member))
    }

    /// Removes an entry by the operator's word, here and on all members that can be reached.
    pub fn unpin(&mut self, now: Instant, key: NegotiationKey) -> Option<Pin> {
        let pin = self.cluster.unpin(&key)?;
        self.write_pin(key, None, now + NEGOTIATION_LIFETIME);
        self.tell_all(now, key);
        self.collect(now);
        Some(pin)
    }

    /// Gives up a half-open negotiation, on whatever member it is.
    ///
    /// # Errors
    /// [`PinError::Unreachable`].
    pub fn abort(
        &mut self,
        now: Instant,
        member: MemberId,
        local_cookie: Spi,
    ) -> Result<(), PinError> {
        if member == self.local() {
            self.abort_here(now, local_cookie);
        } else {
            let order: Vec<u8> = [ABORT].into_iter().chain(local_cookie).collect();
            if !self.cluster.order(member, order) {
                return Err(PinError::Unreachable(member));
            }
        }
        self.collect(now);
        Ok(())
    }

    /// Draws a cookie of this member's that nobody uses.
    pub fn draw_cookie(&self) -> Spi {
        loop {
            let mut cookie = [0; 8];
            self.crypto.random(&mut cookie);
            cookie[7] = (cookie[7] & !0x3f) | self.local().get();
            let key = NegotiationKey {
                cookie,
                message_id: ANY_MESSAGE_ID,
                peer: Address::UNSPECIFIED,
            };
            let ownership = self.cluster.ownership();
            if ownership.ike_sa(cookie).is_none() && ownership.negotiation(&key).is_none() {
                return cookie;
            }
        }
    }

    fn abort_here(&mut self, now: Instant, local_spi: Spi) {
        self.endpoint
            .handle_command(now, Command::Abort { local_spi });
    }

    /// The slot of the entry by hand that leads a message here, if there is one.
    pub(crate) fn pinned_slot(
        &self,
        now: Instant,
        header: &IkeHeader,
        peer: IpAddr,
    ) -> Option<Slot> {
        let (cookie, peer) = match header.our_cookie(Direction::Received) {
            Some(cookie) => (cookie, Address::UNSPECIFIED),
            None => (header.initiator, peer.into()),
        };
        let pinned = |message_id| {
            let key = NegotiationKey {
                cookie,
                message_id,
                peer,
            };
            let pin = self.cluster.ownership().pinned(&key)?;
            (pin.member == self.local() && pin.expires > now).then_some(pin.slot)
        };
        pinned(header.message_id).or_else(|| pinned(ANY_MESSAGE_ID))
    }

    fn write_pin(&mut self, key: NegotiationKey, owner: Option<(MemberId, Slot)>, until: Instant) {
        self.pins.clock = self.pins.clock.saturating_add(1);
        let written = Written {
            clock: self.pins.clock,
            by: self.local().get(),
        };
        let known = Known {
            written,
            owner,
            until,
        };
        self.pins.known.insert(key, known);
    }

    fn tell_all(&mut self, now: Instant, key: NegotiationKey) {
        let Some(known) = self.pins.known.get(&key) else {
            return;
        };
        let octets = encode(now, &key, known);
        let local = self.local();
        let members = self
            .cluster
            .members()
            .iter()
            .map(|weighted| weighted.member);
        let others: Vec<MemberId> = members.filter(|member| *member != local).collect();
        for member in others {
            self.cluster.order(member, octets.clone());
        }
    }

    /// Tells a member that can be spoken to again everything.
    pub(crate) fn tell_pins(&mut self, now: Instant, member: MemberId) {
        self.pins.known.retain(|_, known| known.until > now);
        let all = self.pins.known.iter();
        let orders: Vec<Vec<u8>> = all.map(|(key, known)| encode(now, key, known)).collect();
        for order in orders {
            self.cluster.order(member, order);
        }
    }

    /// Another member wrote an entry, or wants a negotiation given up. What another release has
    /// written is nobody's business.
    pub(crate) fn take_pin_order(&mut self, now: Instant, octets: &[u8]) {
        if let Some((&ABORT, cookie)) = octets.split_first()
            && let Ok(cookie) = Spi::try_from(cookie)
        {
            self.abort_here(now, cookie);
        }
        let Some((key, known)) = decode(now, octets) else {
            return;
        };
        let before = self.pins.known.get(&key);
        if before.is_some_and(|before| before.written >= known.written)
            || (before.is_none() && self.pins.known.len() >= MAX)
        {
            return;
        }
        self.pins.clock = self.pins.clock.max(known.written.clock);
        self.pins.known.insert(key, known);
        let established = key.peer == Address::UNSPECIFIED
            && self.cluster.ownership().ike_sa(key.cookie).is_some();
        match known.owner {
            Some((member, slot)) if !established => {
                let before = self.cluster.ownership().pinned(&key);
                let pin = Pin {
                    member,
                    slot,
                    created: before.map_or(now, |before| before.created),
                    expires: known.until,
                };
                self.cluster.pin(key, pin);
            }
            _ => drop(self.cluster.unpin(&key)),
        }
    }
}

/// What, key, number and writer, owner (0: removed) and slot, milliseconds left.
fn encode(now: Instant, key: &NegotiationKey, known: &Known) -> Vec<u8> {
    let left = known.until.saturating_since(now).as_millis();
    let (owner, slot) = known
        .owner
        .map_or((0, 0), |(member, slot)| (member.get(), slot.0));
    let mut octets = Vec::with_capacity(LEN);
    octets.push(TELL);
    octets.extend_from_slice(&key.cookie);
    octets.extend_from_slice(&key.message_id);
    octets.extend_from_slice(&key.peer.octets);
    octets.extend_from_slice(&known.written.clock.to_be_bytes());
    octets.extend_from_slice(&[known.written.by, owner, slot]);
    octets.extend_from_slice(&u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes());
    octets
}

fn decode(now: Instant, octets: &[u8]) -> Option<(NegotiationKey, Known)> {
    let octets = <[u8; LEN]>::try_from(octets).ok()?;
    let (&TELL, rest) = octets.split_first()? else {
        return None;
    };
    let (cookie, rest) = rest.split_first_chunk()?;
    let (message_id, rest) = rest.split_first_chunk()?;
    let (peer, rest) = rest.split_first_chunk()?;
    let (clock, rest) = rest.split_first_chunk()?;
    let [by, owner, slot, left @ ..] = <[u8; 7]>::try_from(rest).ok()?;
    let left = Duration::from_millis(u64::from(u32::from_be_bytes(left)));
    let owner = match owner {
        0 => None,
        id => Some((MemberId::new(id)?, Slot(slot))),
    };
    let key = NegotiationKey {
        cookie: *cookie,
        message_id: *message_id,
        peer: Address { octets: *peer },
    };
    let known = Known {
        written: Written {
            clock: u64::from_be_bytes(*clock),
            by,
        },
        owner,
        until: now + left.min(NEGOTIATION_LIFETIME),
    };
    Some((key, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_encoding() {
        let now = Instant::from_nanos(5_000_000_000);
        let key = NegotiationKey {
            cookie: *b"cookie!!",
            message_id: [0, 0, 0, 9],
            peer: IpAddr::from([192, 0, 2, 1]).into(),
        };
        for owner in [None, MemberId::new(3).map(|member| (member, Slot(77)))] {
            let known = Known {
                written: Written { clock: 17, by: 2 },
                owner,
                until: now + Duration::from_secs(90),
            };
            assert_eq!(decode(now, &encode(now, &key, &known)), Some((key, known)));
        }
        assert_eq!(decode(now, &[TELL; LEN - 1]), None);
        assert_eq!(decode(now, &[ABORT; LEN]), None);
    }
}
