//! The proposer of Paxos.

use std::collections::BTreeMap;

use gateway_common::{member::MemberId, time::Instant};

use super::io::{Persisted, Sender};
use super::wire::{Ballot, Basis, Message};
use super::{MemberSet, Membership};
use crate::view::View;

/// Repetitions before a ballot is given up.
const TRIES: u32 = 6;

/// What this member proposes, and when.
#[derive(Debug, Default)]
pub(super) struct Proposer {
    /// Highest round that was seen.
    round: u32,
    running: Option<Proposal>,
    /// Since when a change is wanted.
    wanted: Option<(Basis, Instant)>,
    /// Not before.
    retry_after: Instant,
    /// When there is something to do.
    pub(super) due: Option<Instant>,
}

#[derive(Debug)]
struct Proposal {
    basis: Basis,
    ballot: Ballot,
    promised: MemberSet,
    witness: bool,
    best: Option<(Ballot, View)>,
    /// What those that promised have on disk, and voted for in this run.
    memory: BTreeMap<MemberId, (Persisted, Option<View>)>,
    /// Second phase: what is proposed.
    value: Option<View>,
    tries: u32,
    repeat_at: Instant,
}

impl Proposer {
    pub(super) fn abandon(&mut self) {
        self.running = None;
        self.wanted = None;
    }

    pub(super) fn value(&self, basis: Basis, ballot: Ballot) -> Option<&View> {
        let proposal = self.running.as_ref()?;
        let same = proposal.basis == basis && proposal.ballot == ballot;
        proposal.value.as_ref().filter(|_| same)
    }
}

impl Proposal {
    /// How many of those that promised will vote for the first view `best`. The others' disks say that
    /// an earlier run of theirs may have voted for another one of its epoch, or knew of a later one.
    fn votes_for(&self, best: &View) -> usize {
        let willing = self.memory.values().filter(|(persisted, vote)| {
            best.epoch > persisted.epoch || vote.as_ref() == Some(best)
        });
        willing.count()
    }
}

impl Membership {
    pub(super) fn step_propose(&mut self) {
        self.proposer.due = None;
        let basis = self.basis();
        if self.proposer.running.as_ref().map(|p| p.basis) != basis {
            self.proposer.running = None;
        }
        if self.proposer.running.is_some() {
            return self.repeat();
        }
        let Some(basis) = basis.filter(|basis| self.wants(*basis)) else {
            self.proposer.wanted = None;
            return;
        };
        let since = match self.proposer.wanted {
            Some((wanted, since)) if wanted == basis => since,
            _ => self.now,
        };
        self.proposer.wanted = Some((basis, since));
        let timing = self.config.timing;
        let mut at = since + timing.heartbeat * 2 * self.rank(basis);
        if !self.is_urgent(basis) {
            at = at.max(self.installed_at + timing.damping);
            if self.expels(basis) {
                at = at.max(since + timing.heartbeat * 2);
            }
        }
        let at = at.max(self.proposer.retry_after);
        if at <= self.now {
            self.propose(basis);
        } else {
            self.proposer.due = Some(at);
        }
    }

    /// The decision that this member could start now.
    fn basis(&self) -> Option<Basis> {
        if self.frozen_until.is_some() || self.control.stopped {
            None
        } else if self.may_start_cold() {
            Some(Basis::Cold)
        } else if self.admitted && !self.fallen {
            Some(Basis::After(self.view.epoch))
        } else {
            None
        }
    }

    fn wants(&self, basis: Basis) -> bool {
        let hopeful = match basis {
            Basis::Cold => true,
            Basis::After(_) => {
                let mut alive = self.voters_alive();
                alive.insert(self.config.local);
                let over = self.superseded();
                self.is_quorum(basis, alive, self.witness.alive, over)
            }
        };
        // A vote without decision holds up all leases: it has to be brought to an end.
        hopeful && (self.acceptor(basis).accepted.is_some() || self.goal(basis).is_some())
    }

    /// Members of the view that are heard, in the run that it admitted.
    pub(super) fn voters_alive(&self) -> MemberSet {
        let members = self.view.members.keys().filter(|member| {
            let alive = self.peers.get(member).is_some_and(|peer| peer.alive);
            alive && self.is_voter(Sender::Member(**member))
        });
        members.copied().collect()
    }

    fn is_urgent(&self, basis: Basis) -> bool {
        let mut there = self.voters_alive();
        there.insert(self.config.local);
        basis == Basis::Cold
            || self.acceptor(basis).accepted.is_some()
            || !self.view_members().is_subset(there)
    }

    /// Whether somebody who is heard and well would leave, and does not want to. When a member dies,
    /// its sync connections break at once, and the others notice it one after the other: who is the
    /// first to say so must not look like the one that is cut off.
    fn expels(&self, basis: Basis) -> bool {
        let stopping = |member: MemberId| {
            member == self.config.local && self.control.stopping
                || self.said(member).is_some_and(|said| said.stopping)
        };
        let well = |member: &MemberId| !stopping(*member) && self.problems_of(*member) == 0;
        let next = self.goal(basis).map(|view| view.members);
        let mut stay = self.view_members().iter().filter(well);
        next.is_some_and(|next| stay.any(|member| !next.contains_key(&member)))
    }

    fn propose(&mut self, basis: Basis) {
        self.proposer.round = self.proposer.round.saturating_add(1);
        let ballot = Ballot {
            round: self.proposer.round,
            proposer: self.config.local,
        };
        self.proposer.running = Some(Proposal {
            basis,
            ballot,
            promised: MemberSet::EMPTY,
            witness: false,
            best: None,
            memory: BTreeMap::new(),
            value: None,
            tries: 0,
            repeat_at: self.now,
        });
        self.repeat();
        // The own vote comes last: with it alone a single member is done.
        self.take_prepare(Sender::Member(self.config.local), basis, ballot);
    }

    /// Sends what has not been answered.
    fn repeat(&mut self) {
        let rank = self.proposer.running.as_ref().map(|p| self.rank(p.basis));
        let interval = self.config.timing.heartbeat / 2;
        let back_off = self.config.timing.heartbeat * (1 + rank.unwrap_or(0));
        let Some(proposal) = &mut self.proposer.running else {
            return;
        };
        if proposal.repeat_at > self.now {
            self.proposer.due = Some(proposal.repeat_at);
            return;
        }
        proposal.tries += 1;
        if proposal.tries > TRIES {
            self.proposer.running = None;
            self.proposer.retry_after = self.now + back_off;
            self.proposer.due = Some(self.proposer.retry_after);
            return;
        }
        proposal.repeat_at = self.now + interval;
        self.proposer.due = Some(proposal.repeat_at);
        let (basis, ballot) = (proposal.basis, proposal.ballot);
        let message = match proposal.value.clone() {
            None => Message::Prepare { basis, ballot },
            Some(view) => Message::Accept {
                basis,
                ballot,
                view: Box::new(view),
            },
        };
        let to = self.unanswered();
        self.send_all(to, message);
    }

    fn unanswered(&self) -> Vec<Sender> {
        let Some(proposal) = &self.proposer.running else {
            return Vec::new();
        };
        let tally = self.tally.as_ref();
        let (members, witness) = match (&proposal.value, tally) {
            (None, _) => (proposal.promised, proposal.witness),
            (Some(_), Some(tally)) => {
                let noted = tally.noted.iter();
                (tally.yes.iter().chain(noted).collect(), tally.witness)
            }
            (Some(_), None) => (MemberSet::EMPTY, false),
        };
        let voters = match proposal.basis {
            Basis::After(_) => self.view_members(),
            Basis::Cold => self.config.members.iter().map(|m| m.member).collect(),
        };
        let mut open = voters.difference(members);
        open.remove(self.config.local);
        let seat = matches!(proposal.basis, Basis::After(_)) && self.witness_seat() && !witness;
        let witness = seat.then_some(Sender::Witness);
        open.iter().map(Sender::Member).chain(witness).collect()
    }

    pub(super) fn take_promise(
        &mut self,
        from: Sender,
        basis: Basis,
        ballot: Ballot,
        accepted: Option<(Ballot, Box<View>)>,
        persisted: Persisted,
    ) {
        let voter = basis == Basis::Cold || self.is_voter(from);
        let Some(proposal) = &mut self.proposer.running else {
            return;
        };
        let same = proposal.basis == basis && proposal.ballot == ballot;
        if !voter || !same || proposal.value.is_some() {
            return;
        }
        let accepted = accepted.map(|(ballot, view)| (ballot, *view));
        match from {
            Sender::Member(member) => {
                let vote = accepted.as_ref().map(|(_, view)| view.clone());
                proposal.promised.insert(member);
                proposal.memory.insert(member, (persisted, vote));
            }
            Sender::Witness => proposal.witness = true,
        }
        let highest = proposal.best.as_ref().map(|(ballot, _)| *ballot);
        if accepted.as_ref().map(|(ballot, _)| *ballot) > highest {
            proposal.best = accepted;
        }
        self.second_phase();
    }

    fn second_phase(&mut self) {
        let over = self.superseded();
        let Some(proposal) = &self.proposer.running else {
            return;
        };
        let (basis, ballot) = (proposal.basis, proposal.ballot);
        if !self.is_quorum(basis, proposal.promised, proposal.witness, over) {
            return;
        }
        let cold = basis == Basis::Cold;
        let memory: Vec<Persisted> = proposal.memory.values().map(|(disk, _)| *disk).collect();
        if cold && !self.covers(proposal.promised, &memory) {
            return;
        }
        let best = proposal.best.clone().map(|(_, view)| view);
        let all = self.config.members.len();
        let refused = |view: &View| cold && proposal.votes_for(view) * 2 <= all;
        let lost = best.as_ref().is_some_and(refused);
        // It may have been decided. But who is there says to be in no view, and then all have to be.
        if lost && proposal.promised.len() < all {
            return;
        }
        let best = best.filter(|_| !lost);
        let value = best.or_else(|| {
            let goal = self.goal(basis)?;
            Some(if cold {
                self.after_memory(goal, &memory)
            } else {
                goal
            })
        });
        let Some(view) = value else {
            self.proposer.abandon();
            return;
        };
        if let Some(proposal) = &mut self.proposer.running {
            proposal.value = Some(view.clone());
            proposal.tries = 0;
            proposal.repeat_at = self.now;
        }
        self.repeat();
        self.take_accept(Sender::Member(self.config.local), basis, ballot, view);
    }

    pub(super) fn take_reject(&mut self, basis: Basis, promised: Ballot) {
        let outbid = |p: &Proposal| p.basis == basis && p.ballot < promised;
        self.proposer.round = self.proposer.round.max(promised.round);
        if self.proposer.running.as_ref().is_some_and(outbid) {
            let back_off = self.config.timing.heartbeat * (1 + self.rank(basis));
            self.proposer.running = None;
            self.proposer.retry_after = self.now + back_off;
        }
    }
}
