//! What happens by the passing of time.

use std::time::Duration;

use gateway_common::{member::MemberId, time::Instant};

use crate::cluster::Cluster;
use crate::frame::Frame;
use crate::output::Event;
use crate::peer::{Link, Peer};

impl Cluster {
    /// When [`Cluster::handle_timeout`] has to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peers = self
            .peers
            .values()
            .filter_map(|peer| self.next_of_peer(peer));
        let placing = self.placing.map(|placing| placing.due);
        let others = [self.flush_at, self.ownership.next_expiry(), placing];
        peers.chain(others.into_iter().flatten()).min()
    }

    /// Does what is due by `now`. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ownership.expire(now);
        let (ownership, local) = (&self.ownership, self.config.local);
        self.gate
            .retain(|cookie| ownership.has_negotiation(local, cookie));
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush(now);
        }
        self.place_copies(now);
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        for member in members {
            self.check_acknowledgements(now, member);
            self.nudge(now, member);
            self.check_silence(now, member);
        }
    }

    fn next_of_peer(&self, peer: &Peer) -> Option<Instant> {
        let limits = &self.config.limits;
        let silent = (peer.link != Link::Down).then(|| peer.heard + limits.silence);
        let probe =
            (peer.link == Link::Up && peer.ping.is_none()).then(|| peer.heard + limits.keepalive);
        let (overdue, nudge) = (self.overdue(peer), self.next_nudge(peer));
        let all = [silent, probe, overdue, nudge];
        all.into_iter().flatten().min()
    }

    /// When a peer that has something to acknowledge is asked next.
    fn next_nudge(&self, peer: &Peer) -> Option<Instant> {
        let since = peer.out.waiting_since().filter(|_| peer.link == Link::Up)?;
        Some(since.max(peer.nudged) + self.config.limits.nudge)
    }

    /// Sends a peer that owes an acknowledgement something to answer. If the network lost the delta
    /// or the acknowledgement, one end's TCP learns of it by what comes later, and sends it again
    /// long before its own timer would have it.
    fn nudge(&mut self, now: Instant, member: MemberId) {
        let due = self
            .peers
            .get(&member)
            .and_then(|peer| self.next_nudge(peer));
        if due.is_some_and(|due| due <= now)
            && let Some(peer) = self.peers.get_mut(&member)
        {
            peer.nudged = now;
            peer.counters.nudged += 1;
            let nonce = now.as_nanos();
            self.send(member, Frame::Ping { nonce }.encode());
        }
    }

    /// When a peer that has something to acknowledge will be too late with it.
    fn overdue(&self, peer: &Peer) -> Option<Instant> {
        let since = peer.out.waiting_since().filter(|_| !peer.out.lagging)?;
        let patience = peer.out.patience(since, &self.config.limits);
        Some((since + patience).max(peer.out.excused))
    }

    /// Reports a peer that does not acknowledge, so that it is taken out of the view. A member that
    /// looks late itself judges nobody: the acknowledgement may have come while it was busy.
    fn check_acknowledgements(&mut self, now: Instant, member: MemberId) {
        let timeout = self.config.limits.ack_timeout;
        let due = self.peers.get(&member).and_then(|peer| self.overdue(peer));
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        if peer.link == Link::Up && peer.out.lagging && peer.out.in_flight.is_empty() {
            // It has to show that it answers in time again.
            return self.probe(now, member);
        }
        let Some(due) = due.filter(|due| *due <= now) else {
            return;
        };
        if now - due > timeout / 5 {
            peer.out.excused = now + timeout / 2;
            return;
        }
        let behind = peer
            .out
            .waiting_since()
            .map_or(Duration::ZERO, |since| now - since);
        peer.out.lapse(now, &self.config.limits);
        peer.counters.lagged += 1;
        self.event(Event::Lagging { member, behind });
        self.release();
    }

    fn check_silence(&mut self, now: Instant, member: MemberId) {
        let Some(peer) = self.peers.get(&member) else {
            return;
        };
        let (link, heard) = (peer.link, peer.heard);
        if link == Link::Down {
            return;
        }
        if heard + self.config.limits.silence <= now {
            self.disconnect(now, member, Event::Silent { member });
        } else if link == Link::Up && heard + self.config.limits.keepalive <= now {
            self.probe(now, member);
        }
    }

    /// Asks a peer for a sign of life, unless a question is open.
    pub(crate) fn probe(&mut self, now: Instant, member: MemberId) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        if peer.ping.is_none() {
            let nonce = now.as_nanos();
            peer.ping = Some((nonce, now));
            self.send(member, Frame::Ping { nonce }.encode());
        }
    }

    pub(crate) fn handle_pong(&mut self, now: Instant, member: MemberId, nonce: u64) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        if let Some((_, sent_at)) = peer.ping.take_if(|(expected, _)| *expected == nonce) {
            let time = now.saturating_since(sent_at);
            peer.round_trip = Some(time);
            let suspect = peer.out.lagging && peer.out.in_flight.is_empty();
            if suspect && time < peer.out.patience(sent_at, &self.config.limits) {
                peer.out.lagging = false;
            } else if suspect {
                self.probe(now, member);
            }
            self.advance(member);
        }
    }
}
