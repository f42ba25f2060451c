//! The configuration file: TOML, key names of swanctl.conf where swanctl has the key.
//!
//! Reading has two steps. [`raw`] gives the file's shape to serde (an unknown key is an error);
//! this module checks the values. Every error names the file, the key, what is wrong with it and
//! what is allowed, and nothing is applied before the whole file is right.

mod connection;
mod error;
mod raw;
mod value;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::config::{Connection, Secret};

pub use error::ConfigError;
pub use raw::{Backend, Mode};

use crate::steering::AttachMode;

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// `[cluster]`.
    pub cluster: Cluster,
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
    /// `[api] socket`.
    pub api_socket: PathBuf,
    /// `[ike]`.
    pub ike: IkeLimits,
    /// `[[connection]]`, in the file's order, which is the order of matching.
    pub connections: Vec<Arc<Connection>>,
    /// `[[secret]]`.
    pub secrets: Vec<Secret>,
    /// SHA-256 of what has to be alike on all members: cluster, mode, VIPs, members, connections.
    /// Secrets are left out, a digest of a weak one could be guessed.
    pub digest: [u8; 32],
}

/// `[cluster]` and `[[cluster.member]]`.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// 1..=255, octet of the marked MAC.
    pub id: u8,
    /// Name, in certificates and in every face.
    pub name: String,
    /// High Availability or load sharing.
    pub mode: Mode,
    /// This member.
    pub local: MemberId,
    /// All members, this one included.
    pub members: BTreeMap<MemberId, Member>,
    /// Cluster Virtual IPs.
    pub vips: Vec<IpAddr>,
}

impl Cluster {
    /// This member's own entry.
    pub fn local_member(&self) -> &Member {
        &self.members[&self.local]
    }
}

/// One `[[cluster.member]]`.
#[derive(Clone, Debug)]
pub struct Member {
    /// Name for humans.
    pub name: String,
    /// Address on the sync network.
    pub sync_address: IpAddr,
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
}

impl Config {
    /// Reads and checks `file`.
    ///
    /// # Errors
    /// [`ConfigError`] with the first thing that is wrong.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            ConfigError::new(
                "",
                format!("cannot be read: {error}"),
                "a readable TOML file, see deploy/gateway.toml for an example",
            )
            .in_file(file)
        })?;
        Self::parse(&text).map_err(|error| error.in_file(file))
    }

    /// Checks the text of a configuration file.
    ///
    /// # Errors
    /// As [`Config::load`], without a file name.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw = raw::File::parse(text)?;
        let cluster = check_cluster(raw.cluster)?;
        let connections = connection::check_connections(raw.connection, &cluster.vips)?;
        let secrets = connection::check_secrets(raw.secret)?;
        connection::check_every_connection_has_a_secret(&connections, &secrets)?;
        Ok(Self {
            interfaces: check_interfaces(raw.interfaces)?,
            sync: check_sync(raw.sync)?,
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
            api_socket: raw.api.socket,
            ike: check_limits(&raw.ike)?,
            digest: digest(&cluster, &connections),
            cluster,
            connections,
            secrets,
        })
    }
}

fn digest(cluster: &Cluster, connections: &[Arc<Connection>]) -> [u8; 32] {
    let alike = format!(
        "{} {} {:?} {:?} {:?} {connections:?}",
        cluster.id, cluster.name, cluster.mode, cluster.members, cluster.vips
    );
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, alike.as_bytes());
    let mut octets = [0; 32];
    octets.copy_from_slice(digest.as_ref());
    octets
}

fn check_cluster(raw: raw::Cluster) -> Result<Cluster, ConfigError> {
    let mut members = BTreeMap::new();
    for (index, member) in raw.member.into_iter().enumerate() {
        let key = format!("cluster.member[{index}]");
        let id = value::member_id(&format!("{key}.id"), member.id)?;
        let sync_address = value::address(&format!("{key}.sync_address"), &member.sync_address)?;
        let name = member.name.unwrap_or_else(|| format!("member-{id}"));
        let twin = members
            .values()
            .any(|m: &Member| m.sync_address == sync_address);
        if twin || members.insert(id, Member { name, sync_address }).is_some() {
            return Err(ConfigError::new(
                key,
                "has the id or the sync_address of another member",
                "one [[cluster.member]] per id (1 to 63) and sync address",
            ));
        }
    }
    let local = value::member_id("cluster.local", raw.local)?;
    if !members.contains_key(&local) {
        return Err(ConfigError::new(
            "cluster.local",
            format!("is {local}, but no [[cluster.member]] has this id"),
            format!("one of the configured ids: {}", value::list(members.keys())),
        ));
    }
    let vips = value::addresses("cluster.vips", &raw.vips)?;
    if vips.is_empty() {
        return Err(ConfigError::new(
            "cluster.vips",
            "is empty",
            "at least one address that the peers talk to",
        ));
    }
    Ok(Cluster {
        id: u8::try_from(value::in_range("cluster.id", raw.id, 1, 255)?).unwrap_or(u8::MAX),
        name: value::name("cluster.name", raw.name)?,
        mode: raw.mode,
        local,
        members,
        vips,
    })
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

fn check_sync(raw: raw::Sync) -> Result<Sync, ConfigError> {
    let port = value::in_range("sync.port", raw.port, 1, 65_535)?;
    Ok(Sync {
        port: u16::try_from(port).unwrap_or(u16::MAX),
        ca: raw.ca,
        certificate: raw.certificate,
        key: raw.key,
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
    })
}

#[cfg(test)]
mod tests;
