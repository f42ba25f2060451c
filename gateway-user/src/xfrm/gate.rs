//! Who may move SAs at this moment.
//!
//! `XFRM_MSG_NEWAE` moves an SA whatever it has sent meanwhile. One that was decided on while
//! another member owned the slot, and is carried out after this member took the slot over, would
//! rewind a sending SA: the same (key, sequence number) goes out twice. The membership, which flips
//! `SLOT_OWNER` on a thread of its own, therefore says here first what it will own, and every batch
//! of moves holds the gate and looks again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_common::slot::Slot;

/// The slots that are, or are about to be, this member's. Clones are the same gate.
///
/// Gaining: [`Gate::gain`], then `SLOT_OWNER`. Losing: `SLOT_OWNER`, then [`Gate::lose`]. A caller
/// waits for at most one batch of moves: 0.1 ms, on an emulated CPU 1 ms.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Mutex<Owned>>);

#[derive(Debug)]
pub(super) struct Owned {
    slots: [bool; Slot::COUNT],
    // How often each slot was gained: whoever remembers the number knows later whether SAs of the
    // slot may have sent in between.
    gained: [u32; Slot::COUNT],
}

impl Default for Owned {
    fn default() -> Self {
        Self {
            slots: [false; Slot::COUNT],
            gained: [0; Slot::COUNT],
        }
    }
}

impl Gate {
    /// Nothing is owned.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the slots for which `ours` is true; to be called before `SLOT_OWNER` names this member.
    /// When it returns, no move of an SA in them is under way or will be.
    pub fn gain(&self, ours: impl Fn(Slot) -> bool) {
        let mut owned = self.hold();
        for slot in all() {
            let index = usize::from(slot.0);
            if ours(slot) && !owned.slots[index] {
                owned.slots[index] = true;
                owned.gained[index] = owned.gained[index].wrapping_add(1);
            }
        }
    }

    /// Takes away the slots for which `ours` is false; to be called after `SLOT_OWNER` has ceased to
    /// name this member.
    pub fn lose(&self, ours: impl Fn(Slot) -> bool) {
        let mut owned = self.hold();
        for slot in all() {
            owned.slots[usize::from(slot.0)] &= ours(slot);
        }
    }

    /// Whether `slot` is ours.
    pub fn owns(&self, slot: Slot) -> bool {
        self.hold().owns(slot)
    }

    /// Nothing changes until the guard is dropped.
    pub(super) fn hold(&self) -> MutexGuard<'_, Owned> {
        // Each change is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owned {
    pub(super) const fn owns(&self, slot: Slot) -> bool {
        self.slots[slot.0 as usize]
    }

    pub(super) const fn gained(&self, slot: Slot) -> u32 {
        self.gained[slot.0 as usize]
    }
}

fn all() -> impl Iterator<Item = Slot> {
    (0..=u8::MAX).map(Slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_and_go_one_by_one_and_each_gain_is_counted_once() {
        let gate = Gate::new();
        let other = gate.clone();
        gate.gain(|slot| slot.0 < 2);
        assert!(other.owns(Slot(0)) && other.owns(Slot(1)) && !other.owns(Slot(2)));
        gate.gain(|slot| slot.0 == 1 || slot.0 == 255);
        assert!(other.owns(Slot(0)), "gaining takes nothing away");
        other.lose(|slot| slot.0 == 1);
        assert!(gate.owns(Slot(1)) && !gate.owns(Slot(0)) && !gate.owns(Slot(255)));
        gate.gain(|slot| slot.0 == 0);
        let owned = gate.hold();
        assert_eq!([0, 1, 2].map(|n| owned.gained(Slot(n))), [2, 1, 0]);
    }
}
