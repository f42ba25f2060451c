//! Half-open negotiations of slots that another member gets: it goes on with them. What a peer has
//! begun is no SA yet, so nobody mirrors it; but nobody else could complete it, and a peer asks for
//! minutes before it begins anew.

use gateway_cluster::secret::Secret;
use gateway_cluster::slot_set::SlotSet;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::endpoint::Command;
use gateway_ike::record::NegotiationRecord;

use crate::node::Node;
use crate::records::Spi;

/// First octet of what a member says about a negotiation that another one is to go on with.
pub(crate) const NEGOTIATION: u8 = 0x82;
/// Negotiations that may wait for their slots; what comes beyond is given up.
const MAX_WAITING: usize = 4096;

/// Negotiations of other members whose slots are not served here yet.
#[derive(Debug, Default)]
pub(crate) struct HandedOver(Vec<(Instant, NegotiationRecord)>);

impl Node {
    /// What peers have begun here in slots that are `lost`. Those of `own` that this member keeps take
    /// it in; without any, their new owners go on with it.
    pub(crate) fn keep_negotiations(&mut self, now: Instant, lost: &SlotSet, own: &SlotSet) {
        let negotiations = self.endpoint.negotiations();
        let stray = negotiations.filter(|(_, slot)| lost.contains(*slot));
        let stray: Vec<(Spi, Slot)> = stray.collect();
        if own.is_empty() {
            for (local_spi, slot) in stray {
                self.hand_over(now, local_spi, slot);
            }
            return;
        }
        let places: Vec<Slot> = own.iter().collect();
        for ((local_spi, _), slot) in stray.into_iter().zip(places.into_iter().cycle()) {
            let reslot = Command::Reslot { local_spi, slot };
            self.endpoint.handle_command(now, reslot);
        }
    }

    fn hand_over(&mut self, now: Instant, local_spi: Spi, slot: Slot) {
        let owner = self.view().slots.owner(slot);
        let Some(owner) = owner.filter(|owner| self.cluster.is_up(*owner)) else {
            return;
        };
        if let Some(record) = self.endpoint.hand_over(now, local_spi) {
            let record = record.encode();
            let octets = [&[NEGOTIATION], record.expose()].concat();
            self.cluster.tell(owner, Secret::new(octets));
        }
    }

    /// Another member's negotiation is this one's to go on with, as soon as its slot is.
    pub(crate) fn take_negotiation(&mut self, now: Instant, octets: &[u8]) {
        // What another release has written is nobody's business.
        let Ok(record) = NegotiationRecord::decode(octets) else {
            return;
        };
        let waiting = &mut self.handed_over.0;
        if waiting.len() < MAX_WAITING {
            waiting.push((now + record.remaining, record));
        }
        self.take_over_negotiations(now);
    }

    /// Goes on with those whose slots are served here by now: the slots of a new view are when this
    /// member is active and level, in either order.
    pub(crate) fn take_over_negotiations(&mut self, now: Instant) {
        if self.handed_over.0.is_empty() {
            return;
        }
        for (until, record) in std::mem::take(&mut self.handed_over.0) {
            if until <= now {
                continue;
            }
            if self.serves(now, record.slot) {
                let remaining = until - now;
                let age = record.age + record.remaining.saturating_sub(remaining);
                let record = NegotiationRecord {
                    age,
                    remaining,
                    ..record
                };
                self.endpoint.take_over(now, record);
            } else {
                self.handed_over.0.push((until, record));
            }
        }
    }
}
