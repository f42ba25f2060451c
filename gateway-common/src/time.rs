//! Monotonic time as a value: the cores have no clock of their own.

use core::ops::{Add, Sub};
use core::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC` (the clock of `bpf_ktime_get_coarse_ns`), so that an instant
/// means the same in a map value and in the agent. Simulations start it where they like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// From nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// As nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `age` earlier; the origin if that would be before it.
    pub const fn before(self, age: Duration) -> Self {
        let nanos = age.as_nanos();
        if nanos >= self.0 as u128 {
            Self(0)
        } else {
            Self(self.0 - nanos as u64)
        }
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time (584 years of uptime).
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        self.saturating_since(rhs)
    }
}
