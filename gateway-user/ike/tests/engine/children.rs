//! CREATE_CHILD_SA: new children and successors of old ones (RFC 7296 §1.3.1, §1.3.3).

use std::sync::Arc;
use std::time::Duration;

use gateway_ike::crypto::{CryptoProvider, KeyExchange, KeyExchangeMethod};
use gateway_ike::proposal::EspProposal;
use gateway_ike::wire::{DeleteRepr, ExchangeType, NotifyType, Payload};

use crate::config::{child, config, connection, ts};
use crate::gateway::{Gateway, Kernel};
use crate::initiator::{Initiator, MyChild};

const NONCE: [u8; 32] = [0x5a; 32];
const NEW_SPI: [u8; 4] = [0xc0, 0, 0, 9];

fn established(seed: u64) -> (Gateway, Initiator, MyChild) {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(seed);
    let child = peer.connect(&mut gateway).unwrap();
    (gateway, peer, child)
}

/// Runs the exchange and takes the new child.
fn create(
    gateway: &mut Gateway,
    peer: &mut Initiator,
    rekeys: Option<[u8; 4]>,
    method: Option<KeyExchangeMethod>,
) -> MyChild {
    peer.spi_in = NEW_SPI;
    let ke = method.map(|method| peer.crypto.key_exchange(method).unwrap());
    let request = peer.create_child(rekeys, ke.as_deref(), &NONCE);
    let response = gateway.exchange(peer.path, &request);
    take(peer, ke.as_deref(), &response)
}

fn take(peer: &Initiator, ke: Option<&dyn KeyExchange>, response: &[u8]) -> MyChild {
    let opened = peer.open(response);
    let payloads = opened.payloads().unwrap();
    assert_eq!(payloads.error_notify(), None);
    let shared = ke.map(|ke| {
        let theirs = payloads.require_ke().unwrap();
        assert_eq!(theirs.method, ke.method().transform_id());
        ke.agree(theirs.data).unwrap()
    });
    assert_eq!(payloads.ke.is_some(), ke.is_some());
    let nonce_r = payloads.require_nonce().unwrap().data;
    peer.child(&payloads, &NONCE, nonce_r, shared.as_ref())
}

fn same_keys(gateway: &Gateway, child: &MyChild) {
    let installs = gateway.installs();
    let (sa, _) = installs.last().unwrap();
    assert_eq!((sa.spi_in, sa.spi_out), (child.spi_out, child.spi_in));
    assert_eq!((&sa.key_in, &sa.key_out), (&child.key_out, &child.key_in));
}

#[test]
fn rekeying_with_and_without_pfs() {
    for (esp, method) in [
        ("aes256gcm16", None),
        ("aes256gcm16-x25519", Some(KeyExchangeMethod::X25519)),
        ("aes128gcm16-ecp256", Some(KeyExchangeMethod::Ecp256)),
    ] {
        let (mut gateway, mut peer, old) = established(80);
        let from = gateway.log.len();
        peer.esp = EspProposal::parse(esp).unwrap();
        let new = create(&mut gateway, &mut peer, Some(old.spi_in), method);
        same_keys(&gateway, &new);
        let order: Vec<_> = gateway
            .order(from)
            .into_iter()
            .filter(|w| w != "event")
            .collect();
        assert_eq!(order, ["install", "delta 3 upsert", "transmit after 3"]);
        let (sa, replaces) = gateway.installs()[1];
        assert_eq!(replaces.unwrap().spi_in, old.spi_out);
        assert_eq!(sa.name, "net");
        // Both live until the peer deletes the old one.
        assert_eq!(gateway.last_record().1.children.len(), 2);
        assert!(gateway.removals().is_empty());
        let spis = [old.spi_in];
        let delete = [Payload::Delete(DeleteRepr::esp(&spis))];
        let request = peer.request(ExchangeType::INFORMATIONAL, &delete);
        gateway.exchange(peer.path, &request);
        assert_eq!(gateway.removals()[0].spi_in, old.spi_out);
        let status = gateway.endpoint.sas().next().unwrap();
        assert_eq!(status.children.len(), 1);
        assert_eq!(status.children[0].spi_in, new.spi_out);
    }
}

#[test]
fn a_wrong_guess_and_a_missing_ke_payload() {
    for guess in [Some(KeyExchangeMethod::X25519), None] {
        let (mut gateway, mut peer, old) = established(81);
        peer.esp = EspProposal::parse("aes128gcm16-ecp256").unwrap();
        peer.spi_in = NEW_SPI;
        let ke = guess.map(|method| peer.crypto.key_exchange(method).unwrap());
        let request = peer.create_child(Some(old.spi_in), ke.as_deref(), &NONCE);
        let response = gateway.exchange(peer.path, &request);
        let expected = Some((NotifyType::INVALID_KE_PAYLOAD, vec![0, 19]));
        assert_eq!(peer.error(&response), expected);
        assert_eq!(gateway.installs().len(), 1);
        let method = Some(KeyExchangeMethod::Ecp256);
        let new = create(&mut gateway, &mut peer, Some(old.spi_in), method);
        same_keys(&gateway, &new);
    }
}

/// RFC 6989 §2.5: INVALID_SYNTAX, and the IKE SA is dropped.
#[test]
fn an_invalid_key_exchange_value_is_fatal() {
    struct Bad;
    impl KeyExchange for Bad {
        fn method(&self) -> KeyExchangeMethod {
            KeyExchangeMethod::X25519
        }
        fn public_value(&self) -> &[u8] {
            &[0; 32]
        }
        fn agree(
            &self,
            _: &[u8],
        ) -> Result<gateway_ike::secret::SecretBytes, gateway_ike::crypto::CryptoError> {
            unreachable!()
        }
        fn export(&self) -> gateway_ike::secret::SecretBytes {
            unreachable!()
        }
    }
    let (mut gateway, mut peer, old) = established(82);
    peer.esp = EspProposal::parse("aes128gcm16-x25519").unwrap();
    let request = peer.create_child(Some(old.spi_in), Some(&Bad), &NONCE);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.error(&response),
        Some((NotifyType::INVALID_SYNTAX, vec![]))
    );
    assert_eq!(gateway.endpoint.sas().count(), 0);
    assert_eq!(gateway.endpoint.child_sas(), 0);
}

#[test]
fn rekeying_what_does_not_exist() {
    let (mut gateway, mut peer, child) = established(83);
    // The gateway's own inbound SPI is not how the peer names it.
    for spi in [[1, 2, 3, 4], child.spi_out] {
        let request = peer.create_child(Some(spi), None, &NONCE);
        let response = gateway.exchange(peer.path, &request);
        let opened = peer.open(&response);
        let payloads = opened.payloads().unwrap();
        let notify = payloads.error_notify().unwrap();
        assert_eq!(notify.kind, NotifyType::CHILD_SA_NOT_FOUND);
        // RFC 7296 §2.25: with the SPI from the request.
        assert_eq!(notify.esp_spi(), Some(spi));
    }
    assert_eq!(gateway.installs().len(), 1);
    peer.is_alive(&mut gateway);
}

#[test]
fn an_additional_child() {
    let mut config = config();
    let mut site = connection("site", "peer.example.org");
    site.children
        .push(Arc::new(child("second", "10.9.0.0/16", "10.2.0.0/16")));
    config.connections = vec![Arc::new(site)];
    config.limits.children_per_ike_sa = 2;
    let mut gateway = Gateway::new(config);
    let mut peer = Initiator::new(84);
    let first = peer.connect(&mut gateway).unwrap();
    peer.ts_r = vec![ts("10.9.5.0/24")];
    let second = create(&mut gateway, &mut peer, None, None);
    same_keys(&gateway, &second);
    let (sa, replaces) = gateway.installs()[1];
    assert_eq!((&*sa.name, replaces), ("second", None));
    assert_eq!(sa.local_ts, [ts("10.9.5.0/24")]);
    assert_ne!(second.spi_out, first.spi_out);

    // RFC 7296 §1.3: no more than we are willing to; but what exists may be rekeyed.
    let request = peer.create_child(None, None, &NONCE);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.error(&response).unwrap().0,
        NotifyType::NO_ADDITIONAL_SAS
    );
    create(&mut gateway, &mut peer, Some(second.spi_in), None);
}

/// swanctl's `dynamic`: our address and the peer's, whoever asks for the CHILD_SA.
#[test]
fn the_tunnels_own_addresses_as_selectors() {
    let mut config = config();
    let mut site = connection("site", "peer.example.org");
    site.children = vec![Arc::new(child("net", "dynamic", "dynamic[udp/53]"))];
    config.connections = vec![Arc::new(site)];
    let mut gateway = Gateway::new(config);
    let mut peer = Initiator::new(99);
    // More is asked for than there is.
    (peer.ts_i, peer.ts_r) = (vec![ts("198.51.100.0/24")], vec![ts("0.0.0.0/0")]);
    let first = peer.connect(&mut gateway).unwrap();
    let (ours, theirs) = (ts("203.0.113.10/32"), ts("198.51.100.7/32[udp/53]"));
    assert_eq!((&*first.ts_r, &*first.ts_i), (&[ours][..], &[theirs][..]));
    let (_, record) = gateway.last_record();
    let sa = &record.children[0].sa;
    assert_eq!(
        (&*sa.local_ts, &*sa.remote_ts),
        (&[ours][..], &[theirs][..])
    );

    let second = create(&mut gateway, &mut peer, Some(first.spi_in), None);
    assert_eq!((&*second.ts_r, &*second.ts_i), (&[ours][..], &[theirs][..]));

    // Another address than the one that we see is nobody's.
    peer.ts_i = vec![ts("10.2.0.9/32")];
    let request = peer.create_child(None, None, &NONCE);
    let response = gateway.exchange(peer.path, &request);
    let error = peer.error(&response).unwrap().0;
    assert_eq!(error, NotifyType::TS_UNACCEPTABLE);
}

#[test]
fn refused_children_leave_everything_as_it_was() {
    let (mut gateway, mut peer, old) = established(85);
    let before = gateway.endpoint.sas().next().unwrap();
    peer.ts_r = vec![ts("172.16.0.0/12")];
    let request = peer.create_child(None, None, &NONCE);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.error(&response).unwrap().0,
        NotifyType::TS_UNACCEPTABLE
    );
    peer.ts_r = old.ts_r.clone();
    peer.esp = EspProposal::parse("aes192gcm16").unwrap();
    let request = peer.create_child(Some(old.spi_in), None, &NONCE);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.error(&response).unwrap().0,
        NotifyType::NO_PROPOSAL_CHOSEN
    );
    peer.esp = EspProposal::parse("aes128gcm16").unwrap();
    gateway.kernel = Kernel::Refuses;
    peer.spi_in = NEW_SPI;
    let request = peer.create_child(Some(old.spi_in), None, &NONCE);
    let response = gateway.exchange(peer.path, &request);
    assert_eq!(
        peer.error(&response),
        Some((NotifyType::TEMPORARY_FAILURE, vec![]))
    );
    assert_eq!(gateway.endpoint.sas().next().unwrap(), before);
    assert_eq!(gateway.endpoint.child_sas(), 1);
    assert!(gateway.removals().is_empty());
    assert_eq!(gateway.complaints().len(), 3);
}

#[test]
fn a_silent_kernel_does_not_block_the_ike_sa_for_ever() {
    let (mut gateway, mut peer, old) = established(86);
    gateway.kernel = Kernel::IsSilent;
    peer.spi_in = NEW_SPI;
    let request = peer.create_child(Some(old.spi_in), None, &NONCE);
    gateway.ignores(peer.path, &request);
    gateway.ignores(peer.path, &request);
    // A request more than the window allows.
    let ahead = peer.request(ExchangeType::INFORMATIONAL, &[]);
    gateway.ignores(peer.path, &ahead);
    let sent = gateway.advance(Duration::from_secs(5));
    assert_eq!(
        peer.error(&sent[0].bytes).unwrap().0,
        NotifyType::TEMPORARY_FAILURE
    );
    gateway.exchange(peer.path, &ahead);
}

#[test]
fn an_ike_sa_that_goes_takes_a_child_that_is_being_made_along() {
    let (mut gateway, mut peer, old) = established(87);
    gateway.kernel = Kernel::IsSilent;
    peer.spi_in = NEW_SPI;
    gateway.ignores(
        peer.path,
        &peer.create_child(Some(old.spi_in), None, &NONCE),
    );
    gateway.kernel = Kernel::Installs;
    let mut again = Initiator::new(88);
    again.auth_notifies = vec![NotifyType::INITIAL_CONTACT];
    again.connect(&mut gateway).unwrap();
    assert_eq!(gateway.removals().len(), 2);
    assert_eq!(gateway.endpoint.child_sas(), 1);
    // Its timer is gone as well.
    assert_eq!(
        gateway.endpoint.poll_timeout(),
        Some(gateway.now + Duration::from_secs(30))
    );
    assert!(gateway.advance(Duration::from_secs(5)).is_empty());
    assert_eq!(gateway.endpoint.counters().kernel_failures, 0);
}
