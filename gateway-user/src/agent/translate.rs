//! Between the words of the engine, of the cluster core and of the data path.

use std::sync::Arc;

use gateway_cluster::config::Config as ClusterConfig;
use gateway_cluster::frame::Incarnation;
use gateway_cluster::membership;
use gateway_cluster::slot_map::{self, Weighted};
use gateway_common::member::MemberId;
use gateway_ike::config::{Config as IkeConfig, Limits};
use gateway_ike::output;
use gateway_ike::selector::SelectorConfig;
use ipnet::IpNet;

use crate::config::{Config, Failback, Mode, TwoMember};
use crate::heartbeat::LinkConfig;
use crate::steering::{MemberLink, SteeringConfig};
use crate::sync::{Credentials, Detour, PeerAddress, TransportConfig, TransportLimits};

/// Per second: enough for the peers of a cluster that lost its IKE SAs to notice within seconds.
const INVALID_IKE_SPI_RATE: u32 = 100;

fn engine_config(config: &Config, incarnation: Incarnation) -> IkeConfig {
    IkeConfig {
        member: config.cluster.local,
        // Two runs that draw IVs under one key would have to be 65,536 runs apart.
        incarnation: (incarnation.0 & 0xffff) as u16,
        connections: config.connections.clone(),
        secrets: config.secrets.clone(),
        ppks: config.credentials.ppks.clone(),
        limits: Limits {
            cookie_threshold: config.ike.cookie_threshold as usize,
            half_open_limit: config.ike.half_open_limit as usize,
            half_open_limit_per_source: config.ike.half_open_limit_per_source as usize,
            half_open_timeout: config.ike.half_open_timeout,
            retry_initiate_interval: config.ike.retry_initiate_interval,
            invalid_ike_spi_rate: INVALID_IKE_SPI_RATE,
            ..Limits::default()
        },
    }
}

pub(super) fn steering_config(config: &Config) -> SteeringConfig {
    SteeringConfig {
        cluster: config.cluster.id,
        local: config.cluster.local,
        members: members(config)
            .map(|(id, sync_address)| MemberLink { id, sync_address })
            .collect(),
        vips: config.cluster.vips.clone(),
        public: config.interfaces.public.clone(),
        inside: config.interfaces.inside.clone(),
        sync: config.interfaces.sync.clone(),
        attach: config.attach,
        bpffs: config.bpffs.clone(),
        max_entries: config.table_max_entries,
        enabled: config.ike_forwarding,
        fence: None,
        local_networks: networks(
            config
                .connections
                .iter()
                .flat_map(|c| &c.children)
                .flat_map(|c| &c.local_ts)
                .filter_map(SelectorConfig::fixed),
        )
        .collect(),
    }
}

pub(super) fn node_config(config: &Config, incarnation: Incarnation) -> gateway_node::Config {
    gateway_node::Config {
        ike: Arc::new(engine_config(config, incarnation)),
        cluster: cluster_config(config, incarnation),
        walk: gateway_node::WalkLimits {
            rate: config.takeover.checks_per_second,
            rekey: config.takeover.rekeys(),
            rekey_rate: config.takeover.rekeys_per_second,
            ..gateway_node::WalkLimits::default()
        },
    }
}

fn cluster_config(config: &Config, incarnation: Incarnation) -> ClusterConfig {
    let cluster = &config.cluster;
    ClusterConfig {
        local: cluster.local,
        members: weighted(config),
        cluster_id: cluster.id,
        cluster_name: cluster.name.clone(),
        config_hash: config.digest,
        incarnation,
        limits: limits(config),
    }
}

/// Where slow members get more time before they are called lost, so do their kernels to confirm.
fn limits(config: &Config) -> gateway_cluster::config::Limits {
    let default = gateway_cluster::config::Limits::default();
    gateway_cluster::config::Limits {
        ack_timeout: default.ack_timeout.max(config.cluster.timing.silence / 3),
        ..default
    }
}

fn weighted(config: &Config) -> Vec<Weighted> {
    let members = config.cluster.members.iter();
    members
        .map(|(&member, configured)| Weighted {
            member,
            weight: configured.weight,
        })
        .collect()
}

pub(super) fn membership_config(config: &Config, incarnation: Incarnation) -> membership::Config {
    let cluster = &config.cluster;
    membership::Config {
        mode: match cluster.mode {
            Mode::Ha => slot_map::Mode::HighAvailability,
            Mode::LoadSharing => slot_map::Mode::LoadSharing,
        },
        failback: match cluster.failback {
            Failback::MaintainActive => slot_map::Failback::MaintainActive,
            Failback::HigherPriority => slot_map::Failback::HigherPriority,
        },
        witness: config.witness.is_some(),
        two_member: match cluster.two_member {
            TwoMember::Availability => membership::TwoMember::Availability,
            TwoMember::Consistency => membership::TwoMember::Consistency,
        },
        boot_alone: cluster.boot_alone,
        config_hash: short_digest(config),
        timing: cluster.timing,
        ..membership::Config::new(cluster.local, incarnation, weighted(config))
    }
}

/// What heartbeats say of the digest.
pub(super) fn short_digest(config: &Config) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = config.digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The sync network first, then the others in the order of `heartbeat_addresses`.
pub(super) fn cluster_links(config: &Config) -> Vec<LinkConfig> {
    let cluster = &config.cluster;
    let own = cluster.local_member().addresses();
    let devices = std::iter::once(Some(config.interfaces.sync.clone()));
    own.zip(devices.chain(std::iter::repeat(None)))
        .enumerate()
        .map(|(index, (local, device))| LinkConfig {
            device,
            local,
            peers: cluster
                .members
                .iter()
                .filter(|(id, _)| **id != cluster.local)
                .filter_map(|(id, member)| Some((*id, member.addresses().nth(index)?)))
                .collect(),
        })
        .collect()
}

fn networks(
    selectors: impl Iterator<Item = output::TrafficSelector>,
) -> impl Iterator<Item = IpNet> {
    selectors
        .flat_map(|selector| selector.prefixes())
        .filter_map(|prefix| IpNet::new(prefix.address, prefix.len).ok())
}

pub(super) fn transport_config(config: &Config) -> anyhow::Result<TransportConfig> {
    let sync = &config.sync;
    let credentials = Credentials::load(&sync.ca, &sync.certificate, &sync.key)?;
    let local = config.cluster.local;
    Ok(TransportConfig {
        local,
        cluster: config.cluster.name.clone(),
        address: config.cluster.local_member().sync_address,
        port: sync.port,
        device: Some(config.interfaces.sync.clone()),
        peers: members(config)
            .filter(|(member, _)| *member != local)
            .map(|(member, address)| PeerAddress { member, address })
            .collect(),
        detours: cluster_links(config)
            .into_iter()
            .skip(1)
            .map(|link| Detour {
                address: link.local,
                peers: link.peers,
            })
            .collect(),
        credentials,
        limits: TransportLimits::default(),
    })
}

/// Networks that are reached in clear although they may lie within a peer's: our protected ones
/// and the addresses of the cluster itself.
pub(super) fn exempt_networks(
    config: &Config,
    local_ts: impl Iterator<Item = output::TrafficSelector>,
) -> Vec<IpNet> {
    let protected = networks(local_ts);
    let own = config.cluster.vips.iter().copied();
    protected
        .chain(
            own.chain(members(config).map(|(_, address)| address))
                .map(IpNet::from),
        )
        .collect()
}

pub(super) fn members(config: &Config) -> impl Iterator<Item = (MemberId, std::net::IpAddr)> {
    config
        .cluster
        .members
        .iter()
        .map(|(id, member)| (*id, member.sync_address))
}
