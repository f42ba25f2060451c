//! CHILD_SAs that stand in the kernel and that no record names yet.

use std::collections::BTreeMap;

use gateway_cluster::slot_set::SlotSet;
use gateway_common::slot::Slot;
use gateway_ike::output::{ChildId, ChildSa};

/// Installed by the engine since its last delta. When their slot goes before the delta comes, nobody
/// else knows of them.
#[derive(Debug, Default)]
pub(crate) struct Fresh(BTreeMap<ChildId, New>);

#[derive(Debug)]
struct New {
    slot: Slot,
    /// The engine wants outbound traffic to go through it.
    promoted: bool,
}

impl Fresh {
    /// The engine installs one.
    pub(crate) fn installed(&mut self, child: &ChildSa) {
        let (slot, promoted) = (child.slot, false);
        self.0.insert(child.id(), New { slot, promoted });
    }

    /// The engine wants outbound traffic to go through it. `false` if a record names it already.
    pub(crate) fn promoted(&mut self, child: ChildId) -> bool {
        let new = self.0.get_mut(&child);
        new.map(|new| new.promoted = true).is_some()
    }

    /// A record names it now, or the engine has removed it. Whether outbound traffic is to go through
    /// it.
    pub(crate) fn settled(&mut self, child: ChildId) -> bool {
        self.0.remove(&child).is_some_and(|new| new.promoted)
    }

    /// Those in slots that have gone: to be removed.
    pub(crate) fn lose(&mut self, lost: &SlotSet) -> Vec<ChildId> {
        let lost = |new: &New| lost.contains(new.slot);
        let gone: Vec<ChildId> = self
            .0
            .iter()
            .filter(|(_, new)| lost(new))
            .map(|(child, _)| *child)
            .collect();
        self.0.retain(|_, new| !lost(new));
        gone
    }
}
