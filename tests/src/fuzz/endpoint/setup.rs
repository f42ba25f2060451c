//! A configuration with everything in it, and tight limits.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::config::{
    Actions, Authentication, Authorization, ChildConfig, Config, Connection, Initiation, Limits,
    RemoteAddress, Secret, Transport, Uniqueness, Volume,
};
use gateway_ike::crypto::{Encryption, KeyExchangeMethod, Prf};
use gateway_ike::identity::{Identity, IdentityPattern};
use gateway_ike::output::TrafficSelector;
use gateway_ike::proposal::{AdditionalKes, EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;

pub(crate) const HALF_OPEN_LIMIT: usize = 6;

/// Suites that the peers use; the last one is not configured.
pub(crate) const IKE_SUITES: [IkeProposal; 3] = [
    IkeProposal {
        encryption: Encryption::AesGcm16Key128,
        prf: Prf::HmacSha256,
        ke: KeyExchangeMethod::X25519,
        additional: AdditionalKes::NONE,
    },
    IkeProposal {
        encryption: Encryption::AesGcm16Key256,
        prf: Prf::HmacSha384,
        ke: KeyExchangeMethod::Ecp256,
        additional: AdditionalKes::NONE,
    },
    IkeProposal {
        encryption: Encryption::AesGcm16Key256,
        prf: Prf::HmacSha256,
        ke: KeyExchangeMethod::Ecp256,
        additional: AdditionalKes::NONE,
    },
];

/// As above.
pub(crate) const ESP_SUITES: [EspProposal; 3] = [
    EspProposal {
        encryption: Encryption::AesGcm16Key128,
        ke: None,
        additional: AdditionalKes::NONE,
        esn: false,
    },
    EspProposal {
        encryption: Encryption::AesGcm16Key256,
        ke: Some(KeyExchangeMethod::X25519),
        additional: AdditionalKes::NONE,
        esn: true,
    },
    EspProposal {
        encryption: Encryption::AesGcm16Key128,
        ke: Some(KeyExchangeMethod::Ecp256),
        additional: AdditionalKes::NONE,
        esn: true,
    },
];

pub(crate) fn secret() -> SecretBytes {
    SecretBytes::from(&b"a shared secret"[..])
}

/// Of the peer and of us, in IPv4 or IPv6; `wide` asks for more than is configured.
pub(crate) fn traffic(six: bool, wide: bool) -> (TrafficSelector, TrafficSelector) {
    let len = if wide { 0 } else { 16 };
    if six {
        (
            TrafficSelector::prefix([0x2001, 0xdb8, 2, 0, 0, 0, 0, 0].into(), 3 * len),
            TrafficSelector::prefix([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0].into(), 3 * len),
        )
    } else {
        (
            TrafficSelector::prefix([10, 2, 0, 0].into(), len),
            TrafficSelector::prefix([10, 1, 0, 0].into(), len),
        )
    }
}

fn child(name: &str, six: bool) -> Arc<ChildConfig> {
    let (theirs, ours) = traffic(six, false);
    Arc::new(ChildConfig {
        name: name.to_owned(),
        local_ts: vec![ours.into()],
        remote_ts: vec![theirs.into()],
        esp_proposals: [&ESP_SUITES[..2], &[super::follow_up::ESP]].concat(),
        replay_window: 32,
        life_time: Duration::from_secs(600),
        rekey_time: Duration::from_secs(500),
        rand_time: Duration::from_secs(100),
        if_id_in: 0,
        if_id_out: 0,
        marks: gateway_ike::mark::Marks::default(),
        actions: Actions::default(),
        volume: Volume::default(),
    })
}

/// Octets that fragments of unauthenticated peers may take.
pub(super) const REASSEMBLY_TOTAL: usize = 2500;

fn connection(name: &str, remote_id: IdentityPattern, suites: &[IkeProposal]) -> Arc<Connection> {
    Arc::new(Connection {
        name: name.to_owned(),
        local_addrs: Vec::new(),
        remote_addrs: vec![RemoteAddress::Any],
        proposals: [suites, &[super::follow_up::IKE]].concat(),
        local_id: Identity::Fqdn("gw.example.org".to_owned()),
        remote_id,
        auth: Authentication::default(),
        children: vec![child("four", false), child("six", true)],
        rekey_time: Duration::from_secs(1000),
        over_time: Duration::from_secs(100),
        rand_time: Duration::from_secs(100),
        dpd_delay: Duration::ZERO,
        unique: Uniqueness::No,
        transport: Transport {
            // They never end, but the targets want to see everything come to its end.
            keepalive: Duration::ZERO,
            ..Transport::default()
        },
        initiation: Initiation::default(),
    })
}

/// # Panics
///
/// If `member` is not a member id.
pub(crate) fn config(member: u8, incarnation: u16) -> Config {
    let [first, last] = ["p0", "p2"].map(|name| Identity::Fqdn(format!("{name}.example.org")));
    let mut asked = connection("asked", IdentityPattern::Exactly(last), &IKE_SUITES[..2]);
    Arc::make_mut(&mut asked).auth.authorization = Some(Authorization {
        by: "the porter".to_owned(),
        patience: Duration::from_secs(10),
    });
    Config {
        member: MemberId::new(member).expect("1 to 63"),
        incarnation,
        connections: vec![
            connection("one", IdentityPattern::Exactly(first), &IKE_SUITES[..1]),
            connection("any", IdentityPattern::Any, &IKE_SUITES[..2]),
            asked,
        ],
        secrets: vec![Secret {
            ids: Vec::new(),
            secret: secret(),
        }],
        ppks: Vec::new(),
        limits: Limits {
            cookie_threshold: 3,
            half_open_limit: HALF_OPEN_LIMIT,
            half_open_limit_per_source: 4,
            children_per_ike_sa: 3,
            reassembly_unauthenticated: 1500,
            reassembly_unauthenticated_total: REASSEMBLY_TOTAL,
            reassembly_authenticated: 3000,
            ..Limits::default()
        },
    }
}
