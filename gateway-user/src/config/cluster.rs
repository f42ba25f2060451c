//! `[cluster]` and `[[cluster.member]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_cluster::membership::Timing;
use gateway_common::member::MemberId;
use gateway_ike::config::Connection;

use super::error::ConfigError;
use super::raw::{Failback, Mode, TwoMember};
use super::{Witness, raw, timing, value};
use crate::xfrm::InboundPolicy;

/// Heartbeats run over the sync network and at most so many others.
const MAX_HEARTBEAT_ADDRESSES: usize = 7;

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
    /// Heartbeats, leases, and when silence means death.
    pub timing: Timing,
    /// UDP port of the heartbeats, the same on all members.
    pub heartbeat_port: u16,
    /// What one of two members does that hears nobody.
    pub two_member: TwoMember,
    /// At a cold start this member forms a view although no majority is heard.
    pub boot_alone: bool,
    /// Who is active after a better member has come back.
    pub failback: Failback,
    /// Folder for what must survive a restart: the epoch.
    pub state_dir: PathBuf,
    /// The main loop may be silent for so long before the member counts as ill.
    pub watchdog: Duration,
    /// SIGTERM waits at most so long for the other members to take over.
    pub drain: Duration,
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
    /// Addresses on further networks for heartbeats, in the same order on all members.
    pub heartbeat_addresses: Vec<IpAddr>,
    /// Share of the slots in load sharing, relative to the others'; 0: none. 0..=1000.
    pub weight: u16,
}

impl Member {
    /// All its addresses on cluster networks, that of the sync network first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.sync_address).chain(self.heartbeat_addresses.iter().copied())
    }
}

pub(super) fn check(raw: raw::Cluster) -> Result<Cluster, ConfigError> {
    let timing = timing::check(&raw)?;
    let members = check_members(raw.member)?;
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
    let second = Duration::from_secs(1);
    Ok(Cluster {
        id: u8::try_from(value::in_range("cluster.id", raw.id, 1, 255)?).unwrap_or(u8::MAX),
        name: value::name("cluster.name", raw.name)?,
        mode: raw.mode,
        local,
        members,
        vips,
        timing,
        heartbeat_port: value::port("cluster.heartbeat_port", raw.heartbeat_port)?,
        two_member: raw.two_member,
        boot_alone: raw.boot_alone,
        failback: raw.failback,
        state_dir: raw.state_dir,
        watchdog: value::duration("cluster.watchdog", &raw.watchdog, second / 10, 60 * second)?,
        drain: value::duration("cluster.drain", &raw.drain, Duration::ZERO, 60 * second)?,
    })
}

fn check_members(raw: Vec<raw::Member>) -> Result<BTreeMap<MemberId, Member>, ConfigError> {
    let mut members: BTreeMap<MemberId, Member> = BTreeMap::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let key = format!("cluster.member[{index}]");
        let id = value::member_id(&format!("{key}.id"), raw.id)?;
        let member = check_member(&key, id, raw)?;
        let own: Vec<IpAddr> = member.addresses().collect();
        let twin = members
            .values()
            .any(|other| other.addresses().any(|address| own.contains(&address)));
        if twin || members.contains_key(&id) {
            return Err(ConfigError::new(
                key,
                "has the id or an address of another member",
                "one [[cluster.member]] per id (1 to 63), with addresses of its own",
            ));
        }
        members.insert(id, member);
    }
    let networks = |member: &Member| member.heartbeat_addresses.len();
    let first = members.values().next().map_or(0, networks);
    if let Some((id, _)) = members.iter().find(|(_, m)| networks(m) != first) {
        return Err(ConfigError::new(
            "cluster.member.heartbeat_addresses",
            format!("of member {id} are not as many as those of the first"),
            "for every member one address in each heartbeat network, in the same order",
        ));
    }
    Ok(members)
}

fn check_member(key: &str, id: MemberId, raw: raw::Member) -> Result<Member, ConfigError> {
    let sync_address = value::address(&format!("{key}.sync_address"), &raw.sync_address)?;
    let list = format!("{key}.heartbeat_addresses");
    let heartbeat_addresses = value::addresses(&list, &raw.heartbeat_addresses)?;
    if heartbeat_addresses.contains(&sync_address)
        || heartbeat_addresses.len() > MAX_HEARTBEAT_ADDRESSES
    {
        return Err(ConfigError::new(
            list,
            "has the sync_address, or too many",
            format!("up to {MAX_HEARTBEAT_ADDRESSES} further addresses of the member"),
        ));
    }
    let weight = value::in_range(&format!("{key}.weight"), raw.weight, 0, 1000)?;
    Ok(Member {
        name: raw.name.unwrap_or_else(|| format!("member-{id}")),
        sync_address,
        heartbeat_addresses,
        weight: u16::try_from(weight).unwrap_or(u16::MAX),
    })
}

/// SHA-256 of what has to be alike on all members.
pub(super) fn digest(
    cluster: &Cluster,
    witness: Option<&Witness>,
    inbound: InboundPolicy,
    connections: &[Arc<Connection>],
) -> [u8; 32] {
    let alike = format!(
        "{} {} {:?} {:?} {:?} {:?} {} {:?} {:?} {:?} {inbound:?} {connections:?}",
        cluster.id,
        cluster.name,
        cluster.mode,
        cluster.members,
        cluster.vips,
        cluster.timing,
        cluster.heartbeat_port,
        cluster.two_member,
        cluster.failback,
        witness.map(|witness| (witness.address, witness.port)),
    );
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, alike.as_bytes());
    let mut octets = [0; 32];
    octets.copy_from_slice(digest.as_ref());
    octets
}
