//! Invariant 7 and flush-and-ack under broken connections, restarts and hung members.

use std::collections::BTreeSet;
use std::time::Duration;

use super::net::{Net, cookie, established, opened};
use crate::change::{Change, Cookie, Mirror};
use crate::config::Limits;

/// SplitMix64: the seed decides everything.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn coin(&mut self) -> bool {
        self.roll(2) == 0
    }
}

/// Small windows and queues, so that a few changes reach every bound.
fn tight() -> Limits {
    Limits {
        window_bytes: 1500,
        snapshot_window_bytes: 1000,
        retained_deltas: 12,
        retained_bytes: 5000,
        mirror_rate: 1_000_000,
        mirror_burst: 1_000_000,
        ..Limits::default()
    }
}

/// An SPI is drawn once: one that was established never opens a negotiation again. (`retired` knows
/// them. A member that missed the end of the SA would ignore the negotiation, because nothing that
/// comes late may undo an established SA.)
fn random_change(
    net: &Net,
    dice: &mut Dice,
    member: u8,
    retired: &mut BTreeSet<Cookie>,
) -> (Change, Mirror) {
    let cookie = cookie(member, net.nodes[&member].run, dice.roll(5) as u8);
    let kind = dice.roll(6);
    if kind > 2 {
        retired.insert(cookie);
    }
    match kind {
        0 | 1 if !retired.contains(&cookie) => (opened(cookie), Mirror::Background),
        0 | 1 => (established(cookie, dice.roll(4) as u8), Mirror::Background),
        2 => (
            Change::NegotiationClosed {
                local_cookie: cookie,
            },
            Mirror::Background,
        ),
        3 | 4 => (established(cookie, dice.roll(4) as u8), Mirror::Urgent),
        _ => (Change::SaRemoved { local_spi: cookie }, Mirror::Urgent),
    }
}

fn random_step(net: &mut Net, dice: &mut Dice, retired: &mut BTreeSet<Cookie>) {
    let member = 1 + dice.roll(u64::from(net.members)) as u8;
    let other = 1 + (u64::from(member) + dice.roll(u64::from(net.members) - 1)) as u8 % net.members;
    assert_ne!(member, other);
    match dice.roll(40) {
        0..=11 if !net.hung.contains(&member) => {
            let (change, mirror) = random_change(net, dice, member, retired);
            net.publish(member, change, mirror).unwrap();
        }
        0..=29 => {
            for _ in 0..dice.roll(6) {
                net.deliver(member, other);
            }
        }
        30 | 31 => net.cut(member, other, (dice.coin(), dice.coin())),
        32..=34 => {
            if !net.wires.contains_key(&(member, other)) {
                net.connect(member, other);
            }
        }
        35 if dice.coin() => net.restart(member),
        36 => {
            if !net.hung.remove(&member) {
                net.hung.insert(member);
            }
        }
        _ => net.advance(Duration::from_millis(dice.roll(150))),
    }
    for member in 1..=net.members {
        net.check_in_sync(member);
    }
}

fn run(seed: u64, members: u8, limits: &Limits) -> Net {
    let mut dice = Dice(seed);
    let mut net = Net::new(members, limits);
    let mut retired = BTreeSet::new();
    for _ in 0..150 {
        random_step(&mut net, &mut dice, &mut retired);
    }
    net.settle();
    net.check_converged();
    net
}

#[test]
fn members_converge_whatever_happens() {
    let mut resent = 0;
    let mut snapshots = 0;
    let mut lagged = 0;
    for seed in 0..600 {
        // A failing seed is printed before it fails.
        let outcome = std::panic::catch_unwind(|| run(seed, 2 + (seed % 2) as u8, &tight()));
        let Ok(net) = outcome else {
            panic!("seed {seed} fails");
        };
        for node in net.nodes.values() {
            for peer in node.core.status().peers {
                resent += peer.counters.deltas_resent;
                snapshots += peer.counters.snapshots_sent;
                lagged += peer.counters.lagged;
                assert_eq!(
                    peer.counters.protocol_errors, 0,
                    "seed {seed}: {:?}",
                    node.events
                );
            }
        }
    }
    // The faults really happened.
    assert!(
        resent > 100 && snapshots > 1000 && lagged > 100,
        "{resent} {snapshots} {lagged}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (a, b) = (run(7, 3, &tight()), run(7, 3, &tight()));
    assert_eq!((a.delivered, a.bytes, a.now), (b.delivered, b.bytes, b.now));
}

/// What a member does in its life, then some more.
fn script(net: &mut Net, part: std::ops::Range<u8>) {
    for n in part {
        for member in 1..=net.members {
            let cookie = cookie(member, net.nodes[&member].run, n);
            let changes = [
                (opened(cookie), Mirror::Background),
                (established(cookie, 1), Mirror::Urgent),
                (established(cookie, 2), Mirror::Urgent),
            ];
            for (change, mirror) in changes {
                net.publish(member, change, mirror).unwrap();
            }
            if n % 2 == 0 {
                let gone = Change::SaRemoved { local_spi: cookie };
                net.publish(member, gone, Mirror::Urgent).unwrap();
            }
        }
    }
}

/// Delivers `count` frames round robin.
fn deliver_some(net: &mut Net, count: u64) {
    let end = net.delivered + count;
    while net.delivered < end {
        let before = net.delivered;
        for wire in net.wires.keys().copied().collect::<Vec<_>>() {
            if net.delivered < end {
                net.deliver(wire.0, wire.1);
            }
        }
        if net.delivered == before {
            return;
        }
    }
}

fn break_after(frames: u64, restart: bool) -> u64 {
    let mut net = Net::new(3, &tight());
    net.connect_all();
    script(&mut net, 0..4);
    deliver_some(&mut net, frames);
    if restart {
        net.restart(1);
    } else {
        net.cut(1, 2, (true, true));
    }
    script(&mut net, 4..6);
    net.deliver_all();
    net.settle();
    net.check_converged();
    net.delivered
}

#[test]
fn a_connection_may_break_after_any_frame() {
    let total = break_after(u64::MAX / 2, false);
    assert!(total > 100);
    for frames in 0..total {
        break_after(frames, false);
    }
}

#[test]
fn a_member_may_restart_after_any_frame() {
    let total = break_after(u64::MAX / 2, true);
    for frames in 0..total {
        break_after(frames, true);
    }
}

#[test]
fn a_short_interruption_is_resumed_and_a_long_one_costs_a_snapshot() {
    let limits = tight();
    let mut net = Net::connected(2, &limits);
    net.cut(1, 2, (true, true));
    script(&mut net, 0..1);
    net.settle();
    let status = net.peer(1, 2).counters;
    assert_eq!((status.deltas_resent, status.snapshots_sent), (4, 1));
    net.cut(1, 2, (true, true));
    script(&mut net, 0..9);
    net.settle();
    net.check_converged();
    let status = net.peer(1, 2).counters;
    assert_eq!((status.deltas_resent, status.snapshots_sent), (4, 2));
}
