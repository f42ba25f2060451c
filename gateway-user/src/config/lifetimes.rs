//! `rekey_time`, `over_time`, `rand_time`, `life_time` and `dpd_delay`, with swanctl's meanings and
//! defaults.

use std::time::Duration;

use gateway_ike::config::Volume;

use super::error::ConfigError;
use super::raw::{self, DurationText};
use super::value;

/// swanctl's default.
const IKE_REKEY_TIME: Duration = Duration::from_secs(4 * 3600);
/// swanctl's default.
const CHILD_REKEY_TIME: Duration = Duration::from_secs(3600);

/// A shorter life would be rekeyed before it is in use.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST_CHILD: Duration = Duration::from_secs(7 * 86_400);
const LONGEST_IKE: Duration = Duration::from_secs(30 * 86_400);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Times of an IKE SA.
pub(super) struct Ike {
    pub(super) rekey_time: Duration,
    pub(super) over_time: Duration,
    pub(super) rand_time: Duration,
    pub(super) dpd_delay: Duration,
    pub(super) reauth_time: Duration,
}

/// Times of a CHILD_SA.
pub(super) struct Child {
    pub(super) rekey_time: Duration,
    pub(super) life_time: Duration,
    pub(super) rand_time: Duration,
}

/// `over_time` is a tenth of `rekey_time`, `rand_time` is `over_time`, unless they are given.
pub(super) fn ike(key: &str, raw: &raw::Connection) -> Result<Ike, ConfigError> {
    let rekey_time = zero_or(
        &format!("{key}.rekey_time"),
        raw.rekey_time.as_ref(),
        (SHORTEST, LONGEST_IKE),
    )?
    .unwrap_or(IKE_REKEY_TIME);
    let over_time = match &raw.over_time {
        Some(text) => value::duration(&format!("{key}.over_time"), text, SECOND, LONGEST_IKE)?,
        None => rekey_time / 10,
    };
    Ok(Ike {
        rekey_time,
        over_time,
        rand_time: rand_time(key, raw.rand_time.as_ref(), rekey_time, over_time)?,
        dpd_delay: zero_or(
            &format!("{key}.dpd_delay"),
            raw.dpd_delay.as_ref(),
            (SECOND, DAY),
        )?
        .unwrap_or(Duration::ZERO),
        reauth_time: zero_or(
            &format!("{key}.reauth_time"),
            raw.reauth_time.as_ref(),
            (SHORTEST, LONGEST_IKE),
        )?
        .unwrap_or(Duration::ZERO),
    })
}

/// Of `rekey_time` and `life_time` the second is a tenth more than the first, unless both are given;
/// `rand_time` is their difference. Without rekeying `life_time` still ends the CHILD_SA.
pub(super) fn child(key: &str, raw: &raw::Child) -> Result<Child, ConfigError> {
    let range = (SHORTEST, LONGEST_CHILD);
    let rekey_time = zero_or(&format!("{key}.rekey_time"), raw.rekey_time.as_ref(), range)?;
    let life_time = raw.life_time.as_ref();
    let life_time = life_time
        .map(|text| value::duration(&format!("{key}.life_time"), text, range.0, range.1))
        .transpose()?;
    let usual = rekey_time
        .filter(|time| !time.is_zero())
        .unwrap_or(CHILD_REKEY_TIME);
    let (rekey_time, life_time) = match (rekey_time, life_time) {
        (Some(rekey), Some(life)) => (rekey, life),
        (Some(rekey), None) => (rekey, usual + usual / 10),
        (None, Some(life)) => (life / 11 * 10, life),
        (None, None) => (usual, usual + usual / 10),
    };
    if rekey_time >= life_time {
        return Err(ConfigError::new(
            format!("{key}.rekey_time"),
            format!(
                "is {}, and life_time {}: it would end before it is rekeyed",
                value::show(rekey_time),
                value::show(life_time)
            ),
            "less than life_time, or 0 to leave rekeying to the peer",
        ));
    }
    // Nothing is drawn without rekeying.
    let spread = if rekey_time.is_zero() {
        Duration::ZERO
    } else {
        life_time.saturating_sub(rekey_time).min(rekey_time)
    };
    Ok(Child {
        rekey_time,
        life_time,
        rand_time: rand_time(key, raw.rand_time.as_ref(), rekey_time, spread)?,
    })
}

/// What is drawn from is not more than what it shortens: an SA would be rekeyed at birth.
fn rand_time(
    key: &str,
    text: Option<&DurationText>,
    rekey_time: Duration,
    default: Duration,
) -> Result<Duration, ConfigError> {
    match text {
        Some(text) => value::duration(
            &format!("{key}.rand_time"),
            text,
            Duration::ZERO,
            rekey_time,
        ),
        None => Ok(default.min(rekey_time)),
    }
}

/// Zero, which switches off, or a time in `range`; `None` if there is none.
pub(super) fn zero_or(
    key: &str,
    text: Option<&DurationText>,
    (low, high): (Duration, Duration),
) -> Result<Option<Duration>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    if value::duration(key, text, Duration::ZERO, Duration::ZERO).is_ok() {
        return Ok(Some(Duration::ZERO));
    }
    value::duration(key, text, low, high)
        .map(Some)
        .map_err(|error| error.or_allowed("0 to switch it off"))
}

/// `rekey_bytes` and its kin, and the same of packets. As with times, the second of `rekey_…` and
/// `life_…` is a tenth more than the first unless both are given, and `rand_…` their difference.
pub(super) fn volume(key: &str, raw: &raw::Child) -> Result<Volume, ConfigError> {
    let bytes = [raw.rekey_bytes, raw.life_bytes, raw.rand_bytes];
    let packets = [raw.rekey_packets, raw.life_packets, raw.rand_packets];
    let [rekey_bytes, life_bytes, rand_bytes] = amounts(key, "bytes", bytes)?;
    let [rekey_packets, life_packets, rand_packets] = amounts(key, "packets", packets)?;
    Ok(Volume {
        rekey_bytes,
        rand_bytes,
        life_bytes,
        rekey_packets,
        rand_packets,
        life_packets,
    })
}

/// Rekey, life and rand.
fn amounts(key: &str, what: &str, given: [Option<u64>; 3]) -> Result<[u64; 3], ConfigError> {
    let [rekey, life, rand] = given;
    let (rekey, life) = match (rekey.unwrap_or(0), life.unwrap_or(0)) {
        (0, 0) => return Ok([0; 3]),
        (0, life) => (0, life),
        (rekey, 0) => (rekey, rekey.saturating_add(rekey / 10)),
        both => both,
    };
    if rekey >= life {
        return Err(ConfigError::new(
            format!("{key}.rekey_{what}"),
            format!("is {rekey}, and life_{what} {life}: it would end before it is rekeyed"),
            format!("less than life_{what}, or 0 to leave rekeying to the peer"),
        ));
    }
    let rand = rand.unwrap_or(life - rekey).min(rekey);
    Ok([rekey, life, rand])
}
