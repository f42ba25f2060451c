//! The members' configuration.

use std::sync::Arc;
use std::time::Duration;

use gateway_cluster::frame::Incarnation;
use gateway_cluster::slot_map::Weighted;
use gateway_common::member::MemberId;
use gateway_ike::config::{
    Actions, Authentication, ChildConfig, Connection, Initiation, Limits, RemoteAddress, Secret,
    Transport, Uniqueness, Volume,
};
use gateway_ike::identity::{Identity, IdentityPattern};
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;

use super::mechanism::Mechanism;
use super::world::PSK;
use crate::{Config, WalkLimits};

/// A member's configuration: one connection for all peers.
pub(super) fn node(
    local: MemberId,
    incarnation: Incarnation,
    members: Vec<Weighted>,
    without: Option<Mechanism>,
) -> Config {
    let child = ChildConfig {
        name: "net".into(),
        local_ts: "10.1.0.0/16".parse().into_iter().collect(),
        remote_ts: "10.2.0.0/16".parse().into_iter().collect(),
        esp_proposals: EspProposal::parse("aes128gcm16-esn").unwrap_or_default(),
        replay_window: 128,
        rekey_time: Duration::ZERO,
        life_time: Duration::from_secs(100_000),
        rand_time: Duration::ZERO,
        if_id_in: 0,
        if_id_out: 0,
        marks: gateway_ike::mark::Marks::default(),
        actions: Actions::default(),
        volume: Volume::default(),
    };
    let connection = Connection {
        name: "site".into(),
        local_addrs: Vec::new(),
        remote_addrs: vec![RemoteAddress::Any],
        proposals: IkeProposal::parse("aes128gcm16-prfsha256-x25519").unwrap_or_default(),
        local_id: Identity::Fqdn("gw.example.org".into()),
        remote_id: IdentityPattern::Any,
        auth: Authentication::default(),
        children: vec![Arc::new(child)],
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        dpd_delay: Duration::ZERO,
        unique: Uniqueness::No,
        transport: Transport::default(),
        initiation: Initiation::default(),
    };
    let ike = gateway_ike::config::Config {
        member: local,
        incarnation: (incarnation.0 & 0xffff) as u16,
        connections: vec![Arc::new(connection)],
        secrets: vec![Secret {
            ids: Vec::new(),
            secret: SecretBytes::from(PSK),
        }],
        ppks: Vec::new(),
        limits: Limits {
            half_open_timeout: Duration::from_secs(4),
            linger: Duration::from_secs(4),
            retransmit_timeout: Duration::from_millis(300),
            retransmit_tries: 12,
            retry_delay: Duration::from_millis(500),
            shared_ivs: without == Some(Mechanism::IvPrefix),
            ..Limits::default()
        },
    };
    Config {
        ike: Arc::new(ike),
        cluster: gateway_cluster::config::Config {
            local,
            members,
            cluster_id: 1,
            cluster_name: "sim".into(),
            config_hash: [0; 32],
            incarnation,
            limits: gateway_cluster::config::Limits {
                mutations: without.map(Mechanism::cluster).unwrap_or_default(),
                ..gateway_cluster::config::Limits::default()
            },
        },
        walk: WalkLimits::default(),
    }
}
