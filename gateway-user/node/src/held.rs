//! IKE messages that wait for the delta behind them (flush and ack).

use std::collections::{BTreeMap, VecDeque};

use gateway_cluster::frame::DeltaSeq;
use gateway_common::slot::Slot;
use gateway_ike::output::{DeltaId, Transmit};

/// Stands for a delta that is never released.
const NEVER: DeltaSeq = DeltaSeq(u64::MAX);

/// Datagrams that may not leave before the delta behind them is on every in-sync replica.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The cluster's number of each of the engine's deltas that is not released yet.
    sequence: BTreeMap<DeltaId, DeltaSeq>,
    released: DeltaSeq,
    waiting: VecDeque<(DeltaSeq, Transmit)>,
}

impl Held {
    /// The engine's delta `id` was published under `sequence`.
    pub(crate) fn published(&mut self, id: DeltaId, sequence: DeltaSeq) {
        if sequence > self.released {
            self.sequence.insert(id, sequence);
        }
    }

    /// The engine's delta `id` could not be published: what depends on it never leaves.
    pub(crate) fn refused(&mut self, id: DeltaId) {
        self.sequence.insert(id, NEVER);
    }

    /// The datagram, if it may leave now.
    pub(crate) fn admit(&mut self, transmit: Transmit) -> Option<Transmit> {
        let sequence = transmit
            .after
            .and_then(|id| self.sequence.get(&id).copied());
        match sequence {
            Some(NEVER) => None,
            Some(sequence) => self.wait(sequence, transmit),
            None => Some(transmit),
        }
    }

    /// The datagram, if everything up to `sequence` is released.
    pub(crate) fn wait(&mut self, sequence: DeltaSeq, transmit: Transmit) -> Option<Transmit> {
        if sequence > self.released {
            self.waiting.push_back((sequence, transmit));
            None
        } else {
            Some(transmit)
        }
    }

    /// What may leave, now that everything up to `sequence` is released; in the order in which it
    /// came.
    pub(crate) fn release(&mut self, sequence: DeltaSeq) -> Vec<Transmit> {
        self.released = self.released.max(sequence);
        let released = self.released;
        self.sequence.retain(|_, waiting| *waiting > released);
        let (free, waiting): (VecDeque<_>, _) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(s, _)| *s <= released);
        self.waiting = waiting;
        free.into_iter().map(|(_, transmit)| transmit).collect()
    }

    /// What was published up to `sequence` and is not released never will be.
    pub(crate) fn discard(&mut self, sequence: DeltaSeq) {
        self.waiting.retain(|(s, _)| *s > sequence);
        for waiting in self.sequence.values_mut() {
            if *waiting <= sequence {
                *waiting = NEVER;
            }
        }
    }

    /// Gives up what waits for slots of which `lost` is true: their new owner answers.
    pub(crate) fn forget(&mut self, lost: impl Fn(Slot) -> bool) {
        self.waiting.retain(|(_, transmit)| !lost(transmit.slot));
    }

    /// Number of messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use gateway_ike::output::Path;

    use super::*;

    fn transmit(octet: u8, after: Option<u64>) -> Transmit {
        let address = "203.0.113.10:500".parse().unwrap();
        Transmit {
            path: Path::new(address, address),
            bytes: vec![octet],
            slot: Slot(octet),
            after: after.map(DeltaId),
        }
    }

    fn octets(list: &[Transmit]) -> Vec<u8> {
        list.iter().map(|t| t.bytes[0]).collect()
    }

    #[test]
    fn a_message_waits_for_its_delta_and_no_longer() {
        let mut held = Held::default();
        held.published(DeltaId(1), DeltaSeq(10));
        held.published(DeltaId(2), DeltaSeq(11));
        assert!(held.admit(transmit(0, None)).is_some());
        assert!(held.admit(transmit(2, Some(2))).is_none());
        assert!(held.admit(transmit(1, Some(1))).is_none());
        assert!(held.release(DeltaSeq(9)).is_empty());
        assert_eq!(octets(&held.release(DeltaSeq(10))), [1]);
        // A retransmission of what was released passes at once.
        assert!(held.admit(transmit(1, Some(1))).is_some());
        assert!(held.admit(transmit(2, Some(2))).is_none());
        assert_eq!(octets(&held.release(DeltaSeq(11))), [2, 2]);
        assert_eq!(held.len(), 0);
    }

    #[test]
    fn what_depends_on_a_discarded_delta_never_leaves() {
        let mut held = Held::default();
        held.published(DeltaId(1), DeltaSeq(1));
        held.published(DeltaId(2), DeltaSeq(2));
        held.refused(DeltaId(3));
        assert!(held.admit(transmit(1, Some(1))).is_none());
        held.discard(DeltaSeq(1));
        for id in [1, 3] {
            assert!(held.admit(transmit(1, Some(id))).is_none());
        }
        assert!(held.admit(transmit(2, Some(2))).is_none());
        assert_eq!(octets(&held.release(DeltaSeq(2))), [2]);
    }

    #[test]
    fn what_waits_for_a_lost_slot_never_leaves() {
        let mut held = Held::default();
        held.published(DeltaId(1), DeltaSeq(1));
        assert!(held.admit(transmit(7, Some(1))).is_none());
        assert!(held.admit(transmit(8, Some(1))).is_none());
        held.forget(|slot| slot == Slot(7));
        assert_eq!(octets(&held.release(DeltaSeq(1))), [8]);
    }
}
