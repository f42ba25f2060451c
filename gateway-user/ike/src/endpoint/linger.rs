//! IKE SAs that are over, whose last answer may have been lost (RFC 7296 §2.1: a responder "MUST
//! remember each response" while its request may be retransmitted).
//!
//! Of one that was established the other members have a tombstone: its record, without keys and
//! children, with the answer and the time for which it is given again. Whoever takes the slot over
//! goes on with it, and says at the end that it is gone.

use std::time::Duration;

use gateway_common::time::Instant;

use super::timers::Timer;
use super::{Endpoint, Lingering};
use crate::output::{Change, DeltaId};
use crate::record::IkeSaRecord;
use crate::sa::{Farewell, IkeSa};

impl Endpoint {
    /// What the other members have to know of the end of an established IKE SA.
    pub(super) fn last_words(
        &self,
        now: Instant,
        sa: &IkeSa,
        farewell: Option<&Farewell>,
    ) -> Change {
        let linger = self.core.config.limits.linger;
        let local_spi = sa.local_spi;
        let tombstone = farewell
            .filter(|_| self.core.config.limits.tombstones > 0)
            .and_then(|farewell| {
                let record = sa.export(now)?;
                Some(record.into_tombstone(farewell.response.clone(), linger))
            });
        match tombstone {
            Some(record) => Change::Upsert(Box::new(record)),
            None => Change::Removed { local_spi },
        }
    }

    /// Keeps the last answer of an IKE SA that is not in the table any more.
    pub(super) fn let_linger(
        &mut self,
        now: Instant,
        sa: &IkeSa,
        after: Option<DeltaId>,
        farewell: Option<Farewell>,
    ) {
        let limits = &self.core.config.limits;
        let spi = sa.local_spi;
        // Who never authenticated is not given more of our memory than the half-open may have.
        let room = if sa.announced {
            limits.tombstones > 0
        } else {
            let others = self.lingering.values().filter(|l| !l.replicated);
            others.count() < limits.half_open_limit
        };
        let Some(Farewell { response, .. }) = farewell.filter(|_| room) else {
            self.forget_negotiation(spi);
            self.core.ike_spis.remove(&spi);
            return;
        };
        let deadline = now + limits.linger;
        self.insert_lingering(
            spi,
            Lingering {
                response,
                after,
                remote_spi: sa.remote_spi,
                slot: sa.slot,
                deadline,
                replicated: sa.announced,
            },
        );
        self.bury_the_oldest();
    }

    /// Goes on with a tombstone.
    pub(super) fn resume_lingering(&mut self, now: Instant, record: IkeSaRecord, left: Duration) {
        let spi = record.local_spi;
        let Some(response) = record.last_response else {
            return;
        };
        self.core.ike_spis.insert(spi);
        self.insert_lingering(
            spi,
            Lingering {
                response,
                after: None,
                remote_spi: record.remote_spi,
                slot: record.slot,
                // An age that another member measured does not make it stay longer.
                deadline: now + left.min(self.core.config.limits.linger),
                replicated: true,
            },
        );
        self.bury_the_oldest();
    }

    fn insert_lingering(&mut self, spi: [u8; 8], lingering: Lingering) {
        let timer = Timer::Linger(spi);
        self.core.timers.set(lingering.deadline, timer);
        if let Some(before) = self.lingering.insert(spi, lingering) {
            self.core.timers.cancel(before.deadline, timer);
        }
    }

    /// Peers that close IKE SAs one after the other cost bounded memory.
    fn bury_the_oldest(&mut self) {
        let limit = self.core.config.limits.tombstones;
        let tombstones = || self.lingering.iter().filter(|(_, l)| l.replicated);
        if tombstones().count() <= limit {
            return;
        }
        let oldest = tombstones().min_by_key(|(_, l)| l.deadline);
        if let Some(spi) = oldest.map(|(spi, _)| *spi) {
            self.end_lingering(spi);
        }
    }

    /// Its request comes no more, or there is no room.
    pub(super) fn end_lingering(&mut self, spi: [u8; 8]) {
        let Some(lingering) = self.drop_lingering(spi) else {
            return;
        };
        self.core.ike_spis.remove(&spi);
        if lingering.replicated {
            let change = Change::Removed { local_spi: spi };
            self.core.out.delta(lingering.slot, change);
        }
    }

    /// Another member goes on with it.
    pub(super) fn forget_lingering(&mut self, spi: [u8; 8]) {
        if self.drop_lingering(spi).is_some() {
            self.core.ike_spis.remove(&spi);
        }
    }

    fn drop_lingering(&mut self, spi: [u8; 8]) -> Option<Lingering> {
        let lingering = self.lingering.remove(&spi)?;
        let timer = Timer::Linger(spi);
        self.core.timers.cancel(lingering.deadline, timer);
        Some(lingering)
    }

    /// Our SPIs of the IKE SAs whose tombstones are here.
    pub fn tombstones(&self) -> impl Iterator<Item = [u8; 8]> + '_ {
        let replicated = self.lingering.iter().filter(|(_, l)| l.replicated);
        replicated.map(|(spi, _)| *spi)
    }
}
