//! Invariant 7: connections that break and members that start again after any frame.

use super::net::{Net, cookie, established, opened};
use super::world::World;
use crate::change::{Change, Mirror};
use crate::config::Limits;

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

/// What a member does in its life, as far as it serves its slots; then some more.
fn script(net: &mut Net, part: std::ops::Range<u8>) {
    for n in part {
        for member in 1..=net.members {
            let cookie = cookie(member, net.nodes[&member].run, n);
            let mut changes = vec![
                (opened(cookie), Mirror::Background),
                (established(cookie, 1), Mirror::Urgent),
                (established(cookie, 2), Mirror::Urgent),
            ];
            if n % 2 == 0 {
                let gone = Change::SaRemoved { local_spi: cookie };
                changes.push((gone, Mirror::Urgent));
            }
            for (change, mirror) in changes {
                // A member that is not level publishes no SAs.
                let _ = net.publish(member, change, mirror);
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
    let mut world = World::new(3, &tight());
    let before = world.net.delivered;
    script(&mut world.net, 0..4);
    deliver_some(&mut world.net, frames);
    let delivered = world.net.delivered - before;
    if restart {
        world.kill(1);
        assert!(world.drop_dead());
        world.install_all();
        world.restart(1);
    } else {
        world.net.cut(1, 2, (true, true));
    }
    script(&mut world.net, 4..6);
    world.heal();
    delivered
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
    net.check_converged();
    let status = net.peer(1, 2).counters;
    assert_eq!((status.deltas_resent, status.snapshots_sent), (4, 1));
    net.cut(1, 2, (true, true));
    script(&mut net, 1..9);
    net.settle();
    assert!(
        !net.node(1).report.lagging.is_empty(),
        "the queue is too short"
    );
    net.install(&[1]);
    net.settle();
    net.install(&[1, 2]);
    net.settle();
    net.check_converged();
    let status = net.peer(1, 2).counters;
    assert_eq!((status.deltas_resent, status.snapshots_sent), (4, 2));
}
