//! The file's shape, with its defaults. Values are strings and numbers as written; nothing is
//! checked here but names and types.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use crate::steering::AttachMode;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) cluster: Cluster,
    pub(super) interfaces: Interfaces,
    pub(super) sync: Sync,
    pub(super) witness: Option<Witness>,
    #[serde(default)]
    pub(super) ha: Ha,
    #[serde(default)]
    pub(super) health: Health,
    #[serde(default)]
    pub(super) ike_forwarding: IkeForwarding,
    #[serde(default)]
    pub(super) table: Table,
    #[serde(default)]
    pub(super) steering: Steering,
    #[serde(default)]
    pub(super) kernel: Kernel,
    #[serde(default)]
    pub(super) takeover: Takeover,
    #[serde(default)]
    pub(super) api: Api,
    #[serde(default)]
    pub(super) rest: super::rest::RawRest,
    #[serde(default)]
    pub(super) vici: Vici,
    #[serde(default)]
    pub(super) ike: Ike,
    #[serde(default)]
    pub(super) connection: Vec<Connection>,
    #[serde(default)]
    pub(super) secret: Vec<Secret>,
    #[serde(default)]
    pub(super) private: Vec<Private>,
    #[serde(default)]
    pub(super) authority: Vec<Authority>,
    #[serde(default)]
    pub(super) ppk: Vec<Ppk>,
}

impl File {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    #[serde(default = "one")]
    pub(super) id: u32,
    #[serde(default = "default_name")]
    pub(super) name: String,
    #[serde(default)]
    pub(super) mode: Mode,
    pub(super) local: u32,
    pub(super) vips: Vec<String>,
    pub(super) member: Vec<Member>,
    #[serde(default)]
    pub(super) profile: Profile,
    pub(super) heartbeat: Option<DurationText>,
    pub(super) lease: Option<DurationText>,
    pub(super) lost: Option<DurationText>,
    pub(super) cold_start: Option<DurationText>,
    #[serde(default = "default_heartbeat_port")]
    pub(super) heartbeat_port: u32,
    #[serde(default)]
    pub(super) two_member: TwoMember,
    #[serde(default)]
    pub(super) boot_alone: bool,
    #[serde(default)]
    pub(super) failback: Failback,
    #[serde(default = "default_state_dir")]
    pub(super) state_dir: PathBuf,
    #[serde(default = "default_watchdog")]
    pub(super) watchdog: DurationText,
    #[serde(default = "default_drain")]
    pub(super) drain: DurationText,
}

/// How soon a silent member counts as lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// A heartbeat every 50 ms, lost after 300 ms: for any Ethernet and any load.
    #[default]
    Default,
    /// A heartbeat every 10 ms, lost after 50 ms: for dedicated links and real-time scheduling.
    Fast,
}

/// What one of two members does that hears neither the other nor a witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TwoMember {
    /// It takes over, after its own probes were good; both may be active for a while.
    #[default]
    Availability,
    /// It stops: without a majority nobody is active.
    Consistency,
}

/// Who is active after a better member has come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Failback {
    /// Who is active stays it.
    #[default]
    MaintainActive,
    /// The member with the lowest id becomes active.
    HigherPriority,
}

/// How slots are spread over the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All slots on one member.
    Ha,
    /// Slots spread evenly over the members.
    #[default]
    LoadSharing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    pub(super) id: u32,
    pub(super) name: Option<String>,
    pub(super) sync_address: String,
    #[serde(default)]
    pub(super) heartbeat_addresses: Vec<String>,
    #[serde(default = "default_weight")]
    pub(super) weight: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Witness {
    pub(super) address: String,
    #[serde(default = "default_witness_port")]
    pub(super) port: u32,
    #[serde(default = "default_witness_key")]
    pub(super) key_file: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ha {
    pub(super) addresses: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Health {
    pub(super) state_file: PathBuf,
    pub(super) route_table: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            state_file: "/run/gateway/state".into(),
            route_table: 0,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interfaces {
    pub(super) public: Vec<String>,
    #[serde(default)]
    pub(super) inside: Vec<String>,
    pub(super) sync: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sync {
    #[serde(default = "default_sync_port")]
    pub(super) port: u32,
    #[serde(default = "default_ca")]
    pub(super) ca: PathBuf,
    #[serde(default = "default_certificate")]
    pub(super) certificate: PathBuf,
    #[serde(default = "default_key")]
    pub(super) key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IkeForwarding {
    pub(super) enabled: bool,
}

impl Default for IkeForwarding {
    fn default() -> Self {
        Self { enabled: true }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) max_entries: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            max_entries: gateway_common::abi::size::NEGOTIATIONS,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Steering {
    pub(super) attach: AttachMode,
    pub(super) bpffs: PathBuf,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The kernel's XFRM.
    #[default]
    Xfrm,
    /// Nowhere: requests are recorded. For labs on kernels without ESP.
    Recording,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Kernel {
    pub(super) backend: Backend,
    pub(super) forwarding_block: bool,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            backend: Backend::Xfrm,
            forwarding_block: true,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Takeover {
    pub(super) inbound: Inbound,
    pub(super) checks_per_second: u32,
    pub(super) rekeys_per_second: u32,
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
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Inbound {
    #[default]
    Learn,
    Strict,
    Rekey,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Api {
    pub(super) socket: PathBuf,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: crate::api::DEFAULT_SOCKET.into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vici {
    pub(super) socket: PathBuf,
}

impl Default for Vici {
    fn default() -> Self {
        Self {
            socket: crate::vici::DEFAULT_SOCKET.into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ike {
    pub(super) cookie_threshold: u32,
    pub(super) half_open_limit: u32,
    pub(super) half_open_limit_per_source: u32,
    pub(super) half_open_timeout: DurationText,
    pub(super) retry_initiate_interval: DurationText,
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

/// "50ms", "30s", "5m", "4h", "1d", or whole seconds.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum DurationText {
    Seconds(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connection {
    pub(super) name: String,
    #[serde(default)]
    pub(super) local_addrs: Vec<String>,
    #[serde(default)]
    pub(super) remote_addrs: Vec<String>,
    #[serde(default)]
    pub(super) proposals: Vec<String>,
    pub(super) rekey_time: Option<DurationText>,
    pub(super) over_time: Option<DurationText>,
    pub(super) rand_time: Option<DurationText>,
    pub(super) dpd_delay: Option<DurationText>,
    pub(super) reauth_time: Option<DurationText>,
    #[serde(default = "one")]
    pub(super) keyingtries: u32,
    #[serde(default)]
    pub(super) unique: Unique,
    #[serde(default)]
    pub(super) fragmentation: Fragmentation,
    #[serde(default = "default_fragment_size")]
    pub(super) fragment_size: u32,
    #[serde(default)]
    pub(super) encap: bool,
    pub(super) keepalive: Option<DurationText>,
    #[serde(default = "yes")]
    pub(super) mobike: bool,
    #[serde(default)]
    pub(super) childless: Childless,
    pub(super) redirect_to: Option<String>,
    #[serde(default = "yes")]
    pub(super) follow_redirects: bool,
    #[serde(default)]
    pub(super) send_cert: SendCert,
    pub(super) ppk_id: Option<String>,
    #[serde(default)]
    pub(super) ppk_required: bool,
    #[serde(default)]
    pub(super) local: LocalAuth,
    #[serde(default)]
    pub(super) remote: RemoteAuth,
    #[serde(default)]
    pub(super) children: BTreeMap<String, Child>,
}

/// What a new IKE SA does to older ones of the same two identities.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Unique {
    Never,
    #[default]
    No,
    Keep,
    Replace,
}

/// Whether IKE messages go in fragments (RFC 7383).
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fragmentation {
    #[default]
    Yes,
    Accept,
    Force,
    No,
}

/// Whether an IKE SA may begin without CHILD_SA (RFC 6023).
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Childless {
    #[default]
    Allow,
    Prefer,
    Force,
    Never,
}

/// Whether a NIC does the ESP.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HwOffload {
    #[default]
    No,
    Yes,
    Auto,
    Crypto,
    Packet,
}

/// A file; or what stands in one, which clients of VICI send instead.
#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Octets(Vec<u8>),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Octets(_) => f.write_str("the certificate"),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Source;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a file")
            }

            fn visit_str<E>(self, file: &str) -> Result<Source, E> {
                Ok(Source::File(file.into()))
            }

            fn visit_bytes<E>(self, octets: &[u8]) -> Result<Source, E> {
                Ok(Source::Octets(octets.to_vec()))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// How we authenticate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalAuth {
    #[serde(default = "psk")]
    pub(super) auth: String,
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) certs: Vec<Source>,
}

impl Default for LocalAuth {
    fn default() -> Self {
        Self {
            auth: psk(),
            id: None,
            certs: Vec::new(),
        }
    }
}

/// How the peer has to authenticate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoteAuth {
    #[serde(default = "psk")]
    pub(super) auth: String,
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) certs: Vec<Source>,
    #[serde(default)]
    pub(super) cacerts: Vec<Source>,
    #[serde(default)]
    pub(super) revocation: Revocation,
}

impl Default for RemoteAuth {
    fn default() -> Self {
        Self {
            auth: psk(),
            id: None,
            certs: Vec::new(),
            cacerts: Vec::new(),
            revocation: Revocation::default(),
        }
    }
}

/// How much must be known about revocation.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Revocation {
    Strict,
    Ifuri,
    #[default]
    Relaxed,
}

/// When our certificates are sent.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SendCert {
    #[default]
    Ifasked,
    Always,
    Never,
}

/// A private key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Private {
    pub(super) file: PathBuf,
}

/// A certification authority.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authority {
    pub(super) cacert: Option<PathBuf>,
    #[serde(default)]
    pub(super) crls: Vec<PathBuf>,
}

/// A post-quantum pre-shared key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ppk {
    pub(super) id: String,
    pub(super) secret: Option<String>,
    pub(super) secret_file: Option<PathBuf>,
}

fn psk() -> String {
    "psk".into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Child {
    pub(super) local_ts: Vec<String>,
    pub(super) remote_ts: Vec<String>,
    #[serde(default)]
    pub(super) esp_proposals: Vec<String>,
    #[serde(default = "default_replay_window")]
    pub(super) replay_window: u32,
    #[serde(default)]
    pub(super) hw_offload: HwOffload,
    pub(super) rekey_time: Option<DurationText>,
    pub(super) life_time: Option<DurationText>,
    pub(super) rand_time: Option<DurationText>,
    #[serde(default)]
    pub(super) if_id_in: u32,
    #[serde(default)]
    pub(super) if_id_out: u32,
    #[serde(default)]
    pub(super) start_action: StartAction,
    #[serde(default)]
    pub(super) close_action: CloseAction,
    #[serde(default)]
    pub(super) dpd_action: DpdAction,
    pub(super) rekey_bytes: Option<u64>,
    pub(super) rand_bytes: Option<u64>,
    pub(super) life_bytes: Option<u64>,
    pub(super) rekey_packets: Option<u64>,
    pub(super) rand_packets: Option<u64>,
    pub(super) life_packets: Option<u64>,
}

/// What makes us initiate a CHILD_SA.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StartAction {
    #[default]
    None,
    Trap,
    Start,
}

/// What happens when the peer closes a CHILD_SA.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CloseAction {
    #[default]
    None,
    Trap,
    Start,
}

/// What happens to a CHILD_SA whose peer is dead.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DpdAction {
    #[default]
    Clear,
    Trap,
    Restart,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    #[serde(default)]
    pub(super) ids: Vec<String>,
    pub(super) secret: Option<String>,
    pub(super) secret_file: Option<PathBuf>,
}

fn default_fragment_size() -> u32 {
    1280
}

fn yes() -> bool {
    true
}

pub(super) fn one() -> u32 {
    1
}

fn default_name() -> String {
    "gateway".into()
}

fn default_heartbeat_port() -> u32 {
    4515
}

pub(super) fn default_witness_port() -> u32 {
    4516
}

pub(super) fn default_witness_key() -> PathBuf {
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

fn default_replay_window() -> u32 {
    32
}
