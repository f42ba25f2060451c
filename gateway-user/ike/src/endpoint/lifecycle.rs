//! What becomes of IKE SAs: establishment, succession, end, timers.

use std::net::IpAddr;

use gateway_common::{slot::Slot, time::Instant};

use super::Endpoint;
use super::timers::Timer;
use crate::output::{Change, DecisionHandle, EventKind, Verdict};
use crate::record::{IkeSaRecord, Role};
use crate::sa::{Answer, Cause, Clock, Establishment, Farewell, IkeSa, Step};

impl Endpoint {
    /// Does the endpoint's part of a step, and puts the IKE SA back unless it is over.
    pub(super) fn settle(&mut self, now: Instant, mut sa: Box<IkeSa>, step: Step) {
        match step {
            Step::Waiting | Step::Dropped(_) => self.keep(now, sa),
            Step::Answer(answer) => self.answer(now, sa, answer),
            Step::Establish(establishment, answer) => {
                self.establish(now, &mut sa, establishment);
                self.answer(now, sa, answer);
            }
            Step::Close(answer, cause, reason) => {
                let farewell = sa.farewell(&mut self.core, answer);
                self.close(now, sa, (cause, reason), farewell);
            }
            Step::Rekeyed(successor, answer) => {
                let spi = successor.local_spi;
                self.succeed(now, &mut sa, successor);
                self.answer(now, sa, answer);
                // It may go on with what it inherited.
                self.with_sa(now, spi, |_, _| ());
            }
            Step::Gone(cause, reason) => self.close(now, sa, (cause, reason), None),
            Step::Reauthenticate => {
                self.reauthenticate(now, &sa);
                self.keep(now, sa);
            }
            Step::Opened => self.opened(now, sa),
            Step::OpenedElsewhere(gateway) => self.opened_elsewhere(now, sa, &gateway),
            Step::SentElsewhere(answer, gateway) => {
                self.sent_elsewhere(now, sa, answer, &gateway);
            }
            Step::Unopened(reason) => self.unopened(now, &sa, &reason, true),
            Step::Succeeded(succession) => self.succeeded(now, sa, *succession),
            Step::Conceded(rival) => {
                self.bequeath(now, &mut sa, rival);
                self.keep(now, sa);
                self.with_sa(now, rival, |_, _| ());
            }
        }
    }

    fn answer(&mut self, now: Instant, mut sa: Box<IkeSa>, answer: Answer) {
        if sa.answer(&mut self.core, now, answer) {
            self.keep(now, sa);
        } else {
            self.close(
                now,
                sa,
                (Cause::Failure, "its answer cannot be sealed"),
                None,
            );
        }
    }

    /// IKE_AUTH is complete: the negotiation ends, the IKE SA becomes visible.
    fn establish(&mut self, now: Instant, sa: &mut IkeSa, establishment: Establishment) {
        self.end_negotiation(sa.local_spi);
        sa.announced = true;
        self.enforce_uniqueness(now, sa, establishment.contact);
        sa.note_contact(establishment.contact);
        self.book_established(now, sa);
        // The peer was faster.
        let connection = sa.established().map(|e| e.connection.name.clone());
        let children = self.take_initiation(&connection.unwrap_or_default());
        sa.want_children(&children);
        self.settle_twins(now, sa);
    }

    /// An IKE SA that IKE_AUTH has made becomes visible.
    pub(super) fn book_established(&mut self, now: Instant, sa: &mut IkeSa) {
        self.core.counters.ike_sas_established += 1;
        sa.start_clocks(&mut self.core, now);
        self.book_identity(sa);
        let remote_id = sa
            .established()
            .map(|established| established.remote_id.to_string())
            .unwrap_or_default();
        sa.event(&mut self.core, EventKind::IkeSaEstablished { remote_id });
    }

    /// Adds the IKE SA that takes over from `sa`, or that competes with a successor of our own
    /// making.
    fn succeed(&mut self, now: Instant, sa: &mut IkeSa, successor: Box<IkeSa>) {
        let spi = successor.local_spi;
        self.add_successor(now, successor);
        if sa.is_replaced() {
            self.superseded(now, sa, spi);
        }
    }

    /// Its record goes out first: a member that only gets this one has everything; with that of
    /// its predecessor alone, the children would be lost.
    pub(super) fn add_successor(&mut self, now: Instant, mut successor: Box<IkeSa>) {
        let counters = &mut self.core.counters;
        counters.ike_sas_established += 1;
        match successor.role {
            Role::Initiator => counters.ike_rekeys_initiated += 1,
            Role::Responder => counters.ike_rekeys_answered += 1,
        }
        self.add(&successor);
        successor.start_clocks(&mut self.core, now);
        successor.publish(&mut self.core, now);
        let remote_id = successor
            .established()
            .map(|established| established.remote_id.to_string())
            .unwrap_or_default();
        successor.event(&mut self.core, EventKind::IkeSaEstablished { remote_id });
        self.sas.insert(successor.local_spi, successor);
    }

    /// `sa` has lost its children to a successor and waits to be deleted.
    pub(super) fn superseded(&mut self, now: Instant, sa: &mut IkeSa, successor: [u8; 8]) {
        sa.start_clocks(&mut self.core, now);
        let reason = format!("rekeyed, successor {:016x}", u64::from_be_bytes(successor));
        sa.event(&mut self.core, EventKind::IkeSaClosed { reason });
    }

    /// Books SPIs and identities of an established IKE SA that did not come by IKE_AUTH.
    pub(super) fn add(&mut self, sa: &IkeSa) {
        self.core.ike_spis.insert(sa.local_spi);
        for child in sa.established().iter().flat_map(|e| &e.children) {
            self.core.esp_spis.assign(child.sa.spi_in, sa.local_spi);
        }
        self.book_identity(sa);
    }

    /// Ends an IKE SA that is no longer in the table: children, record, and its last answer, if
    /// there is one.
    pub(super) fn close(
        &mut self,
        now: Instant,
        mut sa: Box<IkeSa>,
        (cause, reason): (Cause, &str),
        farewell: Option<Farewell>,
    ) {
        let again = self.to_make_anew(&sa, cause);
        let heirs = self.unconfirmed_heirs(&sa);
        // RFC 7296 §2.8.2: the peer deletes it in favour of its own successor.
        if let Some(rival) = sa.rival() {
            self.bequeath(now, &mut sa, rival);
        }
        sa.drop_children(&mut self.core, reason);
        let after = if sa.announced {
            self.forget_identity(&sa);
            let reason = reason.to_owned();
            if !sa.is_replaced() {
                sa.event(&mut self.core, EventKind::IkeSaClosed { reason });
            }
            let change = self.last_words(now, &sa, farewell.as_ref());
            Some(self.core.out.delta(sa.slot, change))
        } else {
            self.abandon_negotiation(&sa);
            None
        };
        if let Some(farewell) = &farewell {
            let bytes = farewell.response.bytes.to_vec();
            self.core.out.transmit(farewell.path, bytes, sa.slot, after);
        }
        self.core.iv_floor = self.core.iv_floor.max(sa.iv_position());
        self.let_linger(now, &sa, after, farewell);
        self.release(now, &heirs, cause);
        if let Some(order) = again {
            self.initiate(now, &order);
        }
    }

    /// Moves an IKE SA to another slot. What is said of a negotiation says so again.
    pub(super) fn reslot(&mut self, now: Instant, local_spi: [u8; 8], slot: Slot) {
        self.with_sa(now, local_spi, |sa, _| sa.move_to_slot(slot));
        if let Some(negotiation) = self.negotiations.get(&local_spi).filter(|n| n.open)
            && let Some(sa) = self.sas.get(&local_spi)
        {
            let change = opened(sa, negotiation.key.source, negotiation.deadline);
            self.core.out.delta(slot, change);
        }
    }

    /// It counts no longer as half-open. Its request stays known until it would have timed out, so
    /// that a delayed copy does not open another one.
    pub(super) fn end_negotiation(&mut self, spi: [u8; 8]) {
        if let Some(negotiation) = self.negotiations.get_mut(&spi)
            && std::mem::take(&mut negotiation.open)
        {
            self.half_open.closed(negotiation.key.source);
        }
    }

    /// Its request is not known any more either.
    pub(super) fn forget_negotiation(&mut self, spi: [u8; 8]) {
        if let Some(negotiation) = self.negotiations.remove(&spi) {
            self.by_request.remove(&negotiation.key);
            self.core
                .timers
                .cancel(negotiation.deadline, Timer::HalfOpen(spi));
        }
    }

    fn abandon_negotiation(&mut self, sa: &IkeSa) {
        let Some(negotiation) = self.negotiations.get(&sa.local_spi) else {
            return;
        };
        let peer = negotiation.key.source;
        self.end_negotiation(sa.local_spi);
        self.core.out.delta(
            sa.slot,
            Change::NegotiationClosed {
                peer_cookie: sa.remote_spi,
                local_cookie: sa.local_spi,
                peer,
            },
        );
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.core.timers.pop_due(now) {
            match timer {
                Timer::HalfOpen(spi) => self.half_open_timeout(now, spi),
                Timer::Kernel(spi) => self.at_sa(now, spi, |sa, core| {
                    sa.kernel_timeout(core).unwrap_or(Step::Waiting)
                }),
                Timer::Child(spi) => self.with_child(now, spi, IkeSa::expire_child),
                Timer::RekeyChild(spi) => {
                    self.with_child(now, spi, |sa, _, spi| sa.rekey_child(spi));
                }
                Timer::Opening(spi) => self.opening_overdue(now, spi),
                Timer::Initiation(id) => self.initiation_due(now, id),
                Timer::Sa(spi, Clock::Replaced) if self.has_unconfirmed_heir(spi) => {
                    self.at_sa(now, spi, |sa, core| sa.postpone_closing(core, now));
                }
                Timer::Sa(spi, clock) => {
                    self.at_sa(now, spi, |sa, core| sa.clock_due(core, now, clock));
                }
                Timer::Linger(spi) => self.end_lingering(spi),
            }
        }
    }

    fn half_open_timeout(&mut self, now: Instant, spi: [u8; 8]) {
        let question = self.sas.get(&spi).and_then(|sa| sa.question());
        if let Some(handle) = question {
            self.core.counters.decisions_overdue += 1;
            // The request is authentic and waits: the peer is told, and need not wait on.
            let reason = "no decision in time".to_owned();
            self.decided(now, handle, &Verdict::Refuse { reason });
        } else if self.give_up_half_open(now, spi, "no complete IKE_AUTH in time") {
            self.core.counters.half_open_timeouts += 1;
        }
        self.forget_negotiation(spi);
    }

    /// Somebody has decided whether a peer is let in.
    pub(super) fn decided(&mut self, now: Instant, handle: DecisionHandle, verdict: &Verdict) {
        let Some(mut sa) = self.sas.remove(&handle.local_spi) else {
            self.core.counters.decisions_ignored += 1;
            return;
        };
        match sa.decided(&mut self.core, now, handle, verdict) {
            Some(step) => self.settle(now, sa, step),
            None => {
                self.core.counters.decisions_ignored += 1;
                self.sas.insert(sa.local_spi, sa);
            }
        }
    }

    /// Closes an IKE SA whose IKE_AUTH is not complete; `false` if there is no such one.
    pub(super) fn give_up_half_open(
        &mut self,
        now: Instant,
        spi: [u8; 8],
        reason: &'static str,
    ) -> bool {
        if !self.negotiations.get(&spi).is_some_and(|n| n.open) {
            return false;
        }
        let Some(sa) = self.sas.remove(&spi) else {
            return false;
        };
        let told = reason.to_owned();
        sa.event(&mut self.core, EventKind::ExchangeFailed { reason: told });
        self.close(now, sa, (Cause::Failure, reason), None);
        true
    }

    pub(super) fn import(&mut self, now: Instant, record: IkeSaRecord) {
        self.forget(record.local_spi);
        if let Some(left) = record.closed {
            return self.resume_lingering(now, record, left);
        }
        let mut record = record;
        record.next_iv = record.next_iv.max(self.core.iv_floor);
        let mut sa = IkeSa::import(&self.core.config, now, record);
        self.add(&sa);
        for child in sa.established().iter().flat_map(|e| &e.children) {
            self.core.start_lifetime(child);
        }
        for spi in sa.reserved_esp_spis() {
            self.core.esp_spis.assign(spi, sa.local_spi);
        }
        self.core.ike_spis.extend(sa.reserved_ike_spis());
        sa.resume(&mut self.core, now);
        let spi = sa.local_spi;
        let predecessor = sa.established().and_then(|e| e.predecessor);
        self.sas.insert(spi, Box::new(sa));
        if let Some(predecessor) = predecessor {
            self.unconfirmed.insert(predecessor, spi);
            self.discard_unborn(predecessor);
        }
        self.discard_unborn(spi);
    }

    /// A member may die between the record of a successor and the one that says that its
    /// predecessor has one: nothing of that exchange was answered, or used. The exchange takes
    /// place again, and makes another successor; the children are still the old one's.
    fn discard_unborn(&mut self, predecessor: [u8; 8]) {
        let Some(successor) = self.unconfirmed.get(&predecessor).copied() else {
            return;
        };
        let Some(old) = self.sas.get(&predecessor) else {
            return;
        };
        self.unconfirmed.remove(&predecessor);
        if old.knows_successor(successor) {
            return;
        }
        let children: Vec<_> = old.child_spis().collect();
        let Some(slot) = self.sas.get(&successor).map(|sa| sa.slot) else {
            return;
        };
        self.forget(successor);
        for spi in children {
            self.core.esp_spis.assign(spi, predecessor);
        }
        if let Some(old) = self.sas.get(&predecessor) {
            for child in old.established().iter().flat_map(|e| &e.children) {
                self.core.start_lifetime(child);
            }
            // What an offer has reserved may bear the discarded one's SPI.
            self.core.ike_spis.extend(old.reserved_ike_spis());
        }
        let local_spi = successor;
        self.core.out.delta(slot, Change::Removed { local_spi });
    }

    pub(super) fn forget(&mut self, spi: [u8; 8]) {
        self.forget_lingering(spi);
        let Some(mut sa) = self.sas.remove(&spi) else {
            return;
        };
        self.end_negotiation(spi);
        self.forget_identity(&sa);
        self.core.iv_floor = self.core.iv_floor.max(sa.iv_position());
        sa.release_children(&mut self.core);
        self.core.ike_spis.remove(&spi);
    }
}

/// A negotiation of a peer's that ends at `expires` unless IKE_AUTH is complete.
pub(super) fn opened(sa: &IkeSa, peer: IpAddr, expires: Instant) -> Change {
    Change::NegotiationOpened {
        peer_cookie: sa.remote_spi,
        local_cookie: sa.local_spi,
        peer,
        expires,
    }
}
