//! What the cluster core has to know before it starts.

use std::time::Duration;

use gateway_common::member::MemberId;

use crate::frame::Incarnation;
use crate::slot_map::Weighted;

/// The cluster as this member was configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub local: MemberId,
    /// All members, this one included; static in this release. A member that is missing here is
    /// never spoken to.
    pub members: Vec<Weighted>,
    /// Cluster id, 1..=255: equal on all members, checked at every connection.
    pub cluster_id: u8,
    /// Cluster name: equal on all members, checked at every connection.
    pub cluster_name: String,
    /// Digest of what has to be configured alike on all members (connections, VIPs, mode); a
    /// difference is reported, not refused, so that a change can be rolled out.
    pub config_hash: [u8; 32],
    /// This run of the agent: never the same again.
    pub incarnation: Incarnation,
    /// Bounds and times.
    pub limits: Limits,
}

/// Bounds and times.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Half-open entries that are kept per announcing member; further ones are counted and ignored,
    /// and their packets find their member by the decision function. Default 8192.
    pub half_open_entries: usize,
    /// Half-open entries of our own from which on new ones are not mirrored any more: the engine
    /// demands cookies from about there. Default 64.
    pub mirror_threshold: usize,
    /// Half-open entries that are mirrored per second on average. Default 200.
    pub mirror_rate: u32,
    /// Half-open entries that are mirrored at once after a pause. Default 50.
    pub mirror_burst: u32,
    /// How long a background change waits for company. Default 5 ms.
    pub background_delay: Duration,
    /// A connected peer that leaves a delta unacknowledged for so long is taken out of the in-sync
    /// set. Default 100 ms.
    pub ack_timeout: Duration,
    /// Deltas kept for a peer that comes back. Default 65,536.
    pub retained_deltas: usize,
    /// Octets of such deltas. Default 64 MiB.
    pub retained_bytes: usize,
    /// Octets sent to a peer ahead of its acknowledgements. Default 1 MiB. A transport that queues
    /// twice as much per peer never overflows by deltas and snapshots.
    pub window_bytes: usize,
    /// A connection that was silent for so long is probed. Default 1 s.
    pub keepalive: Duration,
    /// A connection that was silent for so long is given up. Default 5 s.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            half_open_entries: 8192,
            mirror_threshold: 64,
            mirror_rate: 200,
            mirror_burst: 50,
            background_delay: Duration::from_millis(5),
            ack_timeout: Duration::from_millis(100),
            retained_deltas: 65_536,
            retained_bytes: 64 << 20,
            window_bytes: 1 << 20,
            keepalive: Duration::from_secs(1),
            silence: Duration::from_secs(5),
        }
    }
}
