//! What the first packet brings up.

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::config::{Actions, ChildConfig, StartAction, Volume};
use gateway_ike::output::ChildSa;

use super::{child, contents, finish_adoption, network, recorded};
use crate::xfrm::{Action, Direction, SaKernel, Trap, Tunnels};

/// The configuration that a CHILD_SA of the tests could be of.
fn configured(child: &ChildSa) -> ChildConfig {
    ChildConfig {
        name: child.name.clone(),
        local_ts: child.local_ts.iter().map(|ts| (*ts).into()).collect(),
        remote_ts: child.remote_ts.iter().map(|ts| (*ts).into()).collect(),
        esp_proposals: Vec::new(),
        replay_window: 32,
        life_time: Duration::from_secs(3600),
        rekey_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        if_id_in: child.if_id_in,
        if_id_out: child.if_id_out,
        marks: child.marks,
        actions: Actions {
            start: StartAction::Trap,
            ..Actions::default()
        },
        volume: Volume::default(),
    }
}

fn ends(child: &ChildSa) -> (IpAddr, IpAddr) {
    (child.local, child.remote)
}

/// A trap for each child, each of another connection. Returns why some have none.
fn set(tunnels: &mut Tunnels, children: &[(&str, &ChildSa)]) -> Vec<String> {
    let configured: Vec<_> = children
        .iter()
        .map(|(connection, child)| (*connection, configured(child), ends(child)))
        .collect();
    let traps: Vec<Trap<'_>> = configured
        .iter()
        .map(|(connection, child, ends)| Trap {
            connection,
            child,
            ends: *ends,
        })
        .collect();
    let refused = tunnels.set_traps(&traps).unwrap();
    refused.iter().map(ToString::to_string).collect()
}

/// What is in force for packets to the peer.
fn outbound(kernel: &mut impl SaKernel) -> Vec<(u32, Action)> {
    let policies = kernel.dump_policies().unwrap();
    let out = policies
        .iter()
        .filter(|p| p.key.direction == Direction::Out);
    let mut out: Vec<_> = out.map(|p| (p.priority, p.action)).collect();
    out.sort_by_key(|(priority, _)| *priority);
    out
}

#[test]
fn a_trap_is_above_the_block_and_beneath_its_tunnel_and_comes_back() {
    let (mut kernel, mut tunnels) = recorded();
    let child = child(1);
    tunnels.protect(&child.remote_ts, &[]).unwrap();
    let blocked = outbound(&mut kernel);
    assert!(set(&mut tunnels, &[("site", &child)]).is_empty());
    let trapped = contents(&mut kernel);
    let out = outbound(&mut kernel);
    let (weakest, action) = *out.last().unwrap();
    assert_eq!(action, Action::Block);
    assert_eq!(weakest, blocked[0].0);
    let (priority, Action::Protect(trap)) = out[0] else {
        panic!("{out:?}")
    };
    assert!(priority > 400_000, "weaker than any tunnel");
    assert_eq!((trap.src, trap.dst), ends(&child));
    // No SA has its reqid: the kernel asks.
    assert!(kernel.dump_sas().unwrap().is_empty());
    assert_ne!(trap.reqid, 0);

    tunnels.install_child(&child, None).unwrap();
    let Action::Protect(tunnel) = outbound(&mut kernel)[0].1 else {
        panic!()
    };
    assert!(
        kernel
            .dump_sas()
            .unwrap()
            .iter()
            .any(|sa| sa.reqid == tunnel.reqid)
    );
    assert_ne!(tunnel.reqid, trap.reqid);
    tunnels.remove_child(child.id()).unwrap();
    assert_eq!(contents(&mut kernel), trapped);
}

#[test]
fn a_packet_is_told_from_those_of_other_policies() {
    let (mut kernel, mut tunnels) = recorded();
    let child = child(1);
    assert!(set(&mut tunnels, &[("site", &child)]).is_empty());
    let policies = kernel.dump_policies().unwrap();
    assert_eq!(policies.len(), child.local_ts.len() * child.remote_ts.len());
    for policy in &policies {
        let trapped = tunnels.trapped(&policy.key).unwrap();
        assert_eq!(
            (&*trapped.connection, &trapped.child),
            ("site", &child.name)
        );
        let mut other = policy.key;
        other.if_id += 1;
        assert_eq!(tunnels.trapped(&other), None);
    }
    // Nobody could say for whom the packet is.
    let refused = set(&mut tunnels, &[("site", &child), ("other", &child)]);
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].contains("of connection other has no trap"),
        "{refused:?}"
    );
    assert_eq!(kernel.dump_policies().unwrap(), policies);
}

/// A reload, or what is loaded at run time.
#[test]
fn traps_come_change_and_go_with_the_configuration() {
    let (mut kernel, mut tunnels) = recorded();
    let (child, mut other) = (child(1), child(2));
    other.remote_ts = vec![network("10.9.0.0/16")];
    tunnels.protect(&child.remote_ts, &[]).unwrap();
    let blocked = contents(&mut kernel);
    set(&mut tunnels, &[("site", &child)]);
    let one = kernel.dump_policies().unwrap();
    set(&mut tunnels, &[("other", &other), ("site", &child)]);
    let both = kernel.dump_policies().unwrap();
    assert!(both.len() > one.len());
    assert!(one.iter().all(|policy| both.contains(policy)), "untouched");
    // The peer has moved, the tunnel is up meanwhile.
    tunnels.install_child(&child, None).unwrap();
    let up = outbound(&mut kernel);
    let mut moved = child.clone();
    moved.remote = "192.0.2.77".parse().unwrap();
    set(&mut tunnels, &[("site", &moved)]);
    assert_eq!(outbound(&mut kernel)[0], up[0]);
    tunnels.remove_child(child.id()).unwrap();
    let Action::Protect(trap) = outbound(&mut kernel)[0].1 else {
        panic!()
    };
    assert_eq!(trap.dst, moved.remote);
    set(&mut tunnels, &[]);
    assert_eq!(contents(&mut kernel), blocked);
}

/// The member starts anew: what its trap was is found, and stays in force until the new one stands.
#[test]
fn a_restart_keeps_the_trap() {
    let (mut kernel, mut tunnels) = recorded();
    let child = child(1);
    tunnels.protect(&[network("10.2.0.0/16")], &[]).unwrap();
    assert!(set(&mut tunnels, &[("site", &child)]).is_empty());
    let before = kernel.dump_policies().unwrap().len();
    let mut again = Tunnels::new(Box::new(kernel.clone()));
    again.begin_adoption().unwrap();
    again.protect(&[network("10.2.0.0/16")], &[]).unwrap();
    assert!(set(&mut again, &[("site", &child)]).is_empty());
    assert_eq!(kernel.dump_policies().unwrap().len(), before);
    finish_adoption(&mut again);
    assert_eq!(kernel.dump_policies().unwrap().len(), before);
    let policies = kernel.dump_policies().unwrap();
    assert!(policies.iter().any(|p| again.trapped(&p.key).is_some()));
}
