//! Views, levelling, reservation: nothing that was promised is lost, whoever dies when.

use std::ops::Range;

use gateway_common::slot::Slot;

use super::net::id;
use super::world::{Dice, World, sa};
use crate::change::Mirror;
use crate::cluster::Cluster;
use crate::config::{Limits, Mutations};

/// Small windows and queues, so that a few changes reach every bound.
fn tight(mutations: Mutations) -> Limits {
    Limits {
        window_bytes: 2500,
        snapshot_window_bytes: 800,
        retained_deltas: 12,
        retained_bytes: 4000,
        mutations,
        ..Limits::default()
    }
}

const SEEDS: Range<u64> = 0..700;
/// From here on views change more often,
const RESTLESS: u64 = 300;
/// and from here on members hang, too.
const HANGING: u64 = 500;

fn seeds() -> impl Iterator<Item = u64> {
    let range = std::env::var("GATEWAY_SYNC_SEEDS").ok().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    range.unwrap_or(SEEDS)
}

fn run(seed: u64, mutations: Mutations) -> World {
    let mut dice = Dice(seed);
    let mut world = World::new(3 + (seed % 2) as u8, &tight(mutations));
    world.restless = seed >= RESTLESS;
    world.hanging = seed >= HANGING;
    for _ in 0..400 {
        world.step(&mut dice);
    }
    world.heal();
    world
}

/// What goes wrong in a run, if something does.
fn failure(seed: u64, mutations: Mutations) -> Result<World, String> {
    std::panic::catch_unwind(|| run(seed, mutations)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref().map(|text: &&str| text.to_string()))
            .unwrap_or_default()
    })
}

#[test]
fn nothing_released_is_lost_and_no_number_is_used_twice() {
    let (mut takeovers, mut raises) = (0, 0);
    let mut failed = Vec::new();
    for seed in seeds() {
        match failure(seed, Mutations::default()) {
            Ok(world) => {
                takeovers += world.takeovers;
                raises += world.raises;
            }
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?} fail");
    assert!(takeovers > 300 && raises > 3000, "{takeovers} {raises}");
}

/// The same runs, in which nothing is found otherwise, with a mechanism switched off: `violation` is
/// how an invariant says that it is broken. Other ways to fail do not count.
fn breaks(violation: &[&str], mutations: Mutations) {
    let found = |seed| {
        failure(seed, mutations)
            .is_err_and(|text| violation.iter().any(|violation| text.contains(violation)))
    };
    assert!(seeds().any(found), "{mutations:?} breaks nothing");
}

/// What was released is not there.
const LOST: [&str; 3] = ["has lost", "has version", "is back"];
/// Members know different things in the end.
const DIVERGED: [&str; 1] = ["tables of"];
/// An outbound sequence number goes out again, or below one that went out.
const REPEATED: [&str; 1] = ["sends"];

#[test]
fn flush_and_ack_is_needed() {
    let no_flush_and_ack = true;
    breaks(
        &LOST,
        Mutations {
            no_flush_and_ack,
            ..Mutations::default()
        },
    );
}

#[test]
fn levelling_is_needed() {
    let no_levelling = true;
    breaks(
        &LOST,
        Mutations {
            no_levelling,
            ..Mutations::default()
        },
    );
}

#[test]
fn the_check_of_epochs_is_needed() {
    let no_epoch_check = true;
    breaks(
        &[LOST.as_slice(), &DIVERGED].concat(),
        Mutations {
            no_epoch_check,
            ..Mutations::default()
        },
    );
}

#[test]
fn ceilings_have_to_wait_for_the_others() {
    let no_ceiling = true;
    breaks(
        &REPEATED,
        Mutations {
            no_ceiling,
            ..Mutations::default()
        },
    );
}

#[test]
fn blocks_have_to_be_disjoint() {
    let overlapping_blocks = true;
    breaks(
        &REPEATED,
        Mutations {
            overlapping_blocks,
            ..Mutations::default()
        },
    );
}

#[test]
fn blocks_have_to_be_in_the_order_of_ownerships() {
    let blocks_by_member = true;
    breaks(
        &REPEATED,
        Mutations {
            blocks_by_member,
            ..Mutations::default()
        },
    );
}

#[test]
fn who_is_not_complete_must_not_join() {
    let no_full_sync_gate = true;
    breaks(
        &LOST,
        Mutations {
            no_full_sync_gate,
            ..Mutations::default()
        },
    );
}

/// Of the one who died only one survivor has heard all. It serves as soon as it is level, and the other
/// one, which does not know the IKE SA yet, may be the next to die.
#[test]
fn messages_of_a_slot_that_came_wait_until_all_members_are_level() {
    let mut world = World::new(3, &Limits::default());
    let now = world.now();
    let slot = |core: &Cluster, owner: u8| {
        let slots = core.slots().iter();
        let mut owned = slots.filter(|(_, by)| *by == Some(id(owner)));
        owned.next().map(|(slot, _)| slot).unwrap()
    };
    let kept = slot(world.net.core(2), 2);
    let slots: Vec<Slot> = world.net.core(3).owned().iter().collect();
    world.net.cut(1, 3, (false, true));
    world.decide(&[1, 2]);
    let came = |slot: &Slot| world.view.slots.owner(*slot) == Some(id(2));
    let came = slots.into_iter().find(came).unwrap();
    let spi = [3, 0, 0, 0, 1, 0, 0, 1];
    let core = &mut world.net.node(3).core;
    core.publish(now, came, sa(spi, 1), Mirror::Urgent).unwrap();
    world.net.drain(3);
    world.net.deliver_all();
    world.kill(3);
    for member in [1, 2] {
        world.install(member, false);
    }
    assert!(world.net.deliver(1, 2), "the marker of 1");
    assert!(world.net.core(2).serves(came) && world.net.core(2).ownership().sa(spi).is_some());
    assert_eq!(world.net.core(1).ownership().sa(spi), None);
    assert!(!world.net.core(2).shares(came) && world.net.core(2).shares(kept));
    world.net.deliver_all();
    assert!(world.net.core(1).ownership().sa(spi).is_some());
    assert!(world.net.core(2).shares(came));
}
