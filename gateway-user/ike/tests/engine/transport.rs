//! Keepalives, forced encapsulation, IKE SAs without CHILD_SA.

use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::{Childless, Config, Transport};
use gateway_ike::endpoint::Command;
use gateway_ike::output::{Output, Transmit};
use gateway_ike::record::IkeSaRecord;
use gateway_ike::wire::{Message, NAT_KEEPALIVE, NotifyType};

use crate::config::config;
use crate::gateway::Gateway;
use crate::initiator::{Initiator, clear, nat_hash};

/// The usual configuration with another transport.
pub(crate) fn transport(tweak: impl Fn(&mut Transport)) -> Config {
    let mut config = config();
    let mut connection = (*config.connections[0]).clone();
    tweak(&mut connection.transport);
    config.connections = vec![Arc::new(connection)];
    config
}

/// Establishes an IKE SA while a NAT stands before us: the peer sends to another address than the
/// one we receive on.
fn behind_our_nat(gateway: &mut Gateway) -> Initiator {
    let mut peer = Initiator::new(1);
    peer.peer_address = "192.0.2.77:500".parse().unwrap();
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    peer.float();
    let auth = peer.auth();
    let response = gateway.exchange(peer.path, &auth);
    assert!(peer.take_auth(&response).is_some());
    peer
}

fn keepalives(sent: &[Transmit]) -> usize {
    let are: Vec<_> = sent
        .iter()
        .filter(|transmit| transmit.bytes == NAT_KEEPALIVE)
        .collect();
    for keepalive in &are {
        assert_eq!(keepalive.path.local.port(), 4500);
        assert_eq!(keepalive.after, None);
    }
    are.len()
}

#[test]
fn a_keepalive_in_every_interval_while_we_are_behind_the_nat() {
    let mut gateway = Gateway::new(transport(|t| t.keepalive = Duration::from_secs(7)));
    let mut peer = behind_our_nat(&mut gateway);
    assert_eq!(keepalives(&gateway.advance(Duration::from_secs(6))), 0);
    for _ in 0..5 {
        assert_eq!(keepalives(&gateway.advance(Duration::from_secs(7))), 1);
    }
    assert_eq!(gateway.endpoint.counters().keepalives_sent, 5);
    // They end with the IKE SA.
    let request = peer.request(
        gateway_ike::wire::ExchangeType::INFORMATIONAL,
        &[gateway_ike::wire::Payload::Delete(
            gateway_ike::wire::DeleteRepr::ike(),
        )],
    );
    gateway.exchange(peer.path, &request);
    assert_eq!(keepalives(&gateway.advance(Duration::from_secs(60))), 0);
}

#[test]
fn whoever_takes_over_sends_the_keepalives_and_nobody_else() {
    let config = || transport(|t| t.keepalive = Duration::from_secs(7));
    let mut gateway = Gateway::new(config());
    let mut peer = behind_our_nat(&mut gateway);
    let octets = gateway.last_record().1.encode();
    let record = IkeSaRecord::decode(octets.expose()).unwrap();
    let local_spi = record.local_spi;
    let mut heir = Gateway::seeded(config(), 2);
    heir.endpoint
        .handle_command(heir.now, Command::Import(Box::new(record)));
    let sent = heir.advance(Duration::from_secs(7));
    assert_eq!(keepalives(&sent), 1);
    assert_eq!(sent[0].path, peer.path);
    gateway
        .endpoint
        .handle_command(gateway.now, Command::Forget { local_spi });
    assert_eq!(keepalives(&gateway.advance(Duration::from_secs(60))), 0);
    peer.is_alive(&mut heir);
}

#[test]
fn no_keepalives_without_a_nat_before_us_or_when_switched_off() {
    let mut gateway = Gateway::new(transport(|t| t.keepalive = Duration::ZERO));
    behind_our_nat(&mut gateway);
    assert_eq!(keepalives(&gateway.advance(Duration::from_secs(60))), 0);

    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(2);
    // The NAT is before the peer.
    peer.own_address = "10.0.0.5:500".parse().unwrap();
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    peer.float();
    let auth = peer.auth();
    gateway.exchange(peer.path, &auth);
    assert_eq!(keepalives(&gateway.advance(Duration::from_secs(60))), 0);
}

#[test]
fn forced_encapsulation_makes_the_peer_see_a_nat_and_is_in_the_record() {
    let mut gateway = Gateway::new(transport(|t| t.encap = true));
    let mut peer = Initiator::new(3);
    let response = gateway.exchange(peer.path, &peer.init());
    let message = Message::parse(&response).unwrap();
    let payloads = clear(&message);
    let spi_r = message.header().responder_spi;
    let ours = nat_hash(&*peer.crypto, peer.spi_i, spi_r, peer.path.local);
    let theirs = nat_hash(&*peer.crypto, peer.spi_i, spi_r, peer.path.remote);
    let data = |kind| payloads.notify(kind).unwrap().data.to_vec();
    assert_ne!(data(NotifyType::NAT_DETECTION_SOURCE_IP), ours);
    assert_eq!(data(NotifyType::NAT_DETECTION_DESTINATION_IP), theirs);
    peer.take_init(&response);
    peer.float();
    let auth = peer.auth();
    let response = gateway.exchange(peer.path, &auth);
    peer.take_auth(&response).unwrap();
    assert_eq!(gateway.installs()[0].0.encap, Some((4500, 4500)));
    // We are behind no NAT: no keepalives, and the peer may move.
    assert_eq!(keepalives(&gateway.advance(Duration::from_secs(60))), 0);
    let (_, record) = gateway.last_record();
    assert!(record.transport.forced_encap && !record.nat.any());
    // A CHILD_SA made by another member is in UDP, too.
    let octets = record.encode();
    let record = IkeSaRecord::decode(octets.expose()).unwrap();
    let mut heir = Gateway::seeded(transport(|t| t.encap = true), 2);
    heir.endpoint
        .handle_command(heir.now, Command::Import(Box::new(record)));
    peer.spi_in = [0xc0, 0, 0, 2];
    let request = peer.create_child(None, None, &[5; 32]);
    heir.exchange(peer.path, &request);
    assert_eq!(heir.installs()[0].0.encap, Some((4500, 4500)));
}

#[test]
fn childless_as_configured() {
    for (policy, announced, childless, regular) in [
        (Childless::Allow, true, true, true),
        (Childless::Prefer, true, true, true),
        (Childless::Force, true, true, false),
        (Childless::Never, false, false, true),
    ] {
        for (without, accepted) in [(true, childless), (false, regular)] {
            let mut gateway = Gateway::new(transport(|t| t.childless = policy));
            let mut peer = Initiator::new(4);
            let response = gateway.exchange(peer.path, &peer.init());
            let message = Message::parse(&response).unwrap();
            let offered = clear(&message).has_notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED);
            assert_eq!(offered, announced, "{policy:?}");
            peer.take_init(&response);
            let auth = if without {
                let builder = peer.auth_builder();
                peer.seal(builder)
            } else {
                peer.auth()
            };
            let response = gateway.exchange(peer.path, &auth);
            let error = peer.error(&response).map(|(kind, _)| kind);
            let context = format!("{policy:?}, childless {without}");
            if !accepted {
                assert_eq!(error, Some(NotifyType::INVALID_SYNTAX), "{context}");
                assert!(
                    gateway
                        .complaints()
                        .iter()
                        .any(|c| c.contains("childless = "))
                );
                assert_eq!(gateway.endpoint.sas().count(), 0);
                continue;
            }
            assert_eq!(error, None, "{context}");
            assert_eq!(gateway.installs().len(), usize::from(!without));
            // The first CHILD_SA, or another one, by CREATE_CHILD_SA.
            peer.spi_in = [0xc0, 0, 0, 9];
            let request = peer.create_child(None, None, &[5; 32]);
            let response = gateway.exchange(peer.path, &request);
            assert_eq!(peer.error(&response), None, "{context}");
            assert_eq!(gateway.installs().len(), 1 + usize::from(!without));
            let deltas = |output: &&Output| matches!(output, Output::Delta(_));
            assert!(gateway.log.iter().filter(deltas).count() >= 3);
        }
    }
}
