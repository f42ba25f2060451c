//! Our stream to the peers.

use std::sync::Arc;

use gateway_common::{member::MemberId, time::Instant};

use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Position, Taken};
use crate::output::{Event, Violation};
use crate::status::FullSync;
use crate::view::Epoch;

impl Cluster {
    /// A peer's hello says what it has of our stream: go on from there, or start over.
    pub(crate) fn start_stream(
        &mut self,
        now: Instant,
        member: MemberId,
        received: Option<Position>,
    ) {
        let target = self.outbox.flushed();
        let ours = received.filter(|p| p.incarnation == self.config.incarnation);
        let resume = ours
            .map(|position| position.seq)
            .filter(|seq| self.outbox.resumes_after(*seq));
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let out = &mut peer.out;
        if let Some(seq) = resume {
            out.acked = Some(seq);
            out.base = seq;
            out.sent = seq;
            let deltas = target.0.saturating_sub(seq.0);
            peer.counters.deltas_resent += deltas;
            if deltas > 0 {
                peer.counters.resumptions += 1;
                self.event(Event::Resumed { member, deltas });
            }
            self.plan_snapshot(member, None);
        } else {
            out.start_over(target);
            let reason = match (ours, received) {
                (Some(_), _) => FullSync::QueueOverrun,
                (None, Some(_)) => FullSync::Restarted,
                (None, None) => FullSync::Joined,
            };
            self.plan_snapshot(member, Some(reason));
        }
        if self.filling == self.view.epoch && self.is_inside(member) {
            self.fill_gap_of(member);
        }
        self.pump(now, member);
        self.advance(member);
    }

    /// Sends what the windows allow to all peers.
    pub(crate) fn pump_all(&mut self, now: Instant) {
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        for member in members {
            self.pump(now, member);
        }
    }

    /// Sends what the windows allow to a peer: deltas first, because messages wait for them.
    pub(crate) fn pump(&mut self, now: Instant, member: MemberId) {
        if !self.is_up(member) {
            return;
        }
        self.start_snapshot(member);
        self.pump_deltas(now, member);
        self.pump_snapshot(now, member);
    }

    fn pump_deltas(&mut self, now: Instant, member: MemberId) {
        let window = self.config.limits.window_bytes;
        loop {
            let flushed = self.outbox.flushed();
            let Some(peer) = self.peers.get_mut(&member) else {
                return;
            };
            let out = &mut peer.out;
            // Deltas come after the beginning of the snapshot that they build on.
            let begun = out.has_begun();
            // A marker is not held up: what is under way is acknowledged only when it has come.
            let full = !out.in_flight.is_empty()
                && out.in_flight_bytes >= window
                && out.sent >= self.marker_seq;
            if !begun || out.sent >= flushed || full {
                return;
            }
            let seq = out.sent.next();
            let Some(frame) = self.outbox.get(seq).map(Arc::clone) else {
                out.gap(FullSync::QueueOverrun);
                self.start_snapshot(member);
                continue;
            };
            out.fly(seq, &frame, now);
            peer.counters.deltas_sent += 1;
            let (deltas, octets) = (peer.out.in_flight.len(), peer.out.in_flight_bytes);
            peer.peaks.note(deltas, octets);
            self.send_shared(member, frame);
        }
    }

    /// A peer acknowledged deltas, or entries of a snapshot.
    pub(crate) fn handle_ack(
        &mut self,
        now: Instant,
        member: MemberId,
        seq: DeltaSeq,
        (epoch, levelled): (Epoch, Epoch),
        taken: Option<Taken>,
    ) -> Result<(), Violation> {
        let own = self.view.epoch;
        let limits = &self.config.limits;
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        let out = &mut peer.out;
        if seq > out.sent {
            return Err(Violation::AckOfUnsent {
                got: seq.0,
                sent: out.sent.0,
            });
        }
        out.levelled = levelled;
        out.ack_epoch = epoch;
        let mut suspect = false;
        if out.has_begun() && seq >= out.base {
            out.acked = out.acked.max(Some(seq));
            if epoch <= own {
                out.confirmed = out.confirmed.max(seq);
            }
            if let Some(time) = out.land(seq, now) {
                peer.round_trip = Some(time);
                // One answer in time is needed before it is trusted again.
                out.lagging &= time >= out.patience(now, limits);
            }
            suspect = out.lagging && out.in_flight.is_empty();
        }
        if suspect {
            self.probe(now, member);
        }
        if let Some(taken) = taken {
            self.snapshot_taken(member, taken);
        }
        self.settle();
        self.pump(now, member);
        self.advance(member);
        Ok(())
    }

    /// Notes when a peer has everything, and what that releases.
    pub(crate) fn advance(&mut self, member: MemberId) {
        let all = self.outbox.flushed().max(self.released);
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let out = &mut peer.out;
        if out.complete
            && out.due.is_none()
            && !out.caught
            && !out.lagging
            && out.acked >= Some(all)
        {
            out.caught = true;
            if peer.in_sync() {
                self.event(Event::InSync { member });
            }
        }
        self.release();
        self.trim();
    }
}
