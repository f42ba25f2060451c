//! What has to do with the way between the gateways: fragments, moves, redirection.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{VIP, wait_until};

/// Where the peer goes.
const NEW_ADDRESS: &str = "198.51.100.240";

/// Both sides cut IKE_AUTH into pieces, and the router sends every packet to another member.
pub(super) fn fragmentation(context: &Context) -> Result<String> {
    let wishes = Wishes {
        connection: "fragment_size = 200",
        fragment_size: 200,
        change: Some(|connection| connection.lines = "fragmentation = yes".into()),
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "fragmentation", &wishes)?;
    let (owner, _) = lab.bring_up(0)?;
    let fragments = lab.cluster.engine("fragments_received")?;
    let messages = lab.cluster.engine("messages_reassembled")?;
    ensure!(
        messages >= 1 && fragments > messages,
        "{fragments} fragments made {messages} messages"
    );
    let log = lab.peer.log();
    let received = log.matches("received fragment #").count();
    ensure!(received >= 2, "the peer received {received} fragments");
    let (ike, _) = lab.cluster.redirected()?;
    ensure!(ike >= 2, "only {ike} IKE datagrams were redirected");
    lab.wait_tables(1, 1)?;
    lab.every_exchange_once(0)?;
    let (sent, lost) = lab.ping_both_ways(0, 3)?;
    ensure!(lost == 0, "{lost} of {sent} pings were lost");
    Ok(format!(
        "owner {owner} made {messages} messages of {fragments} fragments, {ike} datagrams redirected, \
         the peer received {received} fragments"
    ))
}

/// The peer's address changes under the tunnel. Every member knows the new one afterwards.
pub(super) fn mobike(context: &Context) -> Result<String> {
    let wishes = Wishes {
        change: Some(|connection| connection.mobike = true),
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "mobike", &wishes)?;
    let (owner, before) = lab.bring_up(0)?;
    let (sent, lost) = lab.ping_both_ways(0, 3)?;
    ensure!(lost == 0, "{lost} of {sent} pings lost before the move");
    lab.network
        .peer
        .sysctl(&["net.ipv4.conf.eth0.promote_secondaries=1"])?;
    let old = before["remote"].as_str().context("no remote address")?;
    let old = old.split(':').next().unwrap_or_default();
    lab.network.peer.ip(&format!(
        "addr add {NEW_ADDRESS}/24 dev eth0\naddr del {old}/24 dev eth0"
    ))?;
    let moved = |sa: &Value| {
        let remote = sa["remote"].as_str().unwrap_or_default();
        remote.starts_with(NEW_ADDRESS)
    };
    wait_until(
        Duration::from_secs(15),
        "every member to see the move",
        || {
            for member in &lab.cluster.members {
                let sas = member.request(&serde_json::json!({"command": "sas", "all": true}))?;
                let all = sas["ike_sas"].as_array().cloned().unwrap_or_default();
                if all.len() != 1 || !all.iter().all(moved) {
                    return Ok(false);
                }
            }
            Ok(true)
        },
    )?;
    // libipsec cannot move its SAs: then charon makes another CHILD_SA.
    wait_until(Duration::from_secs(10), "one CHILD_SA", || {
        let (_, sa) = lab.cluster.only_ike_sa()?;
        Ok(sa["children"].as_array().map_or(0, Vec::len) == 1)
    })?;
    let (now, after) = lab.cluster.only_ike_sa()?;
    ensure!(now == owner, "the owner changed from {owner} to {now}");
    ensure!(
        after["local_spi"] == before["local_spi"],
        "another IKE SA: {after}"
    );
    let same = after["children"][0]["spi_in"] == before["children"][0]["spi_in"];
    ensure!(same || !context.kernel_esp, "another CHILD_SA: {after}");
    if context.kernel_esp {
        for node in &lab.network.members {
            wait_until(Duration::from_secs(5), "the SAs to follow", || {
                let states = node.output("ip", &["xfrm", "state"])?;
                Ok(states.contains(NEW_ADDRESS) && !states.contains(&format!("{old} ")))
            })?;
        }
    }
    let (sent, lost) = lab.ping_both_ways(0, 4)?;
    ensure!(lost == 0, "{lost} of {sent} pings lost after the move");
    Ok(format!(
        "from {old} to {NEW_ADDRESS}, owner {owner}, no ping of {sent} lost afterwards"
    ))
}

/// Nothing but childless IKE SAs on either side.
pub(super) fn childless(context: &Context) -> Result<String> {
    let wishes = Wishes {
        connection: "childless = \"force\"",
        change: Some(|connection| connection.lines = "childless = force".into()),
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "childless", &wishes)?;
    let (owner, sa) = lab.bring_up(0)?;
    let children = sa["children"].as_array().map_or(0, Vec::len);
    ensure!(children == 1, "{children} CHILD_SAs");
    let created = lab.cluster.engine("create_child_requests")?;
    ensure!(created == 1, "{created} CREATE_CHILD_SA exchanges");
    lab.wait_tables(1, 1)?;
    let (sent, lost) = lab.ping_both_ways(0, 3)?;
    ensure!(lost == 0, "{lost} of {sent} pings were lost");
    let exchanges = lab.every_exchange_once(0)?;
    Ok(format!("owner {owner}, {exchanges} exchanges"))
}

/// The peer is sent to where it is, which tells the same as another gateway: it has to begin anew,
/// and must not be sent in circles.
pub(super) fn redirect(context: &Context) -> Result<String> {
    let wishes = Wishes {
        connection: "redirect_to = \"203.0.113.10\"",
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "redirect", &wishes)?;
    let (owner, before) = lab.bring_up(0)?;
    let redirected = lab.cluster.engine("redirects_sent")?;
    ensure!(
        redirected == 1,
        "IKE_SA_INIT was redirected {redirected} times"
    );
    let told = lab.cluster.member(owner.into())?.gatewayctl(&[
        "redirect",
        &VIP.to_string(),
        "--connection",
        "sites",
    ])?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.starts_with('1'), "gatewayctl redirect: {told:?}");
    let old = before["local_spi"].clone();
    wait_until(Duration::from_secs(15), "the peer to begin anew", || {
        let sas = lab.cluster.ike_sas()?;
        let children = |sa: &Value| sa["children"].as_array().map_or(0, Vec::len);
        Ok(sas.len() == 1
            && sas
                .iter()
                .all(|(_, sa)| sa["local_spi"] != old && children(sa) == 1))
    })?;
    let seen = lab.peer.log().matches("redirected").count();
    ensure!(seen >= 2, "the peer tells of {seen} redirections");
    lab.wait_tables(1, 1)?;
    Ok(format!(
        "by IKE_SA_INIT once and by command once; the peer tells {seen} times"
    ))
}
