//! This member's stream of deltas.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::frame::DeltaSeq;
use crate::secret::Secret;

/// Numbers deltas and keeps the most recent ones, encoded, for peers that have not got them yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Numbered `dropped + 1 ..= dropped + frames.len()`.
    frames: VecDeque<Arc<Secret>>,
    bytes: usize,
    /// The last one that is not kept any more.
    dropped: DeltaSeq,
    /// Deltas up to here may be sent; later ones still wait for company.
    flushed: DeltaSeq,
}

impl Outbox {
    /// Number of the last delta, 0 before the first.
    pub(crate) fn last(&self) -> DeltaSeq {
        DeltaSeq(self.dropped.0.saturating_add(self.frames.len() as u64))
    }

    /// Appends a delta that was encoded with number `self.last().next()`.
    pub(crate) fn push(&mut self, frame: Arc<Secret>) -> DeltaSeq {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        self.last()
    }

    /// Lets everything out that waited. `true` if there was something.
    pub(crate) fn flush(&mut self) -> bool {
        let waited = self.flushed < self.last();
        self.flushed = self.last();
        waited
    }

    /// The last delta that may be sent.
    pub(crate) const fn flushed(&self) -> DeltaSeq {
        self.flushed
    }

    /// The delta numbered `seq`, if it is still there.
    pub(crate) fn get(&self, seq: DeltaSeq) -> Option<&Arc<Secret>> {
        let index = seq.0.checked_sub(self.dropped.0)?.checked_sub(1)?;
        self.frames.get(usize::try_from(index).ok()?)
    }

    /// Whether a peer that has applied `seq` can go on from there.
    pub(crate) fn resumes_after(&self, seq: DeltaSeq) -> bool {
        (self.dropped..=self.last()).contains(&seq)
    }

    /// Forgets what nobody needs (up to `everyone_has`) and what exceeds the bounds, oldest first.
    pub(crate) fn trim(&mut self, everyone_has: DeltaSeq, max_deltas: usize, max_bytes: usize) {
        while let Some(frame) = self.frames.front()
            && (self.dropped < everyone_has
                || self.frames.len() > max_deltas
                || self.bytes > max_bytes)
        {
            self.bytes -= frame.len();
            self.frames.pop_front();
            self.dropped = self.dropped.next();
        }
        self.flushed = self.flushed.max(self.dropped);
    }

    /// Deltas kept, and their octets.
    pub(crate) fn retained(&self) -> (usize, usize) {
        (self.frames.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(size: usize) -> Arc<Secret> {
        Arc::new(Secret::new(vec![0; size]))
    }

    #[test]
    fn numbers_without_gaps_and_forgets_within_bounds() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.last(), DeltaSeq(0));
        assert!(outbox.resumes_after(DeltaSeq(0)));
        for n in 1..=5 {
            assert_eq!(outbox.push(frame(10 * n as usize)), DeltaSeq(n));
        }
        assert!(outbox.flush());
        assert!(!outbox.flush());
        outbox.trim(DeltaSeq(1), 10, 1000);
        assert_eq!(outbox.retained(), (4, 140));
        assert!(outbox.get(DeltaSeq(1)).is_none());
        assert_eq!(outbox.get(DeltaSeq(2)).map(|f| f.len()), Some(20));
        outbox.trim(DeltaSeq(1), 3, 1000);
        assert_eq!(outbox.retained(), (3, 120));
        outbox.trim(DeltaSeq(1), 3, 100);
        assert_eq!(outbox.retained(), (2, 90));
        assert!(!outbox.resumes_after(DeltaSeq(2)));
        assert!(outbox.resumes_after(DeltaSeq(3)));
        assert!(outbox.resumes_after(DeltaSeq(5)));
        assert!(!outbox.resumes_after(DeltaSeq(6)));
        outbox.trim(DeltaSeq(9), 3, 100);
        assert_eq!((outbox.retained(), outbox.last()), ((0, 0), DeltaSeq(5)));
    }
}
