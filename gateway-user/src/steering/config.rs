//! What the loader needs to know.

use std::net::IpAddr;
use std::path::PathBuf;

use gateway_common::{abi, member::MemberId};
use serde::{Deserialize, Serialize};

/// `steering.attach`: how the XDP programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// `interfaces.public`: `gateway_ingress` and the fence.
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
}

impl SteeringConfig {
    /// The folder of this layout's pins.
    pub fn pin_root(&self) -> PathBuf {
        self.bpffs
            .join("gateway")
            .join(format!("v{}", abi::ABI_VERSION))
    }

    /// Every interface that the gateway uses, once, with its role: public, sync, inside.
    pub fn interfaces(&self) -> Vec<(&str, Role)> {
        let mut all: Vec<(&str, Role)> = Vec::new();
        let public = self.public.iter().map(|name| (name.as_str(), Role::Public));
        let inside = self.inside.iter().map(|name| (name.as_str(), Role::Inside));
        let sync = std::iter::once((self.sync.as_str(), Role::Sync));
        for (name, role) in public.chain(sync).chain(inside) {
            if !all.iter().any(|(known, _)| *known == name) {
                all.push((name, role));
            }
        }
        all
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
