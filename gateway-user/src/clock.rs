//! The one clock of the process.

use gateway_common::time::Instant;
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, the clock that the programs compare `expires_ns` with.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The time of day in seconds since 1970, for the validity of certificates; 0 if the clock stands
/// before that.
pub(crate) fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
