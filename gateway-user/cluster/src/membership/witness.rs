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
    /// Votes on what follows the views of these epochs, the latest included.
    votes: BTreeMap<Epoch, Vote>,
    ledger: Ledger,
    outputs: VecDeque<WitnessOutput>,
}

/// Views whose successors the witness votes on again when asked: a member that missed a decision,
/// because the only other one that knew it is gone, learns it from the votes.
const REMEMBERED: usize = 4;

/// A vote on what follows a view.
#[derive(Clone, Debug, Default)]
struct Vote {
    promised: Option<Ballot>,
    accepted: Option<(Ballot, View)>,
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
            votes: BTreeMap::new(),
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
                let vote = self.votes.get(&self.epoch);
                let bound = vote.is_some_and(|vote| vote.accepted.is_some());
                let granted = said.epoch == self.epoch && !bound;
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
            self.votes.insert(epoch, Vote::default());
            while self.votes.len() > REMEMBERED {
                self.votes.pop_first();
            }
            self.persist();
        }
    }

    /// The vote on what follows `epoch`, if it is open or remembered.
    fn vote(&mut self, epoch: Epoch) -> Option<&mut Vote> {
        self.learn(epoch);
        if epoch == self.epoch {
            return Some(self.votes.entry(epoch).or_default());
        }
        self.votes.get_mut(&epoch)
    }

    fn prepare(&mut self, from: MemberId, epoch: Epoch, ballot: Ballot) {
        let basis = Basis::After(epoch);
        let Some(vote) = self.vote(epoch) else {
            return;
        };
        if let Some(promised) = vote.promised.filter(|promised| *promised > ballot) {
            return self.send([from], Via::All, Message::Reject { basis, promised });
        }
        vote.promised = Some(ballot);
        let promise = promise(epoch, ballot, vote);
        self.persist();
        self.send([from], Via::All, promise);
    }

    fn accept(&mut self, now: Instant, from: MemberId, epoch: Epoch, ballot: Ballot, view: View) {
        let basis = Basis::After(epoch);
        let Some(vote) = self.vote(epoch) else {
            return;
        };
        if let Some(promised) = vote.promised.filter(|promised| *promised > ballot) {
            return self.send([from], Via::All, Message::Reject { basis, promised });
        }
        vote.promised = Some(ballot);
        vote.accepted = Some((ballot, view));
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

    /// The file is a sequence of promises, each after its length, oldest first.
    fn persist(&mut self) {
        let Some(lowest) = self.peers.keys().next().copied() else {
            return;
        };
        let mut file = Vec::new();
        for (epoch, vote) in &self.votes {
            let none = Ballot {
                round: 0,
                proposer: lowest,
            };
            let message = promise(*epoch, vote.promised.unwrap_or(none), vote);
            let octets = self.datagram(message).encode();
            file.extend_from_slice(
                &u32::try_from(octets.len())
                    .unwrap_or(u32::MAX)
                    .to_be_bytes(),
            );
            file.extend_from_slice(&octets);
        }
        self.outputs.push_back(WitnessOutput::Persist(file));
    }

    fn restore(&mut self, mut file: &[u8]) {
        while let Some((length, rest)) = file.split_first_chunk() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            let Some((octets, rest)) = rest.split_at_checked(length) else {
                return;
            };
            file = rest;
            if let Ok(Datagram {
                message:
                    Message::Promise {
                        basis: Basis::After(epoch),
                        ballot,
                        accepted,
                        ..
                    },
                ..
            }) = wire::decode(octets)
            {
                self.epoch = self.epoch.max(epoch);
                let vote = Vote {
                    promised: Some(ballot),
                    accepted: accepted.map(|(ballot, view)| (ballot, *view)),
                };
                self.votes.insert(epoch, vote);
            }
        }
    }
}

fn promise(epoch: Epoch, ballot: Ballot, vote: &Vote) -> Message {
    let accepted = vote.accepted.clone();
    Message::Promise {
        basis: Basis::After(epoch),
        ballot,
        accepted: accepted.map(|(ballot, view)| (ballot, Box::new(view))),
        persisted: super::Persisted::default(),
    }
}
