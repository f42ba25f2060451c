//! Tests of the module as a whole, and what all its tests share.

mod block;
mod copies;
mod encoder;
mod live;
mod parser;
mod rekey;
mod selector;
mod told;
mod trap;
mod tunnels;

use std::net::IpAddr;

use gateway_common::slot::Slot;
use gateway_ike::crypto::Encryption;
use gateway_ike::output::{ChildSa, TrafficSelector};
use gateway_ike::secret::SecretBytes;
use ipnet::IpNet;

use super::{Action, Direction, Policy, Recording, Sa, SaId, SaKernel, Tunnels};

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
        marks: gateway_ike::mark::Marks::default(),
        hard_lifetime_seconds: 3960,
        quota: gateway_ike::output::Quota::default(),
    }
}

/// An SA as [`child`] would have it.
pub(crate) fn sa(n: u8) -> Sa {
    crate::xfrm::child::inbound(&child(n), 0x4700_0001)
}

/// A recording kernel with tunnels over it.
pub(crate) fn recorded() -> (Recording, Tunnels) {
    let kernel = Recording::new();
    (kernel.clone(), Tunnels::new(Box::new(kernel)))
}

/// Removes what no record has claimed; returns the number of SAs.
pub(crate) fn finish_adoption(tunnels: &mut Tunnels) -> usize {
    tunnels.finish_adoption();
    loop {
        if let Some(removed) = tunnels.tidy_part().unwrap() {
            return removed;
        }
    }
}

/// SAs and policies, to compare. Counters and times are left out.
pub(crate) fn contents(kernel: &mut dyn SaKernel) -> (Vec<(SaId, u32)>, Vec<Policy>) {
    let sas = kernel.dump_sas().unwrap();
    let mut sas: Vec<_> = sas.iter().map(|sa| (sa.id, sa.reqid)).collect();
    let mut policies = kernel.dump_policies().unwrap();
    sas.sort_unstable();
    policies.sort_by_key(|policy| policy.key);
    (sas, policies)
}

/// The reqids that the policies of a direction ask for.
pub(crate) fn reqids(kernel: &mut dyn SaKernel, direction: Direction) -> Vec<u32> {
    let policies = kernel.dump_policies().unwrap();
    policies
        .iter()
        .filter(|policy| policy.key.direction == direction)
        .filter_map(|policy| match policy.action {
            Action::Protect(template) => Some(template.reqid),
            Action::Bypass | Action::Block => None,
        })
        .collect()
}

/// The reqid of the SA with this SPI.
pub(crate) fn reqid_of(kernel: &mut dyn SaKernel, spi: [u8; 4]) -> u32 {
    let sas = kernel.dump_sas().unwrap();
    sas.iter().find(|sa| sa.id.spi == spi).unwrap().reqid
}
