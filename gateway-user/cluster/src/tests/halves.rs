//! Two members that do not find each other, and meet again.

use std::time::Duration;

use gateway_common::{slot::Slot, time::Instant};

use super::net::{config, id, next_view};
use crate::Cluster;
use crate::config::Limits;
use crate::reservation::JUMP;
use crate::view::View;

const NOW: Instant = Instant::from_nanos(1);

fn next(before: &View, members: &[u8]) -> View {
    next_view(before, members.iter().map(|member| (*member, 1)))
}

fn slot_of(view: &View, member: u8) -> Slot {
    let mut slots = view.slots.iter();
    let found = slots.find(|(_, owner)| *owner == Some(id(member)));
    found.map(|(slot, _)| slot).unwrap()
}

/// A rekeying that was under way when the halves parted may have been finished by either, with the same
/// keys. Once they have met nobody finishes it from the numbers that the other one began at.
#[test]
fn what_was_under_way_when_the_halves_parted_is_finished_behind_the_others_numbers() {
    let mut core = Cluster::new(config(1, 2, 1, &Limits::default()), NOW);
    let whole = next(&View::default(), &[1, 2]);
    core.handle_view(NOW, whole.clone());
    let (own, theirs) = (slot_of(&whole, 1), slot_of(&whole, 2));
    let half = next(&whole, &[1]);
    core.handle_half_view(NOW, half.clone());
    assert_eq!(core.first_number(own), 0, "its own goes on");
    assert!(core.first_number(theirs) >= JUMP);

    let met = next(&half, &[1, 2]);
    core.handle_view(NOW, met.clone());
    let kept = slot_of(&met, 1);
    assert!(core.first_number(kept) >= JUMP);
    // What moves in the minutes after it may be under way, too.
    let soon = next(&met, &[1]);
    core.handle_view(NOW + Duration::from_secs(60), soon.clone());
    assert!(core.first_number(slot_of(&met, 2)) >= JUMP);
    // Of what comes long after it nothing can be.
    let back = next(&soon, &[1, 2]);
    core.handle_view(NOW + Duration::from_secs(3600), back.clone());
    let whole = next(&back, &[1]);
    core.handle_view(NOW + Duration::from_secs(3601), whole);
    assert_eq!(core.first_number(slot_of(&back, 2)), 0);
}

/// Whoever is left out when the halves meet is told everything, and comes in later: it has finished what
/// was under way, with numbers of its own.
#[test]
fn who_did_not_prevail_remembers_it() {
    let mut core = Cluster::new(config(1, 2, 1, &Limits::default()), NOW);
    let whole = next(&View::default(), &[1, 2]);
    core.handle_view(NOW, whole.clone());
    core.handle_half_view(NOW, next(&whole, &[1]));
    let others = next(&next(&whole, &[2]), &[2]);
    core.handle_view(NOW, others.clone());
    let met = next(&others, &[1, 2]);
    core.handle_view(NOW, met.clone());
    assert!(core.first_number(slot_of(&met, 1)) >= JUMP);
}
