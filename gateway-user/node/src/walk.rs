//! The walk over the IKE SAs of slots that this member took over: slowly, so that traffic and
//! exchanges that peers begin come first.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use crate::records::{Index, Spi};

/// How fast IKE SAs are looked after that came by takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkLimits {
    /// Pause between activation and the first liveness check. Rekeyings do not wait for it.
    /// Default 1 s.
    pub delay: Duration,
    /// IKE SAs per second whose peers are asked for a sign of life, at least 1. Default 200.
    pub rate: u32,
    /// CHILD_SAs are rekeyed after every takeover (policies `strict` and `rekey`). Default: no.
    pub rekey: bool,
    /// IKE SAs per second whose CHILD_SAs are rekeyed, at least 1: a key exchange costs the peers
    /// more than it costs us. Default 50.
    pub rekey_rate: u32,
}

impl Default for WalkLimits {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(1),
            rate: 200,
            rekey: false,
            rekey_rate: 50,
        }
    }
}

/// What an IKE SA needs, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Care {
    /// A liveness check.
    Check,
    /// Other keys for its CHILD_SAs: a packet of the peer could be replayed, or another member may
    /// be using the same ones.
    Rekey,
}

/// Where the walk stands. Its cost at takeover is that of the slots, not of the SAs in them.
#[derive(Debug)]
pub(crate) struct Walk {
    limits: WalkLimits,
    slots: BTreeMap<Slot, Care>,
    /// The slot that is walked, and the last IKE SA seen in it.
    cursor: Option<(Slot, Option<Spi>)>,
    due: Option<Instant>,
}

impl Walk {
    pub(crate) fn new(limits: WalkLimits) -> Self {
        Self {
            limits,
            slots: BTreeMap::new(),
            cursor: None,
            due: None,
        }
    }

    /// Slots came by a takeover that a majority stands behind.
    pub(crate) fn add(&mut self, now: Instant, slots: impl Iterator<Item = Slot>) {
        let care = if self.limits.rekey {
            Care::Rekey
        } else {
            Care::Check
        };
        self.add_with(now, slots, care);
    }

    /// Slots need this much at least.
    pub(crate) fn add_with(&mut self, now: Instant, slots: impl Iterator<Item = Slot>, care: Care) {
        let delay = match care {
            Care::Check => self.limits.delay,
            Care::Rekey => Duration::ZERO,
        };
        self.add_at(now + delay, slots, care);
    }

    /// As [`Walk::add_with`], after the pause before liveness checks.
    pub(crate) fn add_later(
        &mut self,
        now: Instant,
        slots: impl Iterator<Item = Slot>,
        care: Care,
    ) {
        self.add_at(now + self.limits.delay, slots, care);
    }

    fn add_at(&mut self, at: Instant, slots: impl Iterator<Item = Slot>, care: Care) {
        for slot in slots {
            let known = self.slots.insert(slot, care);
            self.slots.insert(slot, care.max(known.unwrap_or(care)));
            // Walked again from its beginning: that does no harm.
            self.leave(slot);
        }
        if !self.slots.is_empty() {
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    /// A slot went.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.leave(slot);
        self.slots.remove(&slot);
        if self.slots.is_empty() {
            self.due = None;
        }
    }

    fn leave(&mut self, slot: Slot) {
        if self.cursor.is_some_and(|(at, _)| at == slot) {
            self.cursor = None;
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due
    }

    /// Slots that are not done.
    pub(crate) fn left(&self) -> usize {
        self.slots.len()
    }

    /// The next IKE SA whose turn has come at `now`, and what it needs.
    pub(crate) fn step(&mut self, now: Instant, records: &Index) -> Option<(Spi, Care)> {
        let due = self.due.filter(|due| *due <= now)?;
        while let Some((slot, after)) = self.cursor.or_else(|| Some((self.neediest()?, None))) {
            let care = self.slots.get(&slot).copied().unwrap_or(Care::Check);
            if let Some(spi) = records.after(slot, after) {
                self.cursor = Some((slot, Some(spi)));
                let rate = match care {
                    Care::Check => self.limits.rate,
                    Care::Rekey => self.limits.rekey_rate,
                };
                let pause = Duration::from_secs(1) / rate.max(1);
                // After a pause of the whole member the walk does not catch up in a burst.
                let slack = now.before(pause * 8);
                self.due = Some(due.max(slack) + pause);
                return Some((spi, care));
            }
            self.slots.remove(&slot);
            self.cursor = None;
        }
        self.due = None;
        None
    }

    fn neediest(&self) -> Option<Slot> {
        let slots = self.slots.iter();
        let most = slots.max_by_key(|(slot, care)| (**care, std::cmp::Reverse(**slot)));
        most.map(|(slot, _)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn records() -> Index {
        let mut records = Index::default();
        for n in 0..100u8 {
            records.put([n; 8], Slot(n % 4), Instant::default(), None);
        }
        records
    }

    const START: Instant = Instant::from_nanos(1_000_000_000);

    /// When everything was done, in milliseconds from the start, and in what order.
    fn finish(walk: &mut Walk, records: &Index) -> (u128, Vec<(Spi, Care)>) {
        let mut turns = Vec::new();
        let mut now = START;
        while let Some(due) = walk.next() {
            now = now.max(due);
            turns.extend(walk.step(now, records));
        }
        ((now - START).as_millis(), turns)
    }

    #[test]
    fn every_sa_of_the_slots_has_its_turn_at_the_rate() {
        let records = records();
        let mut walk = Walk::new(WalkLimits::default());
        walk.add(START, [Slot(1), Slot(3)].into_iter());
        walk.add(START, [Slot(0)].into_iter());
        walk.remove(Slot(3));
        let (millis, turns) = finish(&mut walk, &records);
        let seen: BTreeSet<Spi> = turns.iter().map(|(spi, _)| *spi).collect();
        assert_eq!((seen.len(), turns.len()), (50, 50));
        assert!(seen.iter().all(|spi| spi[0] % 4 < 2));
        assert!(turns.iter().all(|(_, care)| *care == Care::Check));
        // One second of delay, then 200 a second.
        assert_eq!(millis, 1000 + 50 * 5);
    }

    #[test]
    fn what_must_be_rekeyed_comes_first_and_at_once() {
        let records = records();
        let limits = WalkLimits {
            rate: 1000,
            rekey_rate: 10,
            ..WalkLimits::default()
        };
        let mut walk = Walk::new(limits);
        walk.add(START, [Slot(0), Slot(1), Slot(2)].into_iter());
        walk.add_with(START, [Slot(1)].into_iter(), Care::Rekey);
        // Later good news do not make less of it.
        walk.add(START, [Slot(1)].into_iter());
        assert_eq!(walk.next(), Some(START));
        assert_eq!(walk.left(), 3);
        let (millis, turns) = finish(&mut walk, &records);
        assert_eq!(turns.len(), 75);
        assert!(
            turns[..25]
                .iter()
                .all(|(spi, care)| *care == Care::Rekey && spi[0] % 4 == 1)
        );
        assert!(turns[25..].iter().all(|(_, care)| *care == Care::Check));
        assert_eq!(millis, 25 * 100 + 50);
    }

    #[test]
    fn the_policy_makes_every_takeover_a_rekeying() {
        let records = records();
        let limits = WalkLimits {
            rekey: true,
            ..WalkLimits::default()
        };
        let mut walk = Walk::new(limits);
        walk.add(START, [Slot(2)].into_iter());
        let (millis, turns) = finish(&mut walk, &records);
        assert_eq!(turns.len(), 25);
        assert!(turns.iter().all(|(_, care)| *care == Care::Rekey));
        assert_eq!(millis, 25 * 20);
    }
}
