//! Records of IKE SAs, as another member sends them.

use std::sync::Arc;

use gateway_common::time::Instant;
use gateway_ike::crypto::CryptoProvider;
use gateway_ike::endpoint::{Command, Endpoint};
use gateway_ike::output::{Output, Path};
use gateway_ike::record::{IkeSaRecord, NegotiationRecord};
use gateway_ike::wire::{ExchangeType, HeaderRepr, MessageBuilder};

use super::setup::config;
use super::watch::Watch;

/// A record: it survives its encoding, and an endpoint that goes on with it survives it.
pub(in crate::fuzz) fn record(data: &[u8]) {
    negotiation(data);
    let Ok(record) = IkeSaRecord::decode(data) else {
        return;
    };
    let octets = record.encode();
    let again = IkeSaRecord::decode(octets.expose()).expect("our own record");
    assert!(again == record, "a record survives its encoding");

    let now = Instant::from_nanos(1_000_000_000);
    let provider: Arc<dyn CryptoProvider> = Arc::new(Watch::new(7));
    let config = config(1, 1);
    // The only timer without an end: those of the configuration have none.
    let known = config
        .connections
        .iter()
        .any(|one| one.name == record.connection);
    let keepalives = record.nat.local && !known;
    let mut endpoint = Endpoint::new(Arc::new(config), provider, now);
    let (local_spi, path) = (record.local_spi, record.path);
    let request = request(&record);
    endpoint.handle_command(now, Command::Import(Box::new(record.clone())));
    let exported: Vec<_> = endpoint.export(now).collect();
    let [exported] = exported.as_slice() else {
        panic!("one IKE SA was imported");
    };
    assert_eq!(exported.local_spi, record.local_spi);
    assert_eq!(exported.expected_request, record.expected_request);
    assert!(exported.keys == record.keys);
    assert_eq!(exported.children.len(), record.children.len());
    assert_eq!(endpoint.sas().count(), 1);

    endpoint.handle_datagram(now, Path::new(path.local, path.remote), &request);
    while let Some(output) = endpoint.poll_output() {
        assert!(
            !matches!(output, Output::Transmit(_)),
            "nothing is due to a request in clear"
        );
    }
    for _ in 0..10_000 {
        let Some(next) = endpoint.poll_timeout() else {
            break;
        };
        endpoint.handle_timeout(next.max(now));
        while endpoint.poll_output().is_some() {}
    }
    assert!(endpoint.poll_timeout().is_none() || keepalives);
    endpoint.handle_command(now, Command::Forget { local_spi });
    assert_eq!(endpoint.sas().count(), 0);
    assert_eq!(endpoint.child_sas(), 0);
}

/// A forged request that names the IKE SA.
fn request(record: &IkeSaRecord) -> Vec<u8> {
    let header = HeaderRepr {
        initiator_spi: record.remote_spi,
        responder_spi: record.local_spi,
        exchange: ExchangeType::INFORMATIONAL,
        from_initiator: true,
        response: false,
        message_id: record.expected_request,
    };
    MessageBuilder::new(header).finish().expect("a header")
}

/// The same for one of a negotiation: whatever is taken over ends by itself.
fn negotiation(data: &[u8]) {
    let Ok(record) = NegotiationRecord::decode(data) else {
        return;
    };
    let octets = record.encode();
    let again = NegotiationRecord::decode(octets.expose()).expect("our own record");
    assert!(again == record, "a record survives its encoding");
    let now = Instant::from_nanos(1_000_000_000);
    let provider: Arc<dyn CryptoProvider> = Arc::new(Watch::new(7));
    let mut endpoint = Endpoint::new(Arc::new(config(1, 1)), provider, now);
    let taken = endpoint.take_over(now, record);
    assert_eq!(endpoint.half_open(), usize::from(taken));
    while let Some(next) = endpoint.poll_timeout() {
        endpoint.handle_timeout(next);
    }
    assert_eq!(endpoint.half_open(), 0);
}
