//! The user-space mirror of the steering tables.

mod claims;
mod replace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gateway_common::abi::{
    EspOutKey, EspSaKey, IkeSaKey, NegotiationKey, NegotiationState, NegotiationValue,
};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use self::claims::{Claims, Withdrawn};
use crate::change::{Child, Cookie, Negotiation, Sa};
use crate::table::{SaKey, TableChange};

pub use self::replace::Announcement;

/// Who serves which negotiation and which SA, as far as this member knows: for each announcing
/// member what it announced, and the tables that follow from it.
///
/// The tables depend on the set of announcements only, never on the order of their arrival. Where
/// two announcements claim the same key, the lower member (negotiations) or the lower slot (SAs) is
/// in effect.
#[derive(Debug, Default)]
pub struct Ownership {
    announced: BTreeMap<MemberId, Announced>,
    negotiations: Claims<NegotiationKey, NegotiationClaim>,
    sas: Claims<SaKey, SaClaim>,
    /// By time of expiry.
    expiry: BTreeSet<(Instant, MemberId, Cookie)>,
    effects: VecDeque<Effect>,
}

/// What one member announced.
#[derive(Debug, Default)]
struct Announced {
    /// By our cookie.
    negotiations: BTreeMap<Cookie, Opened>,
    /// By our IKE SPI.
    sas: BTreeMap<Cookie, Held>,
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

/// An established SA that a member announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its slot.
    pub slot: Slot,
    /// The SA.
    pub sa: Sa,
}

/// What a change of ownership leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A write to a steering map.
    Table(TableChange),
    /// `announcer`'s record of an IKE SA is new or changed.
    RecordUpserted {
        /// Who announced it.
        announcer: MemberId,
        /// Which: look it up with [`Ownership::sa`].
        local_spi: Cookie,
    },
    /// `announcer`'s record of an IKE SA is gone.
    RecordRemoved {
        /// Who had announced it.
        announcer: MemberId,
        /// Which.
        local_spi: Cookie,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NegotiationClaim {
    member: MemberId,
    cookie: Cookie,
    slot: Slot,
    created: Instant,
    expires: Instant,
}

/// Which CHILD_SA of which IKE SA contributes an entry; two children may share a remote network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SaClaim {
    slot: Slot,
    member: MemberId,
    cookie: Cookie,
    spi_in: [u8; 4],
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
        if self.sa(announcer, cookie).is_some() {
            return;
        }
        let announced = self.announced.entry(announcer).or_default();
        let before = announced.negotiations.insert(cookie, opened);
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
            .and_then(|announced| announced.negotiations.remove(&local_cookie));
        if let Some(opened) = opened {
            self.withdraw_negotiation(announcer, &opened);
        }
        opened.is_some()
    }

    /// `announcer` has an established IKE SA, or it changed. Ends the negotiation of the same SPI.
    pub fn upsert(&mut self, announcer: MemberId, slot: Slot, sa: Sa) {
        let local_spi = sa.local_spi;
        let claims = sa_claims(announcer, slot, &sa);
        let record_changed = self
            .sa(announcer, local_spi)
            .is_none_or(|held| held.slot != slot || held.sa != sa);
        let announced = self.announced.entry(announcer).or_default();
        let before = announced.sas.insert(local_spi, Held { slot, sa });
        for (key, claim) in &claims {
            if self.sas.add(*key, *claim) {
                self.effects.push_back(Effect::Table(key.put(claim.slot)));
            }
        }
        if let Some(before) = before {
            let stale = &sa_claims(announcer, before.slot, &before.sa) - &claims;
            self.withdraw_sa(&stale);
        }
        if record_changed {
            self.effects.push_back(Effect::RecordUpserted {
                announcer,
                local_spi,
            });
        }
        self.close(announcer, local_spi);
    }

    /// `announcer`'s IKE SA is gone. `false` if it is not known.
    pub fn remove(&mut self, announcer: MemberId, local_spi: Cookie) -> bool {
        let held = self
            .announced
            .get_mut(&announcer)
            .and_then(|announced| announced.sas.remove(&local_spi));
        let Some(held) = held else {
            return false;
        };
        self.withdraw_sa(&sa_claims(announcer, held.slot, &held.sa));
        self.effects.push_back(Effect::RecordRemoved {
            announcer,
            local_spi,
        });
        true
    }

    /// Forgets the negotiations whose time has come.
    pub fn expire(&mut self, now: Instant) {
        while let Some((expires, announcer, cookie)) = self.expiry.first().copied()
            && expires <= now
        {
            self.expiry.pop_first();
            self.close(announcer, cookie);
        }
    }

    /// When [`Ownership::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiry.first().map(|(expires, _, _)| *expires)
    }

    /// The next effect, in the order in which they have to be carried out.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Negotiations that `announcer` has open.
    pub fn half_open(&self, announcer: MemberId) -> usize {
        self.announced
            .get(&announcer)
            .map_or(0, |announced| announced.negotiations.len())
    }

    /// Whether `announcer` has a negotiation with our SPI `local_cookie` open.
    pub fn has_negotiation(&self, announcer: MemberId, local_cookie: &Cookie) -> bool {
        self.opened(announcer, *local_cookie).is_some()
    }

    /// `announcer`'s IKE SA with our SPI `local_spi`.
    pub fn sa(&self, announcer: MemberId, local_spi: Cookie) -> Option<&Held> {
        self.announced.get(&announcer)?.sas.get(&local_spi)
    }

    /// All established IKE SAs with their announcers, by announcer and SPI.
    pub fn sas(&self) -> impl Iterator<Item = (MemberId, &Held)> {
        self.announced
            .iter()
            .flat_map(|(member, announced)| announced.sas.values().map(move |held| (*member, held)))
    }

    /// All negotiations with their announcers, by announcer and our SPI.
    pub fn negotiations(&self) -> impl Iterator<Item = (MemberId, &Opened)> {
        self.announced.iter().flat_map(|(member, announced)| {
            announced
                .negotiations
                .values()
                .map(move |opened| (*member, opened))
        })
    }

    /// The slot of an established IKE SA by our cookie.
    pub fn ike_sa(&self, cookie: Cookie) -> Option<Slot> {
        let key = SaKey::Ike(IkeSaKey { cookie });
        Some(self.sas.get(&key)?.slot)
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
        let sas = self.sas.iter().map(|(key, claim)| key.put(claim.slot));
        negotiations.chain(sas)
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

    fn withdraw_sa(&mut self, claims: &BTreeSet<(SaKey, SaClaim)>) {
        for (key, claim) in claims {
            let change = match self.sas.withdraw(*key, claim) {
                // The slot alone is visible in the table.
                Withdrawn::Now(next) if next.slot == claim.slot => continue,
                Withdrawn::Unchanged => continue,
                Withdrawn::Now(next) => key.put(next.slot),
                Withdrawn::Gone => key.remove(),
            };
            self.effects.push_back(Effect::Table(change));
        }
    }

    fn opened(&self, announcer: MemberId, cookie: Cookie) -> Option<&Opened> {
        self.announced.get(&announcer)?.negotiations.get(&cookie)
    }
}

impl Opened {
    const fn claim(&self, member: MemberId) -> NegotiationClaim {
        NegotiationClaim {
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
            state: NegotiationState::HalfOpen as u8,
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

fn sa_claims(member: MemberId, slot: Slot, sa: &Sa) -> BTreeSet<(SaKey, SaClaim)> {
    let claim = |spi_in| SaClaim {
        slot,
        member,
        cookie: sa.local_spi,
        spi_in,
    };
    let ike = SaKey::Ike(IkeSaKey {
        cookie: sa.local_spi,
    });
    let children = sa
        .children
        .iter()
        .flat_map(|child| child_keys(child).map(move |key| (key, claim(child.spi_in))));
    [(ike, claim([0; 4]))].into_iter().chain(children).collect()
}

fn child_keys(child: &Child) -> impl Iterator<Item = SaKey> {
    let inbound = SaKey::EspIn(EspSaKey {
        spi: child.spi_in,
        vip: child.vip.into(),
    });
    let outbound = SaKey::EspOut(EspOutKey {
        spi: child.spi_out,
        peer: child.peer.into(),
    });
    let nets = child.remote_nets.iter().map(|net| {
        let (prefix_len, data) = net.key();
        SaKey::RemoteNet(prefix_len, data)
    });
    [inbound, outbound].into_iter().chain(nets)
}

#[cfg(test)]
mod tests;
