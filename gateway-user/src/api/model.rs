//! Requests and answers of the control socket. Field names are part of the interface.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::ConfigError;
pub use crate::recent::LogLine;
use crate::steering;

pub use super::cluster::{
    Accepted, Health, LinkStatus, MemberStatus, Members, PeerSync, Pnote, Pnotes, Redirected,
    SyncStatus, ViewMember, ViewStatus,
};

pub use super::explain::{ExplainQuery, Explanation, Finding, MAX_SUBJECT};
pub use super::failover::{Failover, FailoverCause, FailoverHistory, SlotMove};
pub use super::forwarding::*;
pub use super::pages::{
    ChildName, FailoverTo, History, Interfaces, PAGE, RedirectTo, Refusal, RefusalKind, SaPage,
    SaQuery, SteeredInterface, Switch,
};

/// What a client asks for: `{"command": "status"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// [`Status`].
    Status,
    /// [`Members`].
    Members,
    /// [`ViewStatus`].
    View,
    /// [`Pnotes`].
    Pnotes,
    /// [`SyncStatus`].
    Sync,
    /// [`Health`].
    Health,
    /// Own no slots from now on, but stay a replica; answers [`Accepted`].
    Drain,
    /// The opposite of `Drain`; answers [`Accepted`].
    Undrain,
    /// Hand this member's slots to another member; answers [`Accepted`].
    Failover {
        /// Its id.
        to: u8,
    },
    /// Form a view with this member alone; answers [`Accepted`].
    Bootstrap,
    /// [`Table`].
    Table,
    /// [`Sas`].
    Sas {
        /// Also those that other members own.
        #[serde(default)]
        all: bool,
    },
    /// Brings up a connection; answers [`Ordered`].
    Initiate(Target),
    /// Deletes a connection's SAs; answers [`Ordered`].
    Terminate(Target),
    /// Makes successors of a connection's SAs; answers [`Ordered`].
    Rekey(Target),
    /// [`Connections`].
    Connections,
    /// The agent's last log lines; answers [`Log`].
    Log {
        /// At most so many, the newest.
        #[serde(default = "log_lines")]
        lines: usize,
        /// Only those with a number above this.
        #[serde(default)]
        after: u64,
        /// Only those about this connection.
        #[serde(default)]
        connection: Option<String>,
    },
    /// Reads the configuration file again and applies what can be applied; answers [`Reloaded`].
    Reload,
    /// [`Stats`].
    Stats,
    /// [`Checks`].
    Check,
    /// Asks the peers of this member's IKE SAs to go to another gateway (RFC 5685); answers
    /// [`Redirected`].
    Redirect {
        /// An address or a domain name.
        to: String,
        /// Only those of this connection.
        #[serde(default)]
        connection: Option<String>,
    },
    /// [`SaPage`].
    SaPage(SaQuery),
    /// [`IkeSaInfo`].
    Sa {
        /// Our SPI, 16 hexadecimal digits.
        local_spi: String,
    },
    /// [`History`].
    History,
    /// [`FailoverHistory`].
    FailoverHistory,
    /// [`Interfaces`].
    Interfaces,
    /// [`Explanation`].
    Explain(ExplainQuery),
    /// A step of the IKE forwarding API.
    IkeForwarding(Step),
    /// Switches `ike_forwarding.enabled` until the next start; answers [`Status`].
    Forwarding {
        /// On or off.
        enabled: bool,
    },
}

/// Log lines that are shown unless the client says how many.
const fn log_lines() -> usize {
    50
}

/// The agent's last log lines, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Number of the newest line of all: what to ask for next time as `after`.
    pub last: u64,
}

/// A connection, or one of its children.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The connection's name.
    pub connection: String,
    /// Name of its child; absent: the IKE SA, or all children when it is initiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// Only this SA, when it is not initiated: our SPI of an IKE SA (16 hexadecimal digits), or the
    /// inbound SPI of a CHILD_SA (8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spi: Option<String>,
}

/// An order has been accepted. What comes of it is in the log and among the SAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ordered {
    /// It was begun on this member this often.
    pub here: usize,
    /// It was passed on to these members.
    pub passed_on: Vec<u8>,
    /// Nobody serves these slots now; it waits for them for ten seconds.
    #[serde(default)]
    pub waiting: Vec<u8>,
}

/// What is configured, as `gatewayctl connections` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// In configured order.
    pub connections: Vec<ConnectionInfo>,
}

/// A configured connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionInfo {
    /// Its name.
    pub name: String,
    /// Whether it was loaded over VICI; otherwise it is in the configuration file.
    pub loaded: bool,
    /// Addresses of ours; empty = all VIPs.
    pub local_addrs: Vec<String>,
    /// Addresses of the peer.
    pub remote_addrs: Vec<String>,
    /// Our identity.
    pub local_id: String,
    /// The peer's.
    pub remote_id: String,
    /// How we authenticate: "psk" or "pubkey".
    pub local_auth: String,
    /// How the peer has to.
    pub remote_auth: String,
    /// IKE proposals.
    pub proposals: Vec<String>,
    /// Seconds; 0 = never.
    pub rekey_time: u64,
    /// Seconds; 0 = never.
    pub reauth_time: u64,
    /// Seconds; 0 = never.
    pub dpd_delay: u64,
    /// "never", "no", "replace" or "keep".
    pub unique: String,
    /// The slot in which it is initiated.
    pub slot: u8,
    /// The member that initiates it; 0 if there is none now.
    pub owner: u8,
    /// Its live IKE SAs in the cluster.
    pub ike_sas: usize,
    /// Its children.
    pub children: Vec<ConfiguredChild>,
}

/// A configured child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfiguredChild {
    /// Its name.
    pub name: String,
    /// Our side's selectors.
    pub local_ts: Vec<String>,
    /// The peer's side's selectors.
    pub remote_ts: Vec<String>,
    /// ESP proposals.
    pub esp_proposals: Vec<String>,
    /// Seconds; 0 = never.
    pub rekey_time: u64,
    /// Octets; 0 = no bound.
    pub rekey_bytes: u64,
    /// Packets; 0 = no bound.
    pub rekey_packets: u64,
    /// "none", "trap" or "start".
    pub start_action: String,
    /// "none" or "start".
    pub close_action: String,
    /// "clear" or "restart".
    pub dpd_action: String,
    /// Its live CHILD_SAs in the cluster.
    pub child_sas: usize,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Names of connections that are new.
    pub added: Vec<String>,
    /// Names of connections that are not as before.
    pub changed: Vec<String>,
    /// Names of connections that are gone.
    pub removed: Vec<String>,
    /// Tables of the file that differ from what runs: they need a restart.
    pub needs_restart: Vec<String>,
}

/// Any answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The answer to the request, one of the types of this module.
    Ok(serde_json::Value),
    /// Why there is none.
    Error(String),
    /// Why there is none, for programs.
    Refused(Refusal),
}

/// The agent at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// This member's id.
    pub member: u8,
    /// Its name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// "ha" or "load-sharing".
    pub mode: crate::config::Mode,
    /// Version of the agent.
    pub version: String,
    /// Seconds since the agent started.
    pub uptime_seconds: f64,
    /// State in ClusterXL's terms.
    pub state: String,
    /// Whether XDP forwards.
    pub ike_forwarding: bool,
    /// The data path.
    pub steering: SteeringStatus,
    /// Where SAs are installed.
    pub kernel_backend: crate::config::Backend,
    /// Whether the kernel has been made ready for the configured ESP algorithms, as far as it can be:
    /// before, and where it cannot, the first SA of a kind may take long to install.
    pub esp_algorithms_ready: bool,
    /// Of 256.
    pub slots_owned: usize,
    /// Half-open IKE SAs on this member.
    pub half_open: usize,
    /// Established IKE SAs on this member.
    pub ike_sas: usize,
    /// CHILD_SAs on this member.
    pub child_sas: usize,
    /// `SEP_my_IKE_packet`.
    pub table: TableFill,
    /// Members whose sync channel is up.
    pub peers_connected: usize,
    /// Number of the view; 0 before the first.
    pub epoch: u64,
}

/// The data path's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SteeringStatus {
    /// "native", "generic" (the slowest of the interfaces), or "none".
    pub mode: String,
    /// Per interface.
    pub interfaces: Vec<InterfaceStatus>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// "public", "inside" or "sync".
    pub role: String,
    /// "native" or "generic".
    pub mode: String,
}

/// How full `SEP_my_IKE_packet` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableFill {
    /// Entries in it.
    pub entries: usize,
    /// `table.max_entries`.
    pub max_entries: u32,
}

/// The ownership table as the programs see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Table {
    /// `SEP_my_IKE_packet`.
    pub negotiations: Vec<NegotiationEntry>,
    /// `IKE_SA`.
    pub ike_sas: Vec<IkeSaEntry>,
    /// `ESP_SA`.
    pub esp_sas: Vec<EspSaEntry>,
}

/// One entry of `SEP_my_IKE_packet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NegotiationEntry {
    /// 16 hexadecimal digits.
    pub cookie: String,
    /// A number, or "any".
    pub message_id: serde_json::Value,
    /// The peer's address, if the cookie is the peer's.
    pub peer: Option<String>,
    /// The member that holds the negotiation.
    pub member: u8,
    /// Its slot.
    pub slot: u8,
    /// "half-open" or "static".
    pub state: String,
    /// Seconds since it was made.
    pub age_seconds: f64,
    /// Seconds until it is a miss; zero if it is one already.
    pub expires_in_seconds: f64,
}

/// One entry of `IKE_SA`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IkeSaEntry {
    /// Our SPI, 16 hexadecimal digits.
    pub cookie: String,
    /// Its slot.
    pub slot: u8,
    /// Member that owns the slot; 0 if nobody does.
    pub owner: u8,
}

/// One entry of `ESP_SA`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EspSaEntry {
    /// Inbound SPI, 8 hexadecimal digits.
    pub spi: String,
    /// The VIP it is addressed to.
    pub vip: String,
    /// Its slot.
    pub slot: u8,
    /// Member that owns the slot; 0 if nobody does.
    pub owner: u8,
}

/// Established SAs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sas {
    /// IKE SAs with their children.
    pub ike_sas: Vec<IkeSaInfo>,
}

/// One IKE SA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IkeSaInfo {
    /// Name of the connection.
    pub connection: String,
    /// Our SPI, 16 hexadecimal digits.
    pub local_spi: String,
    /// The peer's SPI.
    pub remote_spi: String,
    /// Its slot.
    pub slot: u8,
    /// The member that owns it.
    pub owner: u8,
    /// Our address and port.
    pub local: String,
    /// The peer's address and port.
    pub remote: String,
    /// Our identity.
    pub local_id: String,
    /// The peer's identity.
    pub remote_id: String,
    /// Algorithms, as swanctl shows them.
    pub proposal: String,
    /// Seconds since IKE_AUTH.
    pub established_seconds: f64,
    /// Whether a NAT was detected on the path.
    pub nat: bool,
    /// Whether this gateway is its original initiator.
    pub initiator: bool,
    /// Seconds until it is rekeyed by this gateway; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekey_seconds: Option<f64>,
    /// Seconds until it is authenticated anew by this gateway; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reauth_seconds: Option<f64>,
    /// Its CHILD_SAs.
    pub children: Vec<ChildInfo>,
}

/// One CHILD_SA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChildInfo {
    /// Name of the child.
    pub name: String,
    /// Inbound SPI, 8 hexadecimal digits.
    pub spi_in: String,
    /// Outbound SPI.
    pub spi_out: String,
    /// Algorithms.
    pub proposal: String,
    /// Our side's selectors.
    pub local_ts: Vec<String>,
    /// The peer's side's selectors.
    pub remote_ts: Vec<String>,
    /// Mark and mask that decrypted packets have to have, `0x0000002a/0xffffffff`; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark_in: Option<String>,
    /// The same of packets that are to be encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark_out: Option<String>,
    /// Whether ESP is encapsulated in UDP.
    pub encap: bool,
    /// Number that links the kernel's SAs to its policies; 0 if they are not there.
    pub reqid: u32,
    /// Seconds since the last packet was decrypted here; absent: none yet, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// Seconds since the kernel confirmed it.
    pub installed_seconds: f64,
    /// Seconds until it is rekeyed by this gateway; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekey_seconds: Option<f64>,
    /// Seconds until it ends.
    pub life_seconds: f64,
    /// Counters of the kernel's inbound SA.
    pub packets_in: u64,
    /// Octets.
    pub bytes_in: u64,
    /// Counters of the kernel's outbound SA.
    pub packets_out: u64,
    /// Octets.
    pub bytes_out: u64,
}

/// Packets and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

/// Every counter there is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// The programs' counters by reason; those that are zero are left out.
    pub reasons: BTreeMap<String, Count>,
    /// By member id.
    #[schema(value_type = BTreeMap<String, MemberCount>)]
    pub members: BTreeMap<u8, MemberCount>,
    /// The engine's and the agent's counters.
    pub engine: BTreeMap<String, u64>,
    /// Counters of the membership and of the heartbeats.
    pub membership: BTreeMap<String, u64>,
}

/// Frames that XDP exchanged with one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberCount {
    /// Redirected to it.
    pub forwarded: Count,
    /// Received from it.
    pub received: Count,
}

/// Pre-flight results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checks {
    /// All of them, good ones too.
    pub checks: Vec<Check>,
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What was checked, for example "rp_filter".
    pub name: String,
    /// On what: an interface, a file, an address.
    pub subject: String,
    /// Whether it is as it must be.
    pub ok: bool,
    /// "error" or "warning".
    pub severity: Severity,
    /// What was found, and what follows from it.
    pub message: String,
    /// What to do; empty if `ok`.
    pub fix: String,
}

/// How bad a failed check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something works less well, or cannot be judged from here.
    Warning,
    /// Packets will be lost, or the agent cannot start.
    Error,
}

impl Check {
    /// Failed, and packets will be lost for it.
    pub fn is_error(&self) -> bool {
        !self.ok && self.severity == Severity::Error
    }
}

impl Check {
    /// Secrets in a configuration file that others can read.
    pub fn exposed(finding: &ConfigError) -> Self {
        let (message, fix) = finding.parts();
        Self {
            name: "secrets".into(),
            subject: "configuration file".into(),
            ok: false,
            severity: Severity::Warning,
            message,
            fix: fix.into(),
        }
    }
}

impl From<steering::Check> for Check {
    fn from(check: steering::Check) -> Self {
        Self {
            name: check.name.into(),
            subject: check.subject,
            ok: check.ok,
            severity: match check.severity {
                steering::Severity::Warning => Severity::Warning,
                steering::Severity::Error => Severity::Error,
            },
            message: check.message,
            fix: check.fix,
        }
    }
}
