//! Datagrams of others.

use gateway_common::member::MemberId;

use super::io::{Event, LinkId, Output, Sender};
use super::peer::{Freshness, Peer};
use super::tally::Handover;
use super::wire::{self, Ack, Heartbeat, Message};
use super::{Membership, lease};
use crate::frame::Incarnation;
use crate::view::View;

impl Membership {
    /// False if nothing but the lease can have changed.
    pub(super) fn hear(&mut self, from: Sender, via: LinkId, octets: &[u8]) -> bool {
        if self.control.stopped {
            return false;
        }
        let peer = match from {
            Sender::Member(member) => self.peers.get_mut(&member),
            Sender::Witness => self.config.witness.then_some(&mut self.witness),
        };
        let (Ok(datagram), Some(peer)) = (wire::decode(octets), peer) else {
            self.counters.malformed += 1;
            return false;
        };
        let restarted = peer.incarnation.is_some();
        match peer.judge(self.now, via, datagram.incarnation, datagram.sequence) {
            Freshness::OldRun => self.counters.old_incarnation += 1,
            Freshness::Replayed => self.counters.replayed += 1,
            Freshness::Copy => {
                if matches!(datagram.message, Message::Heartbeat(_)) {
                    self.acknowledge(from, via, datagram.sequence);
                }
            }
            fresh => {
                if let (Freshness::NewRun, true, Sender::Member(member)) = (fresh, restarted, from)
                {
                    let incarnation = datagram.incarnation;
                    let event = Event::Restarted {
                        member,
                        incarnation,
                    };
                    self.outputs.push_back(Output::Event(event));
                }
                let news = !matches!(datagram.message, Message::Ack(_));
                self.expire();
                self.take(from, via, datagram.sequence, datagram.message);
                return news;
            }
        }
        false
    }

    fn take(&mut self, from: Sender, via: LinkId, sequence: u64, message: Message) {
        match message {
            Message::Heartbeat(heartbeat) => self.take_heartbeat(from, via, sequence, *heartbeat),
            Message::Ack(ack) => self.take_ack(from, ack),
            Message::Prepare { basis, ballot } => self.take_prepare(from, basis, ballot),
            Message::Promise {
                basis,
                ballot,
                accepted,
                persisted,
            } => self.take_promise(from, basis, ballot, accepted, persisted),
            Message::Accept {
                basis,
                ballot,
                view,
            } => self.take_accept(from, basis, ballot, *view),
            Message::Accepted {
                basis,
                ballot,
                noted,
                left,
            } => self.take_accepted(from, basis, ballot, noted, &left),
            Message::Reject { basis, promised } => self.take_reject(basis, promised),
            Message::Commit {
                view,
                unsafe_takeover,
                left,
            } => {
                self.ledger.merge(self.now, &left);
                let base = lease::until(self.now, left.settle);
                let ends = self.ledger.others(self.config.local);
                let handover = Handover::after_all(base, ends);
                self.install(*view, unsafe_takeover, handover);
                self.see_who_stopped();
            }
            Message::ViewRequest(epoch) => {
                if self.view.epoch > epoch {
                    self.send_commit([from]);
                }
            }
            Message::Goodbye => {
                if let Some(peer) = self.peer_mut(from) {
                    peer.gone = true;
                    peer.alive = false;
                }
                if let Sender::Member(member) = from {
                    self.handover.stopped(member);
                }
            }
        }
    }

    fn take_heartbeat(&mut self, from: Sender, via: LinkId, sequence: u64, said: Heartbeat) {
        let Sender::Member(member) = from else {
            return;
        };
        self.counters.heartbeats += 1;
        let (epoch, preference) = (said.epoch, said.preference);
        let differs = said.config_hash != self.config.config_hash;
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let differed = peer.said_any() && peer.said.config_hash != self.config.config_hash;
        if !peer.says(sequence, said) {
            return;
        }
        if differs && !differed {
            let event = Event::ConfigDiffers(member);
            self.outputs.push_back(Output::Event(event));
        }
        self.see_who_stopped();
        self.control.preference = self.control.preference.max(preference);
        if epoch > self.view.epoch {
            let request = Message::ViewRequest(self.view.epoch);
            self.send(from, request);
        }
        self.acknowledge(from, via, sequence);
    }

    /// Who says that it has installed the view serves only what that gives to it.
    fn see_who_stopped(&mut self) {
        for (member, peer) in &self.peers {
            if peer.said.epoch >= self.view.epoch {
                self.handover.stopped(*member);
            }
        }
    }

    /// Grants the lease, or says that it does not.
    fn acknowledge(&mut self, from: Sender, via: LinkId, sequence: u64) {
        let Sender::Member(member) = from else {
            return;
        };
        let Some(peer) = self.peers.get(&member) else {
            return;
        };
        let Some(incarnation) = peer.incarnation else {
            return;
        };
        let same_view = peer.said.epoch == self.view.epoch;
        let entitled = same_view && self.is_admitted(&self.view, member, incarnation);
        if !entitled && !self.config.skips_epochs() {
            return;
        }
        let granted = self.grants();
        if granted {
            let until = self.now + self.config.timing.lease_bound();
            self.ledger.raise(member, until);
        }
        let ack = Ack {
            epoch: self.view.epoch,
            incarnation,
            sequence,
            granted,
        };
        self.answer(from, via, Message::Ack(ack));
    }

    fn take_ack(&mut self, from: Sender, ack: Ack) {
        let same_view = ack.epoch == self.view.epoch || self.config.skips_epochs();
        if !ack.granted
            || !same_view
            || ack.incarnation != self.config.incarnation
            || !self.is_voter(from)
        {
            return;
        }
        if let Some(sent) = self.lease.sent_at(ack.sequence) {
            let from_when = if self.config.counts_from_receipt() {
                self.now
            } else {
                sent
            };
            self.lease.grant(from, from_when);
        }
    }

    /// Whether this member grants leases: once it voted for the next view it does not any more, so
    /// that no majority can when that is decided.
    pub(super) fn grants(&self) -> bool {
        self.admitted
            && !self.fallen
            && (self.acceptor.accepted.is_none() || self.config.skips_epochs())
    }

    /// Whether the sender, in its present run, decides on what follows the view.
    pub(super) fn is_voter(&self, from: Sender) -> bool {
        match from {
            Sender::Member(member) if member == self.config.local => self.admitted,
            Sender::Member(member) => self
                .peers
                .get(&member)
                .and_then(|peer| peer.incarnation)
                .is_some_and(|run| self.is_admitted(&self.view, member, run)),
            Sender::Witness => self.witness_seat(),
        }
    }

    pub(super) fn is_admitted(&self, view: &View, member: MemberId, run: Incarnation) -> bool {
        view.admits(member, run)
            || (self.config.skips_incarnations() && view.members.contains_key(&member))
    }

    /// The witness votes where members alone could split in halves.
    pub(super) fn witness_seat(&self) -> bool {
        self.config.witness && self.view.members.len().is_multiple_of(2) && self.view.epoch.0 > 0
    }

    fn peer_mut(&mut self, from: Sender) -> Option<&mut Peer> {
        match from {
            Sender::Member(member) => self.peers.get_mut(&member),
            Sender::Witness => Some(&mut self.witness),
        }
    }
}
