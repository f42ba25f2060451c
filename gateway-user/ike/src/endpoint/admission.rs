//! How many negotiations may be open, in total and per source.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::Limits;

/// What may become of a new IKE_SA_INIT request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Go on.
    Accept,
    /// Only with a valid cookie (RFC 7296 §2.6).
    Cookie,
    /// Silence: the table is full, or this source's share of it.
    Refuse,
}

/// Counts half-open IKE SAs.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    total: usize,
    by_source: BTreeMap<IpAddr, usize>,
}

impl HalfOpen {
    /// Half-open IKE SAs in total.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Half-open IKE SAs from `source`.
    pub(crate) fn from(&self, source: IpAddr) -> usize {
        self.by_source.get(&source).copied().unwrap_or(0)
    }

    /// Decides on one more from `source`.
    pub(crate) fn admit(&self, limits: &Limits, source: IpAddr) -> Admission {
        let from_source = self.from(source);
        if self.total >= limits.half_open_limit || from_source >= limits.half_open_limit_per_source
        {
            Admission::Refuse
        } else if self.total >= limits.cookie_threshold {
            Admission::Cookie
        } else {
            Admission::Accept
        }
    }

    /// One more.
    pub(crate) fn opened(&mut self, source: IpAddr) {
        self.total += 1;
        *self.by_source.entry(source).or_default() += 1;
    }

    /// One less: established, failed or timed out.
    pub(crate) fn closed(&mut self, source: IpAddr) {
        self.total = self.total.saturating_sub(1);
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}
