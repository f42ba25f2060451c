//! Views: what changes when one is installed, and how the streams of those who left are levelled.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{Admitted, Change, Marker, Mirror, Reached};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Frame, Incarnation, Position, encode_delta, encode_tail};
use crate::output::{Event, Output};
use crate::peer::{Link, Peer};
use crate::slot_set::SlotSet;
use crate::snapshot::Run;
use crate::status::FullSync;
use crate::stream::Ended;
use crate::view::{Epoch, View};

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
        self.end_streams(&old);
        self.count_continuity(&old);
        let owned = self.owned();
        let gained = owned.difference(&owned_before);
        self.active = self.active.intersection(&owned);
        self.ready = self.ready.intersection(&owned);
        self.note_writers();
        let epoch = self.view.epoch;
        self.note_gained(epoch, &gained);
        if !self.admitted() {
            self.ended.clear();
        }
        self.plan_feeding(&owned_before, &gained);
        if old.epoch != Epoch(0) && !(admitted_before && self.admitted()) {
            self.discard(self.outbox.last());
        }
        if self.view.is_static() {
            self.levelled = self.view.epoch;
            self.ready = owned;
        } else if self.admitted() {
            self.mark(now, !gained.is_empty());
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

    /// The transmit rights of those who owned this member's slots before `epoch` have ended.
    pub fn handle_active(&mut self, _now: Instant, epoch: Epoch) {
        if epoch == self.view.epoch {
            self.active = self.owned();
        }
    }

    /// Streams of members that were in the view and are not any more end where they are.
    fn end_streams(&mut self, old: &View) {
        let epoch = self.view.epoch;
        for (member, peer) in &mut self.peers {
            let Some(stream) = &mut peer.incoming.stream else {
                continue;
            };
            let run = (*member, stream.run);
            if self.view.admits(run.0, run.1) {
                continue;
            }
            if old.admits(run.0, run.1) && stream.complete() && stream.void.is_none() {
                let ended = Ended {
                    seq: stream.seq,
                    marker: stream.marker,
                    tail: std::mem::take(&mut stream.tail),
                };
                self.ended.entry(run).or_insert(ended);
            }
            if stream.marker <= epoch {
                stream.void = Some(epoch);
            }
        }
    }

    /// A peer came back as another run: the stream of the earlier one ends.
    pub(crate) fn end_run(&mut self, member: MemberId) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        if let Some(stream) = peer.incoming.stream.take()
            && self.view.admits(member, stream.run)
            && stream.complete()
        {
            let ended = Ended {
                seq: stream.seq,
                marker: stream.marker,
                tail: stream.tail,
            };
            self.ended.entry((member, stream.run)).or_insert(ended);
        }
        peer.out.refeed = SlotSet::EMPTY;
    }

    fn count_continuity(&mut self, old: &View) {
        // It was not in the view before, which need not be the one just before this; who has seen no
        // view before knows nothing.
        let later = match old.epoch {
            Epoch(0) => Epoch(0),
            before => before.next(),
        };
        let mut since = BTreeMap::new();
        for (member, incarnation) in &self.view.members {
            let run = (*member, *incarnation);
            let kept = old.admits(run.0, run.1);
            let known = self.since.get(&run).filter(|_| kept);
            since.insert(run, known.copied().unwrap_or(later));
        }
        self.since = since;
    }

    /// Which members may have written in which slots since all streams were level everywhere.
    fn note_writers(&mut self) {
        for (slot, owner) in self.view.slots.iter() {
            if let Some(owner) = owner {
                self.writers[usize::from(slot.0)] |= 1 << owner.get();
            }
        }
    }

    /// The slots in which `member` may have written since all streams were level everywhere.
    pub(crate) fn written_by(&self, member: MemberId) -> SlotSet {
        let bit = 1_u64 << member.get();
        let wrote = |slot: &Slot| self.writers[usize::from(slot.0)] & bit != 0;
        (0..=u8::MAX).map(Slot).filter(wrote).collect()
    }

    /// Who has not seen how slots came to this member has to be told what is in them.
    fn plan_feeding(&mut self, owned_before: &SlotSet, gained: &SlotSet) {
        let owned = self.owned();
        for (member, peer) in &mut self.peers {
            let stream = peer.incoming.stream.as_ref().map(|stream| stream.run);
            let run = peer.incoming.run.or(stream);
            let member_of_view = run.is_some_and(|run| self.view.admits(*member, run));
            let out = &mut peer.out;
            if !member_of_view {
                out.refeed = out.refeed.intersection(&owned).union(gained);
            } else if !out.complete {
                out.refeed = out.refeed.union(owned_before);
            }
            out.fills.clear();
            let partial = out.snapshot.take().is_some_and(|s| s.scope.fills.is_none());
            if partial || !out.refeed.is_empty() {
                out.due = Some(out.due.unwrap_or(FullSync::SlotsMoved));
                out.complete = false;
                out.caught = false;
            }
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

    fn mark(&mut self, now: Instant, gained: bool) {
        let members = self
            .since
            .iter()
            .map(|((member, incarnation), since)| Admitted {
                member: *member,
                incarnation: *incarnation,
                since: *since,
            });
        let reached = self
            .ended
            .iter()
            .map(|((member, incarnation), ended)| Reached {
                member: *member,
                position: Position {
                    incarnation: *incarnation,
                    seq: ended.seq,
                },
            });
        let marker = Marker {
            epoch: self.view.epoch,
            members: members.collect(),
            reached: reached.collect(),
            gained,
        };
        self.marker = Some(marker);
        self.publish_marker(now);
    }

    /// The epoch that our stream has come to, as the others see it.
    pub(crate) fn written_epoch(&self) -> Epoch {
        self.marker.as_ref().map_or(Epoch(0), |marker| marker.epoch)
    }

    fn publish_marker(&mut self, now: Instant) {
        if let Some(marker) = self.marker.clone() {
            let seq = self.outbox.last().next();
            let frame = encode_delta(seq, Slot(0), &Change::View(marker));
            self.marker_seq = seq;
            self.enqueue(now, Arc::new(frame), Mirror::Urgent);
        }
    }

    /// For a peer that begins anew: the marker comes again with the next flush.
    pub(crate) fn repeat_marker(&mut self) {
        if let Some(marker) = self.marker.clone().filter(|m| m.epoch == self.view.epoch) {
            let seq = self.outbox.last().next();
            let frame = encode_delta(seq, Slot(0), &Change::View(marker));
            self.outbox.push(Arc::new(frame));
            self.outbox.flush();
        }
    }

    /// A marker came on the stream of `member`; what it says counts before it is applied.
    pub(crate) fn scan(&mut self, member: MemberId, marker: &Marker) {
        let local = (self.config.local, self.config.incarnation);
        let me = |admitted: &&Admitted| (admitted.member, admitted.incarnation) == local;
        let mine = marker
            .members
            .iter()
            .find(me)
            .map(|admitted| admitted.since);
        if let Some(stream) = self.stream_mut(member) {
            if mine.is_none() && marker.gained {
                stream.refeed = stream.refeed.max(marker.epoch);
            }
            if stream.seen.as_ref().is_none_or(|s| s.epoch <= marker.epoch) {
                stream.seen = Some(marker.clone());
            }
        }
        // This member missed a view that somebody was not in.
        let mut missed = false;
        for admitted in &marker.members {
            let run = (admitted.member, admitted.incarnation);
            if let Some(since) = self.since.get_mut(&run)
                && *since < admitted.since
                && admitted.since <= self.view.epoch
            {
                *since = admitted.since;
                missed |= run != local;
                if run == local {
                    let seq = self.marker_seq;
                    self.discard(seq);
                }
            }
        }
        if missed {
            self.resync();
        }
    }

    /// Asks everybody for everything again.
    fn resync(&mut self) {
        let epoch = self.view.epoch;
        let mut ask = Vec::new();
        for (member, peer) in &mut self.peers {
            if let Some(stream) = &mut peer.incoming.stream {
                stream.refeed = stream.refeed.max(epoch);
                stream.fed = Epoch(0);
            }
            if peer.link == Link::Up {
                ask.push(*member);
            }
        }
        for member in ask {
            self.send(member, Frame::Resync.encode());
        }
    }

    /// Looks whether this member is level in the installed view.
    pub(crate) fn level(&mut self, now: Instant) {
        let epoch = self.view.epoch;
        if !self.admitted() || self.levelled >= epoch {
            self.settle();
            return;
        }
        let mutations = self.config.limits.mutations;
        if !mutations.no_levelling {
            if !self.marked_by_all() {
                return;
            }
            if self.filling < epoch {
                self.filling = epoch;
                let members: Vec<MemberId> = self.others().collect();
                for member in members {
                    self.fill_gaps_of(member);
                }
                self.pump_all(now);
            }
            let gate = mutations.no_full_sync_gate || self.fed_by_all();
            if !self.ends_reached() || !gate {
                // Entries may be sent from here on.
                self.pump_all(now);
                return;
            }
        }
        self.levelled = epoch;
        self.event(Event::Levelled { epoch });
        for peer in self.peers.values_mut() {
            peer.incoming.ack_due = peer.link == Link::Up;
        }
        // What earlier owners wrote before this view comes first.
        self.drain_all(now);
        self.ready = self.owned();
        self.end_moves(now);
        self.settle();
        self.release();
        self.pump_all(now);
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

    fn marked_by_all(&self) -> bool {
        self.others().all(|member| {
            let stream = self
                .peers
                .get(&member)
                .and_then(|p| p.incoming.stream.as_ref());
            stream.is_some_and(|stream| {
                let marker = stream.seen.as_ref().map(|marker| marker.epoch);
                self.view.admits(member, stream.run) && marker >= Some(self.view.epoch)
            })
        })
    }

    fn fed_by_all(&self) -> bool {
        self.others()
            .all(|member| self.peers.get(&member).is_some_and(Peer::is_complete))
    }

    /// Whether entries of snapshots may be sent to `member`: they have to be right in the installed
    /// view. Members of the view may wait for each other; nobody waits for one that is out of it,
    /// which takes what it is told for all that was written before this view.
    pub(crate) fn may_feed(&self, member: MemberId) -> bool {
        if !self.admitted() || self.levelled >= self.view.epoch || self.view.is_static() {
            return true;
        }
        if !self.view.members.contains_key(&member) {
            return false;
        }
        let whole = |member| {
            let stream = self
                .peers
                .get(&member)
                .and_then(|p| p.incoming.stream.as_ref());
            stream.is_some_and(|stream| stream.refeed <= stream.fed)
        };
        self.marked_by_all() && self.ends_reached() && self.others().all(whole)
    }

    /// For each ended stream who of the view has come how far, this member included.
    fn reached(&self) -> BTreeMap<Run, BTreeMap<MemberId, DeltaSeq>> {
        let mut all: BTreeMap<Run, BTreeMap<MemberId, DeltaSeq>> = BTreeMap::new();
        for (run, ended) in &self.ended {
            all.entry(*run)
                .or_default()
                .insert(self.config.local, ended.seq);
        }
        for member in self.others() {
            let stream = self
                .peers
                .get(&member)
                .and_then(|p| p.incoming.stream.as_ref());
            let Some(marker) = stream.and_then(|stream| stream.seen.as_ref()) else {
                continue;
            };
            for Reached {
                member: of,
                position,
            } in &marker.reached
            {
                // A later view may have ended streams that go on in this one.
                if !self.view.admits(*of, position.incarnation) {
                    let run = (*of, position.incarnation);
                    all.entry(run).or_default().insert(member, position.seq);
                }
            }
        }
        all
    }

    fn ends_reached(&self) -> bool {
        self.reached().iter().all(|(run, by)| {
            let own = self.ended.get(run).map(|ended| ended.seq);
            own >= by.values().max().copied()
        })
    }

    /// Sends `member` what it lacks of the streams that ended, where this member is the first of
    /// those that have the most of it.
    pub(crate) fn fill_gaps_of(&mut self, member: MemberId) {
        for (run, by) in self.reached() {
            let Some(most) = by.values().max().copied() else {
                continue;
            };
            let holder = by.iter().find(|(_, seq)| **seq == most).map(|(m, _)| *m);
            let has = by.get(&member).copied();
            if holder != Some(self.config.local) || has >= Some(most) {
                continue;
            }
            let tail = has.and_then(|seq| self.ended.get(&run)?.tail.after(seq));
            if let Some(frames) = tail {
                for frame in frames {
                    self.send(member, encode_tail(run.0, run.1, &frame));
                }
                continue;
            }
            let slots = self.written_by(run.0);
            let position = Position {
                incarnation: run.1,
                seq: most,
            };
            let reached = Reached {
                member: run.0,
                position,
            };
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.out.fills.push_back((reached, slots));
            }
        }
    }

    /// A delta of a member that is not in the view any more, which this member lacks.
    pub(crate) fn take_tail(
        &mut self,
        now: Instant,
        member: MemberId,
        incarnation: Incarnation,
        raw: crate::secret::Secret,
    ) {
        let bound = self.config.limits.tail_bytes();
        let Ok(Frame::Delta { seq, slot, change }) = Frame::decode(raw.expose()) else {
            return;
        };
        let Some(ended) = self.ended.get_mut(&(member, incarnation)) else {
            return;
        };
        if seq != ended.seq.next() || self.view.admits(member, incarnation) {
            return;
        }
        ended.seq = seq;
        ended.tail.push(seq, Arc::new(raw), bound);
        if let Change::View(marker) = &change {
            ended.marker = marker.epoch;
        }
        let marker = ended.marker;
        self.apply(
            now,
            member,
            slot,
            change,
            crate::change::Stamp { epoch: marker, seq },
        );
        self.level(now);
    }

    /// A snapshot filled the gap in a stream that ended.
    pub(crate) fn fill(&mut self, reached: Reached) {
        let run = (reached.member, reached.position.incarnation);
        let ended = self.ended.entry(run).or_default();
        if ended.seq < reached.position.seq {
            ended.seq = reached.position.seq;
            ended.tail.clear();
        }
    }

    /// When all members are level nobody needs what is left of the streams that ended.
    pub(crate) fn settle(&mut self) {
        let epoch = self.view.epoch;
        if self.settled >= epoch || self.levelled < epoch {
            return;
        }
        let level = |member| {
            self.peers
                .get(&member)
                .is_some_and(|p| p.out.levelled >= epoch)
        };
        if !self.view.is_static() && !self.others().all(level) {
            return;
        }
        self.settled = epoch;
        self.ended.clear();
        self.ownership.settle();
        self.writers = [0; Slot::COUNT];
        self.note_writers();
    }
}
