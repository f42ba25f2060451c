//! A bound on answers that cost the sender of a forged request nothing.

use std::time::Duration;

use gateway_common::time::Instant;

/// A token bucket: at most `per_second` on average and as many at once (RFC 7296 §2.21.4: "A node
/// needs to limit the rate at which it will send messages in response to unprotected messages").
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u32,
    /// Nanoseconds' worth of tokens in hand.
    credit: Duration,
    last: Instant,
}

/// A full bucket holds one second's worth.
const BURST: Duration = Duration::from_secs(1);

impl RateLimit {
    /// A full bucket. A rate of 0 allows nothing.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second,
            credit: BURST,
            last: now,
        }
    }

    /// Takes one token if there is one.
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        self.credit = BURST.min(self.credit + now.saturating_since(self.last));
        self.last = now;
        let Some(price) = BURST.checked_div(self.per_second) else {
            return false;
        };
        match self.credit.checked_sub(price) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_then_the_rate() {
        let start = Instant::from_nanos(5);
        let mut limit = RateLimit::new(10, start);
        assert_eq!((0..100).filter(|_| limit.allow(start)).count(), 10);
        let later = start + Duration::from_millis(250);
        assert_eq!((0..100).filter(|_| limit.allow(later)).count(), 2);
        assert!(!RateLimit::new(0, start).allow(later));
    }
}
