//! The IKE SAs of the cluster by slot. Their records stay sealed in the cluster core: encoded octets
//! and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use gateway_cluster::ownership::Held;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::record::{IkeSaRecord, RecordError};

/// Our SPI of an IKE SA, network order.
pub(crate) type Spi = [u8; 8];

/// All IKE SAs, by our SPI and by slot, and when their records came: ages in them count from then.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_spi: BTreeMap<Spi, (Slot, Instant)>,
    by_slot: BTreeSet<(Slot, Spi)>,
    /// Of them those that are over and only have a last answer.
    closed: BTreeSet<Spi>,
}

impl Index {
    pub(crate) fn put(&mut self, spi: Spi, slot: Slot, received: Instant, closed: bool) {
        if let Some((before, _)) = self.by_spi.insert(spi, (slot, received)) {
            self.by_slot.remove(&(before, spi));
        }
        self.by_slot.insert((slot, spi));
        if closed {
            self.closed.insert(spi);
        } else {
            self.closed.remove(&spi);
        }
    }

    pub(crate) fn remove(&mut self, spi: Spi) {
        if let Some((slot, _)) = self.by_spi.remove(&spi) {
            self.by_slot.remove(&(slot, spi));
        }
        self.closed.remove(&spi);
    }

    /// Whether it is over, and only its tombstone is known.
    pub(crate) fn is_closed(&self, spi: Spi) -> bool {
        self.closed.contains(&spi)
    }

    pub(crate) fn slot(&self, spi: Spi) -> Option<Slot> {
        self.by_spi.get(&spi).map(|(slot, _)| *slot)
    }

    /// Number of those that are not over.
    pub(crate) fn len(&self) -> usize {
        self.by_spi.len() - self.closed.len()
    }

    /// Number of tombstones.
    pub(crate) fn tombstones(&self) -> usize {
        self.closed.len()
    }

    /// The first IKE SA of `slot` after `spi`, in the order of SPIs.
    pub(crate) fn after(&self, slot: Slot, spi: Option<Spi>) -> Option<Spi> {
        let from = match spi {
            Some(spi) => Bound::Excluded((slot, spi)),
            None => Bound::Included((slot, [0; 8])),
        };
        let to = Bound::Included((slot, [0xff; 8]));
        self.by_slot.range((from, to)).next().map(|(_, spi)| *spi)
    }

    /// Opens a record, with its ages as of `now` and in the slot that it is in by now.
    pub(crate) fn open(&self, now: Instant, held: &Held) -> Result<IkeSaRecord, RecordError> {
        let mut record = IkeSaRecord::decode(held.sa.record.expose())?;
        let received = self.by_spi.get(&held.sa.local_spi).map(|(_, at)| *at);
        let since = now.saturating_since(received.unwrap_or(now));
        record.slot = held.slot;
        record.grow_older(since);
        for child in &mut record.children {
            child.sa.slot = held.slot;
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ike_sa_is_found_in_the_slot_it_moved_to() {
        let mut index = Index::default();
        index.put([1; 8], Slot(4), Instant::default(), false);
        index.put([1; 8], Slot(9), Instant::default(), false);
        assert_eq!(index.after(Slot(4), None), None);
        assert_eq!(index.after(Slot(9), None), Some([1; 8]));
        assert_eq!(index.after(Slot(9), Some([1; 8])), None);
        assert_eq!(index.len(), 1);
        index.put([1; 8], Slot(9), Instant::default(), true);
        assert_eq!((index.len(), index.tombstones()), (0, 1));
        index.remove([1; 8]);
        assert_eq!(index.after(Slot(9), None), None);
    }
}
