//! Sets of slots.

use std::fmt;

use gateway_common::{member::MemberId, slot::Slot};

use crate::slot_map::SlotMap;

/// Some of the 256 slots: 32 octets, slot 0 is the lowest bit of the first word.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotSet([u64; 4]);

impl SlotSet {
    /// No slot.
    pub const EMPTY: Self = Self([0; 4]);
    /// Every slot.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// The slots that `member` owns.
    pub fn of(slots: &SlotMap, member: MemberId) -> Self {
        slots
            .iter()
            .filter(|(_, owner)| *owner == Some(member))
            .map(|(slot, _)| slot)
            .collect()
    }

    /// Whether `slot` is in it.
    pub const fn contains(&self, slot: Slot) -> bool {
        self.0[slot.0 as usize / 64] >> (slot.0 % 64) & 1 == 1
    }

    /// Adds `slot`.
    pub const fn insert(&mut self, slot: Slot) {
        self.0[slot.0 as usize / 64] |= 1 << (slot.0 % 64);
    }

    /// Whether it has no slot.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The slots that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// The slots that are in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// The slots that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// The slots, in order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..=u8::MAX).map(Slot).filter(|slot| self.contains(*slot))
    }

    /// As octets, slot 0 is the lowest bit of the first.
    pub fn to_octets(self) -> [u8; 32] {
        let mut octets = [0; 32];
        for (chunk, word) in octets.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        octets
    }

    /// From octets.
    pub fn from_octets(octets: &[u8; 32]) -> Self {
        let mut set = Self::EMPTY;
        for slot in (0..=u8::MAX).map(Slot) {
            if octets[usize::from(slot.0) / 8] >> (slot.0 % 8) & 1 == 1 {
                set.insert(slot);
            }
        }
        set
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::EMPTY;
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({} of 256)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_as_a_set_and_round_trips() {
        let odd: SlotSet = (0..=255).filter(|n| n % 2 == 1).map(Slot).collect();
        let low: SlotSet = (0..70).map(Slot).collect();
        assert_eq!((odd.len(), low.len()), (128, 70));
        assert_eq!(odd.intersection(&low).len(), 35);
        assert_eq!(odd.union(&low).len(), 163);
        let left: Vec<Slot> = low.difference(&odd).iter().take(2).collect();
        assert_eq!(left, [Slot(0), Slot(2)]);
        assert!(odd.contains(Slot(255)) && !odd.contains(Slot(64)));
        assert_eq!(SlotSet::from_octets(&odd.to_octets()), odd);
        assert!(SlotSet::EMPTY.is_empty() && !low.is_empty());
    }
}
