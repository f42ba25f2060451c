//! Entries that operators and programs write: a negotiation is handed to a member by their word.

use gateway_common::abi::{Address, NegotiationKey};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use super::claims::Withdrawn;
use super::{Effect, NegotiationClaim, Ownership, put_negotiation};
use crate::change::Cookie;
use crate::table::TableChange;

/// An entry by an operator's word. It goes before what negotiations themselves announce under the
/// same key, and not before an established IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The member that packets with this key are handed to.
    pub member: MemberId,
    /// A slot of that member's.
    pub slot: Slot,
    /// When it was made.
    pub created: Instant,
    /// From here on it is forgotten.
    pub expires: Instant,
}

impl Pin {
    const fn claim(&self, cookie: Cookie) -> NegotiationClaim {
        NegotiationClaim {
            half_open: false,
            member: self.member,
            cookie,
            slot: self.slot,
            created: self.created,
            expires: self.expires,
        }
    }
}

impl Ownership {
    /// Writes an entry, in place of the one before.
    pub fn pin(&mut self, key: NegotiationKey, pin: Pin) {
        let claim = pin.claim(key.cookie);
        let before = self.pins.insert(key, pin);
        if self.negotiations.add(key, claim) {
            let put = put_negotiation(key, &claim);
            self.effects.push_back(Effect::Table(put));
        }
        if let Some(before) = before.filter(|before| *before != pin) {
            self.withdraw_pin(key, &before);
        }
    }

    /// Removes an entry. What a negotiation announces under the same key is in effect again.
    pub fn unpin(&mut self, key: &NegotiationKey) -> Option<Pin> {
        let pin = self.pins.remove(key)?;
        self.withdraw_pin(*key, &pin);
        Some(pin)
    }

    /// The entry under `key`.
    pub fn pinned(&self, key: &NegotiationKey) -> Option<&Pin> {
        self.pins.get(key)
    }

    /// When the next of them has to be forgotten.
    pub(super) fn next_pin_expiry(&self) -> Option<Instant> {
        self.pins.values().map(|pin| pin.expires).min()
    }

    pub(super) fn expire_pins(&mut self, now: Instant) {
        let due = self.pins.iter().filter(|(_, pin)| pin.expires <= now);
        let due: Vec<NegotiationKey> = due.map(|(key, _)| *key).collect();
        for key in due {
            self.unpin(&key);
        }
    }

    /// An IKE SA with our SPI `cookie` is established: nobody's word counts any more.
    pub(super) fn unpin_established(&mut self, cookie: Cookie) {
        let key = |message_id| NegotiationKey {
            cookie,
            message_id,
            peer: Address::UNSPECIFIED,
        };
        let range = key([0; 4])..=key([0xff; 4]);
        let keys = self.pins.range(range).map(|(key, _)| *key);
        let keys: Vec<_> = keys
            .filter(|key| key.peer == Address::UNSPECIFIED)
            .collect();
        for key in keys {
            self.unpin(&key);
        }
    }

    fn withdraw_pin(&mut self, key: NegotiationKey, pin: &Pin) {
        let claim = pin.claim(key.cookie);
        let change = match self.negotiations.withdraw(key, &claim) {
            Withdrawn::Unchanged => return,
            Withdrawn::Now(next) => put_negotiation(key, &next),
            Withdrawn::Gone => TableChange::RemoveNegotiation(key),
        };
        self.effects.push_back(Effect::Table(change));
    }
}
