//! `[cluster]`, `[witness]` and `[ha]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, one};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Cluster {
    /// Part of the mark in forwarded frames: equal on all members, different between clusters that share a
    /// sync network.
    #[schemars(range(min = 1, max = 255))]
    #[serde(default = "one")]
    pub(in crate::config) id: u32,
    /// The cluster's name. The certificates of the members carry it.
    #[serde(default = "default_name")]
    pub(in crate::config) name: String,
    /// How slots are spread over the members.
    #[serde(default)]
    pub(in crate::config) mode: Mode,
    /// Which of the members this host is: its id. The one key that differs between the members' files.
    #[schemars(range(min = 1, max = 63))]
    pub(in crate::config) local: u32,
    /// The addresses that the peers talk to: on the loopback device of every member, or in mode "ha" on the
    /// active one.
    pub(in crate::config) vips: Vec<String>,
    /// The members, this one included: the same on all of them.
    pub(in crate::config) member: Vec<Member>,
    /// How soon a silent member counts as lost. `heartbeat`, `lease`, `lost` and `cold_start` override it one
    /// by one.
    #[serde(default)]
    pub(in crate::config) profile: Profile,
    /// Time between two heartbeats. 50ms in profile "default", 10ms in "fast".
    pub(in crate::config) heartbeat: Option<DurationText>,
    /// How long a member may transmit after the others last heard it: at least 3 heartbeats. 200ms in profile
    /// "default", 35ms in "fast".
    pub(in crate::config) lease: Option<DurationText>,
    /// Silence after which a member is lost: at least the lease and a margin. 300ms in profile "default", 50ms
    /// in "fast".
    pub(in crate::config) lost: Option<DurationText>,
    /// How long a starting member listens for a live cluster before a majority of the members forms a new one.
    pub(in crate::config) cold_start: Option<DurationText>,
    /// UDP port of the heartbeats.
    #[schemars(range(min = 1, max = 65_535))]
    #[serde(default = "default_heartbeat_port")]
    pub(in crate::config) heartbeat_port: u32,
    /// What one of two members does that hears neither the other nor a witness.
    #[serde(default)]
    pub(in crate::config) two_member: TwoMember,
    /// After `cold_start` a member forms a view without a majority. Two members that start without hearing each
    /// other both serve then.
    #[serde(default)]
    pub(in crate::config) boot_alone: bool,
    /// In mode "ha": who is active after a better member (with a lower id) has come back.
    #[serde(default)]
    pub(in crate::config) failback: Failback,
    /// Folder, on a disk, that keeps the number of the view: it must never go back.
    #[serde(default = "default_state_dir")]
    pub(in crate::config) state_dir: PathBuf,
    /// The agent's main loop may be silent for so long before the member counts as ill.
    #[serde(default = "default_watchdog")]
    pub(in crate::config) watchdog: DurationText,
    /// SIGTERM waits for at most so long until the other members serve what this one served; 0 = not at all.
    #[serde(default = "default_drain")]
    pub(in crate::config) drain: DurationText,
}

/// How soon a silent member counts as lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// A heartbeat every 50 ms, lost after 300 ms: for any Ethernet and any load.
    #[default]
    Default,
    /// A heartbeat every 10 ms, lost after 50 ms: for dedicated links and real-time scheduling.
    Fast,
}

/// What one of two members does that hears neither the other nor a witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TwoMember {
    /// It takes over, after its own probes were good; both may be active for a while.
    #[default]
    Availability,
    /// It stops: without a majority nobody is active.
    Consistency,
}

/// Who is active after a better member has come back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Failback {
    /// Who is active stays it.
    #[default]
    MaintainActive,
    /// The member with the lowest id becomes active.
    HigherPriority,
}

/// How slots are spread over the members.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All slots on one member.
    Ha,
    /// Slots spread evenly over the members.
    #[default]
    LoadSharing,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Member {
    /// Its number. In mode "ha" the lowest is the best.
    #[schemars(range(min = 1, max = 63))]
    pub(in crate::config) id: u32,
    /// Its name in answers, pages and metrics; absent: `member-` and its id.
    pub(in crate::config) name: Option<String>,
    /// Its address on the sync network, by which the members know each other; never a VIP.
    pub(in crate::config) sync_address: String,
    /// Its addresses on further networks for heartbeats, and for the sync channel when the sync network is cut:
    /// the same networks in the same order for every member. With none, a cut of the sync network looks like a
    /// death.
    #[serde(default)]
    pub(in crate::config) heartbeat_addresses: Vec<String>,
    /// Its share of the slots, relative to the others'; 0 = none.
    #[schemars(range(min = 0, max = 1_000))]
    #[serde(default = "default_weight")]
    pub(in crate::config) weight: u32,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Witness {
    /// Where the witness listens.
    pub(in crate::config) address: String,
    /// Its UDP port.
    #[schemars(range(min = 1, max = 65_535))]
    #[serde(default = "default_witness_port")]
    pub(in crate::config) port: u32,
    /// The key that members and witness share, made by `gatewayctl pki witness`; mode 0600, or
    /// `credential:NAME`.
    #[serde(default = "default_witness_key")]
    pub(in crate::config) key_file: PathBuf,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Ha {
    /// `ADDRESS/PREFIX dev INTERFACE`, as keepalived has it: these move to the active member. Absent: the VIPs,
    /// on the first public interface.
    pub(in crate::config) addresses: Option<Vec<String>>,
}

fn default_name() -> String {
    "gateway".into()
}

fn default_heartbeat_port() -> u32 {
    4515
}

pub(in crate::config) fn default_witness_port() -> u32 {
    4516
}

pub(in crate::config) fn default_witness_key() -> PathBuf {
    "/etc/gateway/witness.key".into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/gateway".into()
}

fn default_watchdog() -> DurationText {
    DurationText::Text("1s".into())
}

fn default_drain() -> DurationText {
    DurationText::Text("5s".into())
}

fn default_weight() -> u32 {
    1
}
