//! Route-based tunnels: what is routed into an XFRM interface is encrypted.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::harness::{Lab, Wishes, ping_both_ways};
use super::initiate::{ask, out_between, wait_one_tunnel};
use crate::lab::{INSIDE_NETWORK, Node, Plan, site_host, wait_until};

/// The network behind the first site.
const SITE_NETWORK: &str = "10.2.1.0/24";

/// Only what is routed into the tunnel's interface is encrypted, and what is decrypted comes out of
/// it.
pub(super) fn routed(context: &Context) -> Result<String> {
    const ID: u32 = 42;
    let child = out_between(INSIDE_NETWORK, SITE_NETWORK);
    let wishes = Wishes {
        // Which SA a packet takes is one kernel's affair.
        plan: Plan {
            members: 1,
            ..Plan::default()
        },
        tables: format!("{child}if_id_in = {ID}\nif_id_out = {ID}\n"),
        ..Wishes::default()
    };
    let lab = Lab::start(context, "route-based", &wishes)?;
    ask(&lab, 1, "initiate", false)?;
    wait_one_tunnel(&lab, 20)?;
    let answered = lab.network.host.ping(None, site_host(0).into(), 2, 1)?;
    ensure!(
        answered == 0,
        "{answered} pings without an interface were answered"
    );
    for member in &lab.network.members {
        member.ip(&format!(
            "link add tunnel type xfrm if_id {ID}\nlink set tunnel up\n\
             route add {SITE_NETWORK} dev tunnel"
        ))?;
    }
    let (sent, lost) = ping_both_ways(&lab.network, context.kernel_esp, 0, 5)?;
    ensure!(lost == 0, "{lost} of {sent} pings lost");
    let (owner, sa) = wait_one_tunnel(&lab, 20)?;
    let counters = crossed(lab.network.member(owner)?)?;
    ensure!(
        counters.iter().all(|packets| *packets >= u64::from(sent)),
        "{sent} pings, the interface saw {counters:?}"
    );
    let old = sa["children"][0]["spi_in"].clone();
    ask(&lab, owner, "rekey", true)?;
    wait_until(Duration::from_secs(20), "the new CHILD_SA alone", || {
        let (_, sa) = wait_one_tunnel(&lab, 20)?;
        Ok(sa["children"][0]["spi_in"] != old)
    })?;
    let (again, lost) = ping_both_ways(&lab.network, context.kernel_esp, 0, 3)?;
    ensure!(lost == 0, "{lost} of {again} pings lost after the rekeying");
    Ok(format!(
        "through the interface of member {owner} {sent} pings, {again} after a rekeying"
    ))
}

/// Packets that came out of the tunnel's interface, and that went into it.
fn crossed(node: &Node) -> Result<[u64; 2]> {
    let text = node.output("ip", &["-j", "-s", "link", "show", "tunnel"])?;
    let links: Value = serde_json::from_str(&text)?;
    let count = |way: &str| links[0]["stats64"][way]["packets"].as_u64();
    let (inbound, outbound) = (count("rx"), count("tx"));
    Ok([inbound.context("no count")?, outbound.context("no count")?])
}
