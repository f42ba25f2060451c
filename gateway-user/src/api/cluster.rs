//! Answers about the membership and the synchronisation. Field names are part of the interface.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::failover::Failover;
use crate::config::{Failback, Mode};

/// The order will be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// Always true.
    pub accepted: bool,
}

/// Peers were asked to go to another gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Redirected {
    /// How many IKE SAs; their peers close them.
    pub redirected: usize,
}

/// The members as this one sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Members {
    /// "ha" or "load-sharing".
    pub mode: Mode,
    /// Who is active after a better member has come back.
    pub failback: Failback,
    /// Number of the view; 0 before the first.
    pub epoch: u64,
    /// This member's critical devices that are not fine, each with its reason.
    pub problems: Vec<String>,
    /// By id.
    pub members: Vec<MemberStatus>,
    /// Views since the agent started in which slots got another owner.
    pub failovers: u64,
    /// When it started to count these, in seconds since 1970.
    pub failovers_since: f64,
    /// The last of them; `null`: there was none.
    pub last_failover: Option<Failover>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberStatus {
    /// 1..=63.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Whether it is the answering member.
    pub local: bool,
    /// Its address on the sync network.
    pub sync_address: String,
    /// State with its flags in ClusterXL's words: "ACTIVE", "ACTIVE(!)", "STANDBY", "LOST", …
    pub state: String,
    /// The state before; `null` while the first one lasts.
    pub previous_state: Option<String>,
    /// Whether the sync channel to it is up; true for the local member.
    pub connected: bool,
    /// Whether it acknowledges deltas in time; true for the local member.
    pub in_sync: bool,
    /// Slots it owns.
    pub slots: usize,
    /// Deltas sent to it.
    pub sent: u64,
    /// Deltas it acknowledged.
    pub acknowledged: u64,
    /// Deltas received from it.
    pub received: u64,
    /// The view it is in, as it says.
    pub epoch: u64,
    /// Its run, in hexadecimal digits.
    pub run: String,
    /// Seconds since its state changed.
    pub last_change_seconds: Option<f64>,
    /// Why it changed.
    pub reason: String,
    /// Its critical devices with a problem.
    pub problems: u8,
    /// An operator drained it.
    pub drained: bool,
    /// It is configured differently in what has to be alike.
    pub config_differs: bool,
    /// Its load as it says, of 255.
    pub load: u8,
    /// The cluster interfaces that it was heard on.
    pub links: Vec<LinkStatus>,
}

/// A cluster interface that a member was heard on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LinkStatus {
    /// Name of the interface here.
    pub name: String,
    /// Seconds since.
    pub heard_seconds: f64,
}

/// The view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ViewStatus {
    /// Its number; 0 before the first.
    pub epoch: u64,
    /// Whether this member is in it.
    pub admitted: bool,
    /// Whether this member serves its slots.
    pub active: bool,
    /// What is left of this member's transmit right, in milliseconds.
    pub lease_ms: u64,
    /// No majority stands behind it.
    pub unsafe_takeover: bool,
    /// Whether the membership runs with real-time priority.
    pub real_time: bool,
    /// Seconds since the witness was heard; `null` without one.
    pub witness_heard_seconds: Option<f64>,
    /// Who is in it.
    pub members: Vec<ViewMember>,
    /// Owner of each of the 256 slots; 0 = nobody.
    pub slots: Vec<u8>,
}

/// A member of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ViewMember {
    /// Its id.
    pub id: u8,
    /// The run that was admitted, in hexadecimal digits.
    pub run: String,
    /// Slots that it owns.
    pub slots: usize,
}

/// This member's critical devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pnotes {
    /// By name.
    pub pnotes: Vec<Pnote>,
}

/// A critical device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pnote {
    /// Its name.
    pub name: String,
    /// "ok", "problem" or "init".
    pub state: String,
    /// Why.
    pub reason: String,
    /// Seconds since its last report.
    pub age_seconds: f64,
    /// It has to report within this time.
    pub timeout_seconds: Option<f64>,
}

/// The synchronisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SyncStatus {
    /// Number of the view.
    pub epoch: u64,
    /// The last view in which this member has all that the members before left behind.
    pub levelled: u64,
    /// Last delta of this member.
    pub published: u64,
    /// Last delta that all of the view acknowledged: what depends on it was sent.
    pub released: u64,
    /// Deltas kept for members that have not got them.
    pub retained_deltas: usize,
    /// Octets of these.
    pub retained_bytes: usize,
    /// The most deltas that were ever kept.
    pub peak_deltas: usize,
    /// The most octets of these.
    pub peak_bytes: usize,
    /// IKE messages that wait for acknowledgements.
    pub messages_held: usize,
    /// IKE SAs of the cluster whose records are here.
    pub records: usize,
    /// Octets of these.
    pub record_bytes: usize,
    /// Octets of frames to all other members since the start, before TLS.
    pub bytes_sent: u64,
    /// Octets of frames from all other members.
    pub bytes_received: u64,
    /// The other members, by id.
    pub peers: Vec<PeerSync>,
}

/// The synchronisation with one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerSync {
    /// Its id.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Whether the sync channel to it is up.
    pub connected: bool,
    /// Whether it has everything, and acknowledges in time.
    pub in_sync: bool,
    /// Whether everything that it owns is known here.
    pub complete: bool,
    /// Last delta sent to it.
    pub sent: u64,
    /// Last delta that it acknowledged.
    pub acknowledged: u64,
    /// Deltas that it has not acknowledged.
    pub lag: u64,
    /// Octets of these.
    pub lag_bytes: usize,
    /// Age of the oldest of these, in seconds.
    pub lag_seconds: f64,
    /// The most deltas that it ever left unacknowledged.
    pub peak_deltas: usize,
    /// The most octets of these.
    pub peak_bytes: usize,
    /// Last delta of its own that was applied here.
    pub received: u64,
    /// Time from a delta to its acknowledgement, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Times the channel came up.
    pub connections: u64,
    /// Times it went on where it was after a reconnect.
    pub resumptions: u64,
    /// Deltas sent again after a reconnect.
    pub deltas_resent: u64,
    /// Full syncs sent to it.
    pub snapshots_sent: u64,
    /// Full syncs received from it.
    pub snapshots_received: u64,
    /// Why it was last sent everything.
    pub last_full_sync: Option<String>,
    /// Times it did not acknowledge in time.
    pub lagged: u64,
    /// Times it was asked for a sign of life because an acknowledgement took 10 ms: about how often
    /// the network loses something.
    pub nudged: u64,
    /// Why the channel to it is or was down; `null` since a frame came.
    pub last_error: Option<String>,
}

/// Whether upstream may send to this member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// State with its flags.
    pub state: String,
    /// Whether it takes traffic.
    pub healthy: bool,
    /// Critical devices that are not fine, each with its reason.
    pub problems: Vec<String>,
}
