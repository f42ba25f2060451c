//! Waiting for a condition, not for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How many times slower than real hardware this machine may be, from `GATEWAY_LAB_PATIENCE`
/// (1 to 20; the VM tier sets it). Limits of waits and timers of peers are multiplied by it.
pub fn patience() -> u32 {
    std::env::var("GATEWAY_LAB_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(1, |factor: u32| factor.clamp(1, 20))
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
