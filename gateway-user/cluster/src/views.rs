//! Views, and who is believed about which slot.
//!
//! **One authority per slot at any time.** What is in a slot is what its owner wrote, in the order
//! of the views: the former owner is the authority until the new one is *level*, that is until it
//! has everything that anybody wrote before the view that gave it the slot. Nobody else tells
//! anything about it. All the rest follows:
//!
//! * *Inside a view* members hear each other by gapless streams of deltas, and by nothing else. The
//!   marker of a view in a stream says that its sender has installed it. What comes after a marker
//!   waits until the receiver is level in that view: first all that former owners wrote.
//! * A member is *level* ([`crate::Cluster::serves`] needs it) when it has the markers of all others
//!   and when no stream that ended with this view has come further at anybody than here; the last
//!   deltas of those streams go from who has them to who lacks them ([`crate::Cluster::handle_view`]).
//!   When all members are, messages that only repeat what former owners wrote may leave, too
//!   ([`crate::Cluster::shares`]).
//! * *Who is outside* is told by a snapshot what is in a slot, by its owner of this view, once that
//!   one is level. It is complete when every member of the view that it has installed has told it
//!   everything in this very view. When a view only gives slots to others, those are told again;
//!   when somebody leaves, all are, because what that one said last may never have been.
//! * A member that comes in was complete in the view before; whom it hears then it hears without gap.
//! * Who has a gap in a stream, or in one that ended, that no queue can fill, cannot be inside: it is
//!   reported as lagging, leaves the view and is told everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{Change, Marker, Mirror, Reached};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Incarnation, Position, encode_delta};
use crate::output::Output;
use crate::peer::Link;
use crate::slot_set::SlotSet;
use crate::status::FullSync;
use crate::stream::Ended;
use crate::view::{Epoch, View};

/// An exchange ends within so long, whatever its timers and however many members take it over.
const EXCHANGE: Duration = Duration::from_secs(600);

/// A run of a member.
pub(crate) type Run = (MemberId, Incarnation);

impl Cluster {
    /// The membership installed a view. Lost slots are not this member's from now on; gained ones
    /// wait for [`Cluster::handle_active`] and until this member is level. Nothing of what members
    /// outside the view send counts any more. Views that are not newer are ignored.
    pub fn handle_view(&mut self, now: Instant, view: View) {
        if view.epoch <= self.view.epoch {
            return;
        }
        // What was published before belongs to the epoch before.
        self.flush(now);
        let (owned_before, admitted_before) = (self.owned(), self.admitted());
        let old = std::mem::replace(&mut self.view, view);
        let owned = self.owned();
        let gained = owned.difference(&owned_before);
        self.active = self.active.intersection(&owned);
        self.ready = self.ready.intersection(&owned);
        self.unshared = self.unshared.intersection(&owned).union(&gained);
        if self.alone && self.admitted() {
            self.alone = false;
            self.met_until = now + EXCHANGE;
        }
        self.half_gained = if now < self.met_until {
            owned
        } else {
            self.half_gained.intersection(&owned)
        };
        self.reservations.rejoin();
        self.place_gained();
        self.end_streams(&old);
        self.expect_feeding(&old);
        self.plan_feeding(&old, &gained);
        if old.epoch != Epoch(0) && !(admitted_before && self.admitted()) {
            self.discard(self.outbox.last());
        }
        if !self.admitted() {
            self.ended.clear();
        } else if admitted_before {
            self.mark(now);
        } else {
            // All members of the view before told everything, if one of them is there to say so.
            let stays = old
                .members
                .iter()
                .any(|(m, run)| self.view.admits(*m, *run));
            if !stays && old.epoch > Epoch(0) {
                self.forget_all();
            }
            self.whole = old.epoch;
            self.mark(now);
        }
        for peer in self.peers.values_mut() {
            if peer.out.ack_epoch <= self.view.epoch {
                peer.out.confirmed = peer.out.acked.unwrap_or_default();
            }
            peer.incoming.ack_due = peer.link == Link::Up;
        }
        self.drain_all(now);
        self.level(now);
        self.release();
        self.pump_all(now);
    }

    /// As [`Cluster::handle_view`], but no majority stands behind the view: the other half of the one
    /// before may go on with the same SAs. Costs as much as there are SAs.
    pub fn handle_half_view(&mut self, now: Instant, view: View) {
        if view.epoch > self.view.epoch {
            let before = self.owned();
            self.alone = false;
            self.handle_view(now, view);
            self.alone = true;
            let gained = self.owned().difference(&before);
            self.half_gained = self.half_gained.union(&gained);
            self.reservations.isolate();
        }
    }

    /// Nobody is left who knows whether what this member was told is how things stood in the end: to
    /// go on with it might repeat what others have done since.
    fn forget_all(&mut self) {
        let sweep = self.ownership.begin_sweep();
        let all = (0..=u8::MAX).map(Slot).collect();
        self.ownership.sweep(sweep, &all);
    }

    /// The transmit rights of those who owned this member's slots before `epoch` have ended.
    pub fn handle_active(&mut self, _now: Instant, epoch: Epoch) {
        if epoch == self.view.epoch {
            self.active = self.owned();
        }
    }

    /// The other members of the view.
    pub(crate) fn others(&self) -> impl Iterator<Item = MemberId> + '_ {
        let local = self.config.local;
        self.view
            .members
            .keys()
            .copied()
            .filter(move |m| *m != local)
    }

    /// Whether this member and that run of another one are both inside the view.
    pub(crate) fn is_colleague(&self, (member, incarnation): Run) -> bool {
        self.admitted() && self.view.admits(member, incarnation)
    }

    /// As [`Cluster::is_colleague`], of the run that is heard or was heard last.
    pub(crate) fn is_inside(&self, member: MemberId) -> bool {
        let run = self.peers.get(&member).and_then(crate::peer::Peer::run);
        run.is_some_and(|run| self.is_colleague((member, run)))
    }

    /// Streams of members that were in the view and are not any more end where they are.
    fn end_streams(&mut self, old: &View) {
        let epoch = self.view.epoch;
        let view = &self.view;
        self.ended
            .retain(|run, ended| ended.since.is_none() || !view.admits(run.0, run.1));
        for (member, peer) in &mut self.peers {
            let Some(stream) = &mut peer.incoming.stream else {
                continue;
            };
            let run = (*member, stream.run);
            let need = self.needs.get(&run).copied().unwrap_or(old.epoch);
            let left = old.admits(run.0, run.1) && !self.view.admits(run.0, run.1);
            if left && stream.has(need) {
                let ended = Ended::of(stream);
                self.ended.entry(run).or_insert(ended);
            }
        }
        for (run, ended) in &mut self.ended {
            if ended.since.is_none() && !self.view.admits(run.0, run.1) {
                ended.since = Some(epoch);
            }
        }
    }

    /// A peer came back as another run: the stream of the earlier one ends.
    pub(crate) fn end_run(&mut self, member: MemberId) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let Some(mut stream) = peer.incoming.stream.take() else {
            return;
        };
        let run = (member, stream.run);
        if self.is_colleague(run) && stream.has(self.need_of(run)) {
            self.ended
                .entry(run)
                .or_insert_with(|| Ended::of(&mut stream));
        }
    }

    /// From which view on each member has to have told this one everything: who was inside with it
    /// before is heard since, who comes in with it has told it in the view before.
    fn expect_feeding(&mut self, old: &View) {
        let local = (self.config.local, self.config.incarnation);
        let inside =
            |view: &View, run: Run| view.admits(local.0, local.1) && view.admits(run.0, run.1);
        let members = self.view.members.iter();
        let runs = members.map(|(member, incarnation)| (*member, *incarnation));
        let colleagues = runs.filter(|run| inside(&self.view, *run));
        let needs = colleagues.map(|run| {
            let known = self.needs.get(&run).filter(|_| inside(old, run));
            (run, known.copied().unwrap_or(old.epoch))
        });
        self.needs = needs.collect();
    }

    /// The view in which, or after which, `run` has to have told this member everything.
    pub(crate) fn need_of(&self, run: Run) -> Epoch {
        self.needs.get(&run).copied().unwrap_or(self.view.epoch)
    }

    /// Everything that `member` has to tell is known here.
    pub(crate) fn is_complete(&self, member: MemberId) -> bool {
        let Some(incoming) = self.peers.get(&member).map(|peer| &peer.incoming) else {
            return false;
        };
        incoming.stream.as_ref().is_some_and(|stream| {
            let heard = incoming.run.is_none_or(|run| run == stream.run);
            heard && stream.has(self.need_of((member, stream.run)))
        })
    }

    /// What has to be told to whom from this view on.
    fn plan_feeding(&mut self, old: &View, gained: &SlotSet) {
        let owned = self.owned();
        let (local, own_run) = (self.config.local, self.config.incarnation);
        let somebody_left = old
            .members
            .iter()
            .any(|(m, run)| !self.view.admits(*m, *run));
        let admitted = self.admitted();
        for (member, peer) in &mut self.peers {
            let run = peer.run();
            let out = &mut peer.out;
            let partial = out.snapshot.as_ref().is_some_and(|s| !s.end_sent);
            if admitted && run.is_some_and(|run| self.view.admits(*member, run)) {
                if partial || (!out.complete && out.snapshot.is_none()) {
                    out.gap(FullSync::Incomplete);
                }
                continue;
            }
            let was_inside =
                old.admits(local, own_run) && run.is_some_and(|run| old.admits(*member, run));
            let all = somebody_left || was_inside || out.acked.is_none();
            out.refeed = if all {
                owned
            } else {
                out.refeed.intersection(&owned).union(gained)
            };
            out.snapshot = None;
            out.complete = false;
            out.caught = false;
            out.due.get_or_insert(FullSync::SlotsMoved);
        }
    }

    /// What waits for `seq` or less and was not released never will be.
    fn discard(&mut self, seq: DeltaSeq) {
        if seq > self.released.max(self.discarded) {
            self.discarded = seq;
            self.reservations.discarded(seq);
            self.outputs.push_back(Output::Discarded(seq));
        }
    }

    fn mark(&mut self, now: Instant) {
        let ended = self.ended.iter();
        let reached = ended.filter_map(|((member, incarnation), ended)| {
            Some(Reached {
                member: *member,
                position: Position {
                    incarnation: *incarnation,
                    seq: ended.seq,
                },
                ended: ended.since?,
            })
        });
        let marker = Marker {
            epoch: self.view.epoch,
            whole: self.whole,
            reached: reached.collect(),
        };
        let seq = self.outbox.last().next();
        let frame = encode_delta(seq, Slot(0), &Change::View(marker));
        self.marker = self.view.epoch;
        self.marker_seq = seq;
        self.enqueue(now, Arc::new(frame), Mirror::Urgent);
    }

    /// The epoch that our stream has come to, as the others see it.
    pub(crate) const fn written_epoch(&self) -> Epoch {
        self.marker
    }

    /// The last marker of each other member of the view, if it has come.
    pub(crate) fn markers(&self) -> BTreeMap<MemberId, &Marker> {
        let others = self.others().filter_map(|member| {
            let stream = self.peers.get(&member)?.incoming.stream.as_ref()?;
            let seen = stream.seen.as_ref()?;
            self.view
                .admits(member, stream.run)
                .then_some((member, seen))
        });
        others.collect()
    }
}
