//! CHILD_SAs that stand in the kernel and that no record names yet.

use std::collections::BTreeMap;

use gateway_cluster::slot_set::SlotSet;
use gateway_common::slot::Slot;
use gateway_ike::output::{ChildId, ChildSa};

/// Installed by the engine since its last delta. When their slot goes before the delta comes, nobody
/// else knows of them.
#[derive(Debug, Default)]
pub(crate) struct Fresh(BTreeMap<ChildId, Slot>);

impl Fresh {
    /// The engine installs one.
    pub(crate) fn installed(&mut self, child: &ChildSa) {
        self.0.insert(child.id(), child.slot);
    }

    /// A record names it now, or the engine has removed it.
    pub(crate) fn settled(&mut self, child: ChildId) {
        self.0.remove(&child);
    }

    /// Those in slots that have gone: to be removed.
    pub(crate) fn lose(&mut self, lost: &SlotSet) -> Vec<ChildId> {
        let lost = |slot: &Slot| lost.contains(*slot);
        let gone: Vec<ChildId> = self
            .0
            .iter()
            .filter(|(_, slot)| lost(slot))
            .map(|(child, _)| *child)
            .collect();
        self.0.retain(|_, slot| !lost(slot));
        gone
    }
}
