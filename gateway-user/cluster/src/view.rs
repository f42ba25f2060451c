//! Views: which members there are, and who of them owns which slot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use gateway_common::member::MemberId;
use gateway_common::slot::Slot;

use crate::frame::Incarnation;
use crate::slot_map::SlotMap;
use crate::slot_set::SlotSet;

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

/// Numbers the ownerships of one slot, one after the other. The upper 12 bits count jumps
/// ([`crate::reservation::JUMP`]): before the ownerships that come after one, others may have been
/// made up by the other half of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenure(pub u32);

/// Ownerships are numbered in so many bits. The millionth without a jump counts as one.
const NUMBER_BITS: u32 = 20;
const NUMBER: u32 = (1 << NUMBER_BITS) - 1;

impl Tenure {
    /// The ownership before this one.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many ownerships have begun since `earlier`, if that is not later.
    pub const fn since(self, earlier: Self) -> u64 {
        (self.0 & NUMBER).saturating_sub(earlier.0 & NUMBER) as u64
    }

    /// How many jumps there have been since `earlier`, if that is not later.
    pub const fn jumps_since(self, earlier: Self) -> u64 {
        (self.0 >> NUMBER_BITS).saturating_sub(earlier.0 >> NUMBER_BITS) as u64
    }
}

/// The ownership that each slot is in.
#[derive(Clone, PartialEq, Eq)]
pub struct Tenures(Arc<[u32; Slot::COUNT]>);

impl Tenures {
    /// The same for every slot.
    pub fn all(tenure: Tenure) -> Self {
        Self::from_numbers([tenure.0; Slot::COUNT])
    }

    /// One each, by slot.
    pub fn from_numbers(numbers: [u32; Slot::COUNT]) -> Self {
        Self(Arc::new(numbers))
    }

    /// Of one slot.
    pub fn of(&self, slot: Slot) -> Tenure {
        Tenure(self.0[usize::from(slot.0)])
    }

    /// By slot.
    pub fn numbers(&self) -> &[u32; Slot::COUNT] {
        &self.0
    }

    /// Leaves out `count` of every slot.
    pub(crate) fn skip(&mut self, count: u32) {
        for number in Arc::make_mut(&mut self.0) {
            *number = number.saturating_add(count);
        }
    }

    /// What follows in `slots` is another ownership, after `jumps`.
    pub(crate) fn jump(&mut self, slots: &SlotSet, jumps: u32) {
        let numbers = Arc::make_mut(&mut self.0);
        for slot in slots.iter() {
            let number = &mut numbers[usize::from(slot.0)];
            *number = number.saturating_add((jumps << NUMBER_BITS) + 1);
        }
    }
}

impl Default for Tenures {
    fn default() -> Self {
        Self::all(Tenure(0))
    }
}

impl fmt::Debug for Tenures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let highest = self.0.iter().max().copied().unwrap_or(0);
        write!(f, "up to {highest}")
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
    /// Which ownership each slot is in: another run of another member, another number. Of these the
    /// members know what part of an SA's sequence numbers is whose ([`crate::reservation`]).
    pub tenures: Tenures,
}

impl View {
    /// The same with its ownerships numbered: one more than in the view `before` where another run
    /// owns the slot, or none does.
    #[must_use]
    pub fn following(mut self, before: &Self) -> Self {
        let mut numbers = *before.tenures.numbers();
        for ((slot, _), number) in self.slots.iter().zip(&mut numbers) {
            if self.owner(slot) != before.owner(slot) {
                *number = number.saturating_add(1);
            }
        }
        self.tenures = Tenures::from_numbers(numbers);
        self
    }

    /// The run that owns `slot`.
    pub(crate) fn owner(&self, slot: Slot) -> Option<(MemberId, Incarnation)> {
        let owner = self.slots.owner(slot)?;
        Some((owner, *self.members.get(&owner)?))
    }

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
