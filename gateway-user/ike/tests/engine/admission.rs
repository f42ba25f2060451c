//! Who may open a negotiation: cookies, limits, rates, time-outs, proposals.

use std::time::Duration;

use gateway_ike::crypto::KeyExchangeMethod;
use gateway_ike::endpoint::Command;
use gateway_ike::output::{Change, EventKind, Output};
use gateway_ike::secret::SecretBytes;
use gateway_ike::wire::NotifyType;

use crate::config::config;
use crate::gateway::{Gateway, path};
use crate::initiator::{Initiator, clear_notify};

/// Demands cookies always.
fn suspicious() -> Gateway {
    let mut config = config();
    config.limits.cookie_threshold = 0;
    Gateway::new(config)
}

fn demand_cookie(gateway: &mut Gateway, peer: &mut Initiator) -> Vec<u8> {
    let response = gateway.exchange(peer.path, &peer.init());
    let (kind, cookie) = clear_notify(&response);
    assert_eq!(kind, NotifyType::COOKIE);
    assert!((1..=64).contains(&cookie.len()));
    cookie
}

#[test]
fn a_cookie_is_demanded_and_accepted_without_state() {
    let mut gateway = suspicious();
    let mut peer = Initiator::new(50);
    let cookie = demand_cookie(&mut gateway, &mut peer);
    assert_eq!(gateway.endpoint.half_open(), 0);
    assert_eq!(gateway.order(0), ["transmit"]);
    // The same question, the same answer: nothing is kept.
    assert_eq!(demand_cookie(&mut gateway, &mut peer), cookie);
    peer.cookie = Some(cookie);
    assert!(peer.connect(&mut gateway).is_some());
    assert_eq!(gateway.endpoint.counters().cookies_sent, 2);
    assert_eq!(gateway.endpoint.counters().cookies_accepted, 1);
}

/// RFC 7296 §2.6: a cookie that does not match is ignored.
#[test]
fn a_cookie_is_good_for_one_address_spi_and_nonce() {
    let mut gateway = suspicious();
    let mut peer = Initiator::new(51);
    let cookie = demand_cookie(&mut gateway, &mut peer);
    let spoiled: [fn(&mut Initiator); 5] = [
        |p| p.path.remote = "198.51.100.8:500".parse().unwrap(),
        |p| p.spi_i[0] ^= 1,
        |p| p.nonce_i[0] ^= 1,
        |p| p.cookie.as_mut().unwrap()[20] ^= 1,
        |p| p.cookie.as_mut().unwrap().truncate(3),
    ];
    for spoil in spoiled {
        let mut other = Initiator::new(51);
        other.cookie = Some(cookie.clone());
        spoil(&mut other);
        demand_cookie(&mut gateway, &mut other);
    }
    // The port may change: a NAT may have moved it.
    peer.path.remote.set_port(1024);
    peer.own_address = peer.path.remote;
    peer.cookie = Some(cookie);
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
}

#[test]
fn own_secrets_rotate_and_the_last_one_stays_good_for_one_period() {
    for (seconds, good) in [
        (59, true),
        (61, true),
        (119, true),
        (121, false),
        (500, false),
    ] {
        let mut gateway = suspicious();
        let mut peer = Initiator::new(52);
        let cookie = demand_cookie(&mut gateway, &mut peer);
        // Somebody asks in between, so that the periods are counted.
        for _ in 0..seconds {
            gateway.advance(Duration::from_secs(1));
            demand_cookie(&mut gateway, &mut Initiator::new(53));
        }
        peer.cookie = Some(cookie);
        let response = gateway.exchange(peer.path, &peer.init());
        let refused = response[16] == gateway_ike::wire::PayloadType::NOTIFY.0;
        assert_eq!(!refused, good, "after {seconds} s");
    }
}

#[test]
fn members_with_a_common_secret_accept_each_others_cookies() {
    let (mut a, mut b) = (suspicious(), suspicious());
    let set = |gateway: &mut Gateway, version, secret: u8| {
        let secret = SecretBytes::new(vec![secret; 32]);
        let command = Command::SetCookieSecret { version, secret };
        gateway.endpoint.handle_command(gateway.now, command);
    };
    set(&mut a, 1, 1);
    set(&mut b, 1, 1);
    let mut peer = Initiator::new(54);
    peer.cookie = Some(demand_cookie(&mut a, &mut peer));
    // One rotation later it is still good, and the cluster's secret is not rotated by time.
    set(&mut b, 2, 2);
    set(&mut b, 2, 2);
    b.advance(Duration::from_secs(1000));
    let response = b.exchange(peer.path, &peer.init());
    peer.take_init(&response);

    set(&mut b, 3, 3);
    let mut late = Initiator::new(55);
    late.cookie = Some(demand_cookie(&mut a, &mut late));
    demand_cookie(&mut b, &mut late);
}

#[test]
fn cookies_begin_at_the_threshold() {
    let mut config = config();
    config.limits.cookie_threshold = 3;
    let mut gateway = Gateway::new(config);
    for seed in 0..3 {
        let mut peer = Initiator::new(200 + seed);
        let response = gateway.exchange(peer.path, &peer.init());
        peer.take_init(&response);
    }
    demand_cookie(&mut gateway, &mut Initiator::new(203));
    assert_eq!(gateway.endpoint.half_open(), 3);
}

#[test]
fn limits_in_total_and_per_source() {
    let mut config = config();
    config.limits.cookie_threshold = 100;
    config.limits.half_open_limit = 5;
    config.limits.half_open_limit_per_source = 2;
    let mut gateway = Gateway::new(config);
    let from = |seed: u64, last: u8| {
        let mut peer = Initiator::new(seed);
        peer.path = path("203.0.113.10:500", &format!("198.51.100.{last}:500"));
        peer.own_address = peer.path.remote;
        peer
    };
    let mut first = from(300, 1);
    let response = gateway.exchange(first.path, &first.init());
    first.take_init(&response);
    for (seed, source, accepted) in [
        (301, 1, true),
        (302, 1, false),
        (303, 2, true),
        (304, 2, true),
        (305, 3, true),
        (306, 4, false),
    ] {
        let mut peer = from(seed, source);
        let answers = gateway.receive(peer.path, &peer.init()).len();
        assert_eq!(answers, usize::from(accepted), "{seed}");
    }
    assert_eq!(gateway.endpoint.half_open(), 5);
    assert_eq!(gateway.endpoint.counters().dropped_half_open_limit, 2);
    assert!(gateway.complaints()[0].contains("half-open"));
    // Establishing one makes room, and so does a time-out.
    let response = gateway.exchange(first.path, &first.auth());
    assert!(first.take_auth(&response).is_some());
    assert_eq!(gateway.endpoint.half_open(), 4);
    let mut again = from(307, 1);
    gateway.exchange(again.path, &again.init());
    gateway.advance(Duration::from_secs(30));
    assert_eq!(gateway.endpoint.half_open(), 0);
    assert_eq!(gateway.endpoint.counters().half_open_timeouts, 5);
    assert_eq!(gateway.endpoint.sas().count(), 1);
}

#[test]
fn a_negotiation_times_out_with_a_reason() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(56);
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    assert_eq!(
        gateway.endpoint.poll_timeout(),
        Some(gateway.now + Duration::from_secs(30))
    );
    assert!(gateway.advance(Duration::from_millis(29_999)).is_empty());
    assert_eq!(gateway.endpoint.half_open(), 1);
    let from = gateway.log.len();
    gateway.advance(Duration::from_millis(1));
    assert_eq!(gateway.order(from), ["event", "delta 2 closed"]);
    let Some(Output::Delta(delta)) = gateway.log.last() else {
        panic!();
    };
    assert!(matches!(
        delta.change,
        Change::NegotiationClosed { local_cookie, .. } if local_cookie == peer.spi_r
    ));
    assert_eq!(gateway.endpoint.poll_timeout(), None);
    gateway.ignores(peer.path, &peer.auth());
}

#[test]
fn errors_without_state_have_a_rate() {
    let mut config = config();
    config.limits.stateless_error_rate = 10;
    let mut gateway = Gateway::new(config);
    let mut answered = 0;
    for seed in 0..50 {
        let mut peer = Initiator::new(400 + seed).offer("aes128gcm16-prfsha256-x25519");
        peer.guess(KeyExchangeMethod::Ecp256);
        answered += gateway.receive(peer.path, &peer.init()).len();
    }
    assert_eq!(answered, 10);
    assert_eq!(gateway.endpoint.counters().dropped_rate_limit, 40);
    gateway.advance(Duration::from_millis(200));
    let mut peer = Initiator::new(460);
    peer.guess(KeyExchangeMethod::Ecp256);
    assert_eq!(gateway.receive(peer.path, &peer.init()).len(), 1);
    // Who does nothing wrong is not held up.
    assert!(Initiator::new(461).connect(&mut gateway).is_some());
}

#[test]
fn a_wrong_guess_of_the_key_exchange_method() {
    let mut config = config();
    let mut connection = crate::config::connection("site", "peer.example.org");
    connection.proposals =
        gateway_ike::proposal::IkeProposal::parse("aes256gcm16-prfsha384-ecp256").unwrap();
    config.connections = vec![std::sync::Arc::new(connection)];
    let mut gateway = Gateway::new(config);
    let mut peer = Initiator::new(57).offer(
        "aes256gcm16-prfsha384-x25519, aes256gcm16-prfsha384-ecp256"
            .split(',')
            .next()
            .unwrap(),
    );
    peer.proposals
        .extend(gateway_ike::proposal::IkeProposal::parse("aes256gcm16-prfsha384-ecp256").unwrap());
    let response = gateway.exchange(peer.path, &peer.init());
    assert_eq!(
        clear_notify(&response),
        (NotifyType::INVALID_KE_PAYLOAD, vec![0, 19])
    );
    assert_eq!(gateway.endpoint.half_open(), 0);
    peer.guess(KeyExchangeMethod::Ecp256);
    assert!(peer.connect(&mut gateway).is_some());
}

#[test]
fn no_common_proposal_and_no_connection() {
    let mut strict = config();
    let mut connection = crate::config::connection("site", "peer.example.org");
    connection.proposals =
        gateway_ike::proposal::IkeProposal::parse("aes256gcm16-prfsha384-ecp256").unwrap();
    connection.local_addrs = vec!["203.0.113.10".parse().unwrap()];
    strict.connections = vec![std::sync::Arc::new(connection)];
    let mut gateway = Gateway::new(strict);
    let mut peer = Initiator::new(58);
    let response = gateway.exchange(peer.path, &peer.init());
    assert_eq!(
        clear_notify(&response),
        (NotifyType::NO_PROPOSAL_CHOSEN, vec![])
    );
    let EventKind::ExchangeFailed { reason } = gateway.events()[0] else {
        panic!();
    };
    // What was offered and what we would have taken.
    assert!(
        reason.contains("CURVE_25519") && reason.contains("ECP_256"),
        "{reason}"
    );

    peer.path = path("203.0.113.11:500", "198.51.100.7:500");
    let response = gateway.exchange(peer.path, &peer.init());
    assert_eq!(
        clear_notify(&response),
        (NotifyType::NO_PROPOSAL_CHOSEN, vec![])
    );
    assert!(gateway.complaints()[1].contains("no connection for these addresses"));
}
