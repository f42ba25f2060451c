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

/// Numbers the ownerships of one slot, one after the other. The upper half counts jumps
/// ([`crate::reservation::JUMP`]): before the ownerships that come after one, others may have been
/// made up by the other half of a view. Neither half ever goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenure(pub u64);

const NUMBER_BITS: u32 = 32;

/// Jumps by which slots of one view differ at most: two bits each in a datagram. A slot that falls
/// behind by more jumps with the others.
const MOST_APART: u32 = 3;

impl Tenure {
    /// The ownership before this one.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many ownerships have begun since `earlier`, if that is not later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.number().saturating_sub(earlier.number()) as u64
    }

    /// How many jumps there have been since `earlier`, if that is not later.
    pub const fn jumps_since(self, earlier: Self) -> u64 {
        self.jumps().saturating_sub(earlier.jumps()) as u64
    }

    /// Ownership `number`, after `jumps`.
    pub(crate) const fn new(jumps: u32, number: u32) -> Self {
        Self((jumps as u64) << NUMBER_BITS | number as u64)
    }

    /// The jumps so far.
    pub(crate) const fn jumps(self) -> u32 {
        (self.0 >> NUMBER_BITS) as u32
    }

    /// Its number, whatever jumps there were.
    pub(crate) const fn number(self) -> u32 {
        self.0 as u32
    }
}

/// The ownership that each slot is in.
#[derive(Clone, PartialEq, Eq)]
pub struct Tenures(Arc<[u64; Slot::COUNT]>);

impl Tenures {
    /// The same for every slot.
    pub fn all(tenure: Tenure) -> Self {
        Self::from_numbers([tenure.0; Slot::COUNT])
    }

    /// One each, by slot.
    pub fn from_numbers(numbers: [u64; Slot::COUNT]) -> Self {
        Self(Arc::new(numbers))
    }

    /// Of one slot.
    pub fn of(&self, slot: Slot) -> Tenure {
        Tenure(self.0[usize::from(slot.0)])
    }

    /// By slot.
    pub fn numbers(&self) -> &[u64; Slot::COUNT] {
        &self.0
    }

    /// The latest of all slots.
    pub(crate) fn latest(&self) -> Tenure {
        Tenure(self.0.iter().max().copied().unwrap_or(0))
    }

    /// Leaves out what comes before `tenure`.
    pub(crate) fn raise(&mut self, tenure: Tenure) {
        for number in Arc::make_mut(&mut self.0) {
            *number = (*number).max(tenure.0);
        }
    }

    /// Leaves out `count` of every slot.
    pub(crate) fn skip(&mut self, count: u32) {
        for number in Arc::make_mut(&mut self.0) {
            *number = number.saturating_add(count.into());
        }
    }

    /// What follows in `slots` is another ownership, after `jumps`.
    pub(crate) fn jump(&mut self, slots: &SlotSet, jumps: u32) {
        let numbers = Arc::make_mut(&mut self.0);
        for slot in slots.iter() {
            let number = &mut numbers[usize::from(slot.0)];
            *number = number.saturating_add(Tenure::new(jumps, 1).0);
        }
        let most = numbers.iter().map(|number| Tenure(*number).jumps()).max();
        let least = most.unwrap_or(0).saturating_sub(MOST_APART);
        for number in numbers {
            let behind = least.saturating_sub(Tenure(*number).jumps());
            if behind > 0 {
                *number = number.saturating_add(Tenure::new(behind, 1).0);
            }
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
        let latest = self.latest();
        write!(
            f,
            "up to {} after {} jumps",
            latest.number(),
            latest.jumps()
        )
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
