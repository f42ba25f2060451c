//! Requests of IKE SAs that are not established are sent again too (RFC 7296 §2.1).

use std::time::Duration;

use gateway_common::time::Instant;

use crate::endpoint::core::Core;
use crate::endpoint::timers::Timer;
use crate::sa::clock::jitter;

/// When a request is sent again, and how often it was.
#[derive(Debug)]
pub(super) struct Resend {
    local_spi: [u8; 8],
    due: Instant,
    count: u32,
    /// Not more often than this: the peer has refused, but that may be forged.
    limit: u32,
}

/// A request that has waited for its response long enough.
pub(crate) enum Overdue {
    /// Sent again.
    Again,
    /// The peer is given up.
    GivenUp,
}

/// How often a request is sent again that got an unprotected refusal (RFC 7296 §2.21.1: "the
/// recipient should continue trying for some time before giving up").
const TRIES_AFTER_REFUSAL: u32 = 2;

impl Resend {
    /// A request was sent for the first time.
    pub(super) fn start(core: &mut Core, now: Instant, local_spi: [u8; 8]) -> Self {
        let mut resend = Self {
            local_spi,
            due: now,
            count: 0,
            limit: core.config.limits.retransmit_tries,
        };
        resend.set(core, now);
        resend
    }

    fn set(&mut self, core: &mut Core, now: Instant) {
        self.due = now + interval(core, self.count);
        core.timers.set(self.due, Timer::Opening(self.local_spi));
    }

    /// The response has come, or nobody waits for it any more.
    pub(super) fn stop(&self, core: &mut Core) {
        core.timers.cancel(self.due, Timer::Opening(self.local_spi));
    }

    /// Whether the request is to be sent again, now that its time has come.
    pub(super) fn again(&mut self, core: &mut Core, now: Instant) -> bool {
        if self.count >= self.limit {
            return false;
        }
        self.count += 1;
        core.counters.requests_resent += 1;
        self.set(core, now);
        true
    }

    /// The peer refuses, or somebody says so.
    pub(super) fn hurry(&mut self) {
        self.limit = self.limit.min(self.count + TRIES_AFTER_REFUSAL);
    }

    pub(super) const fn due(&self) -> Instant {
        self.due
    }
}

/// How long a request waits that was sent again `count` times: growing (RFC 7296 §2.1), with
/// jitter, because after a takeover many do it.
pub(in crate::sa) fn interval(core: &Core, count: u32) -> Duration {
    let mut interval = core.config.limits.retransmit_timeout;
    for _ in 0..count.min(32) {
        interval = interval.saturating_mul(9) / 5;
    }
    interval + jitter(&*core.crypto, interval / 8)
}
