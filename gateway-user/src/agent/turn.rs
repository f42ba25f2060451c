//! Turns of the main loop that take too long: everything else waits meanwhile, and other members
//! may take this one for one that lags.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Half of the time after which others call a member that does not acknowledge out of sync.
const LONG: Duration = Duration::from_millis(50);

/// One turn.
pub(super) struct Turn {
    /// What it is about, for the log.
    about: &'static str,
    begun: Instant,
    /// Processor time of the thread by then. A turn does not change threads: it does not await.
    used: Duration,
}

impl Turn {
    pub(super) fn begin(about: &'static str) -> Self {
        Self {
            about,
            begun: Instant::now(),
            used: thread_time(),
        }
    }

    /// Logs it if it was long, and how much of it the thread did not get a processor.
    pub(super) fn end(self) {
        let time = self.begun.elapsed();
        if time >= LONG {
            let used = thread_time().saturating_sub(self.used);
            tracing::warn!(
                about = self.about,
                "the main loop was busy for {} ms, {} ms of them on a processor",
                time.as_millis(),
                used.as_millis()
            );
        }
    }
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_uses_the_processor_and_sleep_does_not() {
        let before = thread_time();
        std::thread::sleep(Duration::from_millis(20));
        let slept = thread_time() - before;
        let begun = Instant::now();
        let mut n = 0_u64;
        while thread_time() - before < slept + Duration::from_millis(5) {
            n = std::hint::black_box(n + 1);
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
        assert!(slept < Duration::from_millis(15), "{slept:?}");
    }
}
