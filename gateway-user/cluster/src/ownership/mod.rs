//! The user-space mirror of the steering tables.

mod claims;
mod pins;
mod sas;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use gateway_common::abi::{NegotiationKey, NegotiationState, NegotiationValue};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use self::claims::{Claims, Withdrawn};
use crate::change::{Cookie, Negotiation};
use crate::table::TableChange;

pub use self::pins::Pin;
use self::sas::Sas;
pub use self::sas::{Held, Writer};

/// Who serves which negotiation and which SA, as far as this member knows: for each member what
/// negotiations it announced, all established SAs with their slots, and the tables that follow.
///
/// The tables depend on these sets only, never on the order of their arrival. Where two claim the
/// same key, the lower member (negotiations) or the lower slot (SAs) is in effect.
#[derive(Debug, Default)]
pub struct Ownership {
    announced: BTreeMap<MemberId, BTreeMap<Cookie, Opened>>,
    negotiations: Claims<NegotiationKey, NegotiationClaim>,
    pins: BTreeMap<NegotiationKey, Pin>,
    sas: Sas,
    /// By time of expiry.
    expiry: BTreeSet<(Instant, MemberId, Cookie)>,
    effects: VecDeque<Effect>,
    /// Tests only: later changes may be undone by earlier ones.
    pub(crate) unchecked: bool,
}

/// A negotiation that a member announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its keys.
    pub negotiation: Negotiation,
    /// Its slot.
    pub slot: Slot,
    /// When this member heard of it.
    pub created: Instant,
    /// From here on it is forgotten.
    pub expires: Instant,
}

/// What a change of ownership leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A write to a steering map.
    Table(TableChange),
    /// Another member wrote an IKE SA: look it up with [`Ownership::sa`].
    RecordUpserted(Cookie),
    /// Another member's IKE SA is gone.
    RecordRemoved {
        /// Its slot.
        slot: Slot,
        /// Which.
        local_spi: Cookie,
    },
    /// No IKE SA has the CHILD_SA with this inbound SPI any more.
    ChildGone([u8; 4]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NegotiationClaim {
    /// An operator's word comes first.
    half_open: bool,
    member: MemberId,
    cookie: Cookie,
    slot: Slot,
    created: Instant,
    expires: Instant,
}

impl Ownership {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// `announcer` opened a negotiation that expires at `expires`. Announcing it again moves its
    /// slot and expiry. Ignored if its SA is established: that is never undone.
    pub fn open(
        &mut self,
        now: Instant,
        announcer: MemberId,
        slot: Slot,
        negotiation: Negotiation,
        expires: Instant,
    ) {
        let opened = Opened {
            negotiation,
            slot,
            created: now,
            expires,
        };
        let cookie = negotiation.local_cookie;
        if self.sa(cookie).is_some() {
            return;
        }
        let announced = self.announced.entry(announcer).or_default();
        let before = announced.insert(cookie, opened);
        self.expiry.insert((expires, announcer, cookie));
        let claim = opened.claim(announcer);
        for key in negotiation.keys() {
            if self.negotiations.add(key, claim) {
                self.effects
                    .push_back(Effect::Table(put_negotiation(key, &claim)));
            }
        }
        if let Some(before) = before.filter(|before| *before != opened) {
            self.withdraw_negotiation(announcer, &before);
        }
    }

    /// `announcer` gave a negotiation up, or it expired. `false` if it is not known.
    pub fn close(&mut self, announcer: MemberId, local_cookie: Cookie) -> bool {
        let opened = self
            .announced
            .get_mut(&announcer)
            .and_then(|announced| announced.remove(&local_cookie));
        if let Some(opened) = opened {
            self.withdraw_negotiation(announcer, &opened);
        }
        opened.is_some()
    }

    /// Forgets the negotiations whose time has come.
    pub fn expire(&mut self, now: Instant) {
        while let Some((expires, announcer, cookie)) = self.expiry.first().copied()
            && expires <= now
        {
            self.expiry.pop_first();
            self.close(announcer, cookie);
        }
        self.expire_pins(now);
    }

    /// When [`Ownership::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        let negotiations = self.expiry.first().map(|(expires, _, _)| *expires);
        [negotiations, self.next_pin_expiry()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next effect, in the order in which they have to be carried out.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Negotiations that `announcer` has open.
    pub fn half_open(&self, announcer: MemberId) -> usize {
        self.announced.get(&announcer).map_or(0, BTreeMap::len)
    }

    /// As [`Ownership::open`], but leaves an entry alone that is already there: only its remaining
    /// time has been measured again.
    pub(crate) fn reopen(
        &mut self,
        now: Instant,
        announcer: MemberId,
        slot: Slot,
        negotiation: Negotiation,
        expires: Instant,
    ) {
        let known = self.opened(announcer, negotiation.local_cookie);
        if known.is_none_or(|known| known.negotiation != negotiation || known.slot != slot) {
            self.open(now, announcer, slot, negotiation, expires);
        }
    }

    /// The first negotiation of `announcer` with a cookie above `after`.
    pub(crate) fn negotiation_after(
        &self,
        announcer: MemberId,
        after: Option<Cookie>,
    ) -> Option<&Opened> {
        let announced = self.announced.get(&announcer)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = announced.range((from, Bound::Unbounded));
        rest.next().map(|(_, opened)| opened)
    }

    /// Forgets `announcer`'s negotiations that `known` does not contain.
    pub(crate) fn retain_negotiations(&mut self, announcer: MemberId, known: &BTreeSet<Cookie>) {
        let Some(announced) = self.announced.get(&announcer) else {
            return;
        };
        let stale: Vec<Cookie> = announced
            .keys()
            .filter(|cookie| !known.contains(*cookie))
            .copied()
            .collect();
        for cookie in stale {
            self.close(announcer, cookie);
        }
    }

    /// Whether `announcer` has a negotiation with our SPI `local_cookie` open.
    pub fn has_negotiation(&self, announcer: MemberId, local_cookie: &Cookie) -> bool {
        self.opened(announcer, *local_cookie).is_some()
    }

    /// All negotiations with their announcers, by announcer and our SPI.
    pub fn negotiations(&self) -> impl Iterator<Item = (MemberId, &Opened)> {
        self.announced
            .iter()
            .flat_map(|(member, announced)| announced.values().map(move |opened| (*member, opened)))
    }

    /// The negotiation in effect under `key`, as it stands in the steering map: expired ones
    /// included until [`Ownership::expire`] forgets them.
    pub fn negotiation(&self, key: &NegotiationKey) -> Option<NegotiationValue> {
        self.negotiations.get(key).map(NegotiationClaim::value)
    }

    /// Everything that the steering maps have to hold, as puts: what to write after the maps were
    /// created, and what to compare with after they were found pinned. Without the slot owners.
    pub fn tables(&self) -> impl Iterator<Item = TableChange> {
        let negotiations = self
            .negotiations
            .iter()
            .map(|(key, claim)| put_negotiation(*key, claim));
        negotiations.chain(self.sas.tables())
    }

    fn withdraw_negotiation(&mut self, announcer: MemberId, opened: &Opened) {
        let claim = opened.claim(announcer);
        let successor = self.opened(announcer, claim.cookie).copied();
        if successor.is_none_or(|next| next.expires != claim.expires) {
            self.expiry
                .remove(&(claim.expires, announcer, claim.cookie));
        }
        for key in opened.negotiation.keys() {
            let change = match self.negotiations.withdraw(key, &claim) {
                Withdrawn::Unchanged => continue,
                Withdrawn::Now(next) => put_negotiation(key, &next),
                Withdrawn::Gone => TableChange::RemoveNegotiation(key),
            };
            self.effects.push_back(Effect::Table(change));
        }
    }

    fn opened(&self, announcer: MemberId, cookie: Cookie) -> Option<&Opened> {
        self.announced.get(&announcer)?.get(&cookie)
    }
}

impl Opened {
    const fn claim(&self, member: MemberId) -> NegotiationClaim {
        NegotiationClaim {
            half_open: true,
            member,
            cookie: self.negotiation.local_cookie,
            slot: self.slot,
            created: self.created,
            expires: self.expires,
        }
    }

    /// Time left before it is forgotten.
    pub const fn remaining(&self, now: Instant) -> Duration {
        self.expires.saturating_since(now)
    }
}

impl NegotiationClaim {
    const fn value(&self) -> NegotiationValue {
        NegotiationValue {
            member: self.member.get(),
            slot: self.slot.0,
            state: if self.half_open {
                NegotiationState::HalfOpen as u8
            } else {
                NegotiationState::Static as u8
            },
            reserved: [0; 5],
            created_ns: self.created.as_nanos(),
            expires_ns: self.expires.as_nanos(),
        }
    }
}

fn put_negotiation(key: NegotiationKey, claim: &NegotiationClaim) -> TableChange {
    let value = claim.value();
    TableChange::PutNegotiation { key, value }
}

#[cfg(test)]
mod tests;
