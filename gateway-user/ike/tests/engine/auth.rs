//! IKE_AUTH that does not go well, and the choice of connection and secret.

use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::{RemoteAddress, Secret};
use gateway_ike::output::{EventKind, KernelResult, Output};
use gateway_ike::proposal::{EspExchange, EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;
use gateway_ike::wire::{
    AuthMethod, AuthRepr, ExchangeType, IdRepr, NotifyType, Payload, PayloadType,
};

use crate::config::{PSK, child, config, connection, id, ts};
use crate::gateway::{Gateway, Kernel, path};
use crate::initiator::Initiator;

/// Runs a handshake whose IKE_AUTH must be denied; returns the gateway and its complaint.
fn denied(mut gateway: Gateway, peer: &mut Initiator, why: &str) -> Gateway {
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    assert_eq!(gateway.endpoint.half_open(), 1);
    let from = gateway.log.len();
    let request = peer.auth();
    let response = gateway.exchange(peer.path, &request);
    let error = Some((NotifyType::AUTHENTICATION_FAILED, Vec::new()));
    assert_eq!(peer.error(&response), error, "{why}");
    assert_eq!(gateway.order(from), ["event", "delta 2 closed", "transmit"]);
    assert!(gateway.installs().is_empty());
    assert_eq!(gateway.endpoint.sas().count(), 0);
    assert_eq!(gateway.endpoint.half_open(), 0);
    let complaints = gateway.complaints();
    assert_eq!(complaints.len(), 1);
    assert!(complaints[0].contains(why), "{complaints:?}");
    assert!(!complaints[0].contains("correct horse"));
    // The answer may be lost; the request comes again and gets the same octets.
    assert_eq!(gateway.exchange(peer.path, &request), response);
    gateway
}

#[test]
fn wrong_psk() {
    let mut peer = Initiator::new(20);
    peer.psk = b"wrong".to_vec();
    let gateway = denied(Gateway::new(config()), &mut peer, "another pre-shared key");
    assert_eq!(gateway.endpoint.counters().authentication_failures, 1);
}

/// Failed negotiations take no more memory than half-open ones may.
#[test]
fn only_so_many_failures_are_remembered() {
    let mut config = config();
    config.limits.half_open_limit = 3;
    let mut gateway = Gateway::new(config);
    for number in 0..6 {
        let mut peer = Initiator::new(500 + number);
        peer.psk = b"wrong".to_vec();
        let response = gateway.exchange(peer.path, &peer.init());
        peer.take_init(&response);
        let request = peer.auth();
        gateway.exchange(peer.path, &request);
        let again = gateway.receive(peer.path, &request).len();
        assert_eq!(again, usize::from(number < 3));
    }
    gateway.advance(Duration::from_secs(30));
    assert_eq!(gateway.endpoint.poll_timeout(), None);
    assert_eq!(gateway.endpoint.half_open(), 0);
}

#[test]
fn unknown_identity() {
    let mut peer = Initiator::new(21);
    peer.id = id("stranger.example.org");
    denied(
        Gateway::new(config()),
        &mut peer,
        "no connection for stranger.example.org",
    );
}

#[test]
fn somebody_else_is_wanted() {
    let mut peer = Initiator::new(22);
    peer.wanted_id = Some(id("other-gw.example.org"));
    denied(Gateway::new(config()), &mut peer, "other-gw.example.org");
}

#[test]
fn no_secret_for_the_pair() {
    let mut config = config();
    config.secrets[0].ids[1] = id("another-peer.example.org");
    denied(
        Gateway::new(config),
        &mut Initiator::new(23),
        "no pre-shared key",
    );
}

#[test]
fn the_connection_of_the_identity_does_not_have_the_chosen_suite() {
    let mut config = config();
    let mut strict = connection("strict", "peer.example.org");
    strict.proposals = IkeProposal::parse("aes256gcm16-prfsha384-ecp256").unwrap();
    let others = connection("others", "other.example.org");
    config.connections = vec![Arc::new(strict), Arc::new(others)];
    denied(Gateway::new(config), &mut Initiator::new(24), "strict");
}

#[test]
fn eap_and_signatures_are_not_what_is_configured() {
    for (method, why) in [
        (None, "asks for EAP"),
        (Some(AuthMethod::DIGITAL_SIGNATURE), "DIGITAL_SIGNATURE"),
    ] {
        let mut gateway = Gateway::new(config());
        let mut peer = Initiator::new(25);
        let response = gateway.exchange(peer.path, &peer.init());
        peer.take_init(&response);
        let (kind, data) = peer.id.to_payload();
        let mut payloads = vec![Payload::IdInitiator(IdRepr::new(kind, &data))];
        if let Some(method) = method {
            payloads.push(Payload::Auth(AuthRepr {
                method,
                data: &[0; 64],
            }));
        }
        let request = peer.request(ExchangeType::IKE_AUTH, &payloads);
        let response = gateway.exchange(peer.path, &request);
        let error = peer.error(&response).unwrap();
        assert_eq!(error.0, NotifyType::AUTHENTICATION_FAILED);
        assert!(
            gateway.complaints()[0].contains(why),
            "{:?}",
            gateway.complaints()
        );
    }
}

#[test]
fn the_secret_that_names_both_sides_comes_before_the_others() {
    for (ids, fits) in [
        (vec![], true),
        (vec!["peer.example.org"], true),
        (vec!["gw.example.org"], true),
        (
            vec!["PEER.example.org", "x.example.org", "gw.example.org"],
            true,
        ),
        (vec!["x.example.org"], false),
        (vec!["peer.example.org", "x.example.org"], false),
    ] {
        let mut config = config();
        config.secrets = vec![Secret {
            ids: ids.iter().map(|text| id(text)).collect(),
            secret: SecretBytes::from(PSK),
        }];
        let mut gateway = Gateway::new(config);
        let mut peer = Initiator::new(26);
        let response = gateway.exchange(peer.path, &peer.init());
        peer.take_init(&response);
        let response = gateway.exchange(peer.path, &peer.auth());
        assert_eq!(peer.error(&response).is_none(), fits, "{ids:?}");
    }
    let secret = |ids: &[&str], secret: &[u8]| Secret {
        ids: ids.iter().map(|text| id(text)).collect(),
        secret: SecretBytes::from(secret),
    };
    let mut config = config();
    config.secrets = vec![
        secret(&[], b"anybody's"),
        secret(&["gw.example.org"], b"ours"),
        secret(&["peer.example.org", "gw.example.org"], PSK),
        secret(&["peer.example.org"], b"theirs"),
        secret(
            &["peer.example.org", "gw.example.org"],
            b"the second of equals",
        ),
    ];
    assert!(
        Initiator::new(27)
            .connect(&mut Gateway::new(config))
            .is_some()
    );
}

#[test]
fn the_most_specific_connection_is_taken() {
    let network = |text: &str, prefix_len| RemoteAddress::Network {
        address: text.parse().unwrap(),
        prefix_len,
    };
    let mut config = config();
    let mut any = connection("any", "%any");
    any.remote_addrs = vec![RemoteAddress::Any];
    let mut net = connection("net", "%any");
    net.remote_addrs = vec![network("198.51.100.0", 24)];
    let mut host = connection("host", "%any");
    host.remote_addrs = vec![network("2001:db8::7", 128), network("198.51.100.8", 32)];
    let mut elsewhere = connection("elsewhere", "peer.example.org");
    elsewhere.local_addrs = vec!["203.0.113.99".parse().unwrap()];
    config.connections = [any, net, host, elsewhere].map(Arc::new).into();
    let mut gateway = Gateway::new(config);
    for (seed, remote, expected) in [
        (30, "198.51.100.7:500", "net"),
        (31, "198.51.100.8:500", "host"),
        (32, "192.0.2.1:500", "any"),
    ] {
        let mut peer = Initiator::new(seed);
        peer.path = path("203.0.113.10:500", remote);
        peer.own_address = peer.path.remote;
        peer.connect(&mut gateway).unwrap();
        let status = gateway.endpoint.sas().find(|s| s.local_spi == peer.spi_r);
        assert_eq!(status.unwrap().connection, expected);
    }
}

#[test]
fn a_connection_that_names_the_peer_comes_before_one_for_anybody() {
    let mut config = config();
    config
        .connections
        .insert(0, Arc::new(connection("anybody", "%any")));
    let mut gateway = Gateway::new(config);
    Initiator::new(33).connect(&mut gateway).unwrap();
    assert_eq!(gateway.endpoint.sas().next().unwrap().connection, "site");
}

/// RFC 7296 §2.21.2: the IKE SA lives although its CHILD_SA could not be made.
#[test]
fn errors_of_the_child_leave_an_ike_sa() {
    type Spoil = fn(&mut Initiator);
    let cases: [(Spoil, NotifyType, &str); 3] = [
        (
            |peer| peer.esp = EspProposal::parse("aes192gcm16").unwrap(),
            NotifyType::NO_PROPOSAL_CHOSEN,
            "AES_GCM_16-192/NO_EXT_SEQ",
        ),
        (
            |peer| peer.ts_r = vec![ts("172.16.0.0/12")],
            NotifyType::TS_UNACCEPTABLE,
            "172.16.0.0/12",
        ),
        (
            |peer| peer.spi_in = [0, 0, 0, 7],
            NotifyType::NO_PROPOSAL_CHOSEN,
            "reserved SPI",
        ),
    ];
    for (spoil, expected, why) in cases {
        let mut gateway = Gateway::new(config());
        let mut peer = Initiator::new(34);
        spoil(&mut peer);
        let response = gateway.exchange(peer.path, &peer.init());
        peer.take_init(&response);
        let response = gateway.exchange(peer.path, &peer.auth());
        assert_eq!(peer.take_auth(&response), None);
        assert_eq!(peer.error(&response).unwrap().0, expected);
        assert!(gateway.installs().is_empty());
        assert_eq!(gateway.endpoint.sas().count(), 1);
        let complaints = gateway.complaints();
        assert!(
            complaints.len() == 1 && complaints[0].contains(why),
            "{complaints:?}"
        );
        peer.is_alive(&mut gateway);
    }
}

#[test]
fn the_second_configured_child_may_fit() {
    let mut config = config();
    let mut connection = connection("site", "peer.example.org");
    connection.children = vec![
        Arc::new(child("first", "172.16.0.0/16", "10.2.0.0/16")),
        Arc::new(child("second", "10.1.0.0/16", "10.2.0.0/16")),
    ];
    config.connections = vec![Arc::new(connection)];
    let mut gateway = Gateway::new(config);
    Initiator::new(35).connect(&mut gateway).unwrap();
    assert_eq!(gateway.installs()[0].0.name, "second");
}

#[test]
fn the_kernel_refuses() {
    let mut gateway = Gateway::new(config());
    gateway.kernel = Kernel::Refuses;
    let mut peer = Initiator::new(36);
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let from = gateway.log.len();
    let response = gateway.exchange(peer.path, &peer.auth());
    assert_eq!(peer.take_auth(&response), None);
    assert_eq!(
        peer.error(&response).unwrap().0,
        NotifyType::TEMPORARY_FAILURE
    );
    assert_eq!(
        gateway.order(from),
        [
            "install",
            "event",
            "event",
            "delta 2 upsert",
            "transmit after 2"
        ]
    );
    assert_eq!(gateway.endpoint.sas().next().unwrap().children, []);
    assert!(gateway.complaints()[0].contains("EEXIST"));
    assert_eq!(gateway.endpoint.counters().kernel_failures, 1);
    assert_eq!(gateway.endpoint.child_sas(), 0);
    peer.is_alive(&mut gateway);
}

#[test]
fn the_kernel_does_not_answer() {
    let mut gateway = Gateway::new(config());
    gateway.kernel = Kernel::IsSilent;
    let mut peer = Initiator::new(37);
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let request = peer.auth();
    gateway.ignores(peer.path, &request);
    // While it is asked, the request comes again.
    gateway.ignores(peer.path, &request);
    assert_eq!(gateway.endpoint.half_open(), 1);
    assert_eq!(gateway.endpoint.sas().count(), 0);
    assert_eq!(gateway.installs().len(), 1);
    assert_eq!(
        gateway.endpoint.poll_timeout(),
        Some(gateway.now + Duration::from_secs(5))
    );

    let mut sent = gateway.advance(Duration::from_secs(5));
    assert_eq!(sent.len(), 1);
    let response = sent.pop().unwrap().bytes;
    assert_eq!(
        peer.error(&response).unwrap().0,
        NotifyType::TEMPORARY_FAILURE
    );
    // What it may still do must be undone.
    let installed = gateway.installs()[0].0.id();
    assert_eq!(gateway.removals(), [installed]);
    // Its answer comes too late to matter.
    assert!(
        gateway
            .answer_kernel(KernelResult::Installed(installed))
            .is_empty()
    );
    assert_eq!(gateway.endpoint.sas().next().unwrap().children, []);
    assert_eq!(gateway.exchange(peer.path, &request), response);
}

#[test]
fn an_answer_of_the_kernel_completes_the_exchange() {
    let mut gateway = Gateway::new(config());
    gateway.kernel = Kernel::IsSilent;
    let mut peer = Initiator::new(38);
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    gateway.ignores(peer.path, &peer.auth());
    let child = gateway.installs()[0].0.id();
    let sent = gateway.answer_kernel(KernelResult::Installed(child));
    assert_eq!(sent.len(), 1);
    assert!(peer.take_auth(&sent[0].bytes).is_some());
    // A second answer is nobody's.
    assert!(
        gateway
            .answer_kernel(KernelResult::Installed(child))
            .is_empty()
    );
    assert_eq!(gateway.endpoint.sas().next().unwrap().children.len(), 1);
}

#[test]
fn initial_contact_removes_older_ike_sas_of_the_same_identities() {
    let mut gateway = Gateway::new(config());
    let mut old = Initiator::new(40);
    old.connect(&mut gateway).unwrap();
    // Without the notification both live.
    let mut second = Initiator::new(41);
    second.spi_in = [0xc0, 0, 0, 2];
    second.connect(&mut gateway).unwrap();
    assert_eq!(gateway.endpoint.sas().count(), 2);

    let mut new = Initiator::new(42);
    new.spi_in = [0xc0, 0, 0, 3];
    new.id = id("Peer.Example.ORG");
    new.auth_notifies = vec![NotifyType::INITIAL_CONTACT];
    let response = gateway.exchange(new.path, &new.init());
    new.take_init(&response);
    let from = gateway.log.len();
    let response = gateway.exchange(new.path, &new.auth());
    assert!(new.take_auth(&response).is_some());
    let remaining: Vec<_> = gateway.endpoint.sas().map(|sa| sa.local_spi).collect();
    assert_eq!(remaining, [new.spi_r]);
    assert_eq!(gateway.removals().len(), 2);
    assert_eq!(gateway.endpoint.child_sas(), 1);
    // The new child stands before the old ones go, and the record comes last.
    let order: Vec<_> = gateway
        .order(from)
        .into_iter()
        .filter(|w| w != "event")
        .collect();
    assert_eq!(
        order,
        [
            "install",
            "remove",
            "delta 6 removed",
            "remove",
            "delta 7 removed",
            "delta 8 upsert",
            "transmit after 8"
        ]
    );
    gateway.ignores(old.path, &old.request(ExchangeType::INFORMATIONAL, &[]));
}

#[test]
fn initial_contact_of_somebody_who_is_not_authentic_removes_nothing() {
    let mut gateway = Gateway::new(config());
    Initiator::new(43).connect(&mut gateway).unwrap();
    let mut liar = Initiator::new(44);
    liar.psk = b"guess".to_vec();
    liar.auth_notifies = vec![NotifyType::INITIAL_CONTACT];
    let response = gateway.exchange(liar.path, &liar.init());
    liar.take_init(&response);
    gateway.exchange(liar.path, &liar.auth());
    assert_eq!(gateway.endpoint.sas().count(), 1);
    assert!(gateway.removals().is_empty());
}

/// RFC 7296 §2.21.2: such messages are "rejected in their entirety" and the IKE SA is not created.
#[test]
fn malformed_and_critical_payloads() {
    for what in ["critical", "half a child", "no identity"] {
        let mut gateway = Gateway::new(config());
        let mut peer = Initiator::new(45);
        let response = gateway.exchange(peer.path, &peer.init());
        peer.take_init(&response);
        let request = match what {
            "critical" => {
                let builder = peer.auth_builder();
                crate::hostile::seal_with_critical(&mut peer, builder)
            }
            "half a child" => {
                let builder = peer.auth_builder();
                let builder = builder.with(&peer.esp_offer(EspExchange::IkeAuth));
                peer.seal(builder)
            }
            _ => peer.request(ExchangeType::IKE_AUTH, &[]),
        };
        let response = gateway.exchange(peer.path, &request);
        let expected = match what {
            "critical" => (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![200]),
            _ => (NotifyType::INVALID_SYNTAX, vec![]),
        };
        assert_eq!(peer.error(&response), Some(expected), "{what}");
        assert_eq!(gateway.endpoint.half_open(), 0);
        assert_eq!(gateway.endpoint.sas().count(), 0);
        assert!(
            !gateway
                .events()
                .iter()
                .any(|e| matches!(e, EventKind::IkeSaEstablished { .. })),
        );
        assert!(!gateway.log.iter().any(|o| matches!(o, Output::Kernel(_))));
    }
    assert_ne!(PayloadType(200).name(), Some("SK"));
}
