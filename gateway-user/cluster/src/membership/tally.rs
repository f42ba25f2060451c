//! Votes as they come in, at every member: a decision does not wait for its proposer to tell it.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_common::{member::MemberId, time::Instant};

use super::io::Sender;
use super::wire::{Ballot, Basis, Left};
use super::{MemberSet, Membership, lease};
use crate::view::View;

/// When what a view gave to others is theirs to serve.
#[derive(Clone, Debug, Default)]
pub(super) struct Handover {
    /// The ballot that decided the view, as far as this member counted it.
    ballot: Option<(Basis, Ballot)>,
    /// What earlier views left open.
    pub(super) base: Instant,
    /// Owners that may serve what they lost, and until when.
    ends: BTreeMap<MemberId, Instant>,
}

impl Handover {
    /// Nobody is known to have stopped: everybody's lease has to end.
    pub(super) const fn after_all(base: Instant, ends: BTreeMap<MemberId, Instant>) -> Self {
        let ballot = None;
        Self { ballot, base, ends }
    }

    pub(super) fn end(&self) -> Instant {
        self.ends.values().copied().fold(self.base, Instant::max)
    }

    pub(super) fn at_once(&mut self, now: Instant) {
        self.base = now;
        self.ends.clear();
    }

    /// `owner` voted for the view or has installed it: it has stopped serving what it lost.
    pub(super) fn stopped(&mut self, owner: MemberId) {
        self.ends.remove(&owner);
    }

    pub(super) fn stretch(&mut self, last: Instant, gap: Duration, limit: Instant) {
        let running = self.ends.values_mut().chain([&mut self.base]);
        for until in running.filter(|until| **until > last) {
            *until = lease::stretched(*until, gap, limit);
        }
    }
}

/// Votes for one ballot.
#[derive(Debug)]
pub(super) struct Tally {
    basis: Basis,
    ballot: Ballot,
    pub(super) yes: MemberSet,
    pub(super) witness: bool,
    pub(super) noted: MemberSet,
    /// The latest that any voter named.
    settle: Instant,
    until: BTreeMap<MemberId, Instant>,
}

impl Membership {
    pub(super) fn take_accepted(
        &mut self,
        from: Sender,
        basis: Basis,
        ballot: Ballot,
        noted: bool,
        left: &Left,
    ) {
        if let Sender::Member(member) = from
            && !noted
            && self.handover.ballot == Some((basis, ballot))
        {
            self.handover.stopped(member);
        }
        if !self.concerns(basis) || (!noted && basis != Basis::Cold && !self.is_voter(from)) {
            return;
        }
        let tally = match &mut self.tally {
            Some(tally) if tally.basis == basis && tally.ballot > ballot => return,
            Some(tally) if tally.basis == basis && tally.ballot == ballot => tally,
            other => other.insert(Tally {
                basis,
                ballot,
                yes: MemberSet::EMPTY,
                witness: false,
                noted: MemberSet::EMPTY,
                settle: Instant::default(),
                until: BTreeMap::new(),
            }),
        };
        match from {
            Sender::Member(member) if noted => tally.noted.insert(member),
            Sender::Member(member) => tally.yes.insert(member),
            Sender::Witness => tally.witness = true,
        }
        tally.settle = tally.settle.max(lease::until(self.now, left.settle));
        for (owner, micros) in &left.owners {
            let until = lease::until(self.now, *micros);
            let entry = tally.until.entry(*owner).or_insert(until);
            *entry = until.max(*entry);
        }
        self.decide();
    }

    fn concerns(&self, basis: Basis) -> bool {
        match basis {
            Basis::After(epoch) => epoch == self.view.epoch && self.admitted && !self.fallen,
            Basis::Cold => self.is_cold(),
        }
    }

    /// Installs what has its votes, if its value is known here.
    fn decide(&mut self) {
        let Some(tally) = &self.tally else {
            return;
        };
        let (basis, ballot) = (tally.basis, tally.ballot);
        let proposed = self.proposer.value(basis, ballot);
        let accepted = self.acceptor(basis).accepted.as_ref();
        let value = accepted.filter(|(b, _)| *b == ballot).map(|(_, view)| view);
        let Some(view) = proposed.or(value).cloned() else {
            return;
        };
        if !self.is_quorum(basis, tally.yes, tally.witness, tally.noted) {
            return;
        }
        let handover = self.handover_to(&view);
        if let Some(tally) = self.tally.take() {
            for (owner, until) in tally.until {
                self.ledger.raise(owner, until);
            }
        }
        self.install(view, false, handover);
        if ballot.proposer == self.config.local {
            let everybody = self.everybody();
            self.send_commit(everybody);
        }
    }

    /// Those that voted for `view` have stopped serving what it takes from them; the others' leases
    /// have to end.
    fn handover_to(&self, view: &View) -> Handover {
        let Some(tally) = &self.tally else {
            let bound = self.now + self.config.timing.lease_bound();
            return Handover::after_all(bound, BTreeMap::new());
        };
        let moved = self.view.slots.iter().zip(view.slots.iter());
        let losers: MemberSet = moved
            .filter(|(before, after)| before.1 != after.1)
            .filter_map(|(before, _)| before.1)
            .collect();
        let ends = losers.difference(tally.yes).iter().map(|owner| {
            let told = tally.until.get(&owner).copied().unwrap_or_default();
            (owner, told.max(self.ledger.until(owner)))
        });
        Handover {
            ballot: Some((tally.basis, tally.ballot)),
            base: tally.settle,
            ends: ends.collect(),
        }
    }
}
