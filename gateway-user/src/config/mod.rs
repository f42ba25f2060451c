//! The configuration file: TOML, key names of swanctl.conf where swanctl has the key.
//!
//! Reading has two steps. [`raw`] gives the file's shape to serde (an unknown key is an error);
//! this module checks the values. Every error names the file, the key, what is wrong with it and
//! what is allowed, and nothing is applied before the whole file is right.

mod authentication;
mod authorization;
mod cluster;
mod connection;
mod error;
mod files;
mod ha;
mod lifetimes;
mod marks;
mod raw;
mod redact;
mod rest;
mod schema;
mod swanctl;
mod takeover;
mod timing;
mod transport;
mod value;
mod witness;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::{Connection, Secret};

pub use cluster::{Cluster, Member};
pub use error::ConfigError;
pub use files::{certificates, private_key, read_crl};
pub use ha::FloatingAddress;
pub use raw::{Backend, Failback, Mode, Profile, TwoMember};
pub use redact::redacted;
pub use rest::{Rest, RestAccess, RestClient, RestTls, RestToken, Role};
pub use schema::{ConfigKey, keys, manual, schema, witness_schema};
pub use swanctl::{Credentials, connection as swanctl_connection};
pub use takeover::Takeover;
pub(crate) use transport::gateway_of_text as gateway;
pub use witness::{Witness, WitnessConfig, WitnessKey};

use crate::steering::AttachMode;

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// `[cluster]`.
    pub cluster: Cluster,
    /// `[witness]`.
    pub witness: Option<Witness>,
    /// `[ha] addresses`, by default the VIPs on the first public interface: they stand on the active
    /// member's interfaces. Empty in load sharing.
    pub floating: Vec<FloatingAddress>,
    /// `[health]`.
    pub health: Health,
    /// `[interfaces]`.
    pub interfaces: Interfaces,
    /// `[sync]`.
    pub sync: Sync,
    /// `[ike_forwarding] enabled`.
    pub ike_forwarding: bool,
    /// `[table] max_entries`: size of `SEP_my_IKE_packet`, 256..=16,777,216.
    pub table_max_entries: u32,
    /// `[steering] attach`.
    pub attach: AttachMode,
    /// `[steering] bpffs`.
    pub bpffs: PathBuf,
    /// `[kernel] backend`.
    pub backend: Backend,
    /// `[kernel] forwarding_block`.
    pub forwarding_block: bool,
    /// `[takeover]`.
    pub takeover: Takeover,
    /// `[api] socket`.
    pub api_socket: PathBuf,
    /// `[rest]`; taken out when it is served.
    pub rest: Option<Rest>,
    /// `[vici] socket`; `None`: no such socket.
    pub vici_socket: Option<PathBuf>,
    /// `[ike]`.
    pub ike: IkeLimits,
    /// `[[connection]]`, in the file's order, which is the order of matching.
    pub connections: Vec<Arc<Connection>>,
    /// `[[secret]]`.
    pub secrets: Vec<Secret>,
    /// `[[private]]`, `[[authority]]` and `[[ppk]]`.
    pub credentials: Credentials,
    /// `[[authority]] crls`: files that are read again when they change.
    pub crl_files: Vec<PathBuf>,
    /// A secret stands in the file itself, and others than its owner can read that. No error: a
    /// gateway that has worked so far would not start after an upgrade.
    pub exposed: Option<ConfigError>,
    /// SHA-256 of what has to be alike on all members: cluster, mode, times, VIPs, members, witness,
    /// inbound policy, connections. Secrets are left out, a digest of a weak one could be guessed.
    pub digest: [u8; 32],
}

/// `[interfaces]`.
#[derive(Clone, Debug)]
pub struct Interfaces {
    /// Where peers' packets arrive.
    pub public: Vec<String>,
    /// Where the protected networks are.
    pub inside: Vec<String>,
    /// The sync network.
    pub sync: String,
}

/// `[health]`: how routing daemons see whether this member takes traffic.
#[derive(Clone, Debug)]
pub struct Health {
    /// File that holds the member's state, one word; written whenever it changes.
    pub state_file: PathBuf,
    /// Routing table that holds the VIPs as host routes while this member takes traffic; `None`:
    /// no such routes.
    pub route_table: Option<u32>,
}

/// `[sync]`.
#[derive(Clone, Debug)]
pub struct Sync {
    /// TCP port of the sync channel.
    pub port: u16,
    /// The cluster CA's certificate.
    pub ca: PathBuf,
    /// This member's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[ike]`: what unauthenticated peers may cost.
#[derive(Clone, Copy, Debug)]
pub struct IkeLimits {
    /// Half-open IKE SAs from which on a cookie is demanded.
    pub cookie_threshold: u32,
    /// Half-open IKE SAs above which IKE_SA_INIT requests are dropped.
    pub half_open_limit: u32,
    /// The same per source address.
    pub half_open_limit_per_source: u32,
    /// How long an IKE SA may stay half-open.
    pub half_open_timeout: Duration,
    /// How long a connection that is to be up waits after a failed initiation; zero = it is given
    /// up.
    pub retry_initiate_interval: Duration,
}

fn read(file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|error| {
        ConfigError::new(
            "",
            format!("cannot be read: {error}"),
            "a readable TOML file, see deploy/gateway.toml for an example",
        )
    })
}

/// Names in a file are relative to where it is.
fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("."))
}

impl Config {
    /// The VIPs that stand on every member's loopback interface: those that do not float.
    pub fn standing_vips(&self) -> Vec<IpAddr> {
        let floats = |vip: &IpAddr| self.floating.iter().any(|f| f.net.addr() == *vip);
        let vips = self.cluster.vips.iter().copied();
        vips.filter(|vip| !floats(vip)).collect()
    }

    /// [`Config::digest`] with other connections.
    pub fn digest_with(&self, connections: &[Arc<Connection>]) -> [u8; 32] {
        let witness = self.witness.as_ref();
        cluster::digest(&self.cluster, witness, self.takeover.inbound, connections)
    }

    /// Reads and checks `file`.
    ///
    /// # Errors
    /// [`ConfigError`] with the first thing that is wrong.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let load = || {
            let raw = raw::File::parse(&read(file)?)?;
            let secret = raw.inline_secret();
            let exposed = secret.and_then(|key| files::check_private(&key, file).err());
            Ok(Self {
                exposed,
                ..Self::check(folder_of(file), raw)?
            })
        };
        load().map_err(|error: ConfigError| error.in_file(file))
    }

    /// What of `file` says which addresses, interfaces and pins are ours, to take them away: without
    /// secrets, keys and connections, which need not be there any more. Credentials of systemd are not
    /// when a package is removed.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_for_removal(file: &Path) -> Result<Self, ConfigError> {
        let load = || {
            let mut raw = raw::File::parse(&read(file)?)?;
            raw.connection.clear();
            raw.secret.clear();
            raw.private.clear();
            raw.authority.clear();
            raw.ppk.clear();
            raw.witness = None;
            raw.rest = rest::RawRest::default();
            // Not there, so that it is not looked at.
            raw.sync.key = "removed".into();
            Self::check(folder_of(file), raw)
        };
        load().map_err(|error| error.in_file(file))
    }

    /// Checks the text of a configuration file; other files that it names are relative to the
    /// current folder.
    ///
    /// # Errors
    /// As [`Config::load`], without a file name.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::check(Path::new(""), raw::File::parse(text)?)
    }

    fn check(folder: &Path, raw: raw::File) -> Result<Self, ConfigError> {
        let folder = files::Folder(folder);
        let cluster = cluster::check(raw.cluster)?;
        let interfaces = check_interfaces(raw.interfaces)?;
        let floating = ha::check(&raw.ha, &cluster, &interfaces)?;
        let takeover = takeover::check(&raw.takeover)?;
        let witness = raw
            .witness
            .as_ref()
            .map(|raw| witness::check(raw, folder))
            .transpose()?;
        let store = authentication::Store::read(folder, &raw.private, &raw.authority, raw.ppk)?;
        let connections = connection::check_connections(raw.connection, &cluster.vips, &store)?;
        let secrets = connection::check_secrets(raw.secret, folder)?;
        connection::check_every_connection_has_a_secret(&connections, &secrets)?;
        Ok(Self {
            interfaces,
            floating,
            health: check_health(raw.health)?,
            sync: check_sync(&raw.sync, folder)?,
            ike_forwarding: raw.ike_forwarding.enabled,
            table_max_entries: value::in_range(
                "table.max_entries",
                raw.table.max_entries,
                256,
                16_777_216,
            )?,
            attach: raw.steering.attach,
            bpffs: raw.steering.bpffs,
            backend: raw.kernel.backend,
            forwarding_block: raw.kernel.forwarding_block,
            takeover,
            api_socket: raw.api.socket,
            rest: Some(rest::check(raw.rest, folder)?),
            vici_socket: Some(raw.vici.socket).filter(|path| !path.as_os_str().is_empty()),
            ike: check_limits(&raw.ike)?,
            exposed: None,
            digest: cluster::digest(&cluster, witness.as_ref(), takeover.inbound, &connections),
            cluster,
            witness,
            connections,
            secrets,
            credentials: Credentials {
                keys: store.keys,
                authorities: store.authorities,
                ppks: store.ppks,
            },
            crl_files: store.crls,
        })
    }
}

fn check_interfaces(raw: raw::Interfaces) -> Result<Interfaces, ConfigError> {
    if raw.public.is_empty() {
        return Err(ConfigError::new(
            "interfaces.public",
            "is empty",
            "at least one interface on which the peers' packets arrive",
        ));
    }
    let mut names: Vec<&str> = Vec::new();
    let all = raw.public.iter().chain(&raw.inside).chain([&raw.sync]);
    for name in all {
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
            return Err(ConfigError::new(
                "interfaces",
                format!("\"{name}\" is not an interface name"),
                "1 to 15 characters without space or slash",
            ));
        }
        if names.contains(&name.as_str()) {
            return Err(ConfigError::new(
                "interfaces",
                format!("\"{name}\" has two roles"),
                "each interface once, as public, inside or sync",
            ));
        }
        names.push(name);
    }
    Ok(Interfaces {
        public: raw.public,
        inside: raw.inside,
        sync: raw.sync,
    })
}

fn check_sync(raw: &raw::Sync, folder: files::Folder<'_>) -> Result<Sync, ConfigError> {
    Ok(Sync {
        port: value::port("sync.port", raw.port)?,
        ca: folder.path(&raw.ca),
        certificate: folder.path(&raw.certificate),
        key: folder.later_secret_path("sync.key", &raw.key)?,
    })
}

fn check_health(raw: raw::Health) -> Result<Health, ConfigError> {
    let table = value::in_range("health.route_table", raw.route_table, 0, 252)?;
    Ok(Health {
        state_file: raw.state_file,
        route_table: (table > 0).then_some(table),
    })
}

fn check_limits(raw: &raw::Ike) -> Result<IkeLimits, ConfigError> {
    Ok(IkeLimits {
        cookie_threshold: raw.cookie_threshold,
        half_open_limit: value::in_range("ike.half_open_limit", raw.half_open_limit, 1, 1_000_000)?,
        half_open_limit_per_source: value::in_range(
            "ike.half_open_limit_per_source",
            raw.half_open_limit_per_source,
            1,
            1_000_000,
        )?,
        half_open_timeout: value::duration(
            "ike.half_open_timeout",
            &raw.half_open_timeout,
            Duration::from_secs(1),
            Duration::from_secs(120),
        )?,
        retry_initiate_interval: value::duration(
            "ike.retry_initiate_interval",
            &raw.retry_initiate_interval,
            Duration::ZERO,
            Duration::from_secs(3600),
        )?,
    })
}

#[cfg(test)]
mod tests;
