//! What is reserved of a CHILD_SA, and of each ownership that may follow.

use gateway_common::slot::Slot;

use super::{FIRST, JUMP, WIDTH};
use crate::change::Reserved;
use crate::view::Tenure;

impl Reserved {
    /// Of a new CHILD_SA.
    pub(crate) const fn first(slot: Slot, tenure: Tenure) -> Self {
        Self {
            slot,
            tenure,
            ceiling: FIRST,
            block: (FIRST * WIDTH) as u32,
        }
    }

    /// The same, of an exchange that the other half of a view may bring to an end, too.
    pub(crate) const fn starting_after(mut self, number: u64) -> Self {
        self.ceiling += number;
        self
    }

    /// Of a new CHILD_SA: what it starts after.
    pub(super) const fn first_number(&self) -> u64 {
        self.ceiling.saturating_sub(FIRST)
    }

    /// The last number of ownership `tenure` of the slot.
    pub(crate) fn limit(&self, tenure: Tenure) -> u64 {
        let blocks = tenure.since(self.tenure);
        self.ceiling
            .saturating_add(blocks.saturating_mul(self.block.into()))
            .saturating_add(tenure.jumps_since(self.tenure) * JUMP)
    }

    /// The lowest that [`Reserved::limit`] can be by what was reserved before this.
    pub(super) fn least(&self, tenure: Tenure) -> u64 {
        let block = u64::from(self.block);
        let blocks = tenure.since(self.tenure);
        let ceiling = self.ceiling.saturating_sub(block / WIDTH);
        ceiling
            .saturating_add(blocks.saturating_mul(block / 2))
            .saturating_add(tenure.jumps_since(self.tenure) * JUMP)
    }
}

impl Default for Reserved {
    fn default() -> Self {
        Self::first(Slot(0), Tenure(0))
    }
}
