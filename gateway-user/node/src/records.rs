//! The IKE SAs of the cluster by slot. Their records stay sealed in the cluster core: encoded octets
//! and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use gateway_cluster::ownership::Held;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::record::{IkeSaRecord, RecordError};

/// Our SPI of an IKE SA, network order.
pub(crate) type Spi = [u8; 8];

/// What IKE SAs are counted by.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    connection: String,
    /// Names of the CHILD_SAs.
    children: Vec<String>,
}

/// What is known of an IKE SA without opening its record.
#[derive(Debug)]
struct Entry {
    slot: Slot,
    /// When the record came: ages in it count from then.
    received: Instant,
    /// `None`: it is over and only has a last answer, or its record cannot be read.
    shape: Option<Arc<Shape>>,
    /// A successor has taken its place, or it is about to end.
    leaving: bool,
    /// The peer can be sent to another gateway, and this is not one that has a successor.
    redirectable: bool,
}

/// All IKE SAs, by our SPI and by slot, and how many there are of each kind.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_spi: BTreeMap<Spi, Entry>,
    by_slot: BTreeSet<(Slot, Spi)>,
    /// Of them those that are over and only have a last answer.
    closed: BTreeSet<Spi>,
    /// Live ones, by what they are counted by: few kinds, whatever the number of SAs.
    shapes: BTreeMap<Arc<Shape>, usize>,
    /// Live IKE SAs and their CHILD_SAs, by slot; without those that are zero.
    by_slot_count: BTreeMap<Slot, (usize, usize)>,
}

/// IKE SAs and CHILD_SAs of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCount {
    /// IKE SAs.
    pub ike_sas: usize,
    /// CHILD_SAs, by name.
    pub child_sas: BTreeMap<String, usize>,
}

impl Index {
    /// An IKE SA came, changed or moved; `record` is `None` if it cannot be read.
    pub(crate) fn put(
        &mut self,
        spi: Spi,
        slot: Slot,
        received: Instant,
        record: Option<&IkeSaRecord>,
    ) {
        let closed = record.is_some_and(|record| record.closed.is_some());
        let shape = record.filter(|_| !closed).map(|record| {
            let names = record.children.iter().map(|child| child.sa.name.clone());
            self.known(Shape {
                connection: record.connection.clone(),
                children: names.collect(),
            })
        });
        let entry = Entry {
            slot,
            received,
            shape,
            leaving: record.is_some_and(|record| record.replaced || record.closing),
            redirectable: record
                .is_some_and(|record| record.transport.redirectable && !record.replaced),
        };
        self.enter(spi, entry, closed);
    }

    fn enter(&mut self, spi: Spi, entry: Entry, closed: bool) {
        self.remove(spi);
        self.count(entry.slot, entry.shape.as_ref(), closed, true);
        self.by_slot.insert((entry.slot, spi));
        self.by_spi.insert(spi, entry);
        if closed {
            self.closed.insert(spi);
        }
    }

    /// The one copy of a shape that all SAs share.
    fn known(&self, shape: Shape) -> Arc<Shape> {
        let found = self.shapes.get_key_value(&shape);
        found.map_or_else(|| Arc::new(shape), |(known, _)| Arc::clone(known))
    }

    fn count(&mut self, slot: Slot, shape: Option<&Arc<Shape>>, closed: bool, more: bool) {
        let change = |count: &mut usize, by: usize| {
            *count = if more { *count + by } else { *count - by };
        };
        if let Some(shape) = shape {
            let count = self.shapes.entry(Arc::clone(shape)).or_default();
            change(count, 1);
            if *count == 0 {
                self.shapes.remove(shape);
            }
        }
        if !closed {
            let (ike_sas, child_sas) = self.by_slot_count.entry(slot).or_default();
            change(ike_sas, 1);
            change(child_sas, shape.map_or(0, |shape| shape.children.len()));
            if *ike_sas == 0 {
                self.by_slot_count.remove(&slot);
            }
        }
    }

    pub(crate) fn remove(&mut self, spi: Spi) {
        let Some(entry) = self.by_spi.remove(&spi) else {
            return;
        };
        self.by_slot.remove(&(entry.slot, spi));
        let closed = self.closed.remove(&spi);
        self.count(entry.slot, entry.shape.as_ref(), closed, false);
    }

    /// Whether it is over, and only its tombstone is known.
    pub(crate) fn is_closed(&self, spi: Spi) -> bool {
        self.closed.contains(&spi)
    }

    pub(crate) fn slot(&self, spi: Spi) -> Option<Slot> {
        self.by_spi.get(&spi).map(|entry| entry.slot)
    }

    /// The connection of one that lives and can be read.
    pub(crate) fn connection(&self, spi: Spi) -> Option<&str> {
        let shape = self.by_spi.get(&spi)?.shape.as_ref()?;
        Some(&shape.connection)
    }

    /// How many CHILD_SAs of this name one has that lives and can be read.
    pub(crate) fn children(&self, spi: Spi, name: &str) -> usize {
        let entry = self.by_spi.get(&spi);
        let children = entry.and_then(|entry| Some(&entry.shape.as_ref()?.children));
        children.map_or(0, |all| all.iter().filter(|child| *child == name).count())
    }

    /// Whether the peer of one can be sent to another gateway.
    pub(crate) fn is_redirectable(&self, spi: Spi) -> bool {
        self.by_spi
            .get(&spi)
            .is_some_and(|entry| entry.redirectable)
    }

    /// All of a slot, by our SPI.
    pub(crate) fn in_slot(&self, slot: Slot) -> impl Iterator<Item = Spi> {
        let all = self.by_slot.range((slot, [0; 8])..=(slot, [0xff; 8]));
        all.map(|(_, spi)| *spi)
    }

    /// Our SPI and the connection of all that live, can be read, and are not about to end.
    pub(crate) fn staying(&self) -> impl Iterator<Item = (Spi, &str)> {
        let staying = self.by_spi.iter().filter(|(_, entry)| !entry.leaving);
        staying.filter_map(|(spi, entry)| Some((*spi, &*entry.shape.as_ref()?.connection)))
    }

    /// Number of those that are not over.
    pub(crate) fn len(&self) -> usize {
        self.by_spi.len() - self.closed.len()
    }

    /// Live IKE SAs in slots that `wanted` chooses, and their CHILD_SAs.
    pub(crate) fn count_in(&self, wanted: impl Fn(Slot) -> bool) -> (usize, usize) {
        let chosen = self.by_slot_count.iter().filter(|(slot, _)| wanted(**slot));
        chosen.fold((0, 0), |sum, (_, count)| (sum.0 + count.0, sum.1 + count.1))
    }

    /// Live ones by connection.
    pub(crate) fn by_connection(&self) -> BTreeMap<&str, ConnectionCount> {
        let mut all: BTreeMap<&str, ConnectionCount> = BTreeMap::new();
        for (shape, number) in &self.shapes {
            let count = all.entry(&shape.connection).or_default();
            count.ike_sas += number;
            for child in &shape.children {
                *count.child_sas.entry(child.clone()).or_default() += number;
            }
        }
        all
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
        let entry = self.by_spi.get(&held.sa.local_spi);
        let received = entry.map(|entry| entry.received);
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

    fn entry(slot: u8, connection: &str, children: &[&str]) -> Entry {
        let shape = Shape {
            connection: connection.into(),
            children: children.iter().map(ToString::to_string).collect(),
        };
        Entry {
            slot: Slot(slot),
            received: Instant::default(),
            shape: Some(Arc::new(shape)),
            leaving: false,
            redirectable: false,
        }
    }

    #[test]
    fn an_ike_sa_is_found_in_the_slot_it_moved_to() {
        let mut index = Index::default();
        index.enter([1; 8], entry(4, "a", &["net"]), false);
        index.enter([1; 8], entry(9, "a", &["net"]), false);
        assert_eq!(index.after(Slot(4), None), None);
        assert_eq!(index.after(Slot(9), None), Some([1; 8]));
        assert_eq!(index.after(Slot(9), Some([1; 8])), None);
        assert_eq!(index.len(), 1);
        let over = Entry {
            shape: None,
            ..entry(9, "", &[])
        };
        index.enter([1; 8], over, true);
        assert_eq!((index.len(), index.tombstones()), (0, 1));
        index.remove([1; 8]);
        assert_eq!(index.after(Slot(9), None), None);
        assert_eq!(index.tombstones(), 0);
    }

    #[test]
    fn counts_follow_what_comes_changes_moves_ends_and_goes() {
        let mut index = Index::default();
        index.enter([1; 8], entry(4, "a", &["net"]), false);
        index.enter([2; 8], entry(4, "a", &["net", "voice"]), false);
        index.enter([3; 8], entry(5, "b", &[]), false);
        let counts = |index: &Index, name: &str| {
            let all = index.by_connection();
            let count = all.get(name).cloned().unwrap_or_default();
            let children: Vec<usize> = count.child_sas.into_values().collect();
            (count.ike_sas, children)
        };
        assert_eq!(counts(&index, "a"), (2, vec![2, 1]));
        assert_eq!(counts(&index, "b"), (1, vec![]));
        assert_eq!(index.count_in(|slot| slot == Slot(4)), (2, 3));
        // Moved, and a child fewer.
        index.enter([2; 8], entry(5, "a", &["net"]), false);
        assert_eq!(index.count_in(|slot| slot == Slot(4)), (1, 1));
        assert_eq!(index.count_in(|slot| slot == Slot(5)), (2, 1));
        assert_eq!(counts(&index, "a"), (2, vec![2]));
        // Over, with a last answer.
        let over = Entry {
            shape: None,
            ..entry(5, "", &[])
        };
        index.enter([2; 8], over, true);
        assert_eq!(index.count_in(|_| true), (2, 1));
        for spi in [1, 2, 3] {
            index.remove([spi; 8]);
        }
        assert_eq!(index.count_in(|_| true), (0, 0));
        assert!(index.by_connection().is_empty());
        assert!(index.by_slot_count.is_empty() && index.shapes.is_empty());
    }

    #[test]
    fn who_is_about_to_end_does_not_stay() {
        let mut index = Index::default();
        index.enter([1; 8], entry(4, "a", &[]), false);
        let leaving = Entry {
            leaving: true,
            ..entry(4, "a", &[])
        };
        index.enter([2; 8], leaving, false);
        let staying: Vec<_> = index.staying().collect();
        assert_eq!(staying, [([1; 8], "a")]);
        assert_eq!(index.connection([2; 8]), Some("a"));
        index.enter([3; 8], entry(4, "a", &["net"]), false);
        let has = |spi: u8, name: &str| index.children([spi; 8], name) > 0;
        assert!(has(3, "net") && !has(3, "voice") && !has(2, "net") && !has(9, "net"));
    }
}
