//! Transmit rights: this member's own, and what it knows of the others'.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gateway_common::{member::MemberId, time::Instant};

use super::io::Sender;
use super::wire::Left;

/// Heartbeats whose acknowledgements still count.
const SENT: usize = 64;

/// This member's own right.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Heartbeats by sequence, with the time they were sent.
    sent: VecDeque<(u64, Instant)>,
    /// Who granted it in the installed view: send time of the latest heartbeat that it acknowledged.
    granted: BTreeMap<Sender, Instant>,
    /// End.
    pub(super) until: Instant,
    /// It ran at the last look.
    pub(super) running: bool,
}

impl Lease {
    pub(super) fn sent(&mut self, sequence: u64, now: Instant) {
        if self.sent.len() == SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence, now));
    }

    /// When the heartbeat was sent: what a grant counts from. An acknowledgement may be late, and
    /// who gave it counts from when it heard the heartbeat, which is later than this.
    pub(super) fn sent_at(&self, sequence: u64) -> Option<Instant> {
        let sent = self.sent.iter().find(|(s, _)| *s == sequence);
        sent.map(|(_, at)| *at)
    }

    pub(super) fn grant(&mut self, by: Sender, from: Instant) {
        let granted = self.granted.entry(by).or_insert(from);
        *granted = from.max(*granted);
    }

    /// Grants in an earlier view count no longer; the right that they gave runs on.
    pub(super) fn forget_grants(&mut self) {
        self.granted.clear();
    }

    /// The latest time at which `needed` voters had granted it.
    pub(super) fn agreed(&self, needed: usize) -> Option<Instant> {
        let mut times: Vec<Instant> = self.granted.values().copied().collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(needed.checked_sub(1)?).copied()
    }
}

/// Until when others may transmit, as far as this member knows: what it granted itself, and what the
/// acceptors of the views since then had granted. Entries only move forward.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    until: BTreeMap<MemberId, Instant>,
}

impl Ledger {
    pub(super) fn raise(&mut self, owner: MemberId, until: Instant) {
        let entry = self.until.entry(owner).or_insert(until);
        *entry = until.max(*entry);
    }

    /// The origin of time if nothing is known.
    pub(super) fn until(&self, owner: MemberId) -> Instant {
        self.until.get(&owner).copied().unwrap_or_default()
    }

    /// Everybody's but `local`'s.
    pub(super) fn others(&self, local: MemberId) -> BTreeMap<MemberId, Instant> {
        let mut others = self.until.clone();
        others.remove(&local);
        others
    }

    /// This member's clock may have leapt by `gap` since `last`, so that what it took for elapsed
    /// was not. `limit` is as long as any right can last.
    pub(super) fn stretch(&mut self, last: Instant, gap: Duration, limit: Instant) {
        for until in self.until.values_mut().filter(|until| **until > last) {
            *until = stretched(*until, gap, limit);
        }
    }

    pub(super) fn left(&self, now: Instant) -> Vec<(MemberId, u32)> {
        let running = self.until.iter().filter(|(_, until)| **until > now);
        running
            .map(|(owner, until)| (*owner, micros(*until - now)))
            .collect()
    }

    pub(super) fn merge(&mut self, now: Instant, left: &Left) {
        for (owner, micros) in &left.owners {
            self.raise(*owner, until(now, *micros));
        }
    }
}

/// `until` if no time passed in a gap, but not beyond `limit`.
pub(super) fn stretched(until: Instant, gap: Duration, limit: Instant) -> Instant {
    until.max((until + gap).min(limit))
}

/// Rounded up, for the wire.
pub(super) fn micros(left: Duration) -> u32 {
    u32::try_from(left.as_nanos().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// A time that another member named, on this member's clock: both may be 1 % off.
pub(super) fn until(now: Instant, micros: u32) -> Instant {
    let left = Duration::from_micros(micros.into());
    now + left + left / 32
}
