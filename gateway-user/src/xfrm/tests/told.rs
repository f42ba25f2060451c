//! What the kernel tells, and SAs of an earlier process.

use gateway_common::slot::Slot;
use gateway_node::effect::KernelEvent;

use super::copies::{BLOCK, at, in_id, look, out_id, sent};
use super::{child, contents, finish_adoption, network, recorded, reqid_of, reqids};
use crate::xfrm::{Direction, Recording, SaKernel, Tunnels, XfrmEvent};

fn heard(kernel: &Recording, tunnels: &mut Tunnels) -> Vec<KernelEvent> {
    let mut all = Vec::new();
    while let Some(event) = kernel.next_event() {
        all.extend(tunnels.hear(&event).unwrap());
    }
    all
}

#[test]
fn a_quarter_of_the_block_is_told_and_only_by_the_owner() {
    let (kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_copy(&c, BLOCK).unwrap();
    assert!(kernel.advance(&out_id(&c), 4_096, 0));
    assert_eq!(heard(&kernel, &mut tunnels), [], "the fence stopped it");
    tunnels.gate().gain(|slot| slot == c.slot);
    assert!(kernel.advance(&out_id(&c), 8_191, 0));
    let told = |sequence| KernelEvent::SentUpTo {
        child: c.id(),
        sequence,
    };
    assert_eq!(heard(&kernel, &mut tunnels), [told(16_384 + 8_192)]);
    assert!(kernel.advance(&out_id(&c), 1, 0));
    assert_eq!(heard(&kernel, &mut tunnels), [told(16_384 + 12_288)]);
    assert!(kernel.advance(&in_id(&c), 0, 16_384));
    assert_eq!(
        heard(&kernel, &mut tunnels),
        [KernelEvent::ReceivedUpTo {
            child: c.id(),
            sequence: 700 + 16_384
        }]
    );
}

#[test]
fn a_larger_reservation_is_told_less_often_but_within_its_half() {
    let (kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_child(&c, None).unwrap();
    tunnels.gate().gain(|_| true);
    let requests = kernel.requests();
    tunnels.pace(c.id(), 16_384).unwrap();
    tunnels.pace(c.id(), 20_000).unwrap();
    assert_eq!(kernel.requests(), requests, "not worth a request");
    for reserved in [1_000_000u64, 40_000, 16_384, 1 << 40] {
        tunnels.pace(c.id(), reserved).unwrap();
        let before = heard(&kernel, &mut tunnels).len();
        let half = (reserved / 2).min(1 << 25);
        assert!(kernel.advance(&out_id(&c), half, 0));
        let told = heard(&kernel, &mut tunnels).len();
        assert!(
            (1..=4).contains(&told),
            "{told} events in half of {reserved}, {before} before"
        );
    }
}

#[test]
fn each_raise_of_the_ceiling_says_how_much_is_reserved_at_a_time() {
    let (mut kernel, mut tunnels) = recorded();
    let (own, copy) = (child(1), child(2));
    tunnels.install_child(&own, None).unwrap();
    tunnels.install_copy(&copy, BLOCK).unwrap();
    let mut every = |kernel: &mut Recording, c, ceiling| {
        tunnels.ceiling_raised(&out_id(c), ceiling).unwrap();
        look(kernel, out_id(c)).event_every
    };
    assert_eq!(every(&mut kernel, &own, 16_384), 4_096);
    assert_eq!(every(&mut kernel, &own, 16_384 + 400_000), 100_000);
    assert_eq!(every(&mut kernel, &own, 16_384), 100_000, "no raise");
    // A copy goes on in its block, and raises from its end.
    assert_eq!(every(&mut kernel, &copy, 32_768), 4_096);
    assert_eq!(every(&mut kernel, &copy, 32_768 + 65_536), 16_384);
    tunnels.ceiling_raised(&out_id(&child(3)), 1).unwrap();
}

/// What an own SA jumped over is not reserved: its owner would notice half use of the block after it far
/// too late.
#[test]
fn what_an_sa_was_moved_over_does_not_count_as_reserved() {
    let (mut kernel, mut tunnels) = recorded();
    let own = child(1);
    tunnels.install_child(&own, None).unwrap();
    tunnels.gate().gain(|_| true);
    tunnels.ceiling_raised(&out_id(&own), 16_384).unwrap();
    let to = (1 << 30) + 100_000;
    tunnels.advance(own.id(), to);
    let ceiling = to as u32 + 65_536;
    tunnels.ceiling_raised(&out_id(&own), ceiling).unwrap();
    let state = look(&mut kernel, out_id(&own));
    assert_eq!(
        (state.position.sequence_out, state.event_every),
        (to, 16_384)
    );
}

/// Everything that a survey tells which has begun.
fn surveyed(tunnels: &mut Tunnels) -> Vec<KernelEvent> {
    let mut events = Vec::new();
    while tunnels.is_surveying() {
        events.extend(tunnels.survey_part());
    }
    events
}

#[test]
fn lost_events_are_made_good_by_a_survey() {
    let (kernel, mut tunnels) = recorded();
    let (c, mut theirs, gone) = (child(1), child(2), child(3));
    theirs.slot = Slot(8);
    for c in [&c, &theirs, &gone] {
        tunnels.install_copy(c, BLOCK).unwrap();
    }
    tunnels.gate().gain(|slot| slot == c.slot);
    assert!(kernel.advance(&out_id(&c), 10, 0) && kernel.advance(&out_id(&theirs), 10, 0));
    assert!(kernel.expire(&out_id(&gone)));
    let mut events = tunnels.hear(&XfrmEvent::Overrun).unwrap();
    events.extend(surveyed(&mut tunnels));
    assert!(events.contains(&KernelEvent::Expired {
        child: gone.id(),
        hard: true
    }));
    assert!(events.contains(&KernelEvent::SentUpTo {
        child: c.id(),
        sequence: 16_394
    }));
    let of_theirs = events.iter().any(|event| match event {
        KernelEvent::SentUpTo { child, .. } | KernelEvent::ReceivedUpTo { child, .. } => {
            *child == theirs.id()
        }
        KernelEvent::Expired { .. } => false,
    });
    assert!(!of_theirs, "{events:?}");
}

#[test]
fn expiries_name_the_child_and_nobody_elses() {
    let (_, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_copy(&c, BLOCK).unwrap();
    for hard in [false, true] {
        let event = |sa| XfrmEvent::Expired { sa, hard };
        assert_eq!(
            tunnels.hear(&event(in_id(&c))).unwrap(),
            [KernelEvent::Expired {
                child: c.id(),
                hard
            }]
        );
        assert_eq!(tunnels.hear(&event(in_id(&child(9)))).unwrap(), []);
    }
}

/// An agent that held children 1 to 3 was killed; the next one begins.
fn restarted() -> (Recording, Tunnels) {
    let (kernel, mut tunnels) = recorded();
    tunnels.protect(&[network("10.2.0.0/16")], &[]).unwrap();
    for n in 1..=3 {
        tunnels.install_child(&child(n), None).unwrap();
        assert!(kernel.advance(&out_id(&child(n)), 1_000, 500));
    }
    let mut foreign = super::sa(9);
    foreign.reqid = 1;
    kernel.clone().install_sa(&foreign).unwrap();
    drop(tunnels);
    let mut next = Tunnels::new(Box::new(kernel.clone()));
    assert_eq!(next.begin_adoption().unwrap(), 6);
    next.protect(&[network("10.2.0.0/16")], &[]).unwrap();
    next.reconcile().unwrap();
    (kernel, next)
}

#[test]
fn an_earlier_process_s_sas_stay_until_their_records_come() {
    let (mut kernel, mut tunnels) = restarted();
    let before = contents(&mut kernel);
    assert_eq!(before.0.len(), 7, "nothing was deleted");
    assert!(!reqids(&mut kernel, Direction::Out).is_empty());
    let used = kernel.requests();
    tunnels.install_copy(&child(3), at(50_000)).unwrap();
    assert_eq!(contents(&mut kernel), before, "taken over where they stand");
    assert_eq!(kernel.requests() - used, 1, "one move");
    assert_eq!(sent(&mut kernel, &child(3)), 50_000);
    // One whose block lies behind what it has sent stays where it is.
    tunnels.install_copy(&child(2), at(10)).unwrap();
    assert_eq!(sent(&mut kernel, &child(2)), 1_000);

    assert_eq!(finish_adoption(&mut tunnels), 2);
    assert_eq!(tunnels.reconcile().unwrap(), Default::default());
    assert_eq!(kernel.dump_sas().unwrap().len(), 5);
    for n in [2, 3] {
        tunnels.remove_child(child(n).id()).unwrap();
    }
    let (sas, policies) = contents(&mut kernel);
    assert_eq!(
        (sas.len(), policies.len()),
        (1, 3),
        "others', and the block"
    );
}

#[test]
fn what_does_not_fit_its_record_is_installed_anew() {
    let (mut kernel, mut tunnels) = restarted();
    let mut other_key = child(1);
    other_key.key_in = vec![0x33; 20].as_slice().into();
    let mut moved = child(2);
    moved.remote = super::ip("198.51.100.3");
    assert!(kernel.expire(&in_id(&child(3))));
    for c in [&other_key, &moved, &child(3)] {
        tunnels.install_copy(c, at(50_000)).unwrap();
        assert_eq!(sent(&mut kernel, c), 50_000);
        let state = kernel.query_sa(&in_id(c)).unwrap();
        assert_eq!(state.sequence_in, 0, "not the old one");
    }
    finish_adoption(&mut tunnels);
    assert_eq!(kernel.dump_sas().unwrap().len(), 7);
    assert_eq!(tunnels.reconcile().unwrap(), Default::default());
}

#[test]
fn numbers_of_an_earlier_process_are_given_to_nobody_else() {
    let (mut kernel, mut tunnels) = restarted();
    let found: Vec<u32> = contents(&mut kernel).0.iter().map(|(_, r)| *r).collect();
    let mut fresh = child(7);
    fresh.remote_ts = vec![network("10.7.0.0/16")];
    tunnels.install_child(&fresh, None).unwrap();
    for spi in [fresh.spi_in, fresh.spi_out] {
        let reqid = reqid_of(&mut kernel, spi);
        assert!(!found.contains(&reqid), "{reqid:#x}");
    }
    // Its selectors were given another number before the record came: both must match policies.
    tunnels.install_child(&child(8), None).unwrap();
    tunnels.install_copy(&child(1), at(50_000)).unwrap();
    assert_eq!(
        reqid_of(&mut kernel, child(1).spi_in),
        reqid_of(&mut kernel, child(8).spi_in)
    );
}

#[test]
fn a_hundred_thousand_copies_are_installed_and_moved() {
    let (mut kernel, mut tunnels) = recorded();
    let numbered = |n: u32| {
        let mut c = child(1);
        let [_, a, b, d] = n.to_be_bytes();
        (c.spi_in, c.spi_out) = ([0xc1, a, b, d], [0xd1, a, b, d]);
        let peer = format!("10.{}.{b}.{d}/32", 64 + a);
        c.remote_ts = vec![network(&peer)];
        c
    };
    const COUNT: u32 = 100_000;
    for n in 0..COUNT {
        tunnels.install_copy(&numbered(n), at(16_384)).unwrap();
    }
    let moves: Vec<_> = (0..COUNT)
        .map(|n| crate::xfrm::CopyMove {
            child: numbered(n).id(),
            slot: Slot(7),
            standing: at(32_768),
        })
        .collect();
    tunnels.move_copies(&moves);
    let sas = kernel.dump_sas().unwrap();
    assert_eq!(sas.len(), 2 * COUNT as usize);
    let moved = sas.iter().filter(|sa| sa.sequence_out == 32_768).count();
    assert_eq!(moved, COUNT as usize);
    let requests = kernel.requests();
    tunnels.gate().gain(|_| true);
    assert_eq!(kernel.requests(), requests);
    tunnels.begin_survey();
    assert!(tunnels.survey_part().len() < 1_000, "not all in one turn");
    tunnels.begin_survey();
    assert_eq!(surveyed(&mut tunnels).len(), COUNT as usize);
}
