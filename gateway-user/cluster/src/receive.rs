//! What the peers send.

use std::sync::Arc;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{Change, NEGOTIATION_LIFETIME, Sa, Stamp};
use crate::cluster::Cluster;
use crate::frame::{DeltaSeq, Frame, Hello};
use crate::output::{Event, Output, Violation};
use crate::ownership::Writer;
use crate::peer::{Link, Peer};
use crate::secret::Secret;
use crate::stream::{Delta, StreamIn};
use crate::view::Epoch;

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
            .and_then(|frame| self.dispatch(now, member, octets, frame));
        if let Err(violation) = handled {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.counters.protocol_errors += 1;
            }
            self.disconnect(now, member, Event::ProtocolError { member, violation });
        }
    }

    fn dispatch(
        &mut self,
        now: Instant,
        member: MemberId,
        octets: &[u8],
        frame: Frame,
    ) -> Result<(), Violation> {
        if let Frame::Hello(hello) = frame {
            return self.handle_hello(now, member, &hello);
        }
        if !self.is_up(member) {
            return Err(Violation::HelloOutOfPlace);
        }
        match frame {
            Frame::Hello(_) | Frame::Unknown(_) => Ok(()),
            Frame::Delta { seq, slot, change } => {
                let raw = Arc::new(Secret::from(octets));
                let delta = Delta {
                    seq,
                    slot,
                    change,
                    raw,
                };
                self.handle_delta(now, member, delta)
            }
            Frame::Ack {
                seq,
                epoch,
                levelled,
                taken,
            } => self.handle_ack(now, member, seq, (epoch, levelled), taken),
            Frame::SnapshotBegin {
                snapshot,
                seq,
                scope,
            } => {
                self.begin_snapshot(member, snapshot, seq, scope);
                Ok(())
            }
            Frame::Entry {
                written,
                slot,
                change,
            } => self.take_entry(now, member, written, slot, change),
            Frame::SnapshotEnd { entries } => self.end_snapshot(now, member, entries),
            Frame::Tail {
                member: of,
                incarnation,
                delta,
            } => {
                self.take_tail(now, of, incarnation, delta);
                Ok(())
            }
            Frame::Move { slot, sa } => {
                self.take_move(now, member, slot, *sa);
                Ok(())
            }
            // Whether it was taken is in the taker's stream.
            Frame::Moved { local_spi, .. } => {
                self.move_answered(now, member, local_spi);
                Ok(())
            }
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
            Frame::Order { octets } => {
                let from = member;
                self.outputs.push_back(Output::Order { from, octets });
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
        peer.protocol = hello.protocol;
        peer.incoming.run = Some(hello.incarnation);
        peer.incoming.ack_due = true;
        // A new run has a new stream, of which we have nothing.
        let stream = peer.incoming.stream.as_ref();
        let new_run = stream.is_some_and(|stream| stream.run != hello.incarnation);
        if new_run {
            peer.out.levelled = Epoch(0);
            peer.out.ack_epoch = Epoch(0);
            peer.out.confirmed = DeltaSeq(0);
            peer.out.acked = None;
        }
        let report = differs && !peer.config_differs;
        peer.config_differs = differs;
        if new_run {
            self.end_run(member);
        }
        self.outputs.push_back(Output::PeerUp(member));
        if report {
            self.event(Event::ConfigurationDiffers { member });
        }
        self.start_stream(now, member, hello.received);
        self.repeat_moves(member);
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
        delta: Delta,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&member) else {
            return Ok(());
        };
        peer.incoming.ack_due = true;
        let run = peer.incoming.run;
        let stream = peer.incoming.stream.as_mut();
        let Some(stream) = stream.filter(|stream| Some(stream.run) == run) else {
            return Err(Violation::NoSnapshot);
        };
        let expected = stream.expected();
        if delta.seq < expected {
            peer.counters.deltas_duplicate += 1;
            return Ok(());
        }
        if delta.seq != expected {
            return Err(Violation::Gap {
                after: expected.0 - 1,
                got: delta.seq.0,
            });
        }
        peer.counters.deltas_received += 1;
        let marker = match &delta.change {
            Change::View(marker) => Some(marker.clone()),
            _ => None,
        };
        stream.held.push_back(delta);
        if let Some(marker) = &marker {
            self.scan(member, marker);
        }
        self.drain(now, member);
        if marker.is_some() {
            self.level(now);
        }
        Ok(())
    }

    pub(crate) fn drain_all(&mut self, now: Instant) {
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        for member in members {
            self.drain(now, member);
        }
    }

    /// Applies what came of a stream, up to a marker of an epoch in which this member is not level.
    fn drain(&mut self, now: Instant, member: MemberId) {
        let bound = self.config.limits.tail_bytes();
        let holds = self.admitted();
        let levelled = self.levelled;
        loop {
            let Some(peer) = self.peers.get_mut(&member) else {
                return;
            };
            let incoming = &mut peer.incoming;
            let Some(stream) = &mut incoming.stream else {
                return;
            };
            if holds && stream.marker > levelled {
                return;
            }
            let Some(Delta {
                seq,
                slot,
                change,
                raw,
            }) = stream.held.pop_front()
            else {
                return;
            };
            stream.seq = seq;
            incoming.ack_due = true;
            stream.tail.push(seq, raw, bound);
            if let Some(snapshot) = &mut incoming.snapshot {
                snapshot.note(&change);
            }
            if let Change::View(marker) = &change {
                stream.marker = marker.epoch;
                continue;
            }
            let epoch = stream.marker;
            let written = Stamp { epoch, seq };
            // What a member wrote while it was out of the view is not to be undone: it never was.
            let negotiation = matches!(
                change,
                Change::NegotiationOpened { .. } | Change::NegotiationClosed { .. }
            );
            if negotiation || !self.is_void(member, epoch) {
                self.apply(now, member, slot, change, written);
            }
        }
    }

    /// Whether `member` is out of the view: what it wrote in an earlier one, or thinks that it owns,
    /// does not count.
    pub(crate) fn is_void(&self, member: MemberId, written: Epoch) -> bool {
        let checked = !self.config.limits.mutations.no_epoch_check;
        let run = self.peers.get(&member).and_then(Peer::run);
        let admitted = run.is_some_and(|run| self.view.admits(member, run));
        checked && written <= self.view.epoch && !admitted
    }

    pub(crate) fn apply(
        &mut self,
        now: Instant,
        member: MemberId,
        slot: Slot,
        change: Change,
        written: Stamp,
    ) {
        match change {
            Change::NegotiationClosed { local_cookie } => {
                self.ownership.close(member, local_cookie);
            }
            // The slot has had another owner since, who has told all that was in it.
            Change::SaUpsert(_) | Change::SaRemoved { .. } if self.is_outdated(slot, written) => {}
            // Nobody else writes in slots of this member's.
            Change::SaUpsert(_) | Change::SaRemoved { .. } if self.ready.contains(slot) => {}
            Change::SaUpsert(sa) if self.keeps(&sa) => {}
            Change::SaRemoved { local_spi } => {
                let held = self.ownership.sa(local_spi);
                if held.is_some_and(|held| held.slot != slot && held.sa.moves > 0) {
                    // It was given away: what its taker says of it counts.
                    return;
                }
                let moves = held.map_or(0, |held| held.sa.moves);
                self.ownership
                    .remove(Writer::Stream, slot, local_spi, written);
                self.remember_removal(local_spi, moves, written);
            }
            Change::SaUpsert(sa) => self.take_sa(Writer::Stream, slot, sa, written),
            Change::Checkpoints(checkpoints) => {
                self.take_checkpoints(Writer::Stream, &checkpoints, written);
            }
            Change::CookieSecret(secret) => self.take_cookie_secret(written, secret),
            Change::View(_) | Change::Unknown { .. } => {}
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

    /// Whether a change of a stream is older than what its slot's owner has told since.
    fn is_outdated(&self, slot: Slot, written: Stamp) -> bool {
        let told = self.told[usize::from(slot.0)];
        !self.ownership.unchecked && written.epoch < told
    }

    /// Whether this is an IKE SA of this member's that it has not given away.
    fn keeps(&self, sa: &Sa) -> bool {
        let held = self.ownership.sa(sa.local_spi);
        held.is_some_and(|held| self.ready.contains(held.slot)) && !self.is_moving(sa.local_spi)
    }

    /// The cookie secret of the cluster: the last one written counts.
    pub(crate) fn take_cookie_secret(&mut self, written: Stamp, secret: Secret) {
        let known = self.cookie_secret.as_ref().map(|(known, _)| *known);
        if known < Some(written) {
            self.cookie_secret = Some((written, secret.clone()));
            self.outputs.push_back(Output::CookieSecret(secret));
        }
    }

    pub(crate) fn stream_mut(&mut self, member: MemberId) -> Option<&mut StreamIn> {
        self.peers.get_mut(&member)?.incoming.stream.as_mut()
    }

    pub(crate) fn refuse_half_open(&mut self, member: MemberId, count: u64) {
        if let Some(peer) = self.peers.get_mut(&member) {
            let first = peer.counters.half_open_refused == 0;
            peer.counters.half_open_refused += count;
            if first {
                self.event(Event::HalfOpenRefused { member });
            }
        }
    }
}
