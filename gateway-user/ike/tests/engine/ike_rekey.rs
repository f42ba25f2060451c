//! CREATE_CHILD_SA that rekeys the IKE SA (RFC 7296 §1.3.2, §2.18).

use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::crypto::{CryptoProvider, KeyExchangeMethod};
use gateway_ike::endpoint::{Command, Target};
use gateway_ike::output::{Change, Output, Transmit};
use gateway_ike::proposal::IkeProposal;
use gateway_ike::wire::{DeleteRepr, ExchangeType, KeRepr, NonceRepr, NotifyType, Payload, SaRepr};

use crate::config::config;
use crate::gateway::Gateway;
use crate::initiator::{Initiator, MyChild};

const NONCE: [u8; 32] = [0x77; 32];
const NEW_SPI: [u8; 8] = [9, 8, 7, 6, 5, 4, 3, 2];

fn established(seed: u64) -> (Gateway, Initiator, MyChild) {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(seed);
    let child = peer.connect(&mut gateway).unwrap();
    (gateway, peer, child)
}

fn request(
    peer: &mut Initiator,
    suite: IkeProposal,
    spi: &[u8],
    ke: Option<KeRepr<'_>>,
) -> Vec<u8> {
    let mut payloads = vec![
        Payload::Sa(SaRepr {
            proposals: vec![suite.to_wire(1, spi)],
        }),
        Payload::Nonce(NonceRepr { data: &NONCE }),
    ];
    payloads.extend(ke.map(Payload::Ke));
    peer.request(ExchangeType::CREATE_CHILD_SA, &payloads)
}

/// Rekeys to `suite` and returns the peer's side of the successor.
fn rekey(gateway: &mut Gateway, peer: &mut Initiator, suite: &str) -> Initiator {
    rekey_seen(gateway, peer, suite).0
}

/// As [`rekey`]; returns request and response, too.
fn rekey_seen(
    gateway: &mut Gateway,
    peer: &mut Initiator,
    suite: &str,
) -> (Initiator, [Vec<u8>; 2]) {
    let suite = IkeProposal::parse(suite).unwrap()[0];
    let ke = peer.crypto.key_exchange(suite.ke).unwrap();
    let value = KeRepr {
        method: suite.ke.transform_id(),
        data: ke.public_value(),
    };
    let request = request(peer, suite, &NEW_SPI, Some(value));
    let response = gateway.exchange(peer.path, &request);
    let opened = peer.open(&response);
    let payloads = opened.payloads().unwrap();
    assert_eq!(payloads.error_notify(), None);
    assert_eq!(payloads.ts_initiator, None);
    let spi_r = payloads.require_sa().unwrap().proposals[0]
        .ike_spi()
        .unwrap();
    let shared = ke.agree(payloads.require_ke().unwrap().data).unwrap();
    let nonce_r = payloads.require_nonce().unwrap().data;
    let successor = peer.rekeyed((NEW_SPI, spi_r), (&NONCE, nonce_r), &[shared], suite);
    (successor, [request, response])
}

#[test]
fn the_successor_has_slot_children_and_fresh_message_ids() {
    let (mut gateway, mut peer, child) = established(90);
    let before = gateway.endpoint.sas().next().unwrap();
    let from = gateway.log.len();
    let mut successor = rekey(&mut gateway, &mut peer, "aes256gcm16-prfsha384-ecp256");
    // Nothing happens to the kernel; the successor's record comes first.
    let order: Vec<_> = gateway
        .order(from)
        .into_iter()
        .filter(|w| w != "event")
        .collect();
    assert_eq!(
        order,
        ["delta 3 upsert", "delta 4 upsert", "transmit after 4"]
    );
    let records: Vec<_> = gateway.log[from..]
        .iter()
        .filter_map(|output| match output {
            Output::Delta(delta) => match &delta.change {
                Change::Upsert(record) => Some(record),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(records[0].local_spi, successor.spi_r);
    assert_eq!(records[0].children.len(), 1);
    assert_eq!(records[0].expected_request, 0);
    assert_eq!(records[1].local_spi, peer.spi_r);
    assert_eq!(records[1].children, []);
    assert!(records[1].replaced);

    // Both answer until the old one is deleted.
    peer.is_alive(&mut gateway);
    assert_eq!(successor.next_id, 0);
    successor.is_alive(&mut gateway);
    let delete = peer.request(
        ExchangeType::INFORMATIONAL,
        &[Payload::Delete(DeleteRepr::ike())],
    );
    gateway.exchange(peer.path, &delete);
    assert!(gateway.removals().is_empty());
    let after: Vec<_> = gateway.endpoint.sas().collect();
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].slot, before.slot);
    assert_eq!(after[0].children, before.children);
    assert_eq!(after[0].local_spi, successor.spi_r);
    assert_eq!(
        after[0].proposal,
        "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_256"
    );

    // The children are now managed under the successor.
    let spis = [child.spi_in];
    let delete = [Payload::Delete(DeleteRepr::esp(&spis))];
    let request = successor.request(ExchangeType::INFORMATIONAL, &delete);
    gateway.exchange(successor.path, &request);
    assert_eq!(gateway.removals()[0].spi_in, child.spi_out);
}

#[test]
fn a_replaced_ike_sa_makes_nothing_new() {
    let (mut gateway, mut peer, child) = established(91);
    let mut successor = rekey(&mut gateway, &mut peer, "aes128gcm16-prfsha256-x25519");
    peer.spi_in = [0xc0, 0, 0, 8];
    let request = peer.create_child(Some(child.spi_in), None, &NONCE);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.error(&response).unwrap().0,
        NotifyType::NO_ADDITIONAL_SAS
    );
    successor.spi_in = [0xc0, 0, 0, 8];
    let request = successor.create_child(Some(child.spi_in), None, &NONCE);
    let response = gateway.exchange(successor.path, &request);
    assert_eq!(successor.error(&response), None);
    assert_eq!(gateway.installs().len(), 2);
}

#[test]
fn a_successor_can_be_rekeyed_again_and_is_found_by_initial_contact() {
    let (mut gateway, mut peer, _) = established(92);
    let mut second = rekey(&mut gateway, &mut peer, "aes128gcm16-prfsha384-x25519");
    let mut third = rekey(&mut gateway, &mut second, "aes256gcm16-prfsha256-ecp256");
    third.is_alive(&mut gateway);
    let mut again = Initiator::new(93);
    again.auth_notifies = vec![NotifyType::INITIAL_CONTACT];
    again.connect(&mut gateway).unwrap();
    assert_eq!(gateway.endpoint.sas().count(), 1);
    assert_eq!(gateway.endpoint.child_sas(), 1);
}

#[test]
fn what_is_refused() {
    let (mut gateway, mut peer, _) = established(94);
    let suite = IkeProposal::parse("aes128gcm16-prfsha256-x25519").unwrap()[0];
    let ke = peer.crypto.key_exchange(KeyExchangeMethod::Ecp256).unwrap();
    let wrong = KeRepr {
        method: 19,
        data: ke.public_value(),
    };
    for value in [Some(wrong), None] {
        let request = request(&mut peer, suite, &NEW_SPI, value);
        let response = gateway.exchange(peer.path, &request);
        // RFC 7296 §1.3.2: "The KEi payload MUST be included."
        let expected = Some((NotifyType::INVALID_KE_PAYLOAD, vec![0, 31]));
        assert_eq!(peer.error(&response), expected);
    }
    // A proposal without SPI is none that could be accepted.
    let refused = request(&mut peer, suite, &[], Some(wrong));
    let response = gateway.exchange(peer.path, &refused);
    assert_eq!(
        peer.error(&response).unwrap().0,
        NotifyType::NO_PROPOSAL_CHOSEN
    );
    assert_eq!(gateway.endpoint.sas().count(), 1);
    // An SPI of zero is not one (RFC 7296 §3.1), and fatal as every malformed request.
    let refused = request(&mut peer, suite, &[0; 8], Some(wrong));
    let response = gateway.exchange(peer.path, &refused);
    assert_eq!(peer.error(&response).unwrap().0, NotifyType::INVALID_SYNTAX);
}

const SUITE: &str = "aes128gcm16-prfsha256-x25519";

fn order(gateway: &mut Gateway, command: Command) -> Vec<Transmit> {
    gateway.endpoint.handle_command(gateway.now, command);
    gateway.drain()
}

/// Responder SPIs of what is sent: the IKE SAs of a peer that has made them.
fn under(sent: &[Transmit]) -> Vec<[u8; 8]> {
    let spi = |sent: &Transmit| sent.bytes[8..16].try_into().unwrap();
    sent.iter().map(spi).collect()
}

/// The member that takes everything over.
fn heir_of(gateway: &Gateway) -> Gateway {
    let mut config = config();
    config.member = MemberId::new(6).unwrap();
    let mut other = Gateway::seeded(config, 106);
    other.now = gateway.now;
    for record in gateway.endpoint.export(gateway.now) {
        let command = Command::Import(Box::new(record));
        other.endpoint.handle_command(other.now, command);
    }
    other.advance(Duration::ZERO);
    other
}

/// Our answer is lost: a peer that only has the old IKE SA cannot answer anything under the new one,
/// and goes on to retransmit under the old one.
#[test]
fn nothing_goes_out_under_a_successor_that_the_peer_may_not_know() {
    for taken_over in [false, true] {
        let (mut gateway, mut peer, _) = established(94);
        let (mut successor, [request, response]) = rekey_seen(&mut gateway, &mut peer, SUITE);
        if taken_over {
            gateway = heir_of(&gateway);
        }
        let local_spi = successor.spi_r;
        let sent = order(&mut gateway, Command::Liveness { local_spi });
        assert_eq!(under(&sent), [peer.spi_r], "the one that the peer knows");
        let sent = order(&mut gateway, Command::Rekey(Target::Ike(local_spi)));
        assert_eq!(under(&sent), [[0; 8]; 0]);
        // The old one is not deleted when it should have been.
        let limits = config().limits;
        let sent = gateway.advance(limits.replaced_timeout + Duration::from_secs(1));
        assert!(under(&sent).iter().all(|spi| *spi == peer.spi_r));
        assert_eq!(gateway.exchange(peer.path, &request), response);
        assert_eq!(gateway.endpoint.sas().count(), 2);
        let mut records = gateway.endpoint.export(gateway.now);
        assert!(records.all(|record| !record.closing));
        drop(records);

        // It has heard the answer now.
        let request = successor.request(ExchangeType::INFORMATIONAL, &[]);
        let sent = gateway.receive(successor.path, &request);
        assert_eq!(under(&sent), [local_spi; 2], "the answer, and the rekeying");
    }
}

#[test]
fn a_successor_that_the_peer_may_not_know_is_used_when_the_old_ike_sa_is_deleted() {
    let (mut gateway, mut peer, _) = established(95);
    let successor = rekey(&mut gateway, &mut peer, SUITE);
    let local_spi = successor.spi_r;
    let sent = order(&mut gateway, Command::Rekey(Target::Ike(local_spi)));
    assert_eq!(under(&sent), [[0; 8]; 0]);
    let delete = [Payload::Delete(DeleteRepr::ike())];
    let delete = peer.request(ExchangeType::INFORMATIONAL, &delete);
    let sent = gateway.receive(peer.path, &delete);
    assert_eq!(under(&sent), [peer.spi_r, local_spi]);
}

/// The peer is dead: first the old IKE SA ends, then the successor, which nobody answers under.
#[test]
fn a_dead_peer_loses_a_successor_that_it_may_not_have_known() {
    let (mut gateway, mut peer, _) = established(96);
    let successor = rekey(&mut gateway, &mut peer, SUITE);
    let local_spi = successor.spi_r;
    order(&mut gateway, Command::Liveness { local_spi });
    let mut sent = Vec::new();
    for _ in 0..1000 {
        sent.extend(gateway.advance(Duration::from_secs(1)));
    }
    assert_eq!(gateway.endpoint.sas().count(), 0);
    let first = under(&sent).iter().position(|spi| *spi == local_spi);
    assert!(
        under(&sent)[first.unwrap()..]
            .iter()
            .all(|spi| *spi == local_spi)
    );
    assert_eq!(gateway.removals().len(), 1);
}
