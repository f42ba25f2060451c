//! How fast the members of the lab judge each other.

use std::time::Duration;

use super::wait::patience;

/// The membership's intervals, as the members' configuration files give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The word in reports.
    pub profile: &'static str,
    /// How often a member says that it lives.
    pub heartbeat: Duration,
    /// How long an owner may send after the renewal that a majority acknowledged.
    pub lease: Duration,
    /// How long a member has to be silent to be called lost.
    pub lost: Duration,
}

impl Timing {
    /// The agent's profile `default`, slower where the machine is.
    pub fn usual() -> Self {
        Self::of("default", 50, 200, 300)
    }

    /// The agent's profile `fast`, slower where the machine is.
    pub fn fast() -> Self {
        Self::of("fast", 10, 35, 50)
    }

    fn of(profile: &'static str, heartbeat: u64, lease: u64, lost: u64) -> Self {
        let time = |milliseconds| Duration::from_millis(milliseconds) * patience();
        Self {
            profile,
            heartbeat: time(heartbeat),
            lease: time(lease),
            lost: time(lost),
        }
    }

    /// How long after an agent stopped its kernel may still send: the lease, and the tick of the
    /// clock that the fence reads (4 ms at 250 Hz, 10 ms at worst).
    pub fn lease_bound(&self) -> Duration {
        self.lease + Duration::from_millis(10)
    }

    /// The lines of the configuration's `[cluster]` table. A profile that is not stretched is named;
    /// the lab does not wait as long as a cluster for members that start late.
    pub fn lines(&self) -> String {
        let milliseconds = |time: Duration| format!("\"{}ms\"", time.as_millis());
        let cold_start = Duration::from_secs(1).max(self.lost * 3);
        let mut lines = format!(
            "profile = \"{}\"\ncold_start = {}\n",
            self.profile,
            milliseconds(cold_start)
        );
        if patience() > 1 {
            lines += &format!(
                "heartbeat = {}\nlease = {}\nlost = {}\n",
                milliseconds(self.heartbeat),
                milliseconds(self.lease),
                milliseconds(self.lost)
            );
        }
        lines
    }
}
