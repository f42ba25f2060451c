//! IKE SAs that other members own, as their records say.

use gateway_common::time::Instant;
use gateway_ike::endpoint::{ChildStatus, SaStatus};
use gateway_ike::output::{ChildId, ChildSa};
use gateway_ike::proposal::EspProposal;
use gateway_ike::record::{ChildRecord, IkeSaRecord};

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

    pub(super) fn has_child(&self, id: ChildId) -> bool {
        self.children().any(|child| child.id() == id)
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
