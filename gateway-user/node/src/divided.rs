//! Two members that do not find each other and both go on (DESIGN §6, split brain): how they treat the
//! IKE SAs that both have, and what they tell each other when they meet again.
//!
//! Only one state of each IKE SA goes on: that of the member whose view is the next one's basis. The other
//! one reports how it has left those that it has changed, so that Message IDs go on behind what either
//! has used, and CHILD_SAs that only one of the two has are replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_cluster::secret::Secret;
use gateway_cluster::view::{Epoch, View};
use gateway_common::time::Instant;
use gateway_ike::endpoint::Command;
use gateway_ike::record::IkeSaRecord;

use crate::node::{Node, owned};
use crate::records::Spi;
use crate::walk::Care;

/// First octet of a report; no order has it.
pub(crate) const REPORT: u8 = 0x81;

/// Answers to what the other half has asked may come for so long after the halves have met.
const ECHO: Duration = Duration::from_secs(10);

/// What a member knows of a division of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Divided {
    /// The first view without a majority, until the halves have met.
    since: Option<Epoch>,
    /// Records of IKE SAs that this member has changed since then, while its view did not prevail.
    left: Vec<(Spi, Secret)>,
    /// What another member has reported, until the IKE SA has its turn.
    reports: BTreeMap<Spi, Secret>,
    /// When the last echo is over.
    until: Option<Instant>,
}

impl Divided {
    /// When [`Node::end_division`] has something to do.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.until
    }
}

impl Node {
    /// `view` is about to be installed; `half`: no majority stands behind it.
    pub(crate) fn divide(&mut self, now: Instant, view: &View, half: bool) {
        let inside = view.members.contains_key(&self.local());
        let Some(since) = self.divided.since else {
            if half && inside {
                self.divided.since = Some(view.epoch);
                self.divided.until = None;
                self.endpoint.handle_command(now, Command::SetDivided(true));
            }
            return;
        };
        if inside {
            return;
        }
        let held = self.cluster.ownership().sas();
        let own = held.filter(|held| held.written.epoch >= since);
        self.divided.left = own
            .map(|held| (held.sa.local_spi, held.sa.record.clone()))
            .collect();
    }

    /// The member serves its slots in a view that a majority stands behind. Whether the cluster was divided
    /// before: then this sees to all that it serves.
    pub(crate) fn meet_again(&mut self, now: Instant) -> bool {
        if self.divided.since.take().is_none() {
            return false;
        }
        self.divided.until = Some(now + ECHO);
        for (spi, record) in std::mem::take(&mut self.divided.left) {
            self.report(spi, &record);
        }
        // Numbers have jumped, and what the other half has told peers shows when they are asked.
        let own = owned(&self.cluster);
        self.walk.add_later(now, own.iter(), Care::Rekey);
        true
    }

    /// Tells the owner of an IKE SA how this member has left it.
    fn report(&mut self, spi: Spi, record: &Secret) {
        let Some(slot) = self.index.slot(spi) else {
            return;
        };
        match self.view().slots.owner(slot) {
            Some(owner) if owner != self.local() => {
                let mut octets = Vec::with_capacity(1 + record.len());
                octets.push(REPORT);
                octets.extend_from_slice(record.expose());
                self.cluster.tell(owner, Secret::new(octets));
            }
            _ => drop(self.divided.reports.insert(spi, record.clone())),
        }
    }

    /// Another member reports how it has left an IKE SA.
    pub(crate) fn take_report(&mut self, now: Instant, octets: &[u8]) {
        let Ok(record) = IkeSaRecord::decode(octets) else {
            self.counters.unreadable_records += 1;
            return;
        };
        let spi = record.local_spi;
        if let Some(slot) = self.index.slot(spi).filter(|slot| self.cluster.owns(*slot)) {
            self.divided.reports.insert(spi, Secret::from(octets));
            self.walk.add_later(now, std::iter::once(slot), Care::Rekey);
        }
    }

    /// An IKE SA that is awake is brought in line with what another member has reported of it.
    pub(crate) fn reconcile(&mut self, now: Instant, spi: Spi) {
        let report = self.divided.reports.remove(&spi);
        let record = report.and_then(|octets| IkeSaRecord::decode(octets.expose()).ok());
        if let Some(record) = record {
            self.counters.reconciled += 1;
            self.endpoint
                .handle_command(now, Command::Reconcile(Box::new(record)));
            self.collect(now);
        }
    }

    /// Ends what a division has left behind.
    pub(crate) fn end_division(&mut self, now: Instant) {
        if self.divided.until.take_if(|until| *until <= now).is_some() {
            self.divided.reports.clear();
            self.endpoint
                .handle_command(now, Command::SetDivided(false));
        }
    }
}
