//! Installing and removing children over the recording kernel.

use gateway_common::abi::{MARK_MASK, MARK_SA, mark};
use gateway_common::slot::Slot;
use gateway_ike::mark::{Mark, Marks};
use gateway_ike::output::{KernelRequest, KernelResult};
use proptest::prelude::*;

use super::{child, contents, ip, network, recorded, reqid_of, reqids};
use crate::xfrm::{Action, Direction, SaId, SaKernel};

#[test]
fn a_child_is_two_sas_and_three_policies_and_leaves_nothing() {
    let (mut kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_child(&c, None).unwrap();
    let (sas, policies) = contents(&mut kernel);
    assert_eq!(sas.len(), 2);
    assert_eq!(policies.len(), 3);
    assert!(policies.iter().all(|policy| policy.icmp));
    for (direction, spi) in [
        (Direction::In, c.spi_in),
        (Direction::Fwd, c.spi_in),
        (Direction::Out, c.spi_out),
    ] {
        assert_eq!(reqids(&mut kernel, direction), [reqid_of(&mut kernel, spi)]);
    }
    tunnels.remove_child(c.id()).unwrap();
    assert_eq!(contents(&mut kernel), (vec![], vec![]));
    tunnels.remove_child(c.id()).unwrap();
}

#[test]
fn only_what_is_sent_carries_the_slot() {
    let (mut kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_child(&c, None).unwrap();
    let mut mark_of = |spi, dst| kernel.query_sa(&SaId::new(spi, dst)).unwrap().output_mark;
    let expected = (mark(MARK_SA, c.slot.0), MARK_MASK);
    assert_eq!(mark_of(c.spi_out, c.remote), Some(expected));
    assert_eq!(mark_of(c.spi_in, c.local), None);
}

#[test]
fn marks_of_the_operator_stand_beside_the_slot() {
    let (mut kernel, mut tunnels) = recorded();
    let mut c = child(1);
    c.marks = Marks {
        inbound: Mark::new(11, 0xff),
        inbound_sa: true,
        outbound: Mark::new(10, u32::MAX),
        set_in: Mark::new(12, u32::MAX),
        set_out: Mark::new(0x4000_0001, 0xfffc_00ff),
    };
    tunnels.install_child(&c, None).unwrap();
    let sas = kernel.dump_sas().unwrap();
    let sa = |spi| sas.iter().find(|sa| sa.id.spi == spi).unwrap();
    let ours = mark(MARK_SA, c.slot.0);
    assert_eq!(
        sa(c.spi_out).output_mark,
        Some((0x4000_0001 | ours, u32::MAX))
    );
    // The kernel looks for the outbound SA by its reqid, and so do ICMP errors without a mark.
    assert_eq!(sa(c.spi_out).id.mark, Mark::NONE);
    assert_eq!(sa(c.spi_in).output_mark, Some((12, u32::MAX)));
    assert_eq!(sa(c.spi_in).id.mark, c.marks.inbound);
    for policy in kernel.dump_policies().unwrap() {
        let expected = match policy.key.direction {
            Direction::Out => c.marks.outbound,
            Direction::In | Direction::Fwd => c.marks.inbound,
        };
        assert_eq!(policy.key.mark, expected, "{}", policy.key);
    }
    // Only who asks with the mark finds the inbound SA: all that is done to it does.
    assert!(kernel.query_sa(&SaId::new(c.spi_in, c.local)).is_err());
    c.slot = Slot(9);
    tunnels.update_path(&c).unwrap();
    c.remote = ip("198.51.100.99");
    tunnels.update_path(&c).unwrap();
    tunnels.remove_child(c.id()).unwrap();
    assert_eq!(contents(&mut kernel), (vec![], vec![]));
}

#[test]
fn tunnels_with_the_same_networks_are_told_apart_by_mark() {
    let (mut kernel, mut tunnels) = recorded();
    let (plain, mut a, mut b) = (child(1), child(2), child(3));
    a.marks.outbound = Mark::new(10, 0xff);
    b.marks.outbound = Mark::new(20, 0xff);
    for c in [&plain, &a, &b] {
        tunnels.install_child(c, None).unwrap();
    }
    let mut out = kernel.dump_policies().unwrap();
    out.retain(|policy| policy.key.direction == Direction::Out);
    assert_eq!(out.len(), 3);
    for c in [&plain, &a, &b] {
        let reqid = reqid_of(&mut kernel, c.spi_out);
        let policy = out.iter().find(|p| p.key.mark == c.marks.outbound).unwrap();
        assert!(matches!(policy.action, Action::Protect(t) if t.reqid == reqid));
        // The one without matches the others' packets, too.
        let marked = !c.marks.outbound.is_none();
        let plain = out.iter().find(|p| p.key.mark.is_none()).unwrap();
        assert_eq!(policy.priority < plain.priority, marked);
    }
}

#[test]
fn encapsulation_is_seen_from_each_side() {
    let (mut kernel, mut tunnels) = recorded();
    let mut c = child(1);
    c.encap = Some((4500, 61234));
    tunnels.install_child(&c, None).unwrap();
    let mut ports = |spi, dst| {
        let encap = kernel.query_sa(&SaId::new(spi, dst)).unwrap().encapsulation;
        encap.map(|e| (e.src_port, e.dst_port))
    };
    assert_eq!(ports(c.spi_out, c.remote), Some((4500, 61234)));
    assert_eq!(ports(c.spi_in, c.local), Some((61234, 4500)));
}

#[test]
fn two_peers_with_equal_networks_do_not_take_each_others_policies_away() {
    for newest_first in [true, false] {
        let (mut kernel, mut tunnels) = recorded();
        let (a, mut b) = (child(1), child(2));
        b.remote = ip("198.51.100.2");
        tunnels.install_child(&a, None).unwrap();
        let only_a = contents(&mut kernel);
        tunnels.install_child(&b, None).unwrap();
        let out_b = reqid_of(&mut kernel, b.spi_out);
        assert_eq!(
            reqids(&mut kernel, Direction::Out),
            [out_b],
            "the newest wins"
        );
        if newest_first {
            tunnels.remove_child(b.id()).unwrap();
            assert_eq!(contents(&mut kernel), only_a);
            tunnels.remove_child(a.id()).unwrap();
        } else {
            tunnels.remove_child(a.id()).unwrap();
            assert_eq!(reqids(&mut kernel, Direction::Out), [out_b]);
            assert_eq!(kernel.dump_policies().unwrap().len(), 3);
            tunnels.remove_child(b.id()).unwrap();
        }
        assert_eq!(contents(&mut kernel), (vec![], vec![]));
    }
}

#[test]
fn children_with_other_selectors_cannot_use_each_others_policies() {
    let (mut kernel, mut tunnels) = recorded();
    let (a, mut b) = (child(1), child(2));
    b.remote_ts = vec![network("10.3.0.0/16")];
    tunnels.install_child(&a, None).unwrap();
    tunnels.install_child(&b, None).unwrap();
    assert_ne!(
        reqid_of(&mut kernel, a.spi_in),
        reqid_of(&mut kernel, b.spi_in),
        "or a could send from 10.3.0.0/16"
    );
}

#[test]
fn a_failure_at_any_step_leaves_everything_as_it_was() {
    let (mut kernel, mut tunnels) = recorded();
    let mut many = child(2);
    many.remote_ts = vec![network("10.2.0.0/16"), network("10.3.0.0/16")];
    tunnels.install_child(&child(1), None).unwrap();
    let before = contents(&mut kernel);
    let steps = 2 + 3 * 2;
    for replaces in [None, Some(child(1).id())] {
        for step in 0..steps {
            // A claim that changes nothing in the kernel is no step.
            kernel.fail_after(step, libc::ENOMEM);
            let used = kernel.requests();
            match tunnels.install_child(&many, replaces) {
                Err(error) => assert_eq!(error.errno(), Some(libc::ENOMEM)),
                Ok(()) => {
                    assert!(
                        kernel.requests() - used <= step,
                        "step {step} was not noticed"
                    );
                    kernel.clear_failures();
                    tunnels.remove_child(many.id()).unwrap();
                }
            }
            assert_eq!(contents(&mut kernel), before, "step {step}, {replaces:?}");
        }
    }
    assert_eq!(tunnels.children().count(), 1);
}

#[test]
fn an_spi_that_is_taken_is_refused_and_keeps_its_owner() {
    let (mut kernel, mut tunnels) = recorded();
    tunnels.install_child(&child(1), None).unwrap();
    let before = contents(&mut kernel);
    let mut same_spi_out = child(2);
    same_spi_out.spi_out = child(1).spi_out;
    assert!(
        tunnels
            .install_child(&same_spi_out, None)
            .unwrap_err()
            .exists()
    );
    assert!(tunnels.install_child(&child(1), None).unwrap_err().exists());
    assert_eq!(contents(&mut kernel), before);
}

#[test]
fn a_copy_decrypts_only_and_can_become_full_and_back() {
    let (mut kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_inbound_copy(&c).unwrap();
    let copy = contents(&mut kernel);
    assert_eq!(copy.0.len(), 1);
    assert!(reqids(&mut kernel, Direction::Out).is_empty());
    tunnels.install_inbound_copy(&c).unwrap();
    assert_eq!(contents(&mut kernel), copy, "mirrored again");
    tunnels.install_child(&c, None).unwrap();
    assert_eq!(kernel.dump_sas().unwrap().len(), 2);
    assert_eq!(reqids(&mut kernel, Direction::Out).len(), 1);
    tunnels.install_inbound_copy(&c).unwrap();
    assert_eq!(contents(&mut kernel), copy);
    tunnels.remove_child(c.id()).unwrap();
    assert_eq!(contents(&mut kernel), (vec![], vec![]));
}

#[test]
fn a_copy_that_cannot_become_full_stays_a_copy() {
    let (mut kernel, mut tunnels) = recorded();
    tunnels.install_inbound_copy(&child(1)).unwrap();
    let copy = contents(&mut kernel);
    for step in 0..2 {
        kernel.fail_after(step, libc::ENOMEM);
        assert!(tunnels.install_child(&child(1), None).is_err());
        assert_eq!(contents(&mut kernel), copy, "step {step}");
    }
}

#[test]
fn counters_come_one_by_one_and_all_at_once() {
    let (kernel, mut tunnels) = recorded();
    let c = child(1);
    tunnels.install_child(&c, None).unwrap();
    tunnels.install_inbound_copy(&child(2)).unwrap();
    let (sa_in, sa_out) = (SaId::new(c.spi_in, c.local), SaId::new(c.spi_out, c.remote));
    assert!(kernel.count(&sa_in, 100) && kernel.count(&sa_in, 50) && kernel.count(&sa_out, 7));
    let counters = tunnels.counters(c.id()).unwrap();
    assert_eq!((counters.packets_in, counters.bytes_in), (2, 150));
    assert_eq!((counters.packets_out, counters.bytes_out), (1, 7));
    let all = tunnels.all_counters().unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[&c.id()], counters);
    assert!(tunnels.counters(child(3).id()).unwrap_err().is_missing());
    assert_eq!(tunnels.child_of(&sa_out), Some(c.id()));
    assert_eq!(tunnels.child_of(&sa_in), Some(c.id()));
}

#[test]
fn requests_of_the_engine_are_answered() {
    let (mut kernel, mut tunnels) = recorded();
    let install = |n| KernelRequest::Install {
        child: Box::new(child(n)),
        replaces: None,
    };
    let id = child(1).id();
    assert_eq!(
        tunnels.perform(&install(1)),
        Some(KernelResult::Installed(id))
    );
    let Some(KernelResult::Failed {
        child: failed,
        reason,
    }) = tunnels.perform(&install(1))
    else {
        panic!("installed twice");
    };
    assert_eq!(failed, id);
    assert!(reason.contains("SPI is taken"), "{reason}");
    assert_eq!(tunnels.perform(&KernelRequest::Remove { child: id }), None);
    assert_eq!(contents(&mut kernel), (vec![], vec![]));
}

#[test]
fn json_shows_all_but_keys() {
    let (mut kernel, mut tunnels) = recorded();
    let mut c = child(1);
    c.key_in = vec![0xab; 20].as_slice().into();
    tunnels.install_child(&c, None).unwrap();
    let json = kernel.describe().unwrap();
    assert_eq!(json["backend"], "recording");
    assert_eq!(json["sas"][0]["id"]["spi"], "c0000001");
    assert_eq!(json["sas"][1]["id"]["dst"], "198.51.100.1");
    assert_eq!(json["policies"][0]["key"]["direction"], "in");
    let text = json.to_string();
    assert!(!text.contains("abab") && !text.contains("171,171") && !text.contains("key_in"));
}

/// What a random history does: children 0 to 5, two of which have networks of their own.
#[derive(Clone, Copy, Debug)]
enum Step {
    Install(u8),
    Rekey(u8, u8),
    Copy(u8),
    Remove(u8),
    Promote(u8),
    Reconcile,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0u8..6;
    prop_oneof![
        n.clone().prop_map(Step::Install),
        (n.clone(), n.clone()).prop_map(|(new, old)| Step::Rekey(new, old)),
        n.clone().prop_map(Step::Copy),
        n.clone().prop_map(Step::Remove),
        n.prop_map(Step::Promote),
        Just(Step::Reconcile),
    ]
}

fn numbered(n: u8) -> gateway_ike::output::ChildSa {
    let mut c = child(n);
    c.remote = format!("198.51.100.{}", n / 2).parse().unwrap();
    if n >= 4 {
        c.remote_ts.push(network("10.3.0.0/16"));
    }
    c
}

proptest! {
    #[test]
    fn no_history_loses_or_leaves_a_policy(steps in proptest::collection::vec(step(), 0..40)) {
        let (mut kernel, mut tunnels) = recorded();
        tunnels.protect(&[network("10.2.0.0/16")], &[]).unwrap();
        let bases = contents(&mut kernel);
        for step in steps {
            // Installing what is installed is refused; everything else must work.
            let _ = match step {
                Step::Install(n) => tunnels.install_child(&numbered(n), None),
                Step::Rekey(n, old) => tunnels.install_child(&numbered(n), Some(numbered(old).id())),
                Step::Copy(n) => tunnels.install_inbound_copy(&numbered(n)),
                Step::Remove(n) => tunnels.remove_child(numbered(n).id()),
                Step::Promote(n) => tunnels.promote(numbered(n).id()),
                Step::Reconcile => {
                    let found = tunnels.reconcile().unwrap();
                    prop_assert_eq!(found, crate::xfrm::Reconciled::default());
                    Ok(())
                }
            };
            let (sas, policies) = contents(&mut kernel);
            let children: Vec<_> = tunnels.children().collect();
            let expected: usize = children.iter().map(|&(_, full)| 1 + usize::from(full)).sum();
            prop_assert_eq!(sas.len(), expected);
            // Each policy names an SA that is there.
            for policy in &policies {
                if let Action::Protect(template) = policy.action {
                    prop_assert!(sas.iter().any(|&(id, reqid)| {
                        reqid == template.reqid && id.dst == template.dst
                    }), "{:?}", policy);
                }
            }
            // Each child's networks are protected inwards, each full child's outwards.
            let protects = |direction| policies.iter().any(|p| {
                p.key.direction == direction && matches!(p.action, Action::Protect(_))
            });
            prop_assert_eq!(protects(Direction::In), !children.is_empty());
            prop_assert_eq!(protects(Direction::Out), children.iter().any(|&(_, full)| full));
        }
        for n in 0..6 {
            tunnels.remove_child(numbered(n).id()).unwrap();
        }
        prop_assert_eq!(contents(&mut kernel), bases);
    }
}
