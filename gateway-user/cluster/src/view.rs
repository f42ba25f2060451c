//! Views: which members there are, and who of them owns which slot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gateway_common::member::MemberId;

use crate::frame::Incarnation;
use crate::slot_map::SlotMap;

/// Numbers the views of a cluster; never goes back. 0 = before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a majority of the previous view agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its number.
    pub epoch: Epoch,
    /// The members, each with the run that was admitted: another run of it is not in this view.
    /// Messages wait for the acknowledgements of all of them (flush and ack).
    pub members: BTreeMap<MemberId, Incarnation>,
    /// Who owns which slot; owners are members. Some may own none (drained, standby).
    pub slots: SlotMap,
}

impl View {
    /// Whether `incarnation` of `member` is in it.
    pub fn admits(&self, member: MemberId, incarnation: Incarnation) -> bool {
        self.members
            .get(&member)
            .is_some_and(|admitted| *admitted == incarnation)
    }
}

/// What the membership has to know of a member's synchronisation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Members of which everything is known here: their snapshot, or all since, is applied. A
    /// member may join a view only when this covers all of the view's members.
    pub complete_from: BTreeSet<MemberId>,
    /// Members of the view that leave deltas unacknowledged for longer than
    /// [`crate::config::Limits::ack_timeout`], or are not connected: messages wait for them, so they
    /// have to leave the view until they are in sync again.
    pub lagging: BTreeSet<MemberId>,
    /// Members outside the view that acknowledged all of this member's stream: ready to join.
    pub caught_up: BTreeSet<MemberId>,
    /// The dead members' streams are levelled in this epoch: IKE is served.
    pub levelled: Epoch,
}
