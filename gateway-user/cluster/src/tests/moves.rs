//! An IKE SA moves to another member, and one of the two dies meanwhile, or a third hears of it late.

use std::time::Duration;

use gateway_common::slot::Slot;

use super::world::{World, sa, spi_in};
use crate::change::{Cookie, Mirror};
use crate::config::Limits;

const SPI: Cookie = [1, 0, 0, 0, 1, 0, 0, 1];

fn slot_of(world: &World, member: u8) -> Slot {
    world.net.core(member).owned().iter().next().unwrap()
}

/// Frames one by one, round robin; says how many there were.
fn deliver(world: &mut World, count: u32) -> u32 {
    let mut delivered = 0;
    loop {
        let before = delivered;
        for (from, to) in world.net.wires.keys().copied().collect::<Vec<_>>() {
            if delivered == count {
                return delivered;
            }
            delivered += u32::from(world.net.deliver(from, to));
        }
        if delivered == before {
            return delivered;
        }
    }
}

/// The owner of the SA gives it to member 2; after `frames` frames `victim` dies, if it is one.
fn moved(frames: u32, victim: u8) -> u32 {
    let mut world = World::new(4, &Limits::default());
    let now = world.now();
    let (from, to) = (slot_of(&world, 1), slot_of(&world, 2));
    let core = &mut world.net.node(1).core;
    core.publish(now, from, sa(SPI, 5), Mirror::Urgent).unwrap();
    world.net.drain(1);
    world.settle();
    world.net.node(1).core.move_sa(SPI, to).unwrap();
    world.net.drain(1);
    let delivered = deliver(&mut world, frames);
    if victim != 0 {
        world.kill(victim);
        world.settle();
        assert!(world.drop_dead());
        world.install_all();
    }
    world.settle();
    let mut serving = Vec::new();
    let mut slots = Vec::new();
    for (member, node) in world.net.nodes.iter().filter(|(m, _)| **m != victim) {
        let held = node.core.ownership().sa(SPI).expect("the SA is everywhere");
        assert_eq!(held.sa.record.expose()[..4], 5_u32.to_be_bytes());
        assert!(!node.core.is_moving(SPI), "member {member} still gives it");
        slots.push(held.slot);
        if node.core.serves(held.slot) {
            serving.push(*member);
        }
    }
    slots.dedup();
    assert!([[from], [to]].iter().any(|slot| slots == slot), "{slots:?}");
    assert_eq!(serving.len(), 1, "served by {serving:?}");
    if victim == 0 {
        assert_eq!(serving, [2]);
    }
    delivered
}

#[test]
fn a_moving_sa_is_neither_lost_nor_served_twice_whoever_dies_when() {
    let frames = moved(u32::MAX, 0);
    assert!(frames > 5, "{frames}");
    for after in 0..=frames {
        for victim in [1, 2, 3] {
            moved(after, victim);
        }
    }
}

/// The giver's stream, which comes first, ends what the taker's begins again.
#[test]
fn who_hears_of_a_move_all_at_once_knows_the_numbers_of_its_children() {
    let mut world = World::new(3, &Limits::default());
    world.decide(&[1, 2]);
    for member in [1, 2] {
        world.install(member, false);
    }
    world.net.deliver_all();
    let now = world.now();
    let (from, to) = (slot_of(&world, 1), slot_of(&world, 2));
    let core = &mut world.net.node(1).core;
    core.publish(now, from, sa(SPI, 5), Mirror::Urgent).unwrap();
    world.net.drain(1);
    world.net.deliver_all();
    world.net.node(1).core.move_sa(SPI, to).unwrap();
    world.net.drain(1);
    world.net.deliver_all();
    // The giver says that its slot does not contain the SA any more.
    world.net.advance(Duration::from_millis(20));
    world.net.deliver_all();
    let outside = |world: &World| world.net.core(3).ownership().sa(SPI).map(|held| held.slot);
    assert_eq!(outside(&world), None, "what is of a later view waits");
    world.install(3, false);
    assert_eq!(outside(&world), Some(to));
    let standing = world.net.core(3).standing(spi_in(SPI));
    assert!(standing.is_some(), "its copy cannot be installed");
}
