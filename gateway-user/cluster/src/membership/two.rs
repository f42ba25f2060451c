//! Half of a view of two is left, and there is no witness.

use gateway_common::member::MemberId;

use super::Membership;
use super::config::TwoMember;
use super::io::{Output, ProbeResult};

impl Membership {
    /// Asks whether the lost member is really not there, once its lease has ended.
    pub(super) fn step_two_member(&mut self) {
        let Some(lost) = self.lost_half() else {
            self.control.probe_at = None;
            return;
        };
        let ended = self.ledger.until(lost).max(self.handover.end());
        let at = self.control.probe_at.unwrap_or(ended).max(ended);
        if self.now >= at {
            self.outputs.push_back(Output::Probe(lost));
            self.control.probe_at = Some(self.now + self.config.timing.silence);
        } else {
            self.control.probe_at = Some(at);
        }
    }

    /// The answer decides: this host can be reached and the other cannot.
    pub(super) fn probed(&mut self, result: ProbeResult) {
        self.expire();
        let asked = self.control.probe_at.is_some() && self.lost_half() == Some(result.member);
        let ended = self.now >= self.ledger.until(result.member).max(self.handover.end());
        if asked && ended && result.own_good && !result.answered {
            self.control.probe_at = None;
            self.bootstrap();
        }
    }

    /// The other one of two, if it is lost and this member may go on without it.
    fn lost_half(&self) -> Option<MemberId> {
        let allowed = self.config.two_member == TwoMember::Availability
            && !self.config.witness
            && self.admitted
            && !self.control.stopping
            && self.frozen_until.is_none()
            && self.view.members.len() == 2;
        let local = self.config.local;
        let other = self.view.members.keys().find(|member| **member != local)?;
        let peer = self.peers.get(other)?;
        // What this member voted for may be decided, and be served by a third one.
        let bound = self.acceptor.accepted.as_ref().is_some_and(|(_, view)| {
            let mut members = view.members.keys();
            members.any(|member| !self.view.members.contains_key(member))
        });
        // A run that is over needs no takeover: the remaining votes decide.
        let alive = peer.alive || self.superseded().contains(*other);
        (allowed && !alive && !bound).then_some(*other)
    }
}
