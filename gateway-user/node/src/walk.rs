//! The walk over the IKE SAs of slots that this member took over: slowly, so that traffic and
//! exchanges that peers begin come first.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use crate::records::{Index, Spi};

/// How fast IKE SAs are looked after that came by takeover and whose peers are silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkLimits {
    /// Pause between activation and the first step. Default 1 s.
    pub delay: Duration,
    /// IKE SAs per second, at least 1. Default 200.
    pub rate: u32,
}

impl Default for WalkLimits {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(1),
            rate: 200,
        }
    }
}

/// Where the walk stands. Its cost at takeover is that of the slots, not of the SAs in them.
#[derive(Debug)]
pub(crate) struct Walk {
    limits: WalkLimits,
    slots: BTreeSet<Slot>,
    /// The last IKE SA seen in the first of `slots`.
    cursor: Option<Spi>,
    due: Option<Instant>,
}

impl Walk {
    pub(crate) fn new(limits: WalkLimits) -> Self {
        Self {
            limits,
            slots: BTreeSet::new(),
            cursor: None,
            due: None,
        }
    }

    /// Slots came.
    pub(crate) fn add(&mut self, now: Instant, slots: impl Iterator<Item = Slot>) {
        let first = self.slots.first().copied();
        self.slots.extend(slots);
        // An interrupted slot is walked again from its beginning: that does no harm.
        if self.slots.first().copied() != first {
            self.cursor = None;
        }
        if !self.slots.is_empty() {
            self.due.get_or_insert(now + self.limits.delay);
        }
    }

    /// A slot went.
    pub(crate) fn remove(&mut self, slot: Slot) {
        if self.slots.first() == Some(&slot) {
            self.cursor = None;
        }
        self.slots.remove(&slot);
        if self.slots.is_empty() {
            self.due = None;
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due
    }

    /// The next IKE SA whose turn has come at `now`.
    pub(crate) fn step(&mut self, now: Instant, records: &Index) -> Option<Spi> {
        let due = self.due.filter(|due| *due <= now)?;
        while let Some(slot) = self.slots.first().copied() {
            if let Some(spi) = records.after(slot, self.cursor) {
                self.cursor = Some(spi);
                let pause = Duration::from_secs(1) / self.limits.rate.max(1);
                // After a pause of the whole member the walk does not catch up in a burst.
                let slack = now.before(pause * 8);
                self.due = Some(due.max(slack) + pause);
                return Some(spi);
            }
            self.slots.pop_first();
            self.cursor = None;
        }
        self.due = None;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sa_of_the_slots_has_its_turn_at_the_rate() {
        let mut records = Index::default();
        for n in 0..100u8 {
            records.put([n; 8], Slot(n % 4), Instant::default(), false);
        }
        let mut walk = Walk::new(WalkLimits::default());
        let start = Instant::from_nanos(1_000_000_000);
        walk.add(start, [Slot(1), Slot(3)].into_iter());
        walk.add(start, [Slot(0)].into_iter());
        walk.remove(Slot(3));
        let mut seen = BTreeSet::new();
        let mut now = start;
        while let Some(due) = walk.next() {
            now = due;
            if let Some(spi) = walk.step(now, &records) {
                assert!(seen.insert(spi));
            }
        }
        assert_eq!(seen.len(), 50);
        assert!(seen.iter().all(|spi| spi[0] % 4 < 2));
        // One second of delay, then 200 a second.
        assert_eq!((now - start).as_millis(), 1000 + 50 * 5);
    }
}
