//! NAT detection (RFC 7296 §2.23), in IKE_SA_INIT and wherever MOBIKE wants it.

use std::net::SocketAddr;

use crate::crypto::CryptoProvider;
use crate::output::Path;
use crate::record::NatState;
use crate::wire::{HeaderRepr, MessageBuilder, NotifyRepr, NotifyType, Payload, Payloads};

/// What the NAT_DETECTION_* of a message say about the way that it took; `None` unless it has both
/// kinds.
pub(super) fn detect(
    crypto: &dyn CryptoProvider,
    payloads: &Payloads<'_>,
    header: &HeaderRepr,
    path: Path,
) -> Option<NatState> {
    let seen = |kind, address| {
        let mut any = false;
        let expected = hash(crypto, header, address);
        let matches = payloads.notifies.iter().any(|notify| {
            any |= notify.kind == kind;
            notify.kind == kind && notify.data == expected
        });
        any.then_some(!matches)
    };
    // There may be several NAT_DETECTION_SOURCE_IP; one that matches is enough.
    Some(NatState {
        remote: seen(NotifyType::NAT_DETECTION_SOURCE_IP, path.remote)?,
        local: seen(NotifyType::NAT_DETECTION_DESTINATION_IP, path.local)?,
    })
}

/// Adds ours to a message that leaves over `path` with `header`. `forced`: the peer is to believe
/// that there is a NAT before us, so that both sides put ESP in UDP.
pub(super) fn announce(
    crypto: &dyn CryptoProvider,
    message: &mut MessageBuilder,
    header: &HeaderRepr,
    path: Path,
    forced: bool,
) {
    let mut source = hash(crypto, header, path.local);
    if forced {
        crypto.random(&mut source);
    }
    let destination = hash(crypto, header, path.remote);
    for (kind, hash) in [
        (NotifyType::NAT_DETECTION_SOURCE_IP, source),
        (NotifyType::NAT_DETECTION_DESTINATION_IP, destination),
    ] {
        message.push(&Payload::Notify(NotifyRepr::new(kind, &hash)));
    }
}

/// SHA-1(SPIi | SPIr | IP | Port), RFC 7296 §2.23.
fn hash(crypto: &dyn CryptoProvider, header: &HeaderRepr, address: SocketAddr) -> [u8; 20] {
    let octets = match address {
        SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
        SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
    };
    crypto.sha1(&[
        &header.initiator_spi,
        &header.responder_spi,
        &octets,
        &address.port().to_be_bytes(),
    ])
}
