//! HA mode: the addresses stand on one member and move with its slots.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::Context;
use super::super::harness::{Lab, Wishes};
use super::judge::{Hit, Outcome};
use super::rig::Rig;
use crate::lab::{Cluster, Fault, Network, Plan, VIP, VIP6, wait_until};

/// The inside address that moves with the VIPs: the inside host's gateway.
const INSIDE_VIP: &str = "10.1.0.254";
const SITES: u16 = 6;

/// The active member's host is gone: the next one has the addresses, and says so to the neighbours
/// before they ask. When the old one is back, it stays as it is (`maintain-active`).
pub(in super::super) fn addresses_move(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: SITES,
            segment: true,
            ..Plan::default()
        },
        cluster: "mode = \"ha\"\n",
        tables: "[ha]\naddresses = [\"203.0.113.10/24 dev eth0\", \"2001:db8:1::10/64 dev eth0\", \
                 \"10.1.0.254/16 dev eth2\"]\n"
            .into(),
        ..Wishes::default()
    };
    let lab = Lab::start(context, "ha-addresses", &wishes)?;
    lab.network
        .host
        .ip(&format!("route replace 10.2.0.0/16 via {INSIDE_VIP}"))?;
    let active = wait_active(&lab, &lab.member_ids())?;
    addresses_on(&lab.network, &lab.cluster, active)?;
    for site in 0..SITES {
        lab.bring_up(site)?;
    }
    lab.wait_tables(SITES.into(), SITES.into())?;
    let mut rig = Rig::adopt(lab, SITES)?;
    rig.start_traffic()?;
    let before = neighbours(&rig.lab.network)?;
    let fault = Fault::MemberRemoved;
    let at = rig.hit(fault, active, &[])?;
    let mut left = rig.lab.member_ids();
    left.retain(|id| *id != active);
    let next = wait_active(&rig.lab, &left)?;
    rig.go_on(Duration::from_secs(2));
    let after = neighbours(&rig.lab.network)?;
    let record = rig.finish()?;
    let hit = Hit {
        fault,
        victim: active,
        at,
        moves: 1,
    };
    let outcome = Outcome::of(&rig, hit, &record)?;
    outcome.require(hit, &record)?;
    addresses_on(&rig.lab.network, &rig.lab.cluster, next)?;
    for (address, mac) in &after {
        ensure!(
            before.get(address) != Some(mac),
            "{address} is still {mac} for its neighbours"
        );
    }
    let lab = &mut rig.lab;
    fault.heal(&mut lab.cluster, &mut lab.network, &lab.run, active, 1)?;
    let still = wait_active(&rig.lab, &rig.lab.member_ids())?;
    ensure!(
        still == next,
        "member {still} took over from member {next} without need"
    );
    rig.one_owner_each(hit)?;
    Ok(format!(
        "member {active} to member {next}, neighbours told; {}",
        outcome.brief()
    ))
}

/// Waits until all of `members` say that one member owns all slots; returns which.
fn wait_active(lab: &Lab, members: &[u8]) -> Result<u8> {
    let mut active = None;
    wait_until(
        Duration::from_secs(40),
        "one member to own all slots",
        || {
            let mut owners = Vec::new();
            for id in members {
                let Ok(slots) = lab.slots_seen_by(*id) else {
                    return Ok(false);
                };
                let owner = slots.iter().find(|(_, count)| **count == 256);
                owners.push(owner.map(|(owner, _)| *owner));
            }
            owners.dedup();
            active = if owners.len() == 1 { owners[0] } else { None };
            Ok(active.is_some())
        },
    )?;
    active.context("no member is active")
}

/// The VIPs stand on `active` and nowhere else.
fn addresses_on(network: &Network, cluster: &Cluster, active: u8) -> Result<()> {
    wait_until(
        Duration::from_secs(5),
        "the addresses to stand on one member",
        || {
            for member in &cluster.members {
                let node = network.member(member.id)?;
                // A host that is gone has no interface to look at.
                let shown = node
                    .output("ip", &["-o", "addr", "show", "dev", "eth0"])
                    .unwrap_or_default();
                for vip in [VIP.to_string(), VIP6.to_string()] {
                    if shown.contains(&format!(" {vip}/")) != (member.id == active) {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        },
    )
}

/// The Ethernet addresses that router and inside host have for the addresses that move.
fn neighbours(network: &Network) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (node, interface, address) in [
        (&network.router, "segment", VIP.to_string()),
        (&network.host, "eth0", INSIDE_VIP.to_owned()),
    ] {
        let text = node.output("ip", &["-j", "neigh", "show", &address, "dev", interface])?;
        let shown: Value = serde_json::from_str(&text)?;
        let mac = shown[0]["lladdr"].as_str();
        let mac = mac.with_context(|| format!("{} has no neighbour {address}", node.name))?;
        found.insert(address, mac.to_owned());
    }
    Ok(found)
}
