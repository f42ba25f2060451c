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
    /// A peer that leaves a delta unacknowledged for so long is reported as lagging
    /// ([`crate::view::SyncReport::lagging`]). Each time doubles what it is given the next time, up to
    /// sixteen times as much: where everything is slow, members would come and go for ever. Default
    /// 100 ms.
    pub ack_timeout: Duration,
    /// After so long without being late a peer has to be as quick as in the beginning. Default 60 s.
    pub forgiven_after: Duration,
    /// A peer that leaves a delta unacknowledged is asked for a sign of life as often, so that what
    /// the network lost is sent again: TCP notices by itself after 200 ms (Linux's `TCP_RTO_MIN`), but
    /// at once when something later is acknowledged (RFC 8985). Well below
    /// [`Limits::ack_timeout`]. Default 10 ms.
    pub nudge: Duration,
    /// Deltas kept for a peer that comes back. Default 65,536.
    pub retained_deltas: usize,
    /// Octets of such deltas. Default 64 MiB.
    pub retained_bytes: usize,
    /// Octets of deltas sent to a peer ahead of its acknowledgements. Default 1 MiB. A transport that
    /// queues twice as much per peer never overflows by deltas and snapshots.
    pub window_bytes: usize,
    /// Octets of a snapshot sent to a peer ahead of its acknowledgements: deltas wait behind them.
    /// Default 256 KiB.
    pub snapshot_window_bytes: usize,
    /// A connection that was silent for so long is probed. Default 1 s.
    pub keepalive: Duration,
    /// A connection that was silent for so long is given up. Default 5 s.
    pub silence: Duration,
    /// For tests of tests: safety mechanisms that are off. Default: none.
    pub mutations: Mutations,
}

/// Safety mechanisms that a test switches off, to see that it notices. Never set otherwise.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Mutations {
    /// Messages leave before the others have the state behind them.
    pub no_flush_and_ack: bool,
    /// A member takes itself for level as soon as it has installed a view.
    pub no_levelling: bool,
    /// Older records replace newer ones, and what a member wrote outside the view counts.
    pub no_epoch_check: bool,
    /// A ceiling is raised before the others have moved their copies.
    pub no_ceiling: bool,
    /// All owners that follow one have the same block.
    pub overlapping_blocks: bool,
    /// Blocks are members', whoever of them serves after whom.
    pub blocks_by_member: bool,
    /// A new SA sends before all members know it.
    pub no_first_wait: bool,
    /// Half of a view starts new SAs as the other half does.
    pub no_jump: bool,
    /// A member counts as complete before it has been told everything.
    pub no_full_sync_gate: bool,
}

impl Limits {
    /// Octets of each other member's last deltas that are kept for members that lack them when it
    /// dies: more than can be under way to one of them.
    pub(crate) const fn tail_bytes(&self) -> usize {
        self.window_bytes.saturating_mul(2)
    }
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
            forgiven_after: Duration::from_secs(60),
            nudge: Duration::from_millis(10),
            retained_deltas: 65_536,
            retained_bytes: 64 << 20,
            window_bytes: 1 << 20,
            snapshot_window_bytes: 1 << 18,
            keepalive: Duration::from_secs(1),
            silence: Duration::from_secs(5),
            mutations: Mutations::default(),
        }
    }
}
