//! What the driver orders: adoption, uniqueness, and peers that a NAT moves.

use std::sync::Arc;

use gateway_ike::config::Uniqueness;
use gateway_ike::endpoint::Command;
use gateway_ike::output::{KernelRequest, Output};
use gateway_ike::record::IkeSaRecord;
use gateway_ike::wire::{DeleteRepr, ExchangeType, Message, NotifyType, Payload};

use crate::config::{config, id};
use crate::gateway::Gateway;
use crate::initiator::Initiator;

fn gateway(unique: Uniqueness) -> Gateway {
    let mut config = config();
    let mut connection = (*config.connections[0]).clone();
    connection.unique = unique;
    config.connections = vec![Arc::new(connection)];
    Gateway::new(config)
}

/// Two IKE SAs of the same identities, the second one adopted from another member or completed
/// here. How many remain, and how many DELETEs were sent.
fn second(unique: Uniqueness, initial_contact: bool, adopted: bool) -> (usize, usize) {
    let mut here = gateway(unique);
    let mut older = Initiator::new(300);
    older.connect(&mut here).unwrap();
    let mut newer = Initiator::new(301);
    newer.spi_in = [0xc0, 0, 0, 9];
    if initial_contact {
        newer.auth_notifies = vec![NotifyType::INITIAL_CONTACT];
    }
    let before = here.log.len();
    if adopted {
        let mut config = config();
        config.member = gateway_common::member::MemberId::new(9).unwrap();
        let mut there = Gateway::seeded(config, 44);
        newer.connect(&mut there).unwrap();
        let record = Box::new(there.last_record().1.clone());
        let adopt = Command::Adopt(record);
        here.endpoint.handle_command(here.now, adopt);
        here.drain();
        here.advance(std::time::Duration::ZERO);
    } else {
        let response = here.receive(newer.path, &newer.init()).remove(0).bytes;
        newer.take_init(&response);
        here.receive(newer.path, &newer.auth());
    }
    let deletes = here.log[before..]
        .iter()
        .filter(|output| match output {
            Output::Transmit(transmit) => {
                let message = Message::parse(&transmit.bytes).unwrap();
                message.header().exchange == ExchangeType::INFORMATIONAL
            }
            _ => false,
        })
        .count();
    let found = here
        .endpoint
        .find(&id("GW.example.org"), &id("peer.example.org"))
        .count();
    assert_eq!(found, here.endpoint.sas().count());
    (found, deletes)
}

#[test]
fn uniqueness() {
    for adopted in [false, true] {
        for (unique, initial_contact, expected) in [
            (Uniqueness::Never, true, (2, 0)),
            (Uniqueness::No, false, (2, 0)),
            (Uniqueness::No, true, (1, 0)),
            // Until the peer has confirmed the DELETE, both are there.
            (Uniqueness::Replace, false, (2, 1)),
            (Uniqueness::Replace, true, (1, 0)),
            (Uniqueness::Keep, false, (2, 1)),
            (Uniqueness::Keep, true, (1, 0)),
        ] {
            assert_eq!(
                second(unique, initial_contact, adopted),
                expected,
                "{unique:?}, initial contact {initial_contact}, adopted {adopted}"
            );
        }
    }
}

/// RFC 7296 §2.23: the peer's NAT has given it another port; its ESP goes there too.
#[test]
fn a_nat_moves_the_peer() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(302);
    // Behind a NAT: it believes to be somewhere else.
    peer.own_address = "192.168.1.2:500".parse().unwrap();
    let response = gateway.exchange(peer.path, &peer.init());
    peer.take_init(&response);
    peer.float();
    let response = gateway.exchange(peer.path, &peer.auth());
    let child = peer.take_auth(&response).unwrap();
    peer.is_alive(&mut gateway);
    let from = gateway.log.len();
    peer.path.remote.set_port(40_001);
    peer.is_alive(&mut gateway);
    let updates: Vec<_> = gateway.log[from..]
        .iter()
        .filter_map(|output| match output {
            Output::Kernel(KernelRequest::Update { child }) => Some(child),
            _ => None,
        })
        .collect();
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].spi_in, child.spi_out);
    assert_eq!(updates[0].encap, Some((4500, 40_001)));
    let (_, record) = gateway.last_record();
    assert_eq!(record.children[0].sa.encap, Some((4500, 40_001)));
    assert_eq!(record.path, peer.path);
    // Nothing moves twice, and a forged message moves nothing.
    let from = gateway.log.len();
    peer.is_alive(&mut gateway);
    let mut forged = peer.request(ExchangeType::INFORMATIONAL, &[]);
    *forged.last_mut().unwrap() ^= 1;
    peer.path.remote.set_port(40_002);
    gateway.ignores(peer.path, &forged);
    assert!(!gateway.order(from).contains(&"update".to_owned()));
    assert_eq!(gateway.last_record().1.path.remote.port(), 40_001);
}

/// RFC 7296 §2.25.1: what we are closing ourselves is confirmed without a DELETE payload.
#[test]
fn deletes_that_cross() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(303);
    let child = peer.connect(&mut gateway).unwrap();
    let target = gateway_ike::endpoint::Target::Child(child.spi_out);
    gateway
        .endpoint
        .handle_command(gateway.now, Command::Terminate(target));
    let ours = gateway.drain();
    assert_eq!(ours.len(), 1);
    let spis = [child.spi_in];
    let delete = [Payload::Delete(DeleteRepr::esp(&spis))];
    let request = peer.request(ExchangeType::INFORMATIONAL, &delete);
    let response = gateway.exchange(peer.path, &request);
    assert!(peer.open(&response).payloads().unwrap().deletes.is_empty());
    assert_eq!(gateway.removals().len(), 1);
    // The record that goes on has our request in it.
    let record: &IkeSaRecord = gateway.last_record().1;
    assert!(record.outstanding.is_some() && record.children.is_empty());
    // Rekeying what is gone, or going, is refused without harm.
    peer.spi_in = [0xc0, 0, 0, 8];
    let request = peer.create_child(Some(child.spi_in), None, &[7; 32]);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.error(&response).unwrap().0,
        NotifyType::CHILD_SA_NOT_FOUND
    );
}
