//! Deadlines of all IKE SAs of an endpoint.

use std::collections::BTreeSet;

use gateway_common::time::Instant;

use crate::sa::Clock;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// IKE_AUTH of this IKE SA (our SPI) did not complete in time.
    HalfOpen([u8; 8]),
    /// The kernel did not answer for this IKE SA.
    Kernel([u8; 8]),
    /// The CHILD_SA with this inbound SPI has reached the end of its life.
    Child([u8; 4]),
    /// The CHILD_SA with this inbound SPI has to be rekeyed.
    RekeyChild([u8; 4]),
    /// The request of this IKE SA (our SPI) that we are initiating has no response yet.
    Opening([u8; 8]),
    /// This initiation has waited long enough for its next attempt.
    Initiation(u64),
    /// A deadline of this IKE SA (our SPI).
    Sa([u8; 8], Clock),
    /// The closed IKE SA need no longer answer retransmissions.
    Linger([u8; 8]),
}

/// Ordered by time; ties by kind and SPI, so that every run does the same.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Takes back what was set; `at` must be the same.
    pub(crate) fn cancel(&mut self, at: Instant, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out the first one that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }
}
