//! How much of an unauthenticated flood may reach the other members: next to nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_common::time::Instant;

use crate::change::Cookie;
use crate::config::Limits;

/// Decides which half-open entries are mirrored, and remembers which were. Not mirroring one is
/// harmless: the decision function leads its packets to the same member.
#[derive(Debug)]
pub(crate) struct Gate {
    mirrored: BTreeSet<Cookie>,
    /// Token bucket, in nanoseconds of credit.
    credit: Duration,
    measured: Instant,
    suppressed: u64,
}

impl Gate {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            mirrored: BTreeSet::new(),
            credit: Self::cost(limits).saturating_mul(limits.mirror_burst),
            measured: now,
            suppressed: 0,
        }
    }

    fn cost(limits: &Limits) -> Duration {
        Duration::from_secs(1)
            .checked_div(limits.mirror_rate)
            .unwrap_or(Duration::MAX)
    }

    /// Whether the negotiation with `cookie` shall be mirrored, when `half_open` of our own are
    /// open, this one included.
    pub(crate) fn admit(
        &mut self,
        limits: &Limits,
        now: Instant,
        half_open: usize,
        cookie: Cookie,
    ) -> bool {
        let cost = Self::cost(limits);
        let full = cost.saturating_mul(limits.mirror_burst);
        let earned = now.saturating_since(self.measured);
        self.credit = self.credit.saturating_add(earned).min(full);
        self.measured = now;
        let admitted =
            limits.mirror_rate > 0 && half_open <= limits.mirror_threshold && self.credit >= cost;
        if admitted {
            self.credit -= cost;
            self.mirrored.insert(cookie);
        } else {
            self.suppressed += 1;
        }
        admitted
    }

    /// The negotiation with `cookie` is mirrored in any case.
    pub(crate) fn pass(&mut self, cookie: Cookie) {
        self.mirrored.insert(cookie);
    }

    /// The negotiation ended. `true` if the others have to be told.
    pub(crate) fn ended(&mut self, cookie: Cookie) -> bool {
        self.mirrored.remove(&cookie)
    }

    /// Forgets those that `open` does not know any more.
    pub(crate) fn retain(&mut self, open: impl Fn(&Cookie) -> bool) {
        self.mirrored.retain(open);
    }

    /// Whether the others know this negotiation.
    pub(crate) fn is_mirrored(&self, cookie: &Cookie) -> bool {
        self.mirrored.contains(cookie)
    }

    /// How many were not mirrored so far.
    pub(crate) const fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_burst_and_rate() {
        let limits = Limits {
            mirror_threshold: 1_000_000,
            mirror_rate: 100,
            mirror_burst: 10,
            ..Limits::default()
        };
        let start = Instant::from_nanos(0);
        let mut gate = Gate::new(&limits, start);
        let mut flood = |milliseconds: u64| {
            let now = start + Duration::from_millis(milliseconds);
            (0..1000u64)
                .filter(|n| gate.admit(&limits, now, 1, (milliseconds * 1000 + n).to_be_bytes()))
                .count()
        };
        assert_eq!(flood(0), 10);
        assert_eq!(flood(5), 0);
        assert_eq!(flood(10), 1);
        assert_eq!(flood(1000), 10, "credit does not pile up beyond the burst");
        assert_eq!(gate.suppressed(), 4000 - 21);
    }

    #[test]
    fn above_the_threshold_nothing_is_mirrored() {
        let limits = Limits::default();
        let now = Instant::from_nanos(0);
        let mut gate = Gate::new(&limits, now);
        assert!(gate.admit(&limits, now, limits.mirror_threshold, [1; 8]));
        assert!(!gate.admit(&limits, now, limits.mirror_threshold + 1, [2; 8]));
        assert!(gate.is_mirrored(&[1; 8]) && !gate.is_mirrored(&[2; 8]));
        assert!(gate.ended([1; 8]));
        assert!(!gate.ended([2; 8]));
        let never = Limits {
            mirror_rate: 0,
            ..limits
        };
        let mut gate = Gate::new(&never, now);
        assert!(!gate.admit(&never, now, 1, [1; 8]));
    }
}
