//! What the loader needs to know.

use std::net::IpAddr;
use std::path::PathBuf;

use gateway_common::{abi, member::MemberId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::fence::FenceHook;

/// `steering.attach`: how the XDP programs are attached.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// Native where the driver can, else generic with a log line.
    #[default]
    Auto,
    /// Native or fail.
    Native,
    /// In the network stack: works with every driver, slower.
    Generic,
    /// No BPF at all: the tables are kept in memory, nothing is steered and nothing is fenced.
    None,
}

/// One member as the data path sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberLink {
    /// Its id.
    pub id: MemberId,
    /// Its address on the sync network, on-link.
    pub sync_address: IpAddr,
}

/// Everything that [`Steering::start`](super::Steering::start) and the pre-flight need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteeringConfig {
    /// Cluster id, 1..=255, fifth octet of the marked MAC.
    pub cluster: u8,
    /// This member.
    pub local: MemberId,
    /// All configured members, the local one included.
    pub members: Vec<MemberLink>,
    /// The cluster's addresses.
    pub vips: Vec<IpAddr>,
    /// `interfaces.public`: `gateway_ingress`, and the fence as on all interfaces.
    pub public: Vec<String>,
    /// `interfaces.inside`: `gateway_inside` and the fence; may be empty.
    pub inside: Vec<String>,
    /// `interfaces.sync`: `gateway_sync` and the fence.
    pub sync: String,
    /// `steering.attach`.
    pub attach: AttachMode,
    /// `steering.bpffs`: mount point of a bpf file system.
    pub bpffs: PathBuf,
    /// `table.max_entries`: size of `SEP_my_IKE_packet`, at least 1.
    pub max_entries: u32,
    /// `ike_forwarding.enabled` at start.
    pub enabled: bool,
    /// Which hook the fence uses; `None`: tcx where the kernel has it, else clsact.
    pub fence: Option<FenceHook>,
    /// The protected networks behind this gateway (the union of `local_ts`); the pre-flight looks
    /// for their routes. May be empty.
    pub local_networks: Vec<IpNet>,
}

impl SteeringConfig {
    /// The folder of this layout's pins.
    pub fn pin_root(&self) -> PathBuf {
        self.bpffs
            .join("gateway")
            .join(format!("v{}", abi::ABI_VERSION))
    }

    /// The interfaces with their roles, in the order public, sync, inside.
    pub fn roles(&self) -> impl Iterator<Item = (&str, Role)> {
        let public = self.public.iter().map(|name| (name.as_str(), Role::Public));
        let inside = self.inside.iter().map(|name| (name.as_str(), Role::Inside));
        public
            .chain(std::iter::once((self.sync.as_str(), Role::Sync)))
            .chain(inside)
    }
}

/// What an interface is for; decides which XDP program it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Towards the peers.
    Public,
    /// Between the members.
    Sync,
    /// Towards the protected networks.
    Inside,
}

impl Role {
    /// The word in configuration and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Sync => "sync",
            Self::Inside => "inside",
        }
    }
}
