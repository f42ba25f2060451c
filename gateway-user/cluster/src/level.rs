//! Becoming level: having all that was written before a view (see [`crate::views`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_common::{member::MemberId, time::Instant};

use crate::change::{Change, Marker, Stamp};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Frame, Incarnation, encode_tail};
use crate::output::Event;
use crate::peer::{Link, Peer};
use crate::secret::Secret;
use crate::slot_set::SlotSet;
use crate::status::FullSync;
use crate::view::Epoch;
use crate::views::Run;

impl Cluster {
    /// A marker came on the stream of `member`; what it says counts before it is applied.
    pub(crate) fn scan(&mut self, member: MemberId, marker: &Marker) {
        if let Some(stream) = self.stream_mut(member)
            && stream.seen.as_ref().is_none_or(|s| s.epoch <= marker.epoch)
        {
            stream.seen = Some(marker.clone());
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
                    self.fill_gap_of(member);
                }
            }
            let told = mutations.no_full_sync_gate || self.others().all(|m| self.is_complete(m));
            if !told || !self.ends_reached() {
                return;
            }
        }
        self.levelled = epoch;
        self.whole = epoch;
        self.event(Event::Levelled { epoch });
        for peer in self.peers.values_mut() {
            peer.incoming.ack_due = peer.link == Link::Up;
        }
        // What earlier owners wrote before this view comes first.
        self.drain_all(now);
        self.ready = self.owned();
        self.begin_placing(now);
        if self.reservations.has_changes() {
            self.flush_soon(now);
        }
        self.end_moves(now);
        self.settle();
        self.release();
        self.pump_all(now);
    }

    /// Whether this member may tell others what is in its slots: it knows all of it.
    pub(crate) fn may_feed(&self) -> bool {
        !self.admitted() || self.levelled == self.view.epoch
    }

    fn marked_by_all(&self) -> bool {
        let markers = self.markers();
        let marked = |member| {
            let marker = markers.get(&member);
            marker.is_some_and(|marker| marker.epoch >= self.view.epoch)
        };
        self.others().all(marked)
    }

    /// For each stream that ended in a view after `whole` who of the view has come how far, this
    /// member included.
    fn reached(&self, whole: Epoch) -> BTreeMap<Run, BTreeMap<MemberId, DeltaSeq>> {
        let mut all: BTreeMap<Run, BTreeMap<MemberId, DeltaSeq>> = BTreeMap::new();
        let mut note = |member, run: Run, since: Epoch, seq| {
            // A later view may have ended streams that go on in this one.
            if since > whole && !self.view.admits(run.0, run.1) {
                all.entry(run).or_default().insert(member, seq);
            }
        };
        for (run, ended) in &self.ended {
            note(
                self.config.local,
                *run,
                ended.since.unwrap_or_default(),
                ended.seq,
            );
        }
        for (member, marker) in self.markers() {
            for reached in &marker.reached {
                let run = (reached.member, reached.position.incarnation);
                note(member, run, reached.ended, reached.position.seq);
            }
        }
        all
    }

    fn ends_reached(&self) -> bool {
        self.reached(self.whole).iter().all(|(run, by)| {
            let own = self.ended.get(run).map(|ended| ended.seq);
            own >= by.values().max().copied()
        })
    }

    /// Sends `member` what it lacks of the streams that ended, where this member is the first of
    /// those that have the most of it.
    pub(crate) fn fill_gap_of(&mut self, member: MemberId) {
        let Some(whole) = self.markers().get(&member).map(|marker| marker.whole) else {
            return;
        };
        for (run, by) in self.reached(whole) {
            let most = by.values().max().copied();
            let holder = by.iter().find(|(_, seq)| Some(**seq) == most);
            let has = by.get(&member).copied();
            if holder.map(|(m, _)| *m) != Some(self.config.local) || has >= most {
                continue;
            }
            let tail = has.and_then(|seq| self.ended.get(&run)?.tail.after(seq));
            if let Some(frames) = tail {
                for frame in frames {
                    self.send(member, encode_tail(run.0, run.1, &frame));
                }
            } else if let Some(peer) = self.peers.get_mut(&member) {
                peer.out.gap(FullSync::Incomplete);
            }
        }
    }

    /// A delta of a member that is not in the view any more, which this member lacks.
    pub(crate) fn take_tail(
        &mut self,
        now: Instant,
        member: MemberId,
        incarnation: Incarnation,
        raw: Secret,
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
        let epoch = ended.marker;
        let run = self.peers.get(&member).and_then(Peer::run);
        let negotiation = matches!(
            change,
            Change::NegotiationOpened { .. } | Change::NegotiationClosed { .. }
        );
        if negotiation && run != Some(incarnation) {
            // Nobody can go on with it, and the member's present run has told its own.
            return self.level(now);
        }
        self.apply(now, member, slot, change, Stamp { epoch, seq });
        self.level(now);
    }

    /// When all members are level nobody needs what is left of the streams that ended, and all know
    /// what is in the slots that came.
    pub(crate) fn settle(&mut self) {
        let epoch = self.view.epoch;
        if self.levelled < epoch {
            return;
        }
        // Who is level in a later view only, which this member may not be in, may never have been in
        // this one.
        let here = |member| {
            let peer = self.peers.get(&member);
            peer.is_some_and(|peer| peer.out.levelled == epoch)
        };
        if self.others().all(here) {
            self.unshared = SlotSet::EMPTY;
        }
        if self.settled >= epoch {
            return;
        }
        let level = |member| {
            self.peers
                .get(&member)
                .is_some_and(|p| p.out.levelled >= epoch)
        };
        if !self.others().all(level) {
            return;
        }
        self.settled = epoch;
        self.ended.retain(|_, ended| ended.since.is_none());
        self.ownership.settle(epoch);
    }
}
