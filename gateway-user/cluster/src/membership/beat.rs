//! What this member sends: heartbeats, and everything with a sequence.

use std::time::Duration;

use super::io::{Output, Sender, Via};
use super::wire::{Datagram, Heartbeat, Left, Message};
use super::{LinkId, MemberSet, Membership, lease};

impl Membership {
    /// Sends the heartbeat. Its send time is what a lease counts from.
    pub(super) fn beat(&mut self) {
        let said = self.say();
        let message = Message::Heartbeat(Box::new(said.clone()));
        let (sequence, datagram) = self.datagram(message);
        self.lease.sent(sequence, self.now);
        let everybody = self.everybody();
        self.send_octets(everybody, Via::All, &datagram);
        if self.grants() {
            let local = self.config.local;
            self.lease.grant(Sender::Member(local), self.now);
            let until = self.now + self.config.timing.lease_bound();
            self.ledger.raise(local, until);
        }
        self.last_said = said;
        self.last_beat = self.now;
        self.next_beat = self.now + self.config.timing.heartbeat;
    }

    /// Something that the others should know before the next heartbeat is due. Not so often that a
    /// flapping device turns into a flood.
    pub(super) fn news(&self) -> bool {
        let said = self.say();
        // Others may be waiting to hear that this member has installed the view.
        if said.epoch != self.last_said.epoch {
            return true;
        }
        let differs = Heartbeat {
            reason: String::new(),
            load: 0,
            ..said
        } != Heartbeat {
            reason: String::new(),
            load: 0,
            ..self.last_said.clone()
        };
        differs && self.now >= self.last_beat + self.least_gap()
    }

    fn least_gap(&self) -> Duration {
        self.config.timing.heartbeat / 5
    }

    fn say(&self) -> Heartbeat {
        let (shown, reason) = self.told.own();
        Heartbeat {
            epoch: self.view.epoch,
            admitted: self.admitted && !self.fallen,
            cold: self.is_cold(),
            frozen: self.frozen_until.is_some(),
            pivot: shown.flags.pivot,
            drained: self.control.drained,
            stopping: self.control.stopping,
            state: shown.state,
            reason: reason.to_owned(),
            problems: self.pnotes.problems(self.now).0,
            heir: self.control.heir,
            load: self.load,
            heard: self.heard(),
            links: self
                .links
                .iter()
                .filter(|(link, up)| **up && link.0 < 32)
                .fold(0, |bits, (link, _)| bits | 1 << link.0),
            config_hash: self.config.config_hash,
            sync: self.report.clone(),
            preference: self.control.preference,
        }
    }

    /// Whom this member hears.
    pub(super) fn heard(&self) -> MemberSet {
        let alive = self.peers.iter().filter(|(_, peer)| peer.alive);
        alive.map(|(member, _)| *member).collect()
    }

    /// All configured members but this one, and the witness.
    pub(super) fn everybody(&self) -> Vec<Sender> {
        let members = self.peers.keys().map(|m| Sender::Member(*m));
        let witness = self.config.witness.then_some(Sender::Witness);
        members.chain(witness).collect()
    }

    pub(super) fn send(&mut self, to: Sender, message: Message) {
        self.send_all([to], message);
    }

    pub(super) fn send_all(&mut self, to: impl IntoIterator<Item = Sender>, message: Message) {
        let (_, datagram) = self.datagram(message);
        self.send_octets(to, Via::All, &datagram);
    }

    pub(super) fn answer(&mut self, to: Sender, via: LinkId, message: Message) {
        let (_, datagram) = self.datagram(message);
        self.send_octets([to], Via::One(via), &datagram);
    }

    fn send_octets(&mut self, to: impl IntoIterator<Item = Sender>, via: Via, datagram: &[u8]) {
        for to in to {
            self.outputs.push_back(Output::Send {
                to,
                via,
                datagram: datagram.to_vec(),
            });
        }
    }

    fn datagram(&mut self, message: Message) -> (u64, Vec<u8>) {
        self.sequence += 1;
        let datagram = Datagram {
            incarnation: self.config.incarnation,
            sequence: self.sequence,
            message,
        };
        (self.sequence, datagram.encode())
    }

    /// Transmit rights that may run now, as far as this member knows.
    pub(super) fn left(&self) -> Left {
        Left {
            settle: lease::micros(self.handover.end() - self.now),
            owners: self.ledger.left(self.now),
        }
    }

    pub(super) fn send_commit(&mut self, to: impl IntoIterator<Item = Sender>) {
        let message = Message::Commit {
            view: Box::new(self.view.clone()),
            unsafe_takeover: self.unsafe_takeover,
            left: Left {
                // Who has stopped, the receiver hears from themselves.
                settle: lease::micros(self.handover.base - self.now),
                ..self.left()
            },
        };
        self.send_all(to, message);
    }
}
