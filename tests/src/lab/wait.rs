//! Waiting for a condition, not for a time.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long an emulated machine boots, in seconds, for each unit of patience that it needs.
const BOOT: f64 = 4.0;

/// How many times slower than real hardware this machine may be, from `GATEWAY_LAB_PATIENCE`
/// (1 to 20, or `by-boot` in a machine that was booted for the lab; the VM tier sets it). Limits of
/// waits and timers of peers and members are multiplied by it.
pub fn patience() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| match std::env::var("GATEWAY_LAB_PATIENCE") {
        Ok(text) if text == "by-boot" => since_boot().map_or(4, by_boot),
        Ok(text) => text.parse().map_or(1, |factor: u32| factor.clamp(1, 20)),
        Err(_) => 1,
    })
}

/// Seconds since this machine's kernel began.
fn since_boot() -> Option<f64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// On a quiet host an emulated machine boots in some 12 s; beside other load in three times that.
fn by_boot(seconds: f64) -> u32 {
    (seconds / BOOT).ceil().clamp(4.0, 10.0) as u32
}

/// Asks `condition` until it holds, at most for `limit` times [`patience`].
///
/// # Errors
/// It did not hold in time, or `condition` itself failed: then at once.
pub fn wait_until(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let limit = limit * patience();
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    while !condition()? {
        if start.elapsed() > limit {
            bail!("waited {:.1} s in vain for {what}", limit.as_secs_f64());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_boots_slowly_is_given_more_time() {
        assert_eq!([9.0, 17.0, 33.3, 400.0].map(by_boot), [4, 5, 9, 10]);
    }

    #[test]
    fn gives_up_and_says_on_what() {
        let error = wait_until(Duration::from_millis(1), "a miracle", || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("a miracle"));
        let mut calls = 0;
        wait_until(Duration::from_secs(5), "three calls", || {
            calls += 1;
            Ok(calls == 3)
        })
        .unwrap();
    }
}
