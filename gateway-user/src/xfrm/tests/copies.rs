//! Copies of other members' children over the recording kernel.

use gateway_common::slot::Slot;
use gateway_ike::output::{ChildSa, KernelRequest, KernelResult};
use gateway_node::effect::{KernelOp, Standing};

use super::{child, contents, ip, recorded, reqid_of, reqids};
use crate::xfrm::{
    Action, CopyMove, Direction, EVENT_EVERY_IN_STRICT, InboundPolicy, Moved, Recording, SaId,
    SaKernel, Seen, Standpoint, Tunnels,
};

pub(super) const BLOCK: Standing = Standing {
    sequence_out: 16_384,
    ceiling: 32_768,
    sequence_in: 700,
};

pub(super) fn at(sequence_out: u64) -> Standing {
    Standing {
        sequence_out,
        ceiling: sequence_out + 16_384,
        sequence_in: 0,
    }
}

pub(super) fn out_id(c: &ChildSa) -> SaId {
    SaId::new(c.spi_out, c.remote)
}

pub(super) fn in_id(c: &ChildSa) -> SaId {
    SaId::new(c.spi_in, c.local)
}

pub(super) fn look(kernel: &mut Recording, id: SaId) -> Standpoint {
    kernel.standpoints(&[id]).pop().unwrap().unwrap()
}

pub(super) fn sent(kernel: &mut Recording, c: &ChildSa) -> u64 {
    look(kernel, out_id(c)).position.sequence_out
}

fn received(kernel: &mut Recording, c: &ChildSa) -> u64 {
    look(kernel, in_id(c)).position.sequence_in
}

fn go(tunnels: &mut Tunnels, c: &ChildSa, standing: Standing) -> Moved {
    let to = CopyMove {
        child: c.id(),
        slot: c.slot,
        standing,
    };
    tunnels.move_copies(&[to])[0]
}

#[test]
fn a_copy_has_all_that_its_owner_has_and_stands_in_its_block() {
    let (mut kernel, mut tunnels) = recorded();
    let (mut scratch, mut owner) = recorded();
    let c = child(1);
    tunnels.install_copy(&c, BLOCK).unwrap();
    owner.install_child(&c, None).unwrap();
    assert_eq!(contents(&mut kernel), contents(&mut scratch));
    let out = look(&mut kernel, out_id(&c));
    assert_eq!((out.position.sequence_out, out.event_every), (16_384, 4096));
    let inbound = look(&mut kernel, in_id(&c));
    assert_eq!(inbound.position.sequence_in, 700);
    assert_eq!(inbound.position.seen, Seen::Bitmap(vec![u32::MAX]));
    assert!(inbound.event_every > out.event_every && !inbound.timed && !out.timed);

    let requests = kernel.requests();
    tunnels.install_copy(&c, BLOCK).unwrap();
    assert_eq!(kernel.requests(), requests, "repeating it changes nothing");
}

#[test]
fn a_takeover_touches_nothing_and_a_lost_slot_moves_into_the_block() {
    let (mut kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_copy(&c, BLOCK).unwrap();
    let requests = kernel.requests();
    tunnels.gate().gain(|slot| slot == c.slot);
    tunnels.install_owned(&c, None, BLOCK.sequence_out).unwrap();
    assert_eq!(kernel.requests(), requests);
    assert!(kernel.advance(&out_id(&c), 5_000, 0));

    tunnels.gate().lose(|_| false);
    // Between what the books say and what the SA has sent: no move.
    tunnels.install_copy(&c, at(20_000)).unwrap();
    assert_eq!(sent(&mut kernel, &c), 21_384);
    tunnels.install_copy(&c, at(65_536)).unwrap();
    assert_eq!(sent(&mut kernel, &c), 65_536);
}

#[test]
fn moves_go_forwards_only_by_the_books_and_inbound_by_the_kernel() {
    let (mut kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_copy(&c, BLOCK).unwrap();
    assert_eq!(go(&mut tunnels, &c, at(50_000)), Moved::Done);
    assert_eq!(go(&mut tunnels, &c, at(40_000)), Moved::Done);
    assert_eq!(sent(&mut kernel, &c), 50_000);
    // It has taken in packets that this member reassembled.
    assert!(kernel.advance(&in_id(&c), 0, 300));
    let late = Standing {
        sequence_in: 900,
        ..at(50_000)
    };
    assert_eq!(go(&mut tunnels, &c, late), Moved::Done);
    assert_eq!(received(&mut kernel, &c), 1_000);
    let later = Standing {
        sequence_in: 1_001,
        ..late
    };
    assert_eq!(go(&mut tunnels, &c, later), Moved::Done);
    assert_eq!(received(&mut kernel, &c), 1_001);
    assert_eq!(
        sent(&mut kernel, &c),
        50_000,
        "an inbound checkpoint moves inbound only"
    );
}

#[test]
fn what_a_copy_sent_into_the_fence_does_not_keep_it_from_its_block() {
    let (mut kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_copy(&c, BLOCK).unwrap();
    assert!(kernel.advance(&out_id(&c), 100_000, 0));
    assert_eq!(go(&mut tunnels, &c, at(32_768)), Moved::Done);
    assert_eq!(
        sent(&mut kernel, &c),
        32_768,
        "or it would stand above its ceiling"
    );
}

#[test]
fn nothing_of_a_slot_of_ours_is_moved_whenever_it_was_decided() {
    let (mut kernel, mut tunnels) = recorded();
    let (ours, mut theirs) = (child(1), child(2));
    theirs.slot = Slot(8);
    for c in [&ours, &theirs] {
        tunnels.install_copy(c, BLOCK).unwrap();
    }
    let op = |c: &ChildSa, slot| KernelOp::MoveCopy {
        child: c.id(),
        spi_out: c.spi_out,
        slot,
        standing: at(99_000),
    };
    let ops = [op(&ours, ours.slot), op(&theirs, theirs.slot)];
    tunnels.gate().gain(|slot| slot == ours.slot);
    assert!(tunnels.carry_out_all(&ops).is_empty());
    assert_eq!(sent(&mut kernel, &ours), 16_384);
    assert_eq!(sent(&mut kernel, &theirs), 99_000);
    // Nor when the operation names another slot than the books.
    tunnels.carry_out(&op(&ours, Slot(9)));
    assert_eq!(sent(&mut kernel, &ours), 16_384);
    tunnels.gate().lose(|_| false);
    tunnels.carry_out(&ops[0]);
    assert_eq!(sent(&mut kernel, &ours), 99_000);
}

/// The membership's thread gains slots while the main loop moves copies in them.
#[test]
fn once_a_slot_is_gained_nothing_of_it_moves_any_more() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    let (mut kernel, mut tunnels) = recorded();
    let children: Vec<ChildSa> = (1..=40).map(child).collect();
    for c in &children {
        tunnels.install_copy(c, BLOCK).unwrap();
    }
    let gate = tunnels.gate().clone();
    let (batches, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let after = |round: u64| {
        while batches.load(Ordering::Acquire) < round {
            std::thread::yield_now();
        }
    };
    let all =
        |kernel: &mut Recording| -> Vec<u64> { children.iter().map(|c| sent(kernel, c)).collect() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !done.load(Ordering::Acquire) {
                round += 1;
                let moves: Vec<CopyMove> = children
                    .iter()
                    .map(|c| CopyMove {
                        child: c.id(),
                        slot: c.slot,
                        standing: at(16_384 + round),
                    })
                    .collect();
                tunnels.move_copies(&moves);
                batches.store(round, Ordering::Release);
            }
        });
        after(50);
        gate.gain(|slot| slot == children[0].slot);
        let frozen = all(&mut kernel);
        after(batches.load(Ordering::Acquire) + 20);
        let later = all(&mut kernel);
        done.store(true, Ordering::Release);
        assert!(frozen[0] > 16_384, "nothing moved before");
        assert_eq!(later, frozen);
    });
}

#[test]
fn many_moves_share_requests_and_each_is_answered() {
    let (mut kernel, mut tunnels) = recorded();
    let children: Vec<ChildSa> = (1..=100).map(child).collect();
    for c in &children[1..] {
        tunnels.install_copy(c, BLOCK).unwrap();
    }
    let moves: Vec<CopyMove> = children
        .iter()
        .map(|c| CopyMove {
            child: c.id(),
            slot: c.slot,
            standing: at(70_000),
        })
        .collect();
    let results = tunnels.move_copies(&moves);
    assert_eq!(results[0], Moved::Missing);
    assert!(results[1..].iter().all(|result| *result == Moved::Done));
    assert!(children[1..].iter().all(|c| sent(&mut kernel, c) == 70_000));
}

#[test]
fn a_copy_that_cannot_be_moved_has_nothing_left_to_send_with_and_keeps_cleartext_in() {
    let (mut kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_copy(&c, BLOCK).unwrap();
    let policies = contents(&mut kernel).1;
    kernel.fail_after(0, libc::ENOBUFS);
    assert_eq!(go(&mut tunnels, &c, at(40_000)), Moved::Failed);
    assert!(kernel.query_sa(&out_id(&c)).unwrap_err().is_missing());
    assert!(kernel.query_sa(&in_id(&c)).is_ok());
    assert_eq!(contents(&mut kernel).1, policies);
    assert_eq!(go(&mut tunnels, &c, at(50_000)), Moved::Missing);
    assert_eq!(tunnels.copy_failures(), 2);
    // The next record brings it back, in its block.
    tunnels.install_copy(&c, at(60_000)).unwrap();
    assert_eq!(sent(&mut kernel, &c), 60_000);
    let reqid = reqid_of(&mut kernel, c.spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [reqid]);
}

#[test]
fn without_esn_a_copy_beyond_the_last_number_sends_nothing() {
    let (mut kernel, mut tunnels) = recorded();
    let c = child(1);
    let beyond = u64::from(u32::MAX) + 5;
    tunnels.install_copy(&c, at(beyond)).unwrap();
    assert_eq!(sent(&mut kernel, &c), u64::from(u32::MAX));
    let mut wide = child(2);
    wide.esn = true;
    tunnels.install_copy(&wide, at(beyond)).unwrap();
    assert_eq!(sent(&mut kernel, &wide), beyond);
}

#[test]
fn both_generations_of_a_copy_stand_in_their_order() {
    let (mut kernel, mut tunnels) = recorded();
    let (old, new, mut other) = (child(1), child(2), child(3));
    other.connection = "site-b".into();
    other.remote = ip("198.51.100.77");
    tunnels.install_copy(&old, BLOCK).unwrap();
    let policies = contents(&mut kernel).1;
    tunnels.install_copy(&new, BLOCK).unwrap();
    assert_eq!(
        contents(&mut kernel).1,
        policies,
        "the peer may not be ready"
    );
    assert_eq!(
        reqid_of(&mut kernel, new.spi_in),
        reqid_of(&mut kernel, old.spi_in)
    );
    assert!(kernel.count(&in_id(&new), 100));
    assert_eq!(tunnels.promote_used().unwrap(), [new.id()]);
    let new_out = reqid_of(&mut kernel, new.spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [new_out]);
    tunnels.carry_out(&KernelOp::RemoveCopy(old.id()));
    assert_eq!(reqids(&mut kernel, Direction::Out), [new_out]);
    // Another peer with the same networks is no generation: the newest wins, as on its owner.
    tunnels.install_copy(&other, BLOCK).unwrap();
    let other_out = reqid_of(&mut kernel, other.spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [other_out]);
    for c in [&new, &other] {
        tunnels.carry_out(&KernelOp::RemoveCopy(c.id()));
    }
    assert_eq!(contents(&mut kernel), (vec![], vec![]));
}

#[test]
fn an_own_child_starts_where_it_is_told_even_over_a_copy_that_stands_before() {
    let (mut kernel, mut tunnels) = recorded();
    let (c, fresh) = (child(1), child(2));
    let own = |c: &ChildSa, start| KernelOp::Own {
        request: KernelRequest::Install {
            child: Box::new(c.clone()),
            replaces: None,
        },
        start,
    };
    tunnels.install_copy(&c, BLOCK).unwrap();
    tunnels.gate().gain(|_| true);
    for (c, start) in [(&c, 40_000), (&fresh, 9_000)] {
        assert_eq!(
            tunnels.carry_out(&own(c, start)),
            Some(KernelResult::Installed(c.id()))
        );
        assert_eq!(sent(&mut kernel, c), start);
    }
    assert_eq!(
        received(&mut kernel, &c),
        BLOCK.sequence_in,
        "the window stays"
    );
    assert!(matches!(
        tunnels.carry_out(&own(&c, 0)),
        Some(KernelResult::Failed { .. })
    ));
}

#[test]
fn the_inbound_policy_decides_about_what_came_after_the_checkpoint() {
    for (policy, top) in [
        (InboundPolicy::Learn, 700),
        (InboundPolicy::Rekey, 700),
        (
            InboundPolicy::Strict,
            700 + 2 * u64::from(EVENT_EVERY_IN_STRICT),
        ),
    ] {
        let (mut kernel, mut tunnels) = recorded();
        tunnels.set_inbound_policy(policy);
        tunnels.install_copy(&child(1), BLOCK).unwrap();
        assert_eq!(received(&mut kernel, &child(1)), top, "{policy:?}");
        let to = Standing {
            sequence_in: 1_000,
            ..BLOCK
        };
        go(&mut tunnels, &child(1), to);
        assert_eq!(received(&mut kernel, &child(1)), top + 300, "{policy:?}");
    }
}

#[test]
fn ports_change_in_place_and_addresses_keep_every_number() {
    let (mut kernel, mut tunnels) = recorded();
    let mut c = child(1);
    c.encap = Some((4500, 61234));
    tunnels.install_child(&c, None).unwrap();
    assert!(kernel.advance(&out_id(&c), 33, 0) && kernel.advance(&in_id(&c), 0, 44));
    let used = kernel.requests();
    c.encap = Some((4500, 50_000));
    tunnels.update_path(&c).unwrap();
    assert_eq!(kernel.requests() - used, 2, "two updates");
    let state = kernel.query_sa(&in_id(&c)).unwrap();
    assert_eq!(state.encapsulation.unwrap().src_port, 50_000);

    let old_out = out_id(&c);
    let reqid = reqid_of(&mut kernel, c.spi_out);
    for (remote, encap) in [
        ("198.51.100.9", Some((4500, 50_001))),
        ("198.51.100.9", None),
    ] {
        (c.remote, c.encap) = (ip(remote), encap);
        tunnels.update_path(&c).unwrap();
        assert_eq!(sent(&mut kernel, &c), 33);
        assert_eq!(received(&mut kernel, &c), 44);
        assert_eq!(reqid_of(&mut kernel, c.spi_out), reqid);
        assert_eq!(tunnels.child_of(&out_id(&c)), Some(c.id()));
        for policy in kernel.dump_policies().unwrap() {
            let Action::Protect(template) = policy.action else {
                panic!("{policy:?}");
            };
            let peer = match policy.key.direction {
                Direction::Out => template.dst,
                Direction::In | Direction::Fwd => template.src,
            };
            assert_eq!(peer, c.remote);
        }
    }
    assert!(kernel.query_sa(&old_out).is_err());
    assert_eq!(tunnels.child_of(&old_out), None);
    let used = kernel.requests();
    tunnels.update_path(&c).unwrap();
    assert_eq!(kernel.requests(), used, "nothing changed");
    assert!(tunnels.update_path(&child(2)).unwrap_err().is_missing());
    tunnels.remove_child(c.id()).unwrap();
    assert_eq!(contents(&mut kernel), (vec![], vec![]));
}

#[test]
fn a_child_that_joins_another_slot_is_marked_for_it() {
    let (mut kernel, mut tunnels) = recorded();
    let mut c = child(1);
    tunnels.install_copy(&c, BLOCK).unwrap();
    c.slot = Slot(99);
    tunnels.install_copy(&c, BLOCK).unwrap();
    let state = kernel.query_sa(&out_id(&c)).unwrap();
    let mark = gateway_common::abi::mark(gateway_common::abi::MARK_SA, 99);
    assert_eq!(state.output_mark.unwrap().0, mark);
    tunnels.gate().gain(|slot| slot == Slot(99));
    assert_eq!(go(&mut tunnels, &c, at(80_000)), Moved::Ours);
}
