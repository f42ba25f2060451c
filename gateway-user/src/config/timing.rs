//! `[cluster] profile`, `heartbeat`, `lease`, `lost` and `cold_start`.

use std::time::Duration;

use gateway_cluster::membership::Timing;

use super::error::ConfigError;
use super::raw::{self, DurationText, Profile};
use super::value;

pub(super) const MIN: Duration = Duration::from_millis(5);
pub(super) const MAX: Duration = Duration::from_secs(60);

pub(super) const fn of(profile: Profile) -> Timing {
    match profile {
        Profile::Default => Timing::DEFAULT,
        Profile::Fast => Timing::FAST,
    }
}

pub(super) fn check(raw: &raw::Cluster) -> Result<Timing, ConfigError> {
    let profile = of(raw.profile);
    let time = |key: &str, text: &Option<DurationText>, default| match text {
        Some(text) => value::duration(key, text, MIN, MAX),
        None => Ok(default),
    };
    let timing = Timing {
        heartbeat: time("cluster.heartbeat", &raw.heartbeat, profile.heartbeat)?,
        lease: time("cluster.lease", &raw.lease, profile.lease)?,
        silence: time("cluster.lost", &raw.lost, profile.silence)?,
        cold_start: time("cluster.cold_start", &raw.cold_start, profile.cold_start)?,
        ..profile
    };
    check_order(&timing)?;
    Ok(timing)
}

/// Each of these would make a member be replaced while it may still send, or stop for nothing.
fn check_order(timing: &Timing) -> Result<(), ConfigError> {
    let least = |key: &str, found: Duration, least: Duration, why: &str| {
        if found >= least {
            return Ok(());
        }
        let problem = format!("is {}: {why}", value::show(found));
        let allowed = format!("at least {}, given the other times", value::show(least));
        Err(ConfigError::new(key, problem, allowed))
    };
    least(
        "cluster.lease",
        timing.lease,
        timing.heartbeat * 3,
        "a single lost heartbeat could end it",
    )?;
    least(
        "cluster.lost",
        timing.silence,
        timing.lease_bound(),
        "a member could still be sending when it is called lost",
    )?;
    least(
        "cluster.cold_start",
        timing.cold_start,
        timing.silence * 2,
        "a live view could be missed",
    )
}
