//! `[witness]` of a member, and the witness's own configuration file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use gateway_cluster::membership::Timing;
use gateway_common::member::MemberId;
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::error::ConfigError;
use super::files::Folder;
use super::raw::{DurationText, Profile};
use super::{raw, timing, value};

/// The key that members and witness share. Never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct WitnessKey([u8; 32]);

impl WitnessKey {
    /// Its octets.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits.
    fn read(key: &str, file: &Path, folder: Folder<'_>) -> Result<Self, ConfigError> {
        let file = &folder.secret_path(key, file)?;
        let refuse = |problem: String| {
            ConfigError::new(
                key,
                format!("{}: {problem}", file.display()),
                "a file with 64 hexadecimal digits, mode 0600, made by `gatewayctl pki witness`",
            )
        };
        let mut text = std::fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
        let decoded = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes());
        text.zeroize();
        let mut octets = decoded.unwrap_or_default();
        let key = <[u8; 32]>::try_from(octets.as_slice()).map(Self);
        octets.zeroize();
        key.map_err(|_| refuse("is no such key".into()))
    }
}

impl std::fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WitnessKey")
    }
}

/// `[witness]`: a third host that decides between two members.
#[derive(Clone, Debug)]
pub struct Witness {
    /// Where it listens.
    pub address: IpAddr,
    /// UDP port.
    pub port: u16,
    /// The shared key.
    pub key: WitnessKey,
}

pub(super) fn check(raw: &raw::Witness, folder: Folder<'_>) -> Result<Witness, ConfigError> {
    Ok(Witness {
        address: value::address("witness.address", &raw.address)?,
        port: value::port("witness.port", raw.port)?,
        key: WitnessKey::read("witness.key_file", &raw.key_file, folder)?,
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWitness {
    /// `cluster.id` of the members.
    #[schemars(range(min = 1, max = 255))]
    #[serde(default = "raw::one")]
    cluster_id: u32,
    /// The members' ids.
    members: Vec<u32>,
    /// `cluster.profile` of the members.
    #[serde(default)]
    profile: Profile,
    /// `cluster.lease` of the members, if they override the profile's.
    lease: Option<DurationText>,
    /// Address to listen on.
    listen: String,
    /// UDP port.
    #[schemars(range(min = 1, max = 65_535))]
    #[serde(default = "raw::default_witness_port")]
    port: u32,
    /// The key that members and witness share, made by `gatewayctl pki witness`; mode 0600, or
    /// `credential:NAME`.
    #[serde(default = "raw::default_witness_key")]
    key_file: PathBuf,
    /// Folder, on a disk, for what it promised to whom: that has to survive its restarts.
    #[serde(default = "default_state_dir")]
    state_dir: PathBuf,
}

fn default_state_dir() -> PathBuf {
    "/var/lib/gateway-witness".into()
}

/// The configuration file of `gatewayd --witness`.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// `cluster.id` of the members.
    pub cluster: u8,
    /// The members' ids.
    pub members: Vec<MemberId>,
    /// The members' times; of them only the lease matters here.
    pub timing: Timing,
    /// Address to listen on.
    pub listen: IpAddr,
    /// UDP port.
    pub port: u16,
    /// The shared key.
    pub key: WitnessKey,
    /// Folder for what it promised: must survive a restart.
    pub state_dir: PathBuf,
}

impl WitnessConfig {
    /// Reads and checks `file`.
    ///
    /// # Errors
    /// [`ConfigError`] with the first thing that is wrong.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        const EXAMPLE: &str = "a TOML file like deploy/witness.toml";
        let refuse = |problem: String| ConfigError::new("", problem, EXAMPLE).in_file(file);
        let text = std::fs::read_to_string(file)
            .map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let raw: RawWitness =
            toml::from_str(&text).map_err(|error| refuse(error.message().replace('\n', "; ")))?;
        let folder = Folder(file.parent().unwrap_or(Path::new("")));
        Self::check(raw, folder).map_err(|error| error.in_file(file))
    }

    fn check(raw: RawWitness, folder: Folder<'_>) -> Result<Self, ConfigError> {
        let mut members = Vec::new();
        for (index, id) in raw.members.iter().enumerate() {
            members.push(value::member_id(&format!("members[{index}]"), *id)?);
        }
        let mut timing = timing::of(raw.profile);
        if let Some(lease) = &raw.lease {
            timing.lease = value::duration("lease", lease, timing::MIN, timing::MAX)?;
        }
        let cluster = value::in_range("cluster_id", raw.cluster_id, 1, 255)?;
        Ok(Self {
            cluster: u8::try_from(cluster).unwrap_or(u8::MAX),
            members,
            timing,
            listen: value::address("listen", &raw.listen)?,
            port: value::port("port", raw.port)?,
            key: WitnessKey::read("key_file", &raw.key_file, folder)?,
            state_dir: raw.state_dir,
        })
    }
}
