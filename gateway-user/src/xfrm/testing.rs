//! What the tests of this module share.

use std::net::IpAddr;

use gateway_common::slot::Slot;
use gateway_ike::crypto::Encryption;
use gateway_ike::output::{ChildSa, TrafficSelector};
use gateway_ike::secret::SecretBytes;
use ipnet::IpNet;

/// The selector of a whole network.
pub(crate) fn network(text: &str) -> TrafficSelector {
    let net: IpNet = text.parse().unwrap();
    TrafficSelector {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
        start: net.network(),
        end: net.broadcast(),
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A child between 10.1.0.0/16 and 10.2.0.0/16 whose SPIs end in `n`.
pub(crate) fn child(n: u8) -> ChildSa {
    ChildSa {
        name: "net".into(),
        connection: "site-a".into(),
        slot: Slot(7),
        spi_in: [0xc0, 0, 0, n],
        spi_out: [0xd0, 0, 0, n],
        local: ip("203.0.113.10"),
        remote: ip("198.51.100.1"),
        encap: None,
        encryption: Encryption::AesGcm16Key128,
        key_in: SecretBytes::new(vec![0x11; 20]),
        key_out: SecretBytes::new(vec![0x22; 20]),
        esn: false,
        replay_window: 32,
        local_ts: vec![network("10.1.0.0/16")],
        remote_ts: vec![network("10.2.0.0/16")],
        if_id_in: 0,
        if_id_out: 0,
        hard_lifetime_seconds: 3960,
    }
}
