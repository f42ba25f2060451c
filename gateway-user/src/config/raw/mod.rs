//! The file's shape, with its defaults. Values are strings and numbers as written; nothing is
//! checked here but names and types. The descriptions of the keys are published ([`schema`]): with the
//! JSON schema and in gateway.toml(5).
//!
//! [`schema`]: super::schema

mod cluster;
mod connection;
mod credentials;
mod host;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use self::cluster::{
    Cluster, Ha, Member, Witness, default_witness_key, default_witness_port,
};
pub use self::cluster::{Failback, Mode, Profile, TwoMember};
pub(super) use self::connection::{
    Child, Childless, CloseAction, Connection, DpdAction, Fragmentation, HwOffload, StartAction,
    Unique,
};
pub(super) use self::credentials::{
    Authority, LocalAuth, Ppk, Private, RemoteAuth, Revocation, Secret, SendCert, Source,
};
pub use self::host::Backend;
pub(super) use self::host::{
    Api, Health, Ike, IkeForwarding, Inbound, Interfaces, Kernel, Steering, Sync, Table, Takeover,
    Vici,
};
use super::error::ConfigError;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The cluster, and this member's place in it.
    pub(super) cluster: Cluster,
    /// The roles of this host's interfaces.
    pub(super) interfaces: Interfaces,
    /// The encrypted channel between the members.
    pub(super) sync: Sync,
    /// A third host that decides between two members; see `gatewayd --witness`.
    pub(super) witness: Option<Witness>,
    /// Addresses of the active member, in mode "ha".
    #[serde(default)]
    pub(super) ha: Ha,
    /// What routing daemons look at.
    #[serde(default)]
    pub(super) health: Health,
    /// Forwarding of packets to the member that owns them.
    #[serde(default)]
    pub(super) ike_forwarding: IkeForwarding,
    /// `SEP_my_IKE_packet`, the table of negotiations in progress.
    #[serde(default)]
    pub(super) table: Table,
    /// The XDP programs.
    #[serde(default)]
    pub(super) steering: Steering,
    /// The kernel's part: SAs and policies.
    #[serde(default)]
    pub(super) kernel: Kernel,
    /// What becomes of the SAs of a member that was lost.
    #[serde(default)]
    pub(super) takeover: Takeover,
    /// The control socket of gatewayctl.
    #[serde(default)]
    pub(super) api: Api,
    /// REST, Server-Sent Events, OpenMetrics and the web page. Roles are "read", "operate" (tunnels up and
    /// down, slots) and "admin" (single table entries, packets); each may what those before it may.
    #[serde(default)]
    pub(super) rest: super::rest::RawRest,
    /// strongSwan's control protocol, for swanctl.
    #[serde(default)]
    pub(super) vici: Vici,
    /// What unauthenticated peers may cost, and when initiations are tried again.
    #[serde(default)]
    pub(super) ike: Ike,
    /// Peers, with the key names of swanctl.conf. Of several that fit, the first one counts.
    #[serde(default)]
    pub(super) connection: Vec<Connection>,
    /// Pre-shared keys.
    #[serde(default)]
    pub(super) secret: Vec<Secret>,
    /// Private keys of our certificates.
    #[serde(default)]
    pub(super) private: Vec<Private>,
    /// Certification authorities, and their CRLs.
    #[serde(default)]
    pub(super) authority: Vec<Authority>,
    /// Post-quantum pre-shared keys (RFC 8784).
    #[serde(default)]
    pub(super) ppk: Vec<Ppk>,
}

impl File {
    /// The key of the first secret that stands in the file itself.
    pub(super) fn inline_secret(&self) -> Option<String> {
        let secrets = self.secret.iter().map(|one| one.secret.is_some());
        let ppks = self.ppk.iter().map(|one| one.secret.is_some());
        let named = |name: &'static str| {
            move |(index, inline): (usize, bool)| inline.then(|| format!("{name}[{index}].secret"))
        };
        let mut found = secrets.enumerate().filter_map(named("secret"));
        let mut also = ppks.enumerate().filter_map(named("ppk"));
        found.next().or_else(|| also.next())
    }

    /// Secrets may stand in the file, so an error quotes the key, never the line.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            ConfigError::new(
                "",
                format!("line {line}: {}", error.message().replace('\n', "; ")),
                "TOML with the tables and keys of deploy/gateway.toml",
            )
        };
        let deserializer = toml::de::Deserializer::parse(text).map_err(syntax)?;
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let path = error.path().to_string();
            let inner = syntax(error.into_inner());
            if path == "." {
                inner
            } else {
                inner.at_key(path)
            }
        })
    }
}

/// "50ms", "30s", "5m", "4h", "1d", or whole seconds.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum DurationText {
    /// Whole seconds.
    Seconds(u64),
    /// A number with its unit: "50ms", "30s", "5m", "4h", "1d".
    Text(String),
}

pub(super) fn one() -> u32 {
    1
}
