//! One generation of a CHILD_SA after the other.

use super::{child, contents, ip, network, recorded, reqid_of, reqids};
use crate::xfrm::{Direction, SaId, SaKernel};

#[test]
fn inbound_both_generations_pass_and_outbound_waits_for_the_old_one_to_go() {
    let (mut kernel, mut tunnels) = recorded();
    let (old, new) = (child(1), child(2));
    tunnels.install_child(&old, None).unwrap();
    let (before, policies) = contents(&mut kernel);
    tunnels.install_child(&new, Some(old.id())).unwrap();
    let (sas, during) = contents(&mut kernel);
    assert_eq!((before.len(), sas.len()), (2, 4));
    assert_eq!(
        during, policies,
        "not one policy changes while the peer may not be ready"
    );
    assert_eq!(
        reqid_of(&mut kernel, new.spi_in),
        reqid_of(&mut kernel, old.spi_in)
    );
    let new_out = reqid_of(&mut kernel, new.spi_out);
    assert_ne!(new_out, reqid_of(&mut kernel, old.spi_out));

    tunnels.remove_child(old.id()).unwrap();
    assert_eq!(reqids(&mut kernel, Direction::Out), [new_out]);
    assert_eq!(kernel.dump_policies().unwrap().len(), 3);
    assert_eq!(kernel.dump_sas().unwrap().len(), 2);
    tunnels.remove_child(new.id()).unwrap();
    assert_eq!(contents(&mut kernel), (vec![], vec![]));
}

#[test]
fn the_switch_is_one_update_before_the_sa_goes() {
    let (kernel, mut tunnels) = recorded();
    tunnels.install_child(&child(1), None).unwrap();
    tunnels
        .install_child(&child(2), Some(child(1).id()))
        .unwrap();
    let used = kernel.requests();
    // The first request of the removal is the update of the policy: if it is refused, nothing
    // has been taken away from the traffic yet.
    kernel.fail_after(0, libc::ENOMEM);
    let error = tunnels.remove_child(child(1).id()).unwrap_err();
    assert!(
        error.to_string().starts_with("update policy out"),
        "{error}"
    );
    assert_eq!(kernel.requests() - used, 3, "one update, two deletions");
}

#[test]
fn the_peers_first_packet_on_the_new_sa_switches() {
    let (mut kernel, mut tunnels) = recorded();
    let (old, new) = (child(1), child(2));
    tunnels.install_child(&old, None).unwrap();
    tunnels.install_child(&new, Some(old.id())).unwrap();
    let old_out = reqid_of(&mut kernel, old.spi_out);
    assert!(tunnels.promote_used().unwrap().is_empty());
    assert_eq!(reqids(&mut kernel, Direction::Out), [old_out]);

    let used = SaId::new(new.spi_in, new.local);
    assert!(kernel.count(&used, 100));
    assert_eq!(tunnels.promote_used().unwrap(), [new.id()]);
    let new_out = reqid_of(&mut kernel, new.spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [new_out]);
    let requests = kernel.requests();
    assert!(tunnels.promote_used().unwrap().is_empty());
    tunnels.remove_child(old.id()).unwrap();
    assert_eq!(
        kernel.requests() - requests,
        2,
        "only the old SAs remain to be deleted"
    );
}

#[test]
fn a_chain_of_rekeys_ends_with_the_last_one() {
    let (mut kernel, mut tunnels) = recorded();
    tunnels.install_child(&child(1), None).unwrap();
    tunnels
        .install_child(&child(2), Some(child(1).id()))
        .unwrap();
    tunnels
        .install_child(&child(3), Some(child(2).id()))
        .unwrap();
    for n in [2, 1] {
        tunnels.remove_child(child(n).id()).unwrap();
    }
    let last = reqid_of(&mut kernel, child(3).spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [last]);
}

#[test]
fn a_rekey_does_not_overtake_another_peer() {
    let (mut kernel, mut tunnels) = recorded();
    let mut other = child(9);
    other.remote = ip("198.51.100.9");
    tunnels.install_child(&child(1), None).unwrap();
    tunnels.install_child(&other, None).unwrap();
    tunnels
        .install_child(&child(2), Some(child(1).id()))
        .unwrap();
    tunnels.remove_child(child(1).id()).unwrap();
    let in_force = reqid_of(&mut kernel, other.spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [in_force]);
    tunnels.remove_child(other.id()).unwrap();
    let in_force = reqid_of(&mut kernel, child(2).spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [in_force]);
}

#[test]
fn a_rekey_that_widens_adds_and_one_that_narrows_removes() {
    let (mut kernel, mut tunnels) = recorded();
    let mut wide = child(2);
    wide.remote_ts.push(network("10.3.0.0/16"));
    tunnels.install_child(&child(1), None).unwrap();
    let narrow = contents(&mut kernel).1.len();
    tunnels.install_child(&wide, Some(child(1).id())).unwrap();
    assert_eq!(reqids(&mut kernel, Direction::Out).len(), 2);
    tunnels.remove_child(child(1).id()).unwrap();
    let out = reqid_of(&mut kernel, wide.spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [out, out]);
    tunnels.install_child(&child(3), Some(wide.id())).unwrap();
    tunnels.remove_child(wide.id()).unwrap();
    assert_eq!(contents(&mut kernel).1.len(), narrow);
}

#[test]
fn an_unknown_predecessor_is_none() {
    let (mut kernel, mut tunnels) = recorded();
    tunnels
        .install_child(&child(2), Some(child(1).id()))
        .unwrap();
    assert_eq!(reqids(&mut kernel, Direction::Out).len(), 1);
}

#[test]
fn when_the_peer_moved_the_new_addresses_count_inwards() {
    let (mut kernel, mut tunnels) = recorded();
    let mut moved = child(2);
    moved.remote = ip("198.51.100.77");
    tunnels.install_child(&child(1), None).unwrap();
    tunnels.install_child(&moved, Some(child(1).id())).unwrap();
    let policies = kernel.dump_policies().unwrap();
    let crate::xfrm::Action::Protect(template) = policies
        .iter()
        .find(|p| p.key.direction == Direction::In)
        .unwrap()
        .action
    else {
        panic!("no template");
    };
    assert_eq!(template.src, moved.remote);
}

#[test]
fn when_the_old_sa_reaches_its_lifetime_the_new_one_sends() {
    let (mut kernel, mut tunnels) = recorded();
    let (old, new) = (child(1), child(2));
    tunnels.install_child(&old, None).unwrap();
    tunnels.install_child(&new, Some(old.id())).unwrap();
    let gone = SaId::new(old.spi_out, old.remote);
    assert!(kernel.expire(&gone));
    assert_eq!(tunnels.expired(&gone).unwrap(), Some(old.id()));
    let new_out = reqid_of(&mut kernel, new.spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [new_out]);
    let foreign = SaId {
        spi: [1; 4],
        ..gone
    };
    assert_eq!(tunnels.expired(&foreign).unwrap(), None);
    tunnels.remove_child(old.id()).unwrap();
    assert_eq!(reqids(&mut kernel, Direction::Out), [new_out]);
}

#[test]
fn a_lifetime_nobody_heard_of_is_found_by_reconciling() {
    let (mut kernel, mut tunnels) = recorded();
    let (old, new) = (child(1), child(2));
    tunnels.install_child(&old, None).unwrap();
    tunnels.install_child(&new, Some(old.id())).unwrap();
    assert!(kernel.expire(&SaId::new(old.spi_out, old.remote)));
    assert_eq!(tunnels.reconcile().unwrap().lost, [old.id()]);
    let new_out = reqid_of(&mut kernel, new.spi_out);
    assert_eq!(reqids(&mut kernel, Direction::Out), [new_out]);
}
