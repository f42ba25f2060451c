//! What the faces show of a member.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_cluster::ownership::Held;
use gateway_common::{member::MemberId, time::Instant};
use gateway_ike::endpoint::{ChildStatus, SaStatus};
use gateway_ike::proposal::{AdditionalKes, EspProposal};
use gateway_ike::record::{ChildRecord, IkeSaRecord, Role};

use crate::node::Node;
use crate::records::ConnectionCount;

/// Counts since the start, of what the cores do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams of other members' slots that were relayed to them.
    pub relayed_out: u64,
    /// Datagrams that another member relayed and that were processed here.
    pub relayed_in: u64,
    /// Datagrams for nobody who could be reached.
    pub not_ours_dropped: u64,
    /// IKE messages that were ready when this member's right to transmit was over.
    pub without_lease_dropped: u64,
    /// Repeated IKE messages of slots that this member took over, while another one did not know yet
    /// what they are about.
    pub not_shared_dropped: u64,
    /// IKE SAs that were taken from their records.
    pub woken: u64,
    /// CHILD_SAs that a takeover made this member rekey.
    pub rekeyed_after_takeover: u64,
    /// Records that this release cannot read.
    pub unreadable_records: u64,
    /// IKE SAs brought in line with what another member had done with them in a divided cluster.
    pub reconciled: u64,
}

/// A member's numbers.
#[derive(Clone, Debug)]
pub struct Status {
    /// Of the cluster core.
    pub cluster: gateway_cluster::status::Status,
    /// What neither core counts.
    pub counters: Counters,
    /// Half-open IKE SAs of this member.
    pub half_open: usize,
    /// IKE SAs of the cluster whose records are here, this member's included.
    pub ike_sas: usize,
    /// Those that are over, of which the last answer is kept.
    pub tombstones: usize,
    /// Those of this member that the engine holds.
    pub awake: usize,
    /// Octets of all records.
    pub record_octets: usize,
    /// Slots that were taken over and whose IKE SAs have not all been looked after yet.
    pub walk_left: usize,
    /// IKE messages that wait for acknowledgements.
    pub held: usize,
}

impl Node {
    /// The member's numbers.
    pub fn status(&self) -> Status {
        Status {
            cluster: self.cluster.status(),
            counters: self.counters,
            half_open: self.endpoint.half_open(),
            ike_sas: self.index.len(),
            tombstones: self.index.tombstones(),
            awake: self
                .awake
                .values()
                .map(std::collections::BTreeSet::len)
                .sum(),
            record_octets: self.cluster.ownership().record_octets(),
            walk_left: self.walk.left(),
            held: self.held.len(),
        }
    }

    /// How many live IKE SAs this member owns, and how many CHILD_SAs they have. Counted as they come
    /// and go: what it costs does not depend on how many there are.
    pub fn owned(&self) -> (usize, usize) {
        let slots = &self.view().slots;
        self.index
            .count_in(|slot| slots.owner(slot) == Some(self.local()))
    }

    /// How many live IKE SAs and CHILD_SAs of each connection the cluster has; at the cost of
    /// [`Node::owned`].
    pub fn by_connection(&self) -> BTreeMap<&str, ConnectionCount> {
        self.index.by_connection()
    }

    /// What the engine counted.
    pub fn engine_counters(&self) -> &gateway_ike::endpoint::Counters {
        self.endpoint.counters()
    }

    /// The record of the IKE SA with our SPI `local_spi`, as of `now`; `None` if it is not known or
    /// cannot be read.
    pub fn record(&self, now: Instant, local_spi: [u8; 8]) -> Option<IkeSaRecord> {
        let held = self.cluster.ownership().sa(local_spi)?;
        self.index.open(now, held).ok()
    }

    /// One IKE SA, by our SPI, as [`Node::sas`] shows it.
    pub fn sa(&self, now: Instant, local_spi: [u8; 8]) -> Option<(Option<MemberId>, SaStatus)> {
        let held = self.cluster.ownership().sa(local_spi)?;
        let owner = self.view().slots.owner(held.slot);
        let awake = self.endpoint.sa(local_spi);
        let sealed = || Some(sa_status(&self.index.open(now, held).ok()?, now));
        Some((owner, awake.or_else(sealed)?))
    }

    /// The cluster core, for what only it can show.
    pub const fn cluster(&self) -> &gateway_cluster::Cluster {
        &self.cluster
    }
}

impl Node {
    /// The SPIs of ours above `after` of the cluster's live IKE SAs, in that order, each with its owner
    /// and its connection: what can be known without opening a record.
    pub fn spis_after(
        &self,
        after: Option<[u8; 8]>,
    ) -> impl Iterator<Item = ([u8; 8], Option<MemberId>, &str)> {
        let slots = &self.view().slots;
        let held = self.cluster.ownership().sas_after(after);
        held.filter_map(|held| {
            let spi = held.sa.local_spi;
            Some((spi, slots.owner(held.slot), self.index.connection(spi)?))
        })
    }

    /// The IKE SA with our SPI `local_spi`.
    pub fn shown_sa(
        &self,
        now: Instant,
        local_spi: [u8; 8],
    ) -> Option<(Option<MemberId>, SaStatus)> {
        self.shown(now, self.cluster.ownership().sa(local_spi)?)
    }

    pub(crate) fn shown(&self, now: Instant, held: &Held) -> Option<(Option<MemberId>, SaStatus)> {
        let spi = held.sa.local_spi;
        if self.index.is_closed(spi) {
            return None;
        }
        let owner = self.view().slots.owner(held.slot);
        let status = match self.endpoint.sa(spi) {
            Some(status) => status,
            None => sa_status(&self.index.open(now, held).ok()?, now),
        };
        Some((owner, status))
    }
}

fn sa_status(record: &IkeSaRecord, now: Instant) -> SaStatus {
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
        established_at: now.before(record.age),
        nat: record.nat.any(),
        initiator: record.role == Role::Initiator,
        rekey_at: due(now, record.age, record.rekey_after),
        reauth_at: due(now, record.age, record.reauth_after),
        children: record
            .children
            .iter()
            .map(|child| child_status(child, now))
            .collect(),
    }
}

fn due(now: Instant, age: Duration, after: Option<Duration>) -> Option<Instant> {
    after.map(|after| now + after.saturating_sub(age))
}

fn child_status(child: &ChildRecord, now: Instant) -> ChildStatus {
    let sa = &child.sa;
    ChildStatus {
        name: sa.name.clone(),
        spi_in: sa.spi_in,
        spi_out: sa.spi_out,
        proposal: EspProposal {
            encryption: sa.encryption,
            ke: None,
            additional: AdditionalKes::NONE,
            esn: sa.esn,
        }
        .iana(),
        local_ts: sa.local_ts.clone(),
        remote_ts: sa.remote_ts.clone(),
        marks: sa.marks,
        encap: sa.encap.is_some(),
        installed_at: now.before(child.age),
        rekey_at: due(now, child.age, child.rekey_after),
        expires_at: now.before(child.age) + Duration::from_secs(sa.hard_lifetime_seconds),
    }
}
