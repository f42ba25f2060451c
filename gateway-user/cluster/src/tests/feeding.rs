//! A joiner is fed while everything goes on.

use super::net::{cookie, id};
use super::world::{World, sa};
use crate::change::Mirror;
use crate::config::Limits;

#[test]
fn a_hundred_thousand_sas_are_fed_while_deltas_run() {
    const COUNT: u32 = 100_000;
    let limits = Limits::default();
    let mut world = World::new(2, &limits);
    let now = world.now();
    world.kill(2);
    // Two members: the other one alone is no majority, but the test decides.
    world.decide(&[1]);
    world.install_all();
    let slots: Vec<_> = world.net.core(1).owned().iter().collect();
    let spi = |n: u32| {
        let [a, b, c, d] = n.to_be_bytes();
        [1, a, b, c, d, 0, 0, 1]
    };
    for n in 0..COUNT {
        let slot = slots[n as usize % slots.len()];
        let core = &mut world.net.node(1).core;
        core.publish(now, slot, sa(spi(n), 1), Mirror::Urgent)
            .unwrap();
        world.net.drain(1);
    }
    world.restart(2);
    world.install_all();
    world.net.connect(1, 2);
    let mut rounds = 0;
    while !world.net.peer(1, 2).in_sync {
        rounds += 1;
        assert!(rounds < 10_000);
        // What changes meanwhile is there one exchange later, wherever the snapshot is.
        let n = rounds * 7919 % COUNT;
        let slot = world.net.core(1).ownership().sa(spi(n)).unwrap().slot;
        let core = &mut world.net.node(1).core;
        core.publish(now, slot, sa(spi(n), 1 + rounds), Mirror::Urgent)
            .unwrap();
        world.net.drain(1);
        let queued: usize = world.net.wires[&(1, 2)].iter().map(|f| f.len()).sum();
        let bound = limits.window_bytes + limits.snapshot_window_bytes;
        assert!(queued < bound, "{queued}");
        let under_way = world.net.wires[&(1, 2)].len();
        for _ in 0..under_way {
            world.net.deliver(1, 2);
        }
        if rounds > 2 {
            let held = world.net.core(2).ownership().sa(spi(n)).unwrap();
            assert_eq!(held.sa.record.expose()[..4], (1 + rounds).to_be_bytes());
        }
        while world.net.deliver(2, 1) {}
    }
    assert!(rounds > 20, "in pieces: {rounds}");
    assert_eq!(world.net.core(2).ownership().sas().count(), COUNT as usize);
    assert!(world.admit());
    world.install_all();
    world.settle();
    world.check_converged();
    assert!(world.epoch().0 > 2 && cookie(1, 1, 1)[0] == 1 && id(1).get() == 1);
}
