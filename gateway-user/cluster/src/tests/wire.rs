//! What replication costs on the wire, and what else goes over it.

use gateway_common::slot::Slot;

use super::net::{Net, id};
use crate::change::{Change, Checkpoint, Child, Mirror, Reserved, Sa};
use crate::config::Limits;
use crate::frame::{DeltaSeq, encode_delta};
use crate::network::Network;
use crate::output::Output;
use crate::secret::Secret;
use crate::view::Tenure;

/// An IKE SA with one CHILD_SA, both outer addresses and the network of IPv6, and a record as long
/// as one with a pre-shared key becomes.
fn pair() -> Change {
    let address = "2001:db8::1".parse().unwrap();
    Change::SaUpsert(Sa {
        local_spi: [9; 8],
        children: vec![Child {
            spi_in: [1; 4],
            vip: address,
            spi_out: [2; 4],
            peer: address,
            remote_nets: vec![Network::new(0, address, 64).unwrap()],
            reserved: Reserved::default(),
        }],
        identities: Some([3; 16]),
        moves: 1,
        record: Secret::new(vec![7; 1024]),
        unknown: Secret::default(),
    })
}

#[test]
fn an_sa_pair_costs_one_packet_and_a_checkpoint_little() {
    let mut net = Net::connected(2, &Limits::default());
    let before = net.bytes;
    net.publish(1, pair(), Mirror::Urgent).unwrap();
    net.deliver_all();
    // The delta and its acknowledgement.
    let octets = net.bytes - before;
    assert!((1024..=1500).contains(&octets), "{octets}");
    let checkpoint = Checkpoint {
        local_spi: [9; 8],
        spi_in: [1; 4],
        reserved: Reserved {
            slot: Slot(255),
            tenure: Tenure(u64::MAX),
            ceiling: u64::MAX,
            block: u32::MAX,
        },
        sequence_in: u64::MAX,
    };
    let change = Change::Checkpoints(vec![checkpoint]);
    let octets = encode_delta(DeltaSeq(u64::MAX), Slot(255), &change).len();
    assert!(octets <= 64, "{octets}");
}

fn cookie_secrets(net: &Net, member: u8) -> Vec<Secret> {
    let effects = net.nodes[&member].effects.iter();
    effects
        .filter_map(|effect| match effect {
            Output::CookieSecret(secret) => Some(secret.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn all_members_have_the_last_cookie_secret_a_restarted_one_too() {
    let mut net = Net::connected(3, &Limits::default());
    let owner = net.core(1).slots().owner(Slot(0)).unwrap();
    let now = net.now;
    let others: Vec<u8> = (1..=3).filter(|m| id(*m) != owner).collect();
    let (first, second) = (Secret::new(vec![1; 32]), Secret::new(vec![2; 32]));
    for secret in [&first, &second] {
        let change = Change::CookieSecret(secret.clone());
        let core = &mut net.node(owner.get()).core;
        core.publish(now, Slot(0), change, Mirror::Urgent).unwrap();
        net.drain(owner.get());
    }
    net.settle();
    for member in &others {
        assert_eq!(
            cookie_secrets(&net, *member),
            [first.clone(), second.clone()]
        );
    }
    net.restart(others[0]);
    net.install(&[owner.get(), others[1]]);
    net.settle();
    assert_eq!(cookie_secrets(&net, others[0]), [second]);
    // Nobody else may set it.
    let change = Change::CookieSecret(first);
    let core = &mut net.node(others[1]).core;
    assert!(core.publish(now, Slot(0), change, Mirror::Urgent).is_err());
}
