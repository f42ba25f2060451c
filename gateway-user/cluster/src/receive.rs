//! What the peers send.

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{Change, NEGOTIATION_LIFETIME};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Frame, Hello, Position};
use crate::output::{Event, Output, Violation};
use crate::ownership::Announcement;
use crate::peer::{Link, SnapshotIn};

impl Cluster {
    /// A frame came from `member`. Frames on connections that are not up any more are ignored.
    pub fn handle_frame(&mut self, now: Instant, member: MemberId, octets: &[u8]) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        if peer.link == Link::Down {
            return;
        }
        peer.heard = now;
        let handled = Frame::decode(octets)
            .map_err(Violation::Malformed)
            .and_then(|frame| self.dispatch(now, member, frame));
        if let Err(violation) = handled {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.counters.protocol_errors += 1;
            }
            self.disconnect(now, member, Event::ProtocolError { member, violation });
        }
    }

    fn dispatch(&mut self, now: Instant, member: MemberId, frame: Frame) -> Result<(), Violation> {
        if let Frame::Hello(hello) = frame {
            return self.handle_hello(now, member, &hello);
        }
        if !self.is_up(member) {
            return Err(Violation::HelloOutOfPlace);
        }
        match frame {
            Frame::Hello(_) | Frame::Unknown(_) => Ok(()),
            Frame::Delta { seq, slot, change } => self.handle_delta(now, member, seq, slot, change),
            Frame::Ack {
                seq,
                snapshot_entries,
            } => self.handle_ack(now, member, seq, snapshot_entries),
            Frame::SnapshotBegin { seq } => {
                self.begin_snapshot(member, seq);
                Ok(())
            }
            Frame::SnapshotEnd { entries } => self.end_snapshot(now, member, entries),
            Frame::Relay { path, datagram } => {
                if let Some(peer) = self.peers.get_mut(&member) {
                    peer.counters.relayed_in += 1;
                }
                self.outputs.push_back(Output::Relayed {
                    from: member,
                    path,
                    datagram,
                });
                Ok(())
            }
            Frame::Ping { nonce } => {
                self.send(member, Frame::Pong { nonce }.encode());
                Ok(())
            }
            Frame::Pong { nonce } => {
                self.handle_pong(now, member, nonce);
                Ok(())
            }
        }
    }

    fn handle_hello(
        &mut self,
        now: Instant,
        member: MemberId,
        hello: &Hello,
    ) -> Result<(), Violation> {
        if let Some(reason) = self.mismatch(member, hello) {
            self.disconnect(now, member, Event::PeerRefused { member, reason });
            return Ok(());
        }
        // Whatever waits for company goes to the others now, and to this peer with what it missed.
        self.flush(now);
        let differs = hello.config_hash != self.config.config_hash;
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        if peer.link != Link::Greeting {
            return Err(Violation::HelloOutOfPlace);
        }
        peer.link = Link::Up;
        peer.counters.connections += 1;
        // A new run has a new stream, of which we have nothing. What the previous run announced
        // stays until the snapshot of the new one replaces it.
        peer.run = Some(hello.incarnation);
        peer.received = peer
            .received
            .filter(|position| position.incarnation == hello.incarnation);
        let report = differs && !peer.config_differs;
        peer.config_differs = differs;
        self.outputs.push_back(Output::PeerUp(member));
        if report {
            self.event(Event::ConfigurationDiffers { member });
        }
        self.start_stream(now, member, hello.received);
        Ok(())
    }

    fn mismatch(&self, member: MemberId, hello: &Hello) -> Option<String> {
        let config = &self.config;
        if hello.member != member {
            Some(format!(
                "its hello says member {}, its certificate says member {member}",
                hello.member
            ))
        } else if hello.cluster_id != config.cluster_id {
            Some(format!(
                "cluster id {}, this cluster has {}",
                hello.cluster_id, config.cluster_id
            ))
        } else if hello.cluster_name != config.cluster_name {
            Some(format!(
                "cluster name {:?}, this cluster has {:?}",
                hello.cluster_name, config.cluster_name
            ))
        } else {
            None
        }
    }

    fn handle_delta(
        &mut self,
        now: Instant,
        member: MemberId,
        seq: DeltaSeq,
        slot: Slot,
        change: Change,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        peer.ack_due = true;
        if let Some(snapshot) = &mut peer.snapshot_in {
            let entry = announcement(now, slot, change).ok_or(Violation::NotAnEntry)?;
            snapshot.entries.push(entry);
            return Ok(());
        }
        let Some(position) = &mut peer.received else {
            return Err(Violation::NoSnapshot);
        };
        if seq <= position.seq {
            peer.counters.deltas_duplicate += 1;
            return Ok(());
        }
        if seq != position.seq.next() {
            return Err(Violation::Gap {
                after: position.seq.0,
                got: seq.0,
            });
        }
        position.seq = seq;
        peer.counters.deltas_received += 1;
        self.apply(now, member, slot, change);
        Ok(())
    }

    fn apply(&mut self, now: Instant, member: MemberId, slot: Slot, change: Change) {
        match change {
            Change::NegotiationClosed { local_cookie } => {
                self.ownership.close(member, local_cookie);
            }
            Change::SaRemoved { local_spi } => {
                self.ownership.remove(member, local_spi);
            }
            Change::SaUpsert(sa) => self.ownership.upsert(member, slot, sa),
            Change::NegotiationOpened {
                negotiation,
                lifetime,
            } => {
                if self.ownership.half_open(member) >= self.config.limits.half_open_entries {
                    self.refuse_half_open(member, 1);
                } else {
                    let expires = now + lifetime.min(NEGOTIATION_LIFETIME);
                    self.ownership.open(now, member, slot, negotiation, expires);
                }
            }
        }
    }

    fn begin_snapshot(&mut self, member: MemberId, seq: DeltaSeq) {
        if let Some(peer) = self.peers.get_mut(&member) {
            // One that had begun is given up by its sender.
            peer.snapshot_in = Some(SnapshotIn {
                seq,
                entries: Vec::new(),
            });
        }
    }

    fn end_snapshot(
        &mut self,
        now: Instant,
        member: MemberId,
        announced: u64,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        let snapshot = peer.snapshot_in.take();
        let got = snapshot.as_ref().map_or(0, |s| s.entries.len() as u64);
        let Some(mut snapshot) = snapshot.filter(|_| got == announced) else {
            return Err(Violation::SnapshotIncomplete { got, announced });
        };
        peer.received = peer.run.map(|incarnation| Position {
            incarnation,
            seq: snapshot.seq,
        });
        peer.counters.snapshots_received += 1;
        peer.ack_due = true;
        let refused = limit_half_open(&mut snapshot.entries, self.config.limits.half_open_entries);
        if refused > 0 {
            self.refuse_half_open(member, refused);
        }
        self.ownership.replace(now, member, snapshot.entries);
        self.event(Event::SnapshotApplied {
            member,
            entries: announced,
        });
        Ok(())
    }

    fn refuse_half_open(&mut self, member: MemberId, count: u64) {
        if let Some(peer) = self.peers.get_mut(&member) {
            let first = peer.counters.half_open_refused == 0;
            peer.counters.half_open_refused += count;
            if first {
                self.event(Event::HalfOpenRefused { member });
            }
        }
    }
}

/// A change as an entry of a snapshot; removals are none.
fn announcement(now: Instant, slot: Slot, change: Change) -> Option<Announcement> {
    match change {
        Change::NegotiationOpened {
            negotiation,
            lifetime,
        } => Some(Announcement::Negotiation {
            slot,
            negotiation,
            expires: now + lifetime.min(NEGOTIATION_LIFETIME),
        }),
        Change::SaUpsert(sa) => Some(Announcement::Sa { slot, sa }),
        Change::NegotiationClosed { .. } | Change::SaRemoved { .. } => None,
    }
}

/// Keeps the first `limit` negotiations; says how many went.
fn limit_half_open(entries: &mut Vec<Announcement>, limit: usize) -> u64 {
    let before = entries.len();
    let mut negotiations = 0;
    entries.retain(|entry| match entry {
        Announcement::Negotiation { .. } => {
            negotiations += 1;
            negotiations <= limit
        }
        Announcement::Sa { .. } => true,
    });
    (before - entries.len()) as u64
}
