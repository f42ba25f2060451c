//! Configurations of the gateway under test.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::config::{
    Actions, Authentication, ChildConfig, Config, Connection, Initiation, Limits, RemoteAddress,
    Secret, Transport, Uniqueness, Volume,
};
use gateway_ike::identity::{Identity, IdentityPattern};
use gateway_ike::output::TrafficSelector;
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;

pub(crate) const PSK: &[u8] = b"correct horse battery staple";

pub(crate) fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

pub(crate) fn ts(text: &str) -> TrafficSelector {
    text.parse().unwrap()
}

pub(crate) fn child(name: &str, local: &str, remote: &str) -> ChildConfig {
    ChildConfig {
        name: name.to_owned(),
        local_ts: vec![local.parse().unwrap()],
        remote_ts: vec![remote.parse().unwrap()],
        esp_proposals: EspProposal::defaults(),
        replay_window: 32,
        life_time: Duration::from_secs(3960),
        rekey_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        if_id_in: 0,
        if_id_out: 0,
        marks: gateway_ike::mark::Marks::default(),
        actions: Actions::default(),
        volume: Volume::default(),
    }
}

pub(crate) fn connection(name: &str, remote_id: &str) -> Connection {
    Connection {
        name: name.to_owned(),
        local_addrs: Vec::new(),
        remote_addrs: vec![RemoteAddress::Any],
        proposals: IkeProposal::defaults(),
        local_id: id("gw.example.org"),
        remote_id: remote_id.parse::<IdentityPattern>().unwrap(),
        auth: Authentication::default(),
        children: vec![Arc::new(child("net", "10.1.0.0/16", "10.2.0.0/16"))],
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        dpd_delay: Duration::ZERO,
        unique: Uniqueness::No,
        transport: Transport::default(),
        initiation: Initiation::default(),
    }
}

/// One connection to `peer.example.org`, and limits that no test meets by accident.
pub(crate) fn config() -> Config {
    Config {
        member: MemberId::new(5).unwrap(),
        incarnation: 1,
        connections: vec![Arc::new(connection("site", "peer.example.org"))],
        secrets: vec![Secret {
            ids: vec![id("gw.example.org"), id("peer.example.org")],
            secret: SecretBytes::from(PSK),
        }],
        ppks: Vec::new(),
        limits: Limits::default(),
    }
}
