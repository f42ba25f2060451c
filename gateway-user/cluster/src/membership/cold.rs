//! Starting when no view is live.

use gateway_common::{slot::Slot, time::Instant};

use super::accept::Acceptor;
use super::config::{Timing, TwoMember};
use super::io::{Event, Output, Persisted};
use super::tally::Handover;
use super::wire::{Ballot, Basis};
use super::{MemberSet, Membership};
use crate::slot_map::Weighted;
use crate::slot_set::SlotSet;
use crate::view::{Epoch, Tenures, View};

/// Epochs that are left out by a view without a majority, times the distance of the member from 64:
/// two such views and what follows each have different numbers.
const STRIDE: u64 = 1000;

/// Views that nobody remembers who takes part in a cold start: at most so many.
const FORGOTTEN: u32 = 16;

/// A member without a view that can go on.
#[derive(Debug, Default)]
pub(super) struct Cold {
    /// Since when no live view is heard.
    pub(super) quiet_since: Option<Instant>,
    pub(super) acceptor: Acceptor,
    /// Highest ballot of a view that was noted.
    pub(super) noted: Option<(Basis, Ballot)>,
    warned: bool,
}

impl Cold {
    /// A view is installed. It ends the cold start, unless it comes before what this member has voted
    /// for: the others count that vote, and may have decided by it.
    pub(super) fn heard_of(&mut self, epoch: Epoch) {
        let acceptor = std::mem::take(&mut self.acceptor);
        let voted = acceptor.accepted.as_ref().map(|(_, view)| view.epoch);
        *self = Self::default();
        if voted > Some(epoch) {
            self.acceptor = acceptor;
        }
    }

    pub(super) fn due(&self, timing: Timing) -> Option<Instant> {
        self.quiet_since.map(|since| since + timing.cold_start)
    }
}

impl Membership {
    pub(super) fn step_cold(&mut self) {
        self.fallen |= self.admitted && (self.is_over() || self.is_stuck());
        let mut others = self.peers.values().filter(|peer| peer.alive);
        let live = others.any(|peer| peer.said.admitted && !peer.said.cold);
        if (self.admitted && !self.fallen) || live || self.control.stopping {
            self.cold.quiet_since = None;
            return;
        }
        let since = *self.cold.quiet_since.get_or_insert(self.now);
        if self.now < since + self.config.timing.cold_start || self.cold.warned {
            return;
        }
        let heard = self.heard();
        let majority = (heard.len() + 1) * 2 > self.config.members.len();
        if self.config.boot_alone && !majority && self.rank(Basis::Cold) == 0 {
            return self.bootstrap();
        }
        self.cold.warned = true;
        self.outputs
            .push_back(Output::Event(Event::ColdStartWaits { heard }));
    }

    /// So many runs of the view have ended that the others can never decide again.
    fn is_over(&self) -> bool {
        self.superseded().len() >= self.majority()
    }

    /// Of two members the other one has started anew, and will not note what this one decides: it
    /// has voted for a first view meanwhile. This member has served nothing for so long that it
    /// starts over with it: without this member's grants no other view of the two can serve.
    fn is_stuck(&self) -> bool {
        let served = self.lease.until.max(self.installed_at);
        self.view.members.len() == 2
            && !self.witness_seat()
            && !self.superseded().is_empty()
            && self.now >= served + self.config.timing.cold_start
    }

    /// No view can go on, and none is heard.
    pub(super) const fn is_cold(&self) -> bool {
        self.cold.quiet_since.is_some()
    }

    /// Long enough for a live view to be heard.
    pub(super) fn is_cold_voter(&self) -> bool {
        let enough = self.config.timing.silence * 2;
        let alone = self.config.members.len() == 1;
        let quiet = self
            .cold
            .quiet_since
            .is_some_and(|since| alone || self.now >= since + enough);
        quiet && self.frozen_until.is_none()
    }

    /// Time to propose a first view: nobody is missing and all are in sync, or the wait is over.
    pub(super) fn may_start_cold(&self) -> bool {
        if !self.is_cold_voter() {
            return false;
        }
        let local = self.config.local;
        let mut there: MemberSet = self
            .heard()
            .iter()
            .filter(|member| self.said(*member).is_some_and(|said| said.cold))
            .collect();
        there.insert(local);
        let waited = self
            .cold
            .quiet_since
            .is_some_and(|since| self.now >= since + self.config.timing.cold_start);
        let all = there.len() == self.config.members.len();
        let pairs = there.iter().all(|a| {
            let mut others = there.iter().filter(|b| *b != a);
            others.all(|b| self.connected(a, b))
        });
        there.len() * 2 > self.config.members.len() && (waited || (all && pairs))
    }

    /// Whether a view that those who promised remember could still be live without them: not if too
    /// few of its members are missing to decide anything.
    pub(super) fn covers(&self, promised: MemberSet, memory: &[Persisted]) -> bool {
        if promised.len() == self.config.members.len() {
            return true;
        }
        let mut views = memory.iter().filter(|persisted| persisted.epoch.0 > 0);
        views.all(|persisted| {
            let members = persisted.members.len();
            let seat = usize::from(self.config.witness && members.is_multiple_of(2));
            let missing = persisted.members.difference(promised).len() + seat;
            missing < (members + seat) / 2 + 1
        })
    }

    /// A view with this member alone, without anybody's vote.
    pub(super) fn bootstrap(&mut self) {
        let local = self.config.local;
        let mut view = View {
            epoch: self.lone_epoch(),
            members: [(local, self.config.incarnation)].into(),
            slots: self.view.slots.clone(),
            tenures: Tenures::default(),
        };
        view.slots = view.slots.next_active(
            &[Weighted {
                member: local,
                weight: 1,
            }],
            self.config.failback,
            None,
        );
        let mut view = self.after_halves(view.following(&self.view));
        self.recall(&mut view, &[self.persisted]);
        let unsafe_takeover = self.view.epoch > Epoch::default();
        let kept = self.kept_alone();
        if unsafe_takeover && !self.config.never_jumps() {
            view.tenures.jump(&SlotSet::ALL.difference(&kept), 1);
        }
        let base = self.handover.end().max(self.now);
        let handover = Handover::after_all(base, self.ledger.others(local));
        self.install(view, unsafe_takeover, handover);
        self.kept = if unsafe_takeover {
            kept
        } else {
            SlotSet::EMPTY
        };
        let everybody = self.everybody();
        self.send_commit(everybody);
    }

    /// Slots that this member owns, one of two, and goes on with if it goes on alone. The other one, if
    /// it does, too, takes them over with a jump. Of more than two a majority may serve them, without:
    /// then this member has to jump.
    fn kept_alone(&self) -> SlotSet {
        let run = Some((self.config.local, self.config.incarnation));
        let two = self.view.members.len() == 2;
        let all = (0..=u8::MAX).map(Slot);
        all.filter(|slot| two && self.view.owner(*slot) == run)
            .collect()
    }

    /// The numbers of `view` if it follows one that this member made alone: in the slots that it kept
    /// the other half may have jumped once.
    pub(super) fn after_halves(&self, mut view: View) -> View {
        if !self.config.never_jumps() {
            view.tenures.jump(&self.kept, 2);
        }
        view
    }

    /// The first view, numbered above all that the voters remember and this proposer need not: a
    /// member outside may have SAs still, with numbers of earlier ownerships, and be told of no others.
    ///
    /// Of two members that may go on alone each may have done so, and have forgotten it: then all
    /// slots jump as one does that a half kept.
    pub(super) fn after_memory(&self, mut view: View, memory: &[Persisted]) -> View {
        let epochs = memory.iter().map(|persisted| persisted.epoch);
        view.epoch = after_all(epochs.fold(self.view.epoch, Epoch::max));
        self.recall(&mut view, memory);
        let alone = self.config.two_member == TwoMember::Availability && !self.config.witness;
        if alone && view.epoch > Epoch(1) && !self.config.never_jumps() {
            view.tenures.jump(&SlotSet::ALL, 2);
        }
        view
    }

    /// Numbers the ownerships of `view`, which follows what this member knows, above `memory` if that
    /// is of later views, and above those that nobody remembers.
    fn recall(&self, view: &mut View, memory: &[Persisted]) {
        let later = |persisted: &&Persisted| {
            persisted.epoch > self.view.epoch || persisted.latest > self.view.tenures.latest()
        };
        if let Some(latest) = memory.iter().filter(later).map(|p| p.latest).max() {
            view.tenures.raise(latest);
        }
        view.tenures.skip(FORGOTTEN);
    }

    fn lone_epoch(&self) -> Epoch {
        let latest = self.view.epoch.max(self.persisted.epoch).0;
        let rank = 64 - u64::from(self.config.local.get());
        Epoch(latest.saturating_add(1 + rank * STRIDE))
    }
}

/// An epoch for a cold start after `latest`: with a gap, because views that nobody remembers who
/// takes part may have followed.
fn after_all(latest: Epoch) -> Epoch {
    if latest == Epoch::default() {
        latest.next()
    } else {
        Epoch(latest.0.saturating_add(u64::from(FORGOTTEN)))
    }
}
