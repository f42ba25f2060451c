//! Streams of deltas that others send, and those that have ended.

use std::collections::VecDeque;
use std::sync::Arc;

use gateway_common::slot::Slot;

use crate::change::{Change, Marker};
use crate::frame::{DeltaSeq, Incarnation, Position};
use crate::secret::Secret;
use crate::view::Epoch;

/// A delta as it came.
#[derive(Debug)]
pub(crate) struct Delta {
    pub(crate) seq: DeltaSeq,
    pub(crate) slot: Slot,
    pub(crate) change: Change,
    pub(crate) raw: Arc<Secret>,
}

/// The last deltas of a stream, for a member that lacks them when the stream ends.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    frames: VecDeque<(DeltaSeq, Arc<Secret>)>,
    bytes: usize,
}

impl Tail {
    /// Keeps a delta, and no more than `bound` octets of the last ones.
    pub(crate) fn push(&mut self, seq: DeltaSeq, frame: Arc<Secret>, bound: usize) {
        self.bytes += frame.len();
        self.frames.push_back((seq, frame));
        while self.bytes > bound
            && let Some((_, oldest)) = self.frames.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// All deltas after `seq`; `None` if some of them are not there any more.
    pub(crate) fn after(&self, seq: DeltaSeq) -> Option<Vec<Arc<Secret>>> {
        let first = self.frames.front().map(|(seq, _)| *seq)?;
        (first <= seq.next()).then(|| {
            let rest = self.frames.iter().filter(|(s, _)| *s > seq);
            rest.map(|(_, frame)| Arc::clone(frame)).collect()
        })
    }
}

/// What we have of the stream of one run of a peer.
#[derive(Debug)]
pub(crate) struct StreamIn {
    pub(crate) run: Incarnation,
    /// The last delta that was applied.
    pub(crate) seq: DeltaSeq,
    /// Everything up to there is known here, not only what came since the connection was made.
    pub(crate) base: bool,
    /// The last view in which the peer has told this member everything that it has to.
    pub(crate) fed: Epoch,
    /// The epoch that the applied part belongs to.
    pub(crate) marker: Epoch,
    /// The last marker that has come, applied or not.
    pub(crate) seen: Option<Marker>,
    /// Came, but belongs to an epoch in which we are not level yet.
    pub(crate) held: VecDeque<Delta>,
    pub(crate) tail: Tail,
}

impl StreamIn {
    pub(crate) fn new(run: Incarnation, seq: DeltaSeq, marker: Epoch) -> Self {
        Self {
            run,
            seq,
            base: false,
            fed: Epoch(0),
            marker,
            seen: None,
            held: VecDeque::new(),
            tail: Tail::default(),
        }
    }

    pub(crate) const fn position(&self) -> Position {
        Position {
            incarnation: self.run,
            seq: self.seq,
        }
    }

    /// The number that the next delta has to have.
    pub(crate) fn expected(&self) -> DeltaSeq {
        DeltaSeq(self.seq.0.saturating_add(self.held.len() as u64 + 1))
    }

    /// Whether the peer has told everything in the view `need` or later, and all since.
    pub(crate) fn has(&self, need: Epoch) -> bool {
        self.base && self.fed >= need
    }

    /// What was not applied comes again with the next connection.
    pub(crate) fn forget_held(&mut self) {
        self.held.clear();
        if self.seen.as_ref().is_some_and(|m| m.epoch > self.marker) {
            self.seen = None;
        }
    }
}

/// A stream that has ended: its member is not in the view any more.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The last delta that was applied.
    pub(crate) seq: DeltaSeq,
    /// The epoch that it belongs to.
    pub(crate) marker: Epoch,
    /// The first view of this member that the stream's is not in; `None` while the view admits a run
    /// that is not there any more.
    pub(crate) since: Option<Epoch>,
    pub(crate) tail: Tail,
}

impl Ended {
    /// Where a stream is now it ends.
    pub(crate) fn of(stream: &mut StreamIn) -> Self {
        Self {
            seq: stream.seq,
            marker: stream.marker,
            since: None,
            tail: std::mem::take(&mut stream.tail),
        }
    }
}
