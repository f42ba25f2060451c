//! What `gatewayctl members` and the counters show.

use std::time::Duration;

use gateway_common::member::MemberId;

use crate::frame::{DeltaSeq, Position};

/// Counts per peer since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Deltas sent for the first time.
    pub deltas_sent: u64,
    /// Deltas sent again after a reconnect.
    pub deltas_resent: u64,
    /// Deltas of the peer applied.
    pub deltas_received: u64,
    /// Deltas of the peer that had been applied before.
    pub deltas_duplicate: u64,
    /// Snapshots sent completely.
    pub snapshots_sent: u64,
    /// Snapshots of the peer applied.
    pub snapshots_received: u64,
    /// Times it was taken out of the in-sync set because it did not acknowledge in time.
    pub lagged: u64,
    /// Times a connection came up.
    pub connections: u64,
    /// Connections closed because of what it sent.
    pub protocol_errors: u64,
    /// Datagrams relayed to it.
    pub relayed_out: u64,
    /// Datagrams relayed by it.
    pub relayed_in: u64,
    /// Its half-open entries that were not kept.
    pub half_open_refused: u64,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub member: MemberId,
    /// Hellos were exchanged and fit.
    pub connected: bool,
    /// Messages wait for its acknowledgements and it has everything that left.
    pub in_sync: bool,
    /// Its configuration differs in what has to be alike.
    pub config_differs: bool,
    /// Number of the last delta sent to it, or contained in what was sent.
    pub sent: DeltaSeq,
    /// Number of the last delta that it acknowledged.
    pub acknowledged: DeltaSeq,
    /// Last delta of its stream that was applied here.
    pub received: Option<Position>,
    /// Last measured time from a delta or probe to its answer.
    pub round_trip: Option<Duration>,
    /// Slots that it owns.
    pub slots: usize,
    /// Counts.
    pub counters: PeerCounters,
}

/// This member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who.
    pub member: MemberId,
    /// Slots that it owns.
    pub slots: usize,
    /// Number of the last delta published.
    pub published: DeltaSeq,
    /// Number of the last delta released.
    pub released: DeltaSeq,
    /// Deltas kept for peers that have not got them, and their octets.
    pub retained: (usize, usize),
    /// Half-open negotiations of this member in the tables.
    pub half_open: usize,
    /// Half-open negotiations that were kept from the other members by rate or threshold.
    pub half_open_suppressed: u64,
    /// Half-open negotiations that were not even kept here.
    pub half_open_refused: u64,
    /// The others, by id.
    pub peers: Vec<PeerStatus>,
}
