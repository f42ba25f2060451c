//! The policies beneath the tunnels, and putting the kernel right.

use super::{child, contents, ip, network, recorded, reqids};
use crate::xfrm::{Action, Blocks, Direction, Policy, Reconciled, SaId, SaKernel, Tunnels};

fn policy<'a>(policies: &'a [Policy], direction: Direction, text: &str) -> &'a Policy {
    policies
        .iter()
        .find(|p| p.key.direction == direction && p.key.selector.to_string() == text)
        .unwrap_or_else(|| panic!("no {direction} {text} in {policies:#?}"))
}

#[test]
fn remote_networks_are_blocked_in_all_directions_below_every_tunnel() {
    let (mut kernel, mut tunnels) = recorded();
    let open = tunnels.protect(&[network("10.2.0.0/16")], &[]).unwrap();
    assert!(open.is_empty());
    let policies = kernel.dump_policies().unwrap();
    assert_eq!(policies.len(), 3);
    let from = "src 10.2.0.0/16 dst 0.0.0.0/0";
    for (direction, text) in [
        (Direction::Out, "src 0.0.0.0/0 dst 10.2.0.0/16"),
        (Direction::In, from),
        (Direction::Fwd, from),
    ] {
        let block = policy(&policies, direction, text);
        assert_eq!(block.action, Action::Block);
        assert!(block.priority > 400_000, "weaker than any tunnel");
    }
}

/// The kernel asks for a policy without an interface id first, where the packet is forwarded to the
/// interface: a block would stop it there.
#[test]
fn what_a_route_leads_into_an_interface_is_blocked_inwards_only() {
    let (mut kernel, mut tunnels) = recorded();
    let (both, interface, part) = (
        network("10.2.0.0/16"),
        network("10.3.0.0/16"),
        network("10.2.1.0/24"),
    );
    let blocks = Blocks {
        remote: &[both],
        routed: &[interface, both, part],
        ..Blocks::default()
    };
    tunnels.block_cleartext(&blocks).unwrap();
    let policies = kernel.dump_policies().unwrap();
    let mut told: Vec<String> = policies
        .iter()
        .map(|p| format!("{:?} {} {}", p.action, p.key.direction, p.key.selector))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "Block fwd src 10.2.0.0/16 dst 0.0.0.0/0",
            "Block fwd src 10.2.1.0/24 dst 0.0.0.0/0",
            "Block fwd src 10.3.0.0/16 dst 0.0.0.0/0",
            "Block in src 10.2.0.0/16 dst 0.0.0.0/0",
            "Block in src 10.2.1.0/24 dst 0.0.0.0/0",
            "Block in src 10.3.0.0/16 dst 0.0.0.0/0",
            "Block out src 0.0.0.0/0 dst 10.2.0.0/16",
            "Bypass out src 0.0.0.0/0 dst 10.2.1.0/24",
        ]
    );
}

/// A tunnel whose remote selector is the peer's own address: other cleartext goes on.
#[test]
fn a_peers_own_address_is_blocked_for_the_tunnels_own_end_only() {
    let (mut kernel, mut tunnels) = recorded();
    let mut c = child(1);
    c.local_ts = vec![network("203.0.113.10/32")];
    c.remote_ts = vec![network("198.51.100.7/32")];
    let exempt = ["203.0.113.10/32".parse().unwrap()];
    let pairs = [(c.local_ts[0], c.remote_ts[0])];
    let blocks = Blocks {
        pairs: &pairs,
        exempt: &exempt,
        ..Blocks::default()
    };
    tunnels.block_cleartext(&blocks).unwrap();
    let policies = kernel.dump_policies().unwrap();
    assert_eq!(policies.len(), 3);
    let out = "src 203.0.113.10/32 dst 198.51.100.7/32";
    let block = policy(&policies, Direction::Out, out);
    assert_eq!(block.action, Action::Block);
    assert!(block.priority > 400_000, "weaker than any tunnel");
    let blocked = contents(&mut kernel);
    tunnels.install_child(&c, None).unwrap();
    let policies = kernel.dump_policies().unwrap();
    assert!(matches!(
        policy(&policies, Direction::Out, out).action,
        Action::Protect(_)
    ));
    tunnels.remove_child(c.id()).unwrap();
    assert_eq!(contents(&mut kernel), blocked);
}

#[test]
fn a_tunnel_whose_selector_equals_the_block_replaces_it_and_gives_it_back() {
    let (mut kernel, mut tunnels) = recorded();
    tunnels.protect(&[network("10.2.0.0/16")], &[]).unwrap();
    let blocked = contents(&mut kernel);
    let mut any = child(1);
    any.local_ts = vec![network("0.0.0.0/0")];
    tunnels.install_child(&any, None).unwrap();
    let policies = kernel.dump_policies().unwrap();
    assert_eq!(policies.len(), 3);
    assert!(
        policies
            .iter()
            .all(|p| matches!(p.action, Action::Protect(_)))
    );
    tunnels.remove_child(any.id()).unwrap();
    assert_eq!(contents(&mut kernel), blocked);
}

#[test]
fn the_longest_prefix_decides_between_block_and_exemption() {
    let (mut kernel, mut tunnels) = recorded();
    let remote = [
        network("10.0.0.0/8"),
        network("10.1.9.0/24"),
        network("10.1.0.0/16"),
    ];
    let exempt = ["10.1.0.0/16", "10.99.0.0/24", "192.168.0.0/16"].map(|n| n.parse().unwrap());
    tunnels.protect(&remote, &exempt).unwrap();
    let policies = kernel.dump_policies().unwrap();
    let out = |dst: &str| {
        policy(
            &policies,
            Direction::Out,
            &format!("src 0.0.0.0/0 dst {dst}"),
        )
    };
    let (all, ours, sync, theirs) = (
        out("10.0.0.0/8"),
        out("10.1.0.0/16"),
        out("10.99.0.0/24"),
        out("10.1.9.0/24"),
    );
    assert_eq!((all.action, theirs.action), (Action::Block, Action::Block));
    assert_eq!((ours.action, sync.action), (Action::Bypass, Action::Bypass));
    assert!(theirs.priority < ours.priority && ours.priority < all.priority);
    assert!(sync.priority < all.priority);
    assert_eq!(policies.len(), 4 * 3, "192.168.0.0/16 needs no exemption");
}

#[test]
fn a_default_route_is_not_blocked_but_named() {
    let (mut kernel, mut tunnels) = recorded();
    let remote = [
        network("0.0.0.0/0"),
        network("::/0"),
        network("2001:db8::/32"),
    ];
    let open = tunnels.protect(&remote, &[]).unwrap();
    assert_eq!(open.len(), 2);
    assert_eq!(kernel.dump_policies().unwrap().len(), 3);
}

#[test]
fn a_new_configuration_replaces_the_blocks() {
    let (mut kernel, mut tunnels) = recorded();
    let (old, new) = (network("10.2.0.0/16"), network("10.4.0.0/16"));
    tunnels.protect(&[old], &[]).unwrap();
    tunnels.install_child(&child(1), None).unwrap();
    tunnels.protect(&[new], &[]).unwrap();
    let policies = kernel.dump_policies().unwrap();
    policy(&policies, Direction::Out, "src 0.0.0.0/0 dst 10.4.0.0/16");
    assert_eq!(policies.len(), 6, "the tunnel's stay");
    tunnels.protect(&[], &[]).unwrap();
    assert_eq!(kernel.dump_policies().unwrap().len(), 3);
}

#[test]
fn a_restarted_agent_removes_what_its_predecessor_left_and_keeps_the_block() {
    let (mut kernel, mut tunnels) = recorded();
    tunnels
        .protect(&[network("10.2.0.0/16"), network("10.9.0.0/16")], &[])
        .unwrap();
    let mut any = child(1);
    any.local_ts = vec![network("0.0.0.0/0")];
    tunnels.install_child(&any, None).unwrap();
    let mut foreign = super::sa(7);
    foreign.reqid = 1;
    kernel.install_sa(&foreign).unwrap();
    // Killed.
    drop(tunnels);

    let mut tunnels = Tunnels::new(Box::new(kernel.clone()));
    tunnels.protect(&[network("10.2.0.0/16")], &[]).unwrap();
    let found = tunnels.reconcile().unwrap();
    assert_eq!(
        (found.sas_deleted, found.policies_deleted),
        (2, 3),
        "{found:?}"
    );
    let (sas, policies) = contents(&mut kernel);
    assert_eq!(sas, [(foreign.id, 1)], "what others installed stays");
    assert_eq!(policies.len(), 3);
    assert!(policies.iter().all(|p| p.action == Action::Block));
    let again = tunnels.reconcile().unwrap();
    assert_eq!(again, Reconciled::default());
}

#[test]
fn flushed_policies_come_back_and_lost_sas_are_named() {
    let (mut kernel, mut tunnels) = recorded();
    let (a, b) = (child(1), child(2));
    tunnels.protect(&[network("10.2.0.0/16")], &[]).unwrap();
    tunnels.install_child(&a, None).unwrap();
    tunnels.install_child(&b, Some(a.id())).unwrap();
    let before = contents(&mut kernel);
    for policy in kernel.dump_policies().unwrap() {
        kernel.delete_policy(&policy.key).unwrap();
    }
    let found = tunnels.reconcile().unwrap();
    assert_eq!((found.policies_restored, found.lost.len()), (6, 0));
    assert_eq!(contents(&mut kernel), before);

    assert!(kernel.expire(&SaId::new(a.spi_out, a.remote)));
    let found = tunnels.reconcile().unwrap();
    assert_eq!(found.lost, [a.id()]);
    tunnels.remove_child(a.id()).unwrap();
    assert_eq!(reqids(&mut kernel, Direction::Out).len(), 1);
}

#[test]
fn a_foreign_policy_with_the_same_selector_is_replaced() {
    let (mut kernel, mut tunnels) = recorded();
    let (mut scratch_kernel, mut scratch) = recorded();
    scratch.install_child(&child(1), None).unwrap();
    let mut foreign = scratch_kernel.dump_policies().unwrap()[0];
    foreign.action = Action::Bypass;
    foreign.priority = 1;
    kernel.install_policy(&foreign).unwrap();
    tunnels.install_child(&child(1), None).unwrap();
    let policies = kernel.dump_policies().unwrap();
    assert_eq!(policies.len(), 3);
    assert!(
        policies
            .iter()
            .all(|p| matches!(p.action, Action::Protect(t) if t.reqid != 0))
    );
}

#[test]
fn ports_and_protocols_are_blocked_as_configured() {
    let (mut kernel, mut tunnels) = recorded();
    let mut tcp = network("10.2.0.0/16");
    (tcp.protocol, tcp.start_port, tcp.end_port) = (6, 80, 80);
    tunnels.protect(&[tcp], &[]).unwrap();
    let policies = kernel.dump_policies().unwrap();
    policy(
        &policies,
        Direction::Out,
        "src 0.0.0.0/0 dst 10.2.0.0/16 proto 6 dport 80",
    );
    policy(
        &policies,
        Direction::In,
        "src 10.2.0.0/16 dst 0.0.0.0/0 proto 6 sport 80",
    );
    assert_eq!(ip("10.2.0.0"), policies[0].key.selector.src.network());
}

#[test]
fn a_probe_leaves_nothing_and_reports_what_is_missing() {
    let (mut kernel, mut tunnels) = recorded();
    let vips = [ip("203.0.113.10"), ip("203.0.113.11"), ip("2001:db8::1")];
    tunnels.probe(&vips).unwrap();
    assert_eq!(
        kernel.requests(),
        4,
        "one SA per family, installed and deleted"
    );
    assert_eq!(contents(&mut kernel), (vec![], vec![]));
    kernel.fail_after(2, libc::EPROTONOSUPPORT);
    let text = tunnels.probe(&vips).unwrap_err().to_string();
    assert!(
        text.contains("2001:db8::1") && text.contains("modprobe esp4 esp6"),
        "{text}"
    );
}
