//! What becomes of IKE SAs: establishment, succession, end, timers.

use gateway_common::time::Instant;

use super::timers::Timer;
use super::{Endpoint, Lingering};
use crate::identity::Identity;
use crate::output::{Change, EventKind};
use crate::record::IkeSaRecord;
use crate::sa::{Answer, Establishment, Farewell, IkeSa, Step};

impl Endpoint {
    /// Does the endpoint's part of a step, and puts the IKE SA back unless it is over.
    pub(super) fn settle(&mut self, now: Instant, mut sa: Box<IkeSa>, step: Step) {
        match step {
            Step::Waiting | Step::Dropped(_) => self.keep(sa),
            Step::Answer(answer) => self.answer(now, sa, answer),
            Step::Establish(establishment, answer) => {
                self.establish(now, &mut sa, establishment);
                self.answer(now, sa, answer);
            }
            Step::Close(answer, reason) => {
                let farewell = sa.farewell(&mut self.core, answer);
                self.close(now, sa, reason, farewell);
            }
            Step::Rekeyed(successor, answer) => {
                self.succeed(now, &sa, successor);
                self.answer(now, sa, answer);
            }
        }
    }

    fn answer(&mut self, now: Instant, mut sa: Box<IkeSa>, answer: Answer) {
        if sa.answer(&mut self.core, now, answer) {
            self.keep(sa);
        } else {
            self.close(now, sa, "its answer cannot be sealed", None);
        }
    }

    /// IKE_AUTH is complete: the negotiation ends, the IKE SA becomes visible.
    fn establish(&mut self, now: Instant, sa: &mut IkeSa, establishment: Establishment) {
        self.end_negotiation(sa.local_spi);
        sa.announced = true;
        self.core.counters.ike_sas_established += 1;
        let Some(pair) = identity_pair(sa) else {
            return;
        };
        if establishment.initial_contact {
            // RFC 7296 §2.4: the recipient MAY delete all others with the same identities without
            // waiting for a timeout.
            let others = self.by_identity.get(&pair).cloned().unwrap_or_default();
            for other in others {
                if let Some(other) = self.sas.remove(&other) {
                    self.close(now, other, "the peer made initial contact again", None);
                }
            }
        }
        self.by_identity
            .entry(pair)
            .or_default()
            .insert(sa.local_spi);
        let remote_id = sa
            .established()
            .map(|established| established.remote_id.to_string())
            .unwrap_or_default();
        sa.event(&mut self.core, EventKind::IkeSaEstablished { remote_id });
    }

    /// Adds the IKE SA that takes over from `sa`. Its record goes out first: a member that only
    /// gets this one has everything; with the answer's record alone, the children would be lost.
    fn succeed(&mut self, now: Instant, sa: &IkeSa, successor: Box<IkeSa>) {
        self.core.counters.ike_sas_established += 1;
        self.add(&successor);
        if let Some(record) = successor.export(now) {
            self.core
                .out
                .delta(successor.slot, Change::Upsert(Box::new(record)));
        }
        let reason = format!(
            "rekeyed, successor {:016x}",
            u64::from_be_bytes(successor.local_spi)
        );
        sa.event(&mut self.core, EventKind::IkeSaClosed { reason });
        let remote_id = successor
            .established()
            .map(|established| established.remote_id.to_string())
            .unwrap_or_default();
        successor.event(&mut self.core, EventKind::IkeSaEstablished { remote_id });
        self.keep(successor);
    }

    /// Books SPIs and identities of an established IKE SA that did not come by IKE_AUTH.
    fn add(&mut self, sa: &IkeSa) {
        self.core.ike_spis.insert(sa.local_spi);
        for child in sa.established().iter().flat_map(|e| &e.children) {
            self.core.esp_spis.assign(child.sa.spi_in, sa.local_spi);
        }
        if let Some(pair) = identity_pair(sa) {
            self.by_identity
                .entry(pair)
                .or_default()
                .insert(sa.local_spi);
        }
    }

    /// Ends an IKE SA that is no longer in the table: children, record, and its last answer, if
    /// there is one.
    fn close(
        &mut self,
        now: Instant,
        mut sa: Box<IkeSa>,
        reason: &str,
        farewell: Option<Farewell>,
    ) {
        sa.drop_children(&mut self.core, reason);
        let spi = sa.local_spi;
        let after = if sa.announced {
            self.forget_identity(&sa);
            let reason = reason.to_owned();
            if !sa.is_replaced() {
                sa.event(&mut self.core, EventKind::IkeSaClosed { reason });
            }
            let change = Change::Removed { local_spi: spi };
            Some(self.core.out.delta(sa.slot, change))
        } else {
            self.abandon_negotiation(&sa);
            None
        };
        if let Some(farewell) = &farewell {
            let bytes = farewell.response.bytes.to_vec();
            self.core.out.transmit(farewell.path, bytes, sa.slot, after);
        }
        // Who never authenticated is not given more of our memory than the half-open may have.
        let room = sa.announced || self.lingering.len() < self.core.config.limits.half_open_limit;
        let Some(Farewell { response, .. }) = farewell.filter(|_| room) else {
            self.forget_negotiation(spi);
            self.core.ike_spis.remove(&spi);
            return;
        };
        let deadline = now + self.core.config.limits.linger;
        self.core.timers.set(deadline, Timer::Linger(spi));
        self.lingering.insert(
            spi,
            Lingering {
                response,
                after,
                remote_spi: sa.remote_spi,
                slot: sa.slot,
            },
        );
    }

    fn forget_identity(&mut self, sa: &IkeSa) {
        if let Some(pair) = identity_pair(sa)
            && let Some(spis) = self.by_identity.get_mut(&pair)
        {
            spis.remove(&sa.local_spi);
            if spis.is_empty() {
                self.by_identity.remove(&pair);
            }
        }
    }

    /// It counts no longer as half-open. Its request stays known until it would have timed out, so
    /// that a delayed copy does not open another one.
    fn end_negotiation(&mut self, spi: [u8; 8]) {
        if let Some(negotiation) = self.negotiations.get_mut(&spi)
            && std::mem::take(&mut negotiation.open)
        {
            self.half_open.closed(negotiation.key.source);
        }
    }

    /// Its request is not known any more either.
    fn forget_negotiation(&mut self, spi: [u8; 8]) {
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
                initiator_cookie: sa.remote_spi,
                responder_cookie: sa.local_spi,
                peer,
            },
        );
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.core.timers.pop_due(now) {
            match timer {
                Timer::HalfOpen(spi) => self.half_open_timeout(now, spi),
                Timer::Kernel(spi) => {
                    if let Some(mut sa) = self.sas.remove(&spi) {
                        match sa.kernel_timeout(&mut self.core) {
                            Some(step) => self.settle(now, sa, step),
                            None => self.keep(sa),
                        }
                    }
                }
                Timer::Child(spi) => self.child_timeout(now, spi),
                Timer::Linger(spi) => {
                    self.lingering.remove(&spi);
                    self.core.ike_spis.remove(&spi);
                }
            }
        }
    }

    fn half_open_timeout(&mut self, now: Instant, spi: [u8; 8]) {
        let Some(negotiation) = self.negotiations.get(&spi) else {
            return;
        };
        if negotiation.open
            && let Some(sa) = self.sas.remove(&spi)
        {
            self.core.counters.half_open_timeouts += 1;
            let reason = "no complete IKE_AUTH in time".to_owned();
            sa.event(&mut self.core, EventKind::ExchangeFailed { reason });
            self.close(now, sa, "no complete IKE_AUTH in time", None);
        }
        self.forget_negotiation(spi);
    }

    fn child_timeout(&mut self, now: Instant, spi: [u8; 4]) {
        let owner = self.core.esp_spis.owner(&spi);
        let Some(mut sa) = owner.and_then(|owner| self.sas.remove(&owner)) else {
            return;
        };
        if sa.expire_child(&mut self.core, spi)
            && let Some(record) = sa.export(now)
        {
            self.core
                .out
                .delta(sa.slot, Change::Upsert(Box::new(record)));
        }
        self.keep(sa);
    }

    pub(super) fn import(&mut self, now: Instant, record: IkeSaRecord) {
        self.forget(record.local_spi);
        let sa = IkeSa::import(&self.core.config, now, record);
        self.add(&sa);
        for child in sa.established().iter().flat_map(|e| &e.children) {
            self.core.start_lifetime(child);
        }
        self.keep(Box::new(sa));
    }

    pub(super) fn forget(&mut self, spi: [u8; 8]) {
        let Some(mut sa) = self.sas.remove(&spi) else {
            return;
        };
        self.end_negotiation(spi);
        self.forget_identity(&sa);
        sa.release_children(&mut self.core);
        self.core.ike_spis.remove(&spi);
    }
}

/// A key for a pair of identities under which equal ones are equal: names compare without regard
/// to case.
fn identity_pair(sa: &IkeSa) -> Option<Box<[u8]>> {
    let established = sa.established()?;
    let mut key = Vec::new();
    for identity in [&established.local_id, &established.remote_id] {
        let (kind, mut data) = identity.to_payload();
        if matches!(identity, Identity::Fqdn(_) | Identity::Rfc822(_)) {
            data.make_ascii_lowercase();
        }
        key.push(kind.0);
        key.extend_from_slice(&data.len().to_be_bytes());
        key.extend_from_slice(&data);
    }
    Some(key.into())
}
