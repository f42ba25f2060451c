//! The numbers of one CHILD_SA, as this member stands to them.

use std::time::Duration;

use gateway_common::time::Instant;

use super::{FIRST, MOST, Standing};
use crate::change::{Checkpoint, Stamp};
use crate::frame::DeltaSeq;
use crate::view::Tenure;

/// Numbers for so long are reserved at the measured rate.
const AHEAD: Duration = Duration::from_secs(2);

/// What this member sends itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) tenure: Tenure,
    /// Half of what lies between this and the ceiling is half use.
    pub(super) from: u64,
    pub(super) used: u64,
    /// Numbers to raise the ceiling by.
    pub(super) ahead: u64,
    /// A ceiling that is published and not in effect yet.
    pub(super) pending: Option<(DeltaSeq, u64)>,
    /// It is the first, the one of the SA's record: none is used, and nothing else is reserved.
    pub(super) first: bool,
    /// For the rate: a number, and when it was used.
    pub(super) measured: Option<(Instant, u64)>,
}

/// One CHILD_SA.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// As all members know it that have heard all, this one's pending raise included.
    pub(super) base: Checkpoint,
    pub(super) written: Stamp,
    /// It may be that other members have not heard of it.
    pub(super) fresh: bool,
    /// The outbound SA of this member may send above `.0` up to `.1`,
    pub(super) stands: (u64, u64),
    /// after this ownership.
    pub(super) follows: Tenure,
    pub(super) own: Option<Own>,
    /// This member is half of a view, and goes no further.
    pub(super) bound: Option<u64>,
}

impl Entry {
    /// Where a copy stands that follows `tenure`.
    pub(super) fn place(&self, fixed: Option<u64>, tenure: Tenure) -> (u64, u64) {
        let reserved = &self.base.reserved;
        if let Some(index) = fixed {
            let block = u64::from(reserved.block);
            let start = reserved.ceiling + index * block;
            return (start, start + block);
        }
        let next = Tenure(tenure.0.saturating_add(1));
        let start = reserved.limit(tenure);
        let end = if self.fresh {
            reserved.least(next)
        } else {
            reserved.limit(next)
        };
        (start, end.max(start))
    }

    /// Forwards only.
    pub(super) fn move_to(&mut self, fixed: Option<u64>, tenure: Tenure) {
        let (start, end) = self.place(fixed, tenure);
        let used = self.own.map_or(0, |own| own.used);
        let start = start.max(self.stands.0).max(used);
        self.stands = (start, end.max(start));
        self.follows = self.follows.max(tenure);
    }

    pub(super) fn standing(&self) -> Standing {
        let used = self.own.map_or(0, |own| own.used);
        Standing {
            sequence_out: self.stands.0.max(used),
            ceiling: self.stands.1,
            sequence_in: self.base.sequence_in,
        }
    }

    /// Half of what this member has is used.
    pub(super) fn wants(&self) -> bool {
        self.own.is_some_and(|own| {
            let half = self.stands.1.saturating_sub(own.from) / 2;
            let bounded = self.bound.is_some_and(|bound| bound <= self.stands.1);
            !bounded && own.pending.is_none() && own.used >= own.from + half
        })
    }
}

impl Own {
    pub(super) const fn new(tenure: Tenure, from: u64) -> Self {
        Self {
            tenure,
            from,
            used: from,
            ahead: FIRST,
            pending: None,
            first: false,
            measured: None,
        }
    }

    /// How many numbers to reserve: what goes in two seconds.
    pub(super) fn ahead(&mut self, now: Instant) -> u64 {
        let (since, from) = *self.measured.get_or_insert((now, self.used));
        let elapsed = now.saturating_since(since);
        if elapsed.is_zero() {
            return self.ahead;
        }
        let packets = u128::from(self.used - from);
        let rate = packets * AHEAD.as_nanos() / elapsed.as_nanos();
        self.measured = Some((now, self.used));
        u64::try_from(rate).unwrap_or(MOST).clamp(FIRST, MOST)
    }
}
