//! The witness: a third vote without slots.

use std::collections::{BTreeMap, VecDeque};

use gateway_common::{member::MemberId, time::Instant};

use super::config::Timing;
use super::io::{LinkId, Via};
use super::lease::Ledger;
use super::peer::{Freshness, Peer};
use super::wire::{self, Ack, Ballot, Basis, Datagram, Left, Message};
use crate::frame::Incarnation;
use crate::view::{Epoch, View};

/// Acceptor on a third host. It grants leases and votes like a member of every view, but its vote
/// counts only in views with an even number of members. Keeps its votes on disk, so it can restart.
#[derive(Debug)]
pub struct Witness {
    timing: Timing,
    incarnation: Incarnation,
    sequence: u64,
    peers: BTreeMap<MemberId, Peer>,
    /// The latest view that was heard of: decided.
    epoch: Epoch,
    promised: Option<Ballot>,
    accepted: Option<(Ballot, View)>,
    ledger: Ledger,
    outputs: VecDeque<WitnessOutput>,
}

/// What the witness does. In order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WitnessOutput {
    /// Send a datagram.
    Send {
        /// To whom.
        to: MemberId,
        /// Over which interfaces.
        via: Via,
        /// The octets.
        datagram: Vec<u8>,
    },
    /// On disk before the outputs that follow are carried out, whole.
    Persist(Vec<u8>),
}

impl Witness {
    /// `members`: all configured ones. `incarnation`: larger than that of every earlier run.
    /// `persisted`: what the last [`WitnessOutput::Persist`] said, or nothing at the first start.
    pub fn new(
        timing: Timing,
        incarnation: Incarnation,
        members: &[MemberId],
        now: Instant,
        persisted: &[u8],
    ) -> Self {
        let mut witness = Self {
            timing,
            incarnation,
            sequence: 0,
            peers: members.iter().map(|m| (*m, Peer::default())).collect(),
            epoch: Epoch::default(),
            promised: None,
            accepted: None,
            ledger: Ledger::default(),
            outputs: VecDeque::new(),
        };
        // What an earlier run granted may still run.
        for member in members {
            witness.ledger.raise(*member, now + timing.lease_bound());
        }
        witness.restore(persisted);
        witness
    }

    /// The next effect.
    pub fn poll_output(&mut self) -> Option<WitnessOutput> {
        self.outputs.pop_front()
    }

    /// A datagram of `from`, which the shell has authenticated.
    pub fn handle_datagram(&mut self, now: Instant, from: MemberId, via: LinkId, octets: &[u8]) {
        let (Ok(datagram), Some(peer)) = (wire::decode(octets), self.peers.get_mut(&from)) else {
            return;
        };
        let run = datagram.incarnation;
        let freshness = peer.judge(now, via, run, datagram.sequence);
        let heartbeat = matches!(datagram.message, Message::Heartbeat(_));
        match freshness {
            Freshness::OldRun | Freshness::Replayed => return,
            Freshness::Copy if !heartbeat => return,
            Freshness::Copy | Freshness::New | Freshness::NewRun => {}
        }
        match datagram.message {
            Message::Heartbeat(said) if said.admitted => {
                self.learn(said.epoch);
                let granted = said.epoch == self.epoch && self.accepted.is_none();
                if granted {
                    self.ledger.raise(from, now + self.timing.lease_bound());
                }
                let ack = Ack {
                    epoch: self.epoch,
                    incarnation: run,
                    sequence: datagram.sequence,
                    granted,
                };
                self.send([from], Via::One(via), Message::Ack(ack));
            }
            Message::Prepare {
                basis: Basis::After(epoch),
                ballot,
            } => self.prepare(from, epoch, ballot),
            Message::Accept {
                basis: Basis::After(epoch),
                ballot,
                view,
            } => self.accept(now, from, epoch, ballot, *view),
            Message::Commit { view, .. } => self.learn(view.epoch),
            _ => {}
        }
    }

    /// Whoever is in the view of this epoch says so: it was decided, and the next is open.
    fn learn(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.promised = None;
            self.accepted = None;
            self.persist();
        }
    }

    fn prepare(&mut self, from: MemberId, epoch: Epoch, ballot: Ballot) {
        self.learn(epoch);
        if epoch < self.epoch {
            return;
        }
        let basis = Basis::After(epoch);
        if let Some(promised) = self.promised.filter(|promised| *promised > ballot) {
            return self.send([from], Via::All, Message::Reject { basis, promised });
        }
        self.promised = Some(ballot);
        self.persist();
        let accepted = self.accepted.clone();
        let promise = Message::Promise {
            basis,
            ballot,
            accepted: accepted.map(|(ballot, view)| (ballot, Box::new(view))),
            persisted: super::Persisted::default(),
        };
        self.send([from], Via::All, promise);
    }

    fn accept(&mut self, now: Instant, from: MemberId, epoch: Epoch, ballot: Ballot, view: View) {
        self.learn(epoch);
        if epoch < self.epoch {
            return;
        }
        let basis = Basis::After(epoch);
        if let Some(promised) = self.promised.filter(|promised| *promised > ballot) {
            return self.send([from], Via::All, Message::Reject { basis, promised });
        }
        self.promised = Some(ballot);
        self.accepted = Some((ballot, view));
        self.persist();
        let accepted = Message::Accepted {
            basis,
            ballot,
            noted: false,
            left: Left {
                settle: 0,
                owners: self.ledger.left(now),
            },
        };
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        self.send(members, Via::All, accepted);
    }

    fn send(&mut self, to: impl IntoIterator<Item = MemberId>, via: Via, message: Message) {
        self.sequence += 1;
        let datagram = self.datagram(message).encode();
        for to in to {
            self.outputs.push_back(WitnessOutput::Send {
                to,
                via,
                datagram: datagram.clone(),
            });
        }
    }

    const fn datagram(&self, message: Message) -> Datagram {
        Datagram {
            incarnation: self.incarnation,
            sequence: self.sequence,
            message,
        }
    }

    /// The file has the form of a promise.
    fn persist(&mut self) {
        let lowest = self.peers.keys().next().copied();
        let Some(ballot) = self
            .promised
            .or(lowest.map(|proposer| Ballot { round: 0, proposer }))
        else {
            return;
        };
        let accepted = self.accepted.clone();
        let message = Message::Promise {
            basis: Basis::After(self.epoch),
            ballot,
            accepted: accepted.map(|(ballot, view)| (ballot, Box::new(view))),
            persisted: super::Persisted::default(),
        };
        let octets = self.datagram(message).encode();
        self.outputs.push_back(WitnessOutput::Persist(octets));
    }

    fn restore(&mut self, persisted: &[u8]) {
        if let Ok(Datagram {
            message:
                Message::Promise {
                    basis: Basis::After(epoch),
                    ballot,
                    accepted,
                    ..
                },
            ..
        }) = wire::decode(persisted)
        {
            self.epoch = epoch;
            self.promised = Some(ballot);
            self.accepted = accepted.map(|(ballot, view)| (ballot, *view));
        }
    }
}
