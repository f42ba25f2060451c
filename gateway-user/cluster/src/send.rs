//! Our stream to the peers.

use std::collections::VecDeque;
use std::sync::Arc;

use gateway_common::{member::MemberId, time::Instant};

use crate::change::Change;
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Frame, Position, encode_delta};
use crate::output::{Event, Violation};
use crate::peer::{Link, SnapshotOut, Standing};
use crate::secret::Secret;

impl Cluster {
    /// A peer's hello says what it has of our stream: go on from there, or start over.
    pub(crate) fn start_stream(
        &mut self,
        now: Instant,
        member: MemberId,
        received: Option<Position>,
    ) {
        let target = self.outbox.last();
        let resume = received
            .filter(|position| position.incarnation == self.config.incarnation)
            .map(|position| position.seq)
            .filter(|seq| self.outbox.resumes_after(*seq));
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        peer.standing = Standing::CatchingUp {
            target,
            suspect: false,
        };
        peer.acked = resume;
        if let Some(seq) = resume {
            peer.sent = seq;
            let deltas = target.0 - seq.0;
            peer.counters.deltas_resent += deltas;
            if deltas > 0 {
                self.event(Event::Resumed { member, deltas });
            }
        } else {
            self.start_snapshot(now, member);
        }
        self.pump(now, member);
        self.advance(now, member);
    }

    /// Sends what the windows allow to all peers.
    pub(crate) fn pump_all(&mut self, now: Instant) {
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        for member in members {
            self.pump(now, member);
        }
    }

    /// Sends what the window allows to a peer: the snapshot under way, then deltas.
    pub(crate) fn pump(&mut self, now: Instant, member: MemberId) {
        if !self.is_up(member) {
            return;
        }
        while self.pump_snapshot(member) && self.pump_deltas(now, member) {}
    }

    /// `true` when no entries of a snapshot are left to send.
    fn pump_snapshot(&mut self, member: MemberId) -> bool {
        let window = self.config.limits.window_bytes;
        loop {
            let Some(peer) = self.peers.get_mut(&member) else {
                return false;
            };
            let Some(snapshot) = &mut peer.snapshot_out else {
                return true;
            };
            if snapshot.end_sent {
                return true;
            }
            if !snapshot.in_flight.is_empty() && snapshot.in_flight_bytes >= window {
                return false;
            }
            if let Some(entry) = snapshot.rest.pop_front() {
                snapshot.in_flight.push_back(entry.len());
                snapshot.in_flight_bytes += entry.len();
                self.send_shared(member, entry);
                continue;
            }
            let entries = snapshot.entries;
            snapshot.end_sent = true;
            peer.counters.snapshots_sent += 1;
            self.send(member, Frame::SnapshotEnd { entries }.encode());
            self.event(Event::SnapshotSent { member, entries });
        }
    }

    /// `true` if a snapshot had to be started, because the next delta is not kept any more.
    fn pump_deltas(&mut self, now: Instant, member: MemberId) -> bool {
        let window = self.config.limits.window_bytes;
        loop {
            let flushed = self.outbox.flushed();
            let Some(peer) = self.peers.get_mut(&member) else {
                return false;
            };
            let full = !peer.in_flight.is_empty() && peer.in_flight_bytes >= window;
            if peer.sent >= flushed || full {
                return false;
            }
            let seq = peer.sent.next();
            let Some(frame) = self.outbox.get(seq).map(Arc::clone) else {
                // While a snapshot is being applied the peer would refuse another one.
                if peer.snapshot_out.is_some() {
                    return false;
                }
                self.start_snapshot(now, member);
                return true;
            };
            peer.fly(seq, frame.len(), now);
            peer.counters.deltas_sent += 1;
            self.send_shared(member, frame);
        }
    }

    /// Begins to send everything that this member owns, as it stands now.
    fn start_snapshot(&mut self, now: Instant, member: MemberId) {
        let seq = self.outbox.flushed();
        let entries = self.snapshot(now);
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        peer.acked = None;
        peer.sent = seq;
        peer.in_flight.clear();
        peer.in_flight_bytes = 0;
        peer.snapshot_out = Some(SnapshotOut::new(seq, entries));
        if peer.standing.blocks() {
            peer.standing = Standing::CatchingUp {
                target: seq,
                suspect: true,
            };
        }
        self.send(member, Frame::SnapshotBegin { seq }.encode());
    }

    /// Our established SAs, and the negotiations that the others know about.
    fn snapshot(&self, now: Instant) -> VecDeque<Arc<Secret>> {
        let negotiations = self
            .ownership
            .negotiations()
            .filter(|(announcer, opened)| {
                *announcer == self.local()
                    && self.gate.is_mirrored(&opened.negotiation.local_cookie)
            })
            .map(|(_, opened)| {
                let change = Change::NegotiationOpened {
                    negotiation: opened.negotiation,
                    lifetime: opened.remaining(now),
                };
                Arc::new(encode_delta(DeltaSeq(0), opened.slot, &change))
            });
        negotiations.chain(self.own.values().cloned()).collect()
    }

    /// A peer acknowledged deltas, or entries of a snapshot.
    pub(crate) fn handle_ack(
        &mut self,
        now: Instant,
        member: MemberId,
        seq: DeltaSeq,
        snapshot_entries: Option<u64>,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        if let Some(snapshot) = &mut peer.snapshot_out {
            snapshot.land(snapshot_entries.unwrap_or(0));
            let applied = snapshot.end_sent && snapshot_entries.is_none() && seq >= snapshot.seq;
            if !applied {
                self.pump(now, member);
                return Ok(());
            }
            peer.snapshot_out = None;
        }
        if seq > peer.sent {
            return Err(Violation::AckOfUnsent {
                got: seq.0,
                sent: peer.sent.0,
            });
        }
        peer.acked = peer.acked.max(Some(seq));
        peer.land(seq, now);
        self.pump(now, member);
        self.advance(now, member);
        Ok(())
    }

    /// Moves a peer closer to the in-sync set if what it acknowledged allows it.
    pub(crate) fn advance(&mut self, now: Instant, member: MemberId) {
        let (last, released) = (self.outbox.last(), self.released);
        let timeout = self.config.limits.ack_timeout;
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let Some(acked) = peer.acked.filter(|_| peer.link == Link::Up) else {
            return;
        };
        if let Standing::CatchingUp { target, suspect } = peer.standing
            && acked >= target
        {
            let prompt = peer.round_trip.is_some_and(|time| time <= timeout);
            if suspect && !prompt {
                peer.standing = Standing::CatchingUp {
                    target: last,
                    suspect,
                };
                self.probe(now, member);
                self.trim();
                return;
            }
            peer.standing = Standing::Joining { until: released };
        }
        if let Standing::Joining { until } = peer.standing
            && acked >= until
        {
            peer.standing = Standing::InSync;
            self.event(Event::InSync { member });
        }
        self.release();
        self.trim();
    }
}
