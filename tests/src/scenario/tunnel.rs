//! One tunnel.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Node, Plan, Spray, wait_until};

/// IPv4 outside, every packet at another member.
pub(super) fn v4(context: &Context) -> Result<String> {
    sprayed(context, "tunnel-v4", &Wishes::default())
}

/// IPv6 outside.
pub(super) fn v6(context: &Context) -> Result<String> {
    sprayed(
        context,
        "tunnel-v6",
        &Wishes {
            v6: true,
            ..Wishes::default()
        },
    )
}

/// A NAT between; with MOBIKE announced the peer moves to port 4500 in any case.
pub(super) fn nat(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            nat: true,
            ..Plan::default()
        },
        change: Some(|connection| connection.mobike = true),
        ..Wishes::default()
    };
    sprayed(context, "tunnel-nat", &wishes)
}

fn sprayed(context: &Context, name: &str, wishes: &Wishes) -> Result<String> {
    let lab = Lab::sprayed(context, name, wishes)?;
    let (owner, sa) = lab.bring_up(0)?;
    ensure!(
        lab.peer.established()? == 1,
        "the peer has no established IKE SA"
    );
    ensure!(
        lab.peer.installed()? == 1,
        "the peer has no installed CHILD SA"
    );
    let expected_nat = wishes.plan.nat || lab.forced_encapsulation();
    ensure!(
        sa["nat"] == expected_nat,
        "NAT detected: {}, expected {expected_nat}",
        sa["nat"]
    );
    let encapsulated = &sa["children"][0]["encap"];
    ensure!(
        *encapsulated == expected_nat,
        "UDP encapsulation: {encapsulated}"
    );
    lab.wait_tables(1, 1)?;
    let exchanges = lab.every_exchange_once(0)?;
    let (ike, _) = lab.cluster.redirected()?;
    // Two requests in turn reach two members, of which one at least is not the owner.
    ensure!(ike >= 1, "no IKE datagram was redirected");
    let (sent, lost) = lab.ping_both_ways(0, 6)?;
    ensure!(lost == 0, "{lost} of {sent} pings were lost");
    // The members' turns are counted over all packets, so that IKE in between shifts them.
    let esp = lab.esp_was_steered(owner)?;
    ensure!(
        esp >= 2,
        "only {esp} of 6 or more ESP packets were redirected"
    );
    Ok(format!(
        "owner {owner}, {exchanges} exchanges, redirected {ike} IKE and {esp} ESP, {} of {sent} pings",
        sent - lost
    ))
}

/// A router that hashes flows, and a first guess of the key exchange method that is refused.
pub(super) fn ecmp(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: 8,
            ..Plan::default()
        },
        // charon still holds message id 0 when it has sent its second IKE_SA_INIT, and drops an
        // answer that comes within that moment ("already processing"): keep it from losing.
        receive_delay: 20,
        // charon sends the public value of the first group it names; the members take the other.
        change: Some(|connection| {
            connection.proposal = "aes128gcm16-prfsha256-modp2048-x25519".into();
        }),
        ..Wishes::default()
    };
    let lab = Lab::start(context, "ecmp", &wishes)?;
    lab.network.spray(Spray::Flow)?;
    for site in 0..wishes.plan.sites {
        lab.bring_up(site)?;
    }
    let exchanges = lab.every_exchange_once(wishes.plan.sites.into())?;
    ensure!(
        exchanges == 3 * u64::from(wishes.plan.sites),
        "{exchanges} exchanges"
    );
    let refused = lab.peer.log().matches("N(INVAL_KE)").count();
    ensure!(
        refused >= usize::from(wishes.plan.sites),
        "INVALID_KE_PAYLOAD seen {refused} times"
    );
    let members = lab.network.sent_to_members()?;
    let used = members.iter().filter(|sent| sent.ike > 0).count();
    ensure!(used >= 2, "eight flows reached only {used} member(s)");
    Ok(format!(
        "8 tunnels over {used} members, {exchanges} exchanges"
    ))
}

/// The peer rekeys the CHILD SA while pings go on; afterwards only the new SA is known.
pub(super) fn rekey(context: &Context) -> Result<String> {
    let lab = Lab::sprayed(context, "rekey", &Wishes::default())?;
    let (owner, before) = lab.bring_up(0)?;
    let (_, lost) = lab.ping_both_ways(0, 3)?;
    ensure!(lost == 0, "{lost} pings lost before the rekeying");
    lab.peer.swanctl(&["--rekey", "--child", "net"])?;
    let old = before["children"][0]["spi_in"].clone();
    let mut after = serde_json::Value::Null;
    wait_until(Duration::from_secs(15), "the new CHILD SA alone", || {
        let (_, sa) = lab.cluster.only_ike_sa()?;
        let children = sa["children"].as_array().map_or(0, Vec::len);
        after = sa["children"][0]["spi_in"].clone();
        Ok(children == 1 && after != old)
    })?;
    lab.wait_tables(1, 1)?;
    let (sent, lost) = lab.ping_both_ways(0, 3)?;
    ensure!(lost == 0, "{lost} of {sent} pings lost after the rekeying");
    ensure!(lab.cluster.only_ike_sa()?.0 == owner, "the owner changed");
    lab.every_exchange_once(0)?;
    Ok(format!("SPI {old} -> {after}, no ping lost"))
}

/// The peer deletes the IKE SA: no member keeps anything of it.
pub(super) fn delete(context: &Context) -> Result<String> {
    let lab = Lab::sprayed(context, "delete", &Wishes::default())?;
    let (owner, _) = lab.bring_up(0)?;
    lab.wait_tables(1, 1)?;
    lab.peer.swanctl(&["--terminate", "--ike", "site-1"])?;
    if context.kernel_esp {
        wait_until(Duration::from_secs(5), "kernels without SAs", || {
            let states = |node: &Node| node.output("ip", &["xfrm", "state"]);
            let states = lab.network.members.iter().map(states);
            let states = states.collect::<Result<String>>()?;
            Ok(!states.contains("proto esp"))
        })?;
    } else {
        lab.wait_tables_empty()?;
    }
    let left = lab.cluster.ike_sas()?;
    ensure!(left.is_empty(), "still there: {left:?}");
    lab.every_exchange_once(0)?;
    // And the same peer is welcome again.
    lab.bring_up(0)?;
    Ok(format!(
        "owner {owner} and the others forgot it, and a new one came up"
    ))
}
