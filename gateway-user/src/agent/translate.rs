//! Between the words of the engine, of the cluster core and of the data path.

use gateway_cluster::change::{Change, Child, Negotiation, Sa};
use gateway_cluster::config::Config as ClusterConfig;
use gateway_cluster::frame::Incarnation;
use gateway_cluster::network::Network;
use gateway_cluster::secret::Secret;
use gateway_cluster::slot_map::{self, Weighted};
use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use gateway_ike::config::{Config as IkeConfig, Limits};
use gateway_ike::output;
use gateway_ike::record::IkeSaRecord;

use ipnet::IpNet;

use crate::config::{Config, Mode};
use crate::steering::{MemberLink, SteeringConfig};
use crate::sync::{Credentials, PeerAddress, TransportConfig, TransportLimits};

/// Routing zone of everything in this release.
const MAIN_ZONE: u32 = 0;

pub(super) fn engine_config(config: &Config, incarnation: Incarnation) -> IkeConfig {
    IkeConfig {
        member: config.cluster.local,
        // Two runs that draw IVs under one key would have to be 65,536 runs apart.
        incarnation: (incarnation.0 & 0xffff) as u16,
        connections: config.connections.clone(),
        secrets: config.secrets.clone(),
        limits: Limits {
            cookie_threshold: config.ike.cookie_threshold as usize,
            half_open_limit: config.ike.half_open_limit as usize,
            half_open_limit_per_source: config.ike.half_open_limit_per_source as usize,
            half_open_timeout: config.ike.half_open_timeout,
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
                .flat_map(|c| &c.local_ts),
        )
        .collect(),
    }
}

pub(super) fn cluster_config(config: &Config, incarnation: Incarnation) -> ClusterConfig {
    let cluster = &config.cluster;
    ClusterConfig {
        local: cluster.local,
        members: cluster
            .members
            .keys()
            .map(|&member| Weighted { member, weight: 1 })
            .collect(),
        cluster_id: cluster.id,
        cluster_name: cluster.name.clone(),
        config_hash: config.digest,
        incarnation,
        limits: gateway_cluster::config::Limits::default(),
    }
}

pub(super) fn slot_mode(config: &Config) -> slot_map::Mode {
    match config.cluster.mode {
        Mode::Ha => slot_map::Mode::HighAvailability,
        Mode::LoadSharing => slot_map::Mode::LoadSharing,
    }
}

fn networks<'a>(
    selectors: impl Iterator<Item = &'a output::TrafficSelector>,
) -> impl Iterator<Item = IpNet> {
    selectors
        .flat_map(output::TrafficSelector::prefixes)
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
        credentials,
        limits: TransportLimits::default(),
    })
}

/// Networks that are reached in clear although they may lie within a peer's: our protected ones
/// and the addresses of the cluster itself.
pub(super) fn exempt_networks<'a>(
    config: &'a Config,
    local_ts: impl Iterator<Item = &'a output::TrafficSelector>,
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

/// The engine's change as the members tell it to each other.
pub(super) fn change(now: Instant, change: output::Change) -> Change {
    match change {
        output::Change::NegotiationOpened {
            initiator_cookie,
            responder_cookie,
            peer,
            expires,
        } => Change::NegotiationOpened {
            negotiation: Negotiation {
                local_cookie: responder_cookie,
                peer_cookie: initiator_cookie,
                peer,
            },
            lifetime: expires - now,
        },
        output::Change::NegotiationClosed {
            responder_cookie, ..
        } => Change::NegotiationClosed {
            local_cookie: responder_cookie,
        },
        output::Change::Upsert(record) => Change::SaUpsert(sa(&record)),
        output::Change::Removed { local_spi } => Change::SaRemoved { local_spi },
    }
}

fn sa(record: &IkeSaRecord) -> Sa {
    Sa {
        local_spi: record.local_spi,
        children: record
            .children
            .iter()
            .map(|child| self::child(&child.sa))
            .collect(),
        record: Secret::new(record.encode().expose().to_vec()),
        ..Sa::default()
    }
}

fn child(sa: &output::ChildSa) -> Child {
    let remote_nets = sa
        .remote_ts
        .iter()
        .flat_map(output::TrafficSelector::prefixes)
        .filter_map(|prefix| Network::new(MAIN_ZONE, prefix.address, prefix.len))
        .collect();
    Child {
        spi_in: sa.spi_in,
        vip: sa.local,
        spi_out: sa.spi_out,
        peer: sa.remote,
        remote_nets,
    }
}
