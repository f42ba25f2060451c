//! A whole PSK handshake, what the gateway installs, announces and sends, and in which order.

use gateway_common::abi::Address;
use gateway_common::slot::Slot;
use gateway_ike::output::{Change, EventKind, Output};
use gateway_ike::wire::{Message, NotifyRepr, NotifyType};

use crate::config::{config, ts};
use crate::gateway::{Gateway, path};
use crate::initiator::{Initiator, clear, nat_hash};

#[test]
fn both_sides_have_the_same_child() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(1);
    let child = peer.connect(&mut gateway).unwrap();

    let installs = gateway.installs();
    assert_eq!(installs.len(), 1);
    let (sa, replaces) = installs[0];
    assert_eq!(replaces, None);
    assert_eq!((sa.spi_in, sa.spi_out), (child.spi_out, child.spi_in));
    assert_eq!((&sa.key_in, &sa.key_out), (&child.key_out, &child.key_in));
    assert_eq!((&sa.local_ts, &sa.remote_ts), (&child.ts_r, &child.ts_i));
    assert_eq!((&*sa.name, &*sa.connection), ("net", "site"));
    assert_eq!(sa.encap, None);
    assert_eq!(
        (sa.local, sa.remote),
        (peer.path.local.ip(), peer.path.remote.ip())
    );
    // SPIs carry the member, and an ESP SPI is not a reserved one.
    assert_eq!(sa.spi_in[3] & 0x3f, 5);
    assert!(u32::from_be_bytes(sa.spi_in) >= 256);
    assert_eq!(peer.spi_r[7] & 0x3f, 5);

    let slot = Slot::for_negotiation(&Address::from(peer.path.remote.ip()).octets, &peer.spi_i);
    let status: Vec<_> = gateway.endpoint.sas().collect();
    assert_eq!(status.len(), 1);
    assert_eq!(status[0].slot, slot);
    assert_eq!(sa.slot, slot);
    assert_eq!(status[0].connection, "site");
    assert_eq!(status[0].remote_id, "peer.example.org");
    assert_eq!(
        status[0].proposal,
        "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519"
    );
    assert_eq!(status[0].local_spi, peer.spi_r);
    assert!(!status[0].nat);
    assert_eq!(status[0].children[0].spi_in, child.spi_out);
    assert_eq!(gateway.endpoint.half_open(), 0);
    peer.is_alive(&mut gateway);
    assert_eq!(gateway.endpoint.counters().exchanges_processed, 3);
    assert_eq!(gateway.complaints(), Vec::<String>::new());
}

#[test]
fn kernel_then_delta_then_the_transmit_that_names_it() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(2);
    let response = gateway.exchange(peer.path, &peer.init());
    // The half-open entry is local at once: the response waits for nobody.
    assert_eq!(gateway.order(0), ["delta 1 opened", "transmit"]);
    peer.take_init(&response);

    gateway.exchange(peer.path, &peer.auth());
    assert_eq!(
        gateway.order(2),
        [
            "install",
            "event",
            "event",
            "delta 2 upsert",
            "transmit after 2"
        ]
    );
    let from = gateway.log.len();
    peer.is_alive(&mut gateway);
    assert_eq!(gateway.order(from), ["delta 3 upsert", "transmit after 3"]);

    // The record in the delta has the response that waits for it.
    let (_, record) = gateway.last_record();
    let Some(Output::Transmit(sent)) = gateway.log.last() else {
        panic!("no transmit");
    };
    assert_eq!(*record.last_response.as_ref().unwrap().bytes, *sent.bytes);
    assert_eq!(record.expected_request, 3);
}

#[test]
fn every_suite_and_both_address_families() {
    for proposal in [
        "aes128gcm16-prfsha256-x25519",
        "aes256gcm16-prfsha384-ecp256",
        "aes128gcm16-prfsha384-ecp256",
        "aes256gcm16-prfsha256-x25519",
    ] {
        let mut gateway = Gateway::new(config());
        let mut peer = Initiator::new(3).offer(proposal);
        peer.path = path("[2001:db8::10]:500", "[2001:db8:2::7]:500");
        peer.own_address = peer.path.remote;
        peer.peer_address = peer.path.local;
        assert!(peer.connect(&mut gateway).is_some(), "{proposal}");
        assert!(!gateway.endpoint.sas().next().unwrap().nat);
        peer.is_alive(&mut gateway);
    }
}

#[test]
fn selectors_are_narrowed_to_the_configuration() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(4);
    peer.ts_i = vec![ts("0.0.0.0/0")];
    peer.ts_r = vec![ts("10.0.0.0/8"), ts("192.0.2.0/24")];
    let child = peer.connect(&mut gateway).unwrap();
    assert_eq!(child.ts_i, [ts("10.2.0.0/16")]);
    assert_eq!(child.ts_r, [ts("10.1.0.0/16")]);
    assert_eq!(gateway.installs()[0].0.local_ts, [ts("10.1.0.0/16")]);
}

#[test]
fn the_responder_identity_is_optional() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(5);
    peer.wanted_id = None;
    assert!(peer.connect(&mut gateway).is_some());
}

#[test]
fn childless() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(6);
    let response = gateway.exchange(peer.path, &peer.init());
    let message = Message::parse(&response).unwrap();
    assert!(clear(&message).has_notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED));
    peer.take_init(&response);
    let builder = peer.auth_builder();
    let request = peer.seal(builder);
    let from = gateway.log.len();
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        gateway.order(from),
        ["event", "delta 2 upsert", "transmit after 2"]
    );
    assert_eq!(peer.take_auth(&response), None);
    assert!(gateway.installs().is_empty());
    assert_eq!(gateway.endpoint.sas().count(), 1);
}

#[test]
fn unsupported_status_notifications_are_ignored_and_not_answered() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(7);
    peer.auth_notifies = vec![
        NotifyType::MOBIKE_SUPPORTED,
        NotifyType::NO_ADDITIONAL_ADDRESSES,
        NotifyType::TICKET_REQUEST,
        NotifyType::MULTIPLE_AUTH_SUPPORTED,
        NotifyType::EAP_ONLY_AUTHENTICATION,
        NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED,
        NotifyType::USE_TRANSPORT_MODE,
        NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED,
        NotifyType(40_000),
    ];
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let response = gateway.exchange(peer.path, &peer.auth());
    assert!(peer.take_auth(&response).is_some());
    let opened = peer.open(&response);
    // Of all these we can do two things (RFC 6311, RFC 4555).
    let supported = [
        NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED,
        NotifyType::MOBIKE_SUPPORTED,
    ];
    let supported = supported.map(|kind| NotifyRepr::new(kind, &[]));
    assert_eq!(opened.payloads().unwrap().notifies, supported);
}

/// What we say about NATs, and what we conclude from what the peer says.
#[test]
fn nat_detection() {
    for (own, believed, nat, encap) in [
        ("198.51.100.7:500", "203.0.113.10:500", false, None),
        (
            "192.168.0.2:500",
            "203.0.113.10:500",
            true,
            Some((4500, 4500)),
        ),
        (
            "198.51.100.7:500",
            "10.0.0.10:500",
            true,
            Some((4500, 4500)),
        ),
        (
            "198.51.100.7:1",
            "203.0.113.10:500",
            true,
            Some((4500, 4500)),
        ),
    ] {
        let mut gateway = Gateway::new(config());
        let mut peer = Initiator::new(8);
        peer.own_address = own.parse().unwrap();
        peer.peer_address = believed.parse().unwrap();
        let response = gateway.exchange(peer.path, &peer.init());
        let message = Message::parse(&response).unwrap();
        let spi_r = message.header().responder_spi;
        for (kind, address) in [
            (NotifyType::NAT_DETECTION_SOURCE_IP, peer.path.local),
            (NotifyType::NAT_DETECTION_DESTINATION_IP, peer.path.remote),
        ] {
            let hash = nat_hash(&*peer.crypto, peer.spi_i, spi_r, address);
            assert_eq!(clear(&message).notify(kind).unwrap().data, hash);
        }
        peer.take_init(&response);
        if nat {
            peer.float();
        }
        let response = gateway.exchange(peer.path, &peer.auth());
        assert!(peer.take_auth(&response).is_some());
        assert_eq!(gateway.installs()[0].0.encap, encap, "{own} {believed}");
        let status = gateway.endpoint.sas().next().unwrap();
        assert_eq!((status.nat, status.remote), (nat, peer.path.remote));
    }
}

#[test]
fn a_nat_that_moves_the_port_is_followed() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(9);
    peer.own_address = "192.168.0.2:500".parse().unwrap();
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    peer.path = path("203.0.113.10:4500", "198.51.100.7:61234");
    let response = gateway.exchange(peer.path, &peer.auth());
    assert!(peer.take_auth(&response).is_some());
    assert_eq!(gateway.installs()[0].0.encap, Some((4500, 61234)));

    peer.path = path("203.0.113.10:4500", "198.51.100.7:61999");
    peer.is_alive(&mut gateway);
    assert_eq!(
        gateway.endpoint.sas().next().unwrap().remote,
        peer.path.remote
    );
}

/// RFC 7296 §2.23: "A host behind a NAT SHOULD NOT do this type of dynamic address update".
#[test]
fn behind_a_nat_ourselves_nobody_is_followed() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(12);
    peer.peer_address = "10.0.0.10:500".parse().unwrap();
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    // Floating to port 4500 comes before that rule.
    peer.float();
    let response = gateway.exchange(peer.path, &peer.auth());
    assert!(peer.take_auth(&response).is_some());
    let established = peer.path.remote;
    peer.path = path("203.0.113.10:4500", "192.0.2.200:4500");
    // Answered to where it came from (RFC 7296 §2.11), but not followed.
    peer.is_alive(&mut gateway);
    assert_eq!(gateway.endpoint.sas().next().unwrap().remote, established);
}

#[test]
fn a_negotiation_is_announced_with_what_steering_needs() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(10);
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    let Output::Delta(delta) = &gateway.log[0] else {
        panic!("no delta");
    };
    let Change::NegotiationOpened {
        peer_cookie,
        local_cookie,
        peer: address,
        expires,
    } = &delta.change
    else {
        panic!("{:?}", delta.change);
    };
    assert_eq!((*peer_cookie, *local_cookie), (peer.spi_i, peer.spi_r));
    assert_eq!(*address, peer.path.remote.ip());
    assert_eq!(*expires, gateway.now + std::time::Duration::from_secs(30));
}

#[test]
fn events_tell_of_establishment() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(11);
    peer.connect(&mut gateway);
    let established = EventKind::IkeSaEstablished {
        remote_id: "peer.example.org".to_owned(),
    };
    assert!(gateway.events().contains(&&established));
    let Some(Output::Event(event)) = gateway
        .log
        .iter()
        .find(|o| matches!(o, Output::Event(e) if e.kind == established))
    else {
        panic!("no event");
    };
    assert_eq!(event.connection.as_deref(), Some("site"));
    assert_eq!(event.local_spi, Some(peer.spi_r));
}
