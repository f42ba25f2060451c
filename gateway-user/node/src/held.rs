//! What waits for the delta behind it (flush and ack): IKE messages, and outbound traffic's way through
//! a new CHILD_SA.

use std::collections::{BTreeMap, VecDeque};

use gateway_cluster::frame::DeltaSeq;
use gateway_common::slot::Slot;
use gateway_ike::output::{ChildId, DeltaId, Transmit};

/// Stands for a delta that is never released.
const NEVER: DeltaSeq = DeltaSeq(u64::MAX);

/// Datagrams that may not leave before the delta behind them is on every in-sync replica.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The cluster's number of each of the engine's deltas that is not released yet.
    sequence: BTreeMap<DeltaId, DeltaSeq>,
    released: DeltaSeq,
    waiting: VecDeque<(DeltaSeq, Transmit)>,
    promotions: Vec<(DeltaSeq, Slot, ChildId)>,
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

    /// The engine's delta `id`, which was published, names these CHILD_SAs of `slot` for the first time,
    /// and outbound traffic is to go through them: until the delta is released their fence is closed,
    /// and it goes on through those that they replace. Returns those that need not wait.
    pub(crate) fn promote(
        &mut self,
        id: DeltaId,
        slot: Slot,
        children: Vec<ChildId>,
    ) -> Vec<ChildId> {
        let Some(sequence) = self.sequence.get(&id) else {
            return children;
        };
        let waiting = children.into_iter().map(|child| (*sequence, slot, child));
        self.promotions.extend(waiting);
        Vec::new()
    }

    /// The CHILD_SAs that outbound traffic may go through from now on: to be asked for after
    /// [`Held::release`].
    pub(crate) fn promotable(&mut self) -> Vec<ChildId> {
        let released = self.released;
        let free = self
            .promotions
            .extract_if(.., |(sequence, _, _)| *sequence <= released);
        free.map(|(_, _, child)| child).collect()
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
        self.promotions.retain(|(s, _, _)| *s > sequence);
        for waiting in self.sequence.values_mut() {
            if *waiting <= sequence {
                *waiting = NEVER;
            }
        }
    }

    /// Gives up what waits for slots of which `lost` is true: their new owner answers.
    pub(crate) fn forget(&mut self, lost: impl Fn(Slot) -> bool) {
        self.waiting.retain(|(_, transmit)| !lost(transmit.slot));
        self.promotions.retain(|(_, slot, _)| !lost(*slot));
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
    fn traffic_goes_through_a_new_child_when_its_delta_is_released() {
        let local = "203.0.113.10".parse().unwrap();
        let child = |n| ChildId {
            spi_in: [n; 4],
            local,
        };
        let mut held = Held::default();
        for n in 1..=3 {
            held.published(DeltaId(n), DeltaSeq(n));
            let now = held.promote(DeltaId(n), Slot(n as u8), vec![child(n as u8)]);
            assert!(now.is_empty());
        }
        assert!(held.promotable().is_empty());
        held.forget(|slot| slot == Slot(2));
        held.release(DeltaSeq(2));
        assert_eq!(held.promotable(), [child(1)]);
        held.discard(DeltaSeq(3));
        held.release(DeltaSeq(3));
        assert!(held.promotable().is_empty());
        // Nobody else is in the view: released as soon as it was published.
        held.published(DeltaId(4), DeltaSeq(3));
        let now = held.promote(DeltaId(4), Slot(4), vec![child(4)]);
        assert_eq!(now, [child(4)]);
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
