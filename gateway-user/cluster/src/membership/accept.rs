//! The acceptor of Paxos: what this member promises and votes for.

use gateway_common::member::MemberId;

use super::io::{Output, Persisted, Sender};
use super::wire::{Ballot, Basis, Message};
use super::{MemberSet, Membership};
use crate::view::View;

/// Promise and vote of one decision.
#[derive(Clone, Debug, Default)]
pub(super) struct Acceptor {
    pub(super) promised: Option<Ballot>,
    pub(super) accepted: Option<(Ballot, View)>,
}

/// What this member is in a decision.
enum Seat {
    Voter,
    /// It knows a later view.
    Ahead,
    /// It has missed a view.
    Behind,
    /// It has no vote, or is frozen.
    Silent,
}

impl Membership {
    fn seat(&self, basis: Basis) -> Seat {
        let frozen = self.frozen_until.is_some();
        match basis {
            Basis::After(epoch) if epoch < self.view.epoch => Seat::Ahead,
            Basis::After(epoch) if epoch > self.view.epoch => Seat::Behind,
            Basis::After(_) if self.admitted && !self.fallen && !frozen => Seat::Voter,
            Basis::Cold if self.is_cold_voter() => Seat::Voter,
            Basis::Cold if self.admitted && !self.fallen => Seat::Ahead,
            _ => Seat::Silent,
        }
    }

    pub(super) const fn acceptor(&self, basis: Basis) -> &Acceptor {
        match basis {
            Basis::After(_) => &self.acceptor,
            Basis::Cold => &self.cold.acceptor,
        }
    }

    const fn acceptor_mut(&mut self, basis: Basis) -> &mut Acceptor {
        match basis {
            Basis::After(_) => &mut self.acceptor,
            Basis::Cold => &mut self.cold.acceptor,
        }
    }

    pub(super) fn take_prepare(&mut self, from: Sender, basis: Basis, ballot: Ballot) {
        match self.seat(basis) {
            Seat::Voter => {}
            Seat::Ahead => return self.send_commit([from]),
            Seat::Behind => return self.send(from, Message::ViewRequest(self.view.epoch)),
            Seat::Silent => return,
        }
        let acceptor = self.acceptor_mut(basis);
        if let Some(promised) = acceptor.promised.filter(|promised| *promised > ballot) {
            return self.send(from, Message::Reject { basis, promised });
        }
        acceptor.promised = Some(ballot);
        let accepted = acceptor.accepted.clone();
        let accepted = accepted.map(|(ballot, view)| (ballot, Box::new(view)));
        let persisted = self.persisted;
        if from == Sender::Member(self.config.local) {
            return self.take_promise(from, basis, ballot, accepted, persisted);
        }
        let promise = Message::Promise {
            basis,
            ballot,
            accepted,
            persisted,
        };
        self.send(from, promise);
    }

    pub(super) fn take_accept(&mut self, from: Sender, basis: Basis, ballot: Ballot, view: View) {
        if self.is_superseded_run_of(basis, ballot.proposer) {
            return self.note(basis, ballot, &view);
        }
        match self.seat(basis) {
            Seat::Voter => {}
            Seat::Ahead => return self.send_commit([from]),
            Seat::Behind => return self.send(from, Message::ViewRequest(self.view.epoch)),
            Seat::Silent => return,
        }
        if let Some(promised) = self.acceptor(basis).promised.filter(|p| *p > ballot) {
            return self.send(from, Message::Reject { basis, promised });
        }
        if basis == Basis::Cold && !self.remember(&view) {
            return;
        }
        let acceptor = self.acceptor_mut(basis);
        acceptor.promised = Some(ballot);
        acceptor.accepted = Some((ballot, view));
        // Lost slots stop before the vote says so.
        self.refresh_slots();
        self.vote(basis, ballot, false);
    }

    /// A cold start's voters have no other memory of it if they start again. False if the view is
    /// not later than what is remembered already.
    fn remember(&mut self, view: &View) -> bool {
        let accepted = self.cold.acceptor.accepted.as_ref();
        let same = accepted.is_some_and(|(_, accepted)| accepted == view);
        if !same && view.epoch <= self.persisted.epoch {
            return false;
        }
        self.store(view);
        true
    }

    fn store(&mut self, view: &View) {
        let persisted = Persisted {
            epoch: view.epoch,
            members: view.members.keys().copied().collect(),
            latest: view.tenures.latest().max(self.persisted.latest),
        };
        if persisted != self.persisted {
            self.persisted = persisted;
            self.outputs.push_back(Output::Persist(persisted));
        }
    }

    /// This member is outside the proposer's view, as a new run of one of its voters or otherwise.
    fn is_superseded_run_of(&self, basis: Basis, proposer: MemberId) -> bool {
        matches!(basis, Basis::After(_)) && !self.admitted && proposer != self.config.local
    }

    /// What was agreed without this member's earlier run, which cannot vote any more: put on disk, so
    /// that this run never takes part in a cold start beside it. Refused if it has voted for one.
    fn note(&mut self, basis: Basis, ballot: Ballot, view: &View) {
        let stale = |(of, last): (Basis, Ballot)| of == basis && last > ballot;
        if self.cold.acceptor.accepted.is_some()
            || self.cold.noted.is_some_and(stale)
            || view.epoch < self.persisted.epoch
        {
            return;
        }
        self.cold.noted = Some((basis, ballot));
        self.store(view);
        // What an earlier promise said of the disk does not hold any more.
        if let Some(promised) = &mut self.cold.acceptor.promised {
            promised.round += 1;
        }
        self.vote(basis, ballot, true);
    }

    fn vote(&mut self, basis: Basis, ballot: Ballot, noted: bool) {
        let left = self.left();
        let message = Message::Accepted {
            basis,
            ballot,
            noted,
            left: left.clone(),
        };
        let others: Vec<Sender> = self.peers.keys().map(|m| Sender::Member(*m)).collect();
        self.send_all(others, message);
        let local = Sender::Member(self.config.local);
        self.take_accepted(local, basis, ballot, noted, &left);
    }

    /// Members of the view whose run is surely over, because a later one was heard: they never vote
    /// again.
    pub(super) fn superseded(&self) -> MemberSet {
        let runs = self.view.members.iter().filter(|(member, run)| {
            let peer = self.peers.get(member);
            peer.and_then(|peer| peer.incarnation)
                .is_some_and(|latest| latest > **run)
        });
        runs.map(|(member, _)| *member).collect()
    }

    pub(super) fn view_members(&self) -> MemberSet {
        self.view.members.keys().copied().collect()
    }

    /// Voters of the view, the witness's seat included, that a majority needs.
    pub(super) fn majority(&self) -> usize {
        (self.view.members.len() + usize::from(self.witness_seat())) / 2 + 1
    }

    /// Whether `yes` decide.
    ///
    /// So do all voters whose runs are not over, if fewer than a majority are: every majority that
    /// may have decided something else has one of them. The new runs have to have noted the decision
    /// (`noted`), for cold starts.
    pub(super) fn is_quorum(
        &self,
        basis: Basis,
        yes: MemberSet,
        witness: bool,
        noted: MemberSet,
    ) -> bool {
        if basis == Basis::Cold {
            return yes.len() * 2 > self.config.members.len();
        }
        let (seat, members) = (self.witness_seat(), self.view_members());
        let votes = yes.intersection(members).len() + usize::from(seat && witness);
        if votes >= self.majority() {
            return true;
        }
        let over = self.superseded();
        over.len() < self.majority()
            && members.difference(over).is_subset(yes)
            && (!seat || witness)
            && over.is_subset(noted)
    }
}
