//! The records of all IKE SAs of the cluster, sealed: encoded octets and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use gateway_cluster::secret::Secret;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::record::{IkeSaRecord, RecordError};

/// Our SPI of an IKE SA, network order.
pub(crate) type Spi = [u8; 8];

/// What this member holds of an IKE SA until it has to serve it.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) slot: Slot,
    octets: Secret,
    /// When it came: ages in it count from then.
    received: Instant,
}

impl Sealed {
    /// The record with its ages as of `now`.
    pub(crate) fn open(&self, now: Instant) -> Result<IkeSaRecord, RecordError> {
        let mut record = IkeSaRecord::decode(self.octets.expose())?;
        let since = now.saturating_since(self.received);
        record.age += since;
        for child in &mut record.children {
            child.age += since;
        }
        Ok(record)
    }
}

/// All of them, by our SPI and by slot.
#[derive(Debug, Default)]
pub(crate) struct Records {
    by_spi: BTreeMap<Spi, Sealed>,
    by_slot: BTreeSet<(Slot, Spi)>,
}

impl Records {
    pub(crate) fn put(&mut self, spi: Spi, slot: Slot, octets: Secret, received: Instant) {
        let sealed = Sealed {
            slot,
            octets,
            received,
        };
        if let Some(before) = self.by_spi.insert(spi, sealed) {
            self.by_slot.remove(&(before.slot, spi));
        }
        self.by_slot.insert((slot, spi));
    }

    pub(crate) fn remove(&mut self, spi: Spi) {
        if let Some(before) = self.by_spi.remove(&spi) {
            self.by_slot.remove(&(before.slot, spi));
        }
    }

    pub(crate) fn get(&self, spi: Spi) -> Option<&Sealed> {
        self.by_spi.get(&spi)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_spi.len()
    }

    /// Octets of all records.
    pub(crate) fn octets(&self) -> usize {
        self.by_spi.values().map(|sealed| sealed.octets.len()).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Spi, &Sealed)> {
        self.by_spi.iter().map(|(spi, sealed)| (*spi, sealed))
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_in_the_slot_it_moved_to() {
        let mut records = Records::default();
        let put = |records: &mut Records, slot| {
            let octets = Secret::new(vec![0; 10]);
            records.put([1; 8], slot, octets, Instant::default());
        };
        put(&mut records, Slot(4));
        put(&mut records, Slot(9));
        assert_eq!(records.after(Slot(4), None), None);
        assert_eq!(records.after(Slot(9), None), Some([1; 8]));
        assert_eq!(records.after(Slot(9), Some([1; 8])), None);
        assert_eq!((records.len(), records.octets()), (1, 10));
        records.remove([1; 8]);
        assert_eq!(records.after(Slot(9), None), None);
    }
}
