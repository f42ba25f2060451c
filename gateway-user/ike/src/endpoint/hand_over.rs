//! Half-open IKE SAs that another member goes on with.

use gateway_common::time::Instant;

use super::{Endpoint, RequestKey};
use crate::output::Change;
use crate::record::NegotiationRecord;
use crate::sa::IkeSa;

impl Endpoint {
    /// Gives up a half-open IKE SA that a peer has begun, for another member to go on with. `None` if
    /// there is no such one, or if there was more than IKE_SA_INIT; then nothing has changed.
    pub fn hand_over(&mut self, now: Instant, local_spi: [u8; 8]) -> Option<NegotiationRecord> {
        let negotiation = self.negotiations.get(&local_spi).filter(|n| n.open)?;
        let (peer, deadline) = (negotiation.key.source, negotiation.deadline);
        let record = self
            .sas
            .get(&local_spi)?
            .export_negotiation(now, deadline)?;
        self.forget(local_spi);
        self.forget_negotiation(local_spi);
        self.core.out.delta(
            record.slot,
            Change::NegotiationClosed {
                peer_cookie: record.remote_spi,
                local_cookie: local_spi,
                peer,
            },
        );
        self.core.counters.negotiations_handed_over += 1;
        Some(record)
    }

    /// Goes on with a half-open IKE SA that another member has handed over. `false` if that is
    /// impossible: the record is not sound, or the IKE SA is known here. Its sender has admitted the
    /// peer, so the limits of half-open IKE SAs are not asked again.
    pub fn take_over(&mut self, now: Instant, record: NegotiationRecord) -> bool {
        let local_spi = record.local_spi;
        let key = RequestKey {
            source: record.path.remote.ip(),
            initiator_spi: record.remote_spi,
            digest: self.core.crypto.sha256(&[&record.request]),
        };
        let known = self.core.ike_spis.contains(&local_spi) || self.by_request.contains_key(&key);
        let deadline = now
            + record
                .remaining
                .min(self.core.config.limits.half_open_timeout);
        let sa = IkeSa::import_negotiation(&self.core.config, now, record);
        let (Some(sa), false) = (sa, known) else {
            return false;
        };
        self.add_half_open(key, deadline, sa);
        self.core.counters.negotiations_taken_over += 1;
        true
    }
}
