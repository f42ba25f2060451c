//! IKE SAs that other members own, as their records say.

use std::collections::BTreeMap;

use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use gateway_ike::endpoint::{ChildStatus, SaStatus};
use gateway_ike::output::{ChildId, ChildSa};
use gateway_ike::proposal::EspProposal;
use gateway_ike::record::{ChildRecord, IkeSaRecord};

/// All of them, and who of them claims which CHILD_SA: when an IKE SA is rekeyed, its successor
/// claims the children before the old one lets go of them (RFC 7296 §2.18).
#[derive(Debug, Default)]
pub(super) struct Replicas {
    by_spi: BTreeMap<(MemberId, [u8; 8]), Replica>,
    claims: Claims,
}

impl Replicas {
    /// `owner`'s IKE SA is new or changed. Answers the children that nobody claims any more.
    pub(super) fn upsert(&mut self, owner: MemberId, replica: Replica) -> Vec<ChildId> {
        self.claims.add(replica.children().map(ChildSa::id));
        let key = (owner, replica.record.local_spi);
        let before = self.by_spi.insert(key, replica);
        self.claims
            .release(before.iter().flat_map(Replica::children).map(ChildSa::id))
    }

    /// `owner`'s IKE SA is gone. Answers the children that nobody claims any more.
    pub(super) fn remove(&mut self, owner: MemberId, local_spi: [u8; 8]) -> Vec<ChildId> {
        let before = self.by_spi.remove(&(owner, local_spi));
        self.claims
            .release(before.iter().flat_map(Replica::children).map(ChildSa::id))
    }

    /// All, with their owners.
    pub(super) fn iter(&self) -> impl Iterator<Item = (MemberId, &Replica)> {
        self.by_spi
            .iter()
            .map(|((owner, _), replica)| (*owner, replica))
    }
}

/// How many IKE SAs have a CHILD_SA in their record.
#[derive(Debug, Default)]
struct Claims(BTreeMap<ChildId, usize>);

impl Claims {
    fn add(&mut self, children: impl Iterator<Item = ChildId>) {
        for id in children {
            *self.0.entry(id).or_default() += 1;
        }
    }

    /// Answers those that nobody claims any more.
    fn release(&mut self, children: impl Iterator<Item = ChildId>) -> Vec<ChildId> {
        let mut unclaimed = Vec::new();
        for id in children {
            match self.0.get_mut(&id) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => {
                    self.0.remove(&id);
                    unclaimed.push(id);
                }
                None => {}
            }
        }
        unclaimed
    }
}

/// A record, and when it came.
#[derive(Debug)]
pub(super) struct Replica {
    record: IkeSaRecord,
    received: Instant,
}

impl Replica {
    pub(super) fn new(record: IkeSaRecord, received: Instant) -> Self {
        Self { record, received }
    }

    pub(super) fn children(&self) -> impl Iterator<Item = &ChildSa> {
        self.record.children.iter().map(|child| &child.sa)
    }

    pub(super) fn status(&self) -> SaStatus {
        let record = &self.record;
        SaStatus {
            connection: record.connection.clone(),
            local_spi: record.local_spi,
            remote_spi: record.remote_spi,
            slot: record.slot,
            local: record.path.local,
            remote: record.path.remote,
            local_id: record.local_id.to_string(),
            remote_id: record.remote_id.to_string(),
            proposal: record.proposal.iana(),
            established_at: self.received.before(record.age),
            nat: record.nat.any(),
            children: record
                .children
                .iter()
                .map(|child| self.child_status(child))
                .collect(),
        }
    }

    fn child_status(&self, child: &ChildRecord) -> ChildStatus {
        let sa = &child.sa;
        ChildStatus {
            name: sa.name.clone(),
            spi_in: sa.spi_in,
            spi_out: sa.spi_out,
            proposal: EspProposal {
                encryption: sa.encryption,
                ke: None,
                esn: sa.esn,
            }
            .iana(),
            local_ts: sa.local_ts.clone(),
            remote_ts: sa.remote_ts.clone(),
            encap: sa.encap.is_some(),
            installed_at: self.received.before(child.age),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_a_successor_claims_outlives_the_rekeyed_ike_sa() {
        let child = ChildId {
            spi_in: [0, 0, 1, 1],
            local: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        let mut claims = Claims::default();
        claims.add([child].into_iter());
        claims.add([child].into_iter());
        assert!(claims.release([child].into_iter()).is_empty());
        assert_eq!(claims.release([child].into_iter()), [child]);
        assert!(claims.release([child].into_iter()).is_empty());
    }
}
