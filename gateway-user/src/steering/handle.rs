//! The fence in the hands of a thread with deadlines.

use std::sync::{Arc, Mutex};

use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use super::lock;
use super::members::Members;
use super::tables::{TableError, Tables};

/// What the membership writes, from its own thread: who may transmit, and who is alive. No call
/// waits for a slow one of another thread; each takes microseconds.
#[derive(Clone, Debug)]
pub struct FenceHandle {
    pub(super) tables: Arc<dyn Tables>,
    pub(super) members: Arc<Mutex<Members>>,
}

impl FenceHandle {
    /// [`Tables::set_lease`].
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    pub fn set_lease(&self, until: Instant) -> Result<(), TableError> {
        self.tables.set_lease(until)
    }

    /// [`Tables::set_slot_owners`].
    ///
    /// # Errors
    /// [`TableError::Kernel`]; some slots may have been written then.
    pub fn set_slot_owners(
        &self,
        owners: &[Option<MemberId>; Slot::COUNT],
    ) -> Result<(), TableError> {
        self.tables.set_slot_owners(owners)
    }

    /// Sets which members are alive: they share the fragments, and only they are forwarded to
    /// (once their sync MAC is known). Contains this member while it is active itself.
    /// All members must give the same list at the same view; the order does not matter.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn set_live(&self, live: &[MemberId]) -> Result<(), TableError> {
        let mut sorted = live.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut members = lock(&self.members);
        members.set_live(&sorted, self.tables.as_ref())?;
        self.tables.set_live(&sorted)
    }

    /// Sets whether packets may be forwarded to `member`, without a change of who shares the
    /// fragments: for a member that is silent but still in the view.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    pub fn set_member_forwardable(
        &self,
        member: MemberId,
        forwardable: bool,
    ) -> Result<(), TableError> {
        lock(&self.members).set_alive(member, forwardable, self.tables.as_ref())
    }
}
