//! A decided view takes effect.

use gateway_common::time::Instant;

use super::Membership;
use super::accept::Acceptor;
use super::io::{Event, Output, Persisted};
use super::tally::Handover;
use crate::slot_set::SlotSet;
use crate::view::View;

impl Membership {
    /// Makes `view` the present one. What it gives to this member is served when `handover` ends.
    pub(super) fn install(&mut self, view: View, unsafe_takeover: bool, handover: Handover) {
        if view.epoch <= self.view.epoch {
            return;
        }
        let local = self.config.local;
        if view.epoch != self.view.epoch.next() {
            // What was given to another in between, that one may serve.
            self.serving.fill(false);
        }
        self.admitted = self.is_admitted(&view, local, self.config.incarnation);
        self.unsafe_takeover = unsafe_takeover;
        self.kept = SlotSet::EMPTY;
        self.view = view;
        self.fallen = false;
        self.installed_at = self.now;
        self.handover = handover;
        if self.config.skips_activation_wait() {
            self.handover.at_once(self.now);
        }
        self.active = false;
        self.acceptor = Acceptor::default();
        self.cold.heard_of(self.view.epoch);
        self.tally = None;
        self.proposer.abandon();
        self.lease.forget_grants();
        for (slot, owner) in self.view.slots.iter() {
            let mine = self.admitted && owner == Some(local);
            self.serving[usize::from(slot.0)] &= mine;
        }
        self.announce(unsafe_takeover);
        if !self.admitted {
            self.lease.until = Instant::default();
            self.lease.running = false;
            self.outputs.push_back(Output::Lease(Instant::default()));
        }
        self.refresh_slots();
    }

    fn announce(&mut self, unsafe_takeover: bool) {
        let members = self.view_members();
        let persisted = Persisted {
            epoch: self.view.epoch.max(self.persisted.epoch),
            members,
            latest: self.view.tenures.latest().max(self.persisted.latest),
        };
        if persisted != self.persisted {
            self.persisted = persisted;
            self.outputs.push_back(Output::Persist(persisted));
        }
        self.counters.views += 1;
        self.counters.unsafe_takeovers += u64::from(unsafe_takeover && self.admitted);
        self.outputs.push_back(Output::Install {
            view: self.view.clone(),
            unsafe_takeover,
        });
        self.outputs.push_back(Output::Event(Event::View {
            epoch: self.view.epoch,
            members,
            unsafe_takeover,
        }));
    }

    /// The right to transmit, from what the others acknowledged.
    pub(super) fn step_lease(&mut self) {
        if self.admitted
            && let Some(agreed) = self.lease.agreed(self.majority())
        {
            let mut until = agreed + self.config.timing.lease;
            if self.config.ignores_lease() {
                until = until + self.config.timing.cold_start * 1000;
            }
            if until > self.lease.until && until > self.now {
                self.lease.until = until;
                self.outputs.push_back(Output::Lease(until));
            }
        }
        let running = self.admitted && self.now < self.lease.until;
        if self.lease.running && !running && self.view.slots.owned_by(self.config.local) > 0 {
            self.counters.lease_ends += 1;
            let event = Event::LeaseEnded(self.view.epoch);
            self.outputs.push_back(Output::Event(event));
        }
        self.lease.running = running;
    }

    pub(super) fn step_activate(&mut self) {
        if !self.admitted || self.active || self.now < self.handover.end() {
            return;
        }
        self.active = true;
        for (slot, owner) in self.view.slots.iter() {
            self.serving[usize::from(slot.0)] = owner == Some(self.config.local);
        }
        self.refresh_slots();
        self.outputs.push_back(Output::Activate(self.view.epoch));
    }
}
