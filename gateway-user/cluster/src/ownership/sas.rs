//! Established IKE SAs: one object per local SPI, whoever wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use gateway_common::abi::{EspOutKey, EspSaKey, IkeSaKey};
use gateway_common::slot::Slot;

use super::claims::{Claims, Withdrawn};
use super::{Effect, Ownership};
use crate::change::{Child, Cookie, Identities, Sa, Stamp};
use crate::slot_set::SlotSet;
use crate::table::{SaKey, TableChange};
use crate::view::Epoch;

/// An established SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its slot.
    pub slot: Slot,
    /// The SA.
    pub sa: Sa,
    /// When it was written.
    pub written: Stamp,
    /// The last sweep before which it was named.
    pub(super) named: u64,
}

/// All of them, and what follows.
#[derive(Debug, Default)]
pub(super) struct Sas {
    held: BTreeMap<Cookie, Held>,
    claims: Claims<SaKey, SaClaim>,
    identities: BTreeSet<(Identities, Cookie)>,
    /// Removals that an older change of another stream must not undo: how often it had moved, and
    /// when it was removed.
    removed: BTreeMap<Cookie, (u32, Stamp)>,
    /// Low words of the ceilings of the outbound SAs, by the inbound SPI of their CHILD_SA.
    ceilings: BTreeMap<[u8; 4], u32>,
    /// Number of the last sweep that began.
    sweep: u64,
    /// Octets of all records.
    octets: usize,
}

/// Which CHILD_SA of which IKE SA contributes an entry; two children may share a remote network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SaClaim {
    slot: Slot,
    cookie: Cookie,
    spi_in: [u8; 4],
}

/// Who changes an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// This member: its engine knows.
    Local,
    /// A stream: what is older than what is known does not count.
    Stream,
    /// A snapshot of the owner: it counts whatever is known.
    Snapshot,
}

impl Sas {
    pub(super) fn tables(&self) -> impl Iterator<Item = TableChange> {
        let claims = self.claims.iter();
        claims.map(|(key, claim)| key.put(claim.slot, self.ceiling(claim)))
    }

    fn ceiling(&self, claim: &SaClaim) -> u32 {
        self.ceilings.get(&claim.spi_in).copied().unwrap_or(0)
    }

    fn withdraw(&mut self, claims: &BTreeSet<(SaKey, SaClaim)>, effects: &mut Vec<Effect>) {
        for (key, claim) in claims {
            match self.claims.withdraw(*key, claim) {
                Withdrawn::Unchanged => {}
                // Only the slot and the ceiling are visible in the table.
                Withdrawn::Now(next) => {
                    if next.slot != claim.slot || next.spi_in != claim.spi_in {
                        effects.push(Effect::Table(key.put(next.slot, self.ceiling(&next))));
                    }
                }
                Withdrawn::Gone => {
                    effects.push(Effect::Table(key.remove()));
                    if let SaKey::EspIn(key) = key {
                        self.ceilings.remove(&key.spi);
                        effects.push(Effect::ChildGone(key.spi));
                    }
                }
            }
        }
    }
}

impl Ownership {
    /// An IKE SA is established, or it changed. Ends the negotiations of the same SPI. `false` if
    /// what is known is newer.
    pub fn upsert(&mut self, writer: Writer, slot: Slot, sa: Sa, written: Stamp) -> bool {
        let local_spi = sa.local_spi;
        let sweep = self.sas.sweep;
        if let Some(held) = self.sas.held.get_mut(&local_spi) {
            held.named = sweep;
        }
        if !self.counts(writer, &sa, written) {
            return false;
        }
        let claims = sa_claims(slot, &sa);
        let known = self.sas.held.get(&local_spi);
        let changed = known.is_none_or(|held| held.slot != slot || held.sa != sa);
        if let Some(identities) = sa.identities {
            self.sas.identities.insert((identities, local_spi));
        }
        let identities = sa.identities;
        let held = Held {
            slot,
            sa,
            written,
            named: sweep,
        };
        self.sas.octets += held.sa.record.len();
        let before = self.sas.held.insert(local_spi, held);
        for (key, claim) in &claims {
            if self.sas.claims.add(*key, *claim) {
                let put = key.put(claim.slot, self.sas.ceiling(claim));
                self.effects.push_back(Effect::Table(put));
            }
        }
        if let Some(before) = before {
            self.sas.octets -= before.sa.record.len();
            if let Some(earlier) = before.sa.identities.filter(|i| Some(*i) != identities) {
                self.sas.identities.remove(&(earlier, local_spi));
            }
            let stale = &sa_claims(before.slot, &before.sa) - &claims;
            self.withdraw(&stale);
        }
        if changed && writer != Writer::Local {
            self.effects.push_back(Effect::RecordUpserted(local_spi));
        }
        let announcers: Vec<_> = self.announced.keys().copied().collect();
        for announcer in announcers {
            self.close(announcer, local_spi);
        }
        self.unpin_established(local_spi);
        true
    }

    /// Whether a change of an IKE SA is newer than what is known; always, unless it comes by a
    /// stream.
    pub(crate) fn counts(&self, writer: Writer, sa: &Sa, written: Stamp) -> bool {
        if writer != Writer::Stream || self.unchecked {
            return true;
        }
        let held = self.sas.held.get(&sa.local_spi);
        let newer = held.is_none_or(|held| (held.sa.moves, held.written) < (sa.moves, written));
        let removed = self.sas.removed.get(&sa.local_spi);
        newer && removed.is_none_or(|removed| *removed < (sa.moves, written))
    }

    /// It is still there, although what was told of it was not new.
    pub(crate) fn name(&mut self, local_spi: Cookie) {
        let sweep = self.sas.sweep;
        if let Some(held) = self.sas.held.get_mut(&local_spi) {
            held.named = sweep;
        }
    }

    /// An IKE SA in `slot` is gone. `false` if it is not known there, or if what is known is newer.
    pub fn remove(
        &mut self,
        writer: Writer,
        slot: Slot,
        local_spi: Cookie,
        written: Stamp,
    ) -> bool {
        let held = self
            .sas
            .held
            .get(&local_spi)
            .filter(|held| held.slot == slot);
        let checked = writer == Writer::Stream && !self.unchecked;
        if held.is_none_or(|held| checked && held.written >= written) {
            return false;
        }
        let Some(held) = self.sas.held.remove(&local_spi) else {
            return false;
        };
        self.sas.octets -= held.sa.record.len();
        if let Some(identities) = held.sa.identities {
            self.sas.identities.remove(&(identities, local_spi));
        }
        self.withdraw(&sa_claims(held.slot, &held.sa));
        if writer != Writer::Local {
            self.effects.push_back(Effect::RecordRemoved {
                slot: held.slot,
                local_spi,
            });
        }
        true
    }

    /// Remembers the removal of an SA that had moved so often, so that no older change undoes it
    /// before [`Ownership::settle`].
    pub(crate) fn bury(&mut self, local_spi: Cookie, moves: u32, written: Stamp) {
        let removed = self.sas.removed.entry(local_spi).or_default();
        *removed = (moves, written).max(*removed);
    }

    /// All members are level in view `epoch`: nothing that was written before can come any more.
    pub(crate) fn settle(&mut self, epoch: Epoch) {
        self.sas
            .removed
            .retain(|_, (_, written)| written.epoch >= epoch);
    }

    /// From now on is counted what is named; the number is for [`Ownership::sweep`].
    pub(crate) fn begin_sweep(&mut self) -> u64 {
        self.sas.sweep += 1;
        self.sas.sweep
    }

    /// Forgets the SAs in `slots` that were not named since sweep number `sweep` began. Says how many.
    pub(crate) fn sweep(&mut self, sweep: u64, slots: &SlotSet) -> usize {
        let stale: Vec<(Cookie, Slot, Stamp)> = self
            .sas
            .held
            .iter()
            .filter(|(_, held)| held.named < sweep && slots.contains(held.slot))
            .map(|(cookie, held)| (*cookie, held.slot, held.written))
            .collect();
        for (cookie, slot, written) in &stale {
            self.remove(Writer::Snapshot, *slot, *cookie, *written);
        }
        stale.len()
    }

    /// The low word of the ceiling of the outbound SA of a CHILD_SA, now or as soon as it is known.
    pub(crate) fn set_ceiling(&mut self, spi_in: [u8; 4], cookie: Cookie, ceiling: u32) {
        if self.sas.ceilings.insert(spi_in, ceiling) == Some(ceiling) {
            return;
        }
        let children = self.sas.held.get(&cookie).map(|held| &held.sa.children);
        let Some(child) = children.and_then(|c| c.iter().find(|child| child.spi_in == spi_in))
        else {
            return;
        };
        let key = SaKey::EspOut(out_key(child));
        if let Some(claim) = self.sas.claims.get(&key).filter(|c| c.spi_in == spi_in) {
            let put = key.put(claim.slot, ceiling);
            self.effects.push_back(Effect::Table(put));
        }
    }

    #[cfg(test)]
    pub(super) fn copy_ceiling(&mut self, spi_in: [u8; 4], from: &Self) {
        if let Some(ceiling) = from.sas.ceilings.get(&spi_in) {
            self.sas.ceilings.insert(spi_in, *ceiling);
        }
    }

    /// The IKE SA with our SPI `local_spi`.
    pub fn sa(&self, local_spi: Cookie) -> Option<&Held> {
        self.sas.held.get(&local_spi)
    }

    /// Octets of all records: counted as they come and go, since there may be many.
    pub const fn record_octets(&self) -> usize {
        self.sas.octets
    }

    /// All established IKE SAs, by SPI.
    pub fn sas(&self) -> impl Iterator<Item = &Held> {
        self.sas.held.values()
    }

    /// All established IKE SAs with an SPI above `after`, by SPI.
    pub fn sas_after(&self, after: Option<Cookie>) -> impl Iterator<Item = &Held> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.sas.held.range((from, Bound::Unbounded));
        rest.map(|(_, held)| held)
    }

    /// The first IKE SA in `slots` with an SPI above `after`.
    pub(crate) fn sa_after(&self, after: Option<Cookie>, slots: &SlotSet) -> Option<&Held> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.sas.held.range((from, Bound::Unbounded));
        rest.find(|(_, held)| slots.contains(held.slot))
            .map(|(_, held)| held)
    }

    /// The IKE SAs between this pair of identities, by SPI.
    pub fn by_identities(&self, identities: Identities) -> impl Iterator<Item = &Held> {
        let range = (identities, [0; 8])..=(identities, [0xff; 8]);
        let found = self.sas.identities.range(range);
        found.filter_map(|(_, cookie)| self.sas.held.get(cookie))
    }

    /// The slot of an established IKE SA by our cookie.
    pub fn ike_sa(&self, cookie: Cookie) -> Option<Slot> {
        let key = SaKey::Ike(IkeSaKey { cookie });
        Some(self.sas.claims.get(&key)?.slot)
    }

    fn withdraw(&mut self, claims: &BTreeSet<(SaKey, SaClaim)>) {
        let mut effects = Vec::new();
        self.sas.withdraw(claims, &mut effects);
        self.effects.extend(effects);
    }
}

fn sa_claims(slot: Slot, sa: &Sa) -> BTreeSet<(SaKey, SaClaim)> {
    let claim = |spi_in| SaClaim {
        slot,
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

fn out_key(child: &Child) -> EspOutKey {
    EspOutKey {
        spi: child.spi_out,
        peer: child.peer.into(),
    }
}

fn child_keys(child: &Child) -> impl Iterator<Item = SaKey> {
    let inbound = SaKey::EspIn(EspSaKey {
        spi: child.spi_in,
        vip: child.vip.into(),
    });
    let outbound = SaKey::EspOut(out_key(child));
    let nets = child.remote_nets.iter().map(|net| {
        let (prefix_len, data) = net.key();
        SaKey::RemoteNet(prefix_len, data)
    });
    [inbound, outbound].into_iter().chain(nets)
}
