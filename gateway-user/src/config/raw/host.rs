//! What concerns this host: interfaces, files, sockets, limits.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DurationText;
use crate::steering::AttachMode;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Health {
    /// File that holds the member's state as one word, written whenever it changes.
    pub(in crate::config) state_file: PathBuf,
    /// Routing table that holds the VIPs as host routes while this member takes traffic; 0 = none.
    #[schemars(range(min = 0, max = 252))]
    pub(in crate::config) route_table: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            state_file: "/run/gateway/state".into(),
            route_table: 0,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Interfaces {
    /// Where the peers' packets come in.
    pub(in crate::config) public: Vec<String>,
    /// Where cleartext for the peers' networks comes in.
    #[serde(default)]
    pub(in crate::config) inside: Vec<String>,
    /// The members' own network: dedicated or MACsec-protected, with an MTU that is not below the others'.
    pub(in crate::config) sync: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Sync {
    /// TCP port of the sync channel.
    #[schemars(range(min = 1, max = 65_535))]
    #[serde(default = "default_sync_port")]
    pub(in crate::config) port: u32,
    /// Certificate of the cluster's own authority, made by `gatewayctl pki init`.
    #[serde(default = "default_ca")]
    pub(in crate::config) ca: PathBuf,
    /// This member's certificate, made by `gatewayctl pki issue`.
    #[serde(default = "default_certificate")]
    pub(in crate::config) certificate: PathBuf,
    /// Its private key; mode 0600, or `credential:NAME`.
    #[serde(default = "default_key")]
    pub(in crate::config) key: PathBuf,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct IkeForwarding {
    /// XDP sends packets on to the member that owns them; off: every packet stays where it arrived, and the
    /// agents relay IKE.
    pub(in crate::config) enabled: bool,
}

impl Default for IkeForwarding {
    fn default() -> Self {
        Self { enabled: true }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Table {
    /// Negotiations in progress, all members' together.
    #[schemars(range(min = 256, max = 16_777_216))]
    pub(in crate::config) max_entries: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            max_entries: gateway_common::abi::size::NEGOTIATIONS,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Steering {
    /// How the XDP programs run: "auto" is native, or else generic; "none" is for hosts without BPF.
    pub(in crate::config) attach: AttachMode,
    /// Where the BPF file system is mounted: maps and links are pinned there.
    pub(in crate::config) bpffs: PathBuf,
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            attach: AttachMode::Auto,
            bpffs: "/sys/fs/bpf".into(),
        }
    }
}

/// Where SAs are installed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The kernel's XFRM.
    #[default]
    Xfrm,
    /// Nowhere: requests are recorded. For labs on kernels without ESP.
    Recording,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Kernel {
    /// Where SAs are installed.
    pub(in crate::config) backend: Backend,
    /// Low-priority policies keep cleartext for the peers' networks from leaving without an SA.
    pub(in crate::config) forwarding_block: bool,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            backend: Backend::Xfrm,
            forwarding_block: true,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Takeover {
    /// What is done about packets of a peer that the lost member may have received after its last checkpoint.
    pub(in crate::config) inbound: Inbound,
    /// IKE SAs whose peers are asked for a sign of life after a takeover, per second.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) checks_per_second: u32,
    /// IKE SAs whose CHILD_SAs are rekeyed after a takeover, per second.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) rekeys_per_second: u32,
}

impl Default for Takeover {
    fn default() -> Self {
        Self {
            inbound: Inbound::Learn,
            checks_per_second: 200,
            rekeys_per_second: 50,
        }
    }
}

/// What is done about packets that may have come before a takeover and come again after it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Inbound {
    /// The window follows the traffic; a packet could be replayed once.
    #[default]
    Learn,
    /// Such packets are refused, and with them up to 512 new ones; the CHILD_SAs get other keys.
    Strict,
    /// As "learn", and the CHILD_SAs get other keys.
    Rekey,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Api {
    /// The Unix socket of gatewayctl, for root.
    pub(in crate::config) socket: PathBuf,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: crate::api::DEFAULT_SOCKET.into(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Vici {
    /// The Unix socket of swanctl (`swanctl --uri unix://…`); "" = none.
    pub(in crate::config) socket: PathBuf,
}

impl Default for Vici {
    fn default() -> Self {
        Self {
            socket: crate::vici::DEFAULT_SOCKET.into(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Ike {
    /// Half-open IKE SAs from which on a cookie is demanded first.
    pub(in crate::config) cookie_threshold: u32,
    /// Half-open IKE SAs above which IKE_SA_INIT requests are dropped.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) half_open_limit: u32,
    /// The same for each source address.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) half_open_limit_per_source: u32,
    /// How long an IKE SA may stay half-open: 1s to 120s.
    pub(in crate::config) half_open_timeout: DurationText,
    /// A tunnel that is to be up and could not be initiated is tried again after this, then after twice as long
    /// and so on, up to five minutes; 0 = never.
    pub(in crate::config) retry_initiate_interval: DurationText,
}

impl Default for Ike {
    fn default() -> Self {
        Self {
            cookie_threshold: 30,
            half_open_limit: 1000,
            half_open_limit_per_source: 64,
            half_open_timeout: DurationText::Text("30s".into()),
            retry_initiate_interval: DurationText::Text("10s".into()),
        }
    }
}

fn default_sync_port() -> u32 {
    4514
}

fn default_ca() -> PathBuf {
    "/etc/gateway/pki/ca.crt".into()
}

fn default_certificate() -> PathBuf {
    "/etc/gateway/pki/member.crt".into()
}

fn default_key() -> PathBuf {
    "/etc/gateway/pki/member.key".into()
}
