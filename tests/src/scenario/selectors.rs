//! Tunnels that other things than networks tell apart: the ends' own addresses.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Context;
use super::harness::{Lab, Wishes};
use super::initiate::{ask, out_between, wait_one_tunnel};
use crate::lab::{VIP, refusals, site_address, wait_until};

/// Pings from the peer's own address to the VIP. Every member has that, so each can answer what
/// reaches it in clear, and the owner what is encrypted.
fn ping(lab: &Lab, count: u32) -> Result<u32> {
    let from: IpAddr = site_address(&lab.network.plan, 0).into();
    lab.network.peer.ping(Some(from), VIP.into(), count, 2)
}

/// The tunnel is one of hosts, and carries pings.
fn check(lab: &Lab, sa: &Value) -> Result<()> {
    let child = &sa["children"][0];
    let wanted = [
        json!([format!("{VIP}/32")]),
        json!([format!("{}/32", site_address(&lab.network.plan, 0))]),
    ];
    ensure!(
        [&child["local_ts"], &child["remote_ts"]] == [&wanted[0], &wanted[1]],
        "the selectors are {} and {}",
        child["local_ts"],
        child["remote_ts"]
    );
    // Its own address lies within what is encrypted, and so does all IKE: that has to get through.
    let answered = ping(lab, 5)?;
    ensure!(
        answered == 5,
        "{answered} of 5 pings were answered; refused until now:\n{}",
        refusals(&lab.network)
    );
    Ok(())
}

fn packets(sa: &Value) -> u64 {
    let child = &sa["children"][0];
    let count = |key: &str| child[key].as_u64().unwrap_or(0);
    count("packets_in").min(count("packets_out"))
}

/// Both sides' selectors are `dynamic`: begun by the peer, then by the gateway; rekeyed, taken over.
pub(super) fn dynamic(context: &Context) -> Result<String> {
    let wishes = Wishes {
        // As swanctl.conf makes it by default.
        tables: out_between("dynamic", "dynamic"),
        change: Some(|connection| {
            connection.local_ts = "dynamic".into();
            connection.remote_ts = "dynamic".into();
        }),
        ..Wishes::default()
    };
    let mut lab = Lab::sprayed(context, "dynamic", &wishes)?;
    let answered = ping(&lab, 3)?;
    ensure!(answered == 0, "{answered} pings in clear were answered");

    let (owner, sa) = lab.bring_up(0)?;
    check(&lab, &sa).context("begun by the peer")?;
    lab.wait_tables(1, 1)?;
    lab.esp_was_steered(owner)?;
    let (_, sa) = lab.cluster.only_ike_sa()?;
    ensure!(
        packets(&sa) >= 5,
        "the SAs have seen {} packets",
        packets(&sa)
    );
    lab.every_exchange_once(0)?;
    lab.peer.swanctl(&["--terminate", "--ike", "site-1"])?;
    wait_until(
        Duration::from_secs(20),
        "the members to have nothing",
        || Ok(lab.cluster.ike_sas()?.is_empty() && lab.peer.established()? == 0),
    )?;
    let answered = ping(&lab, 3)?;
    ensure!(
        answered == 0,
        "{answered} pings in clear were answered again"
    );

    ask(&lab, owner, "initiate", false)?;
    let (owner, sa) = wait_one_tunnel(&lab, 20)?;
    check(&lab, &sa).context("begun by the gateway")?;
    let old = sa["children"][0]["spi_in"].clone();
    ask(&lab, owner, "rekey", true)?;
    wait_until(Duration::from_secs(20), "the new CHILD_SA alone", || {
        let (_, sa) = lab.cluster.only_ike_sa()?;
        let alone = sa["children"].as_array().map(Vec::len) == Some(1);
        Ok(alone && sa["children"][0]["spi_in"] != old && lab.peer.installed()? == 1)
    })?;
    let (_, sa) = lab.cluster.only_ike_sa()?;
    check(&lab, &sa).context("rekeyed")?;

    lab.cluster.member_mut(owner)?.kill();
    let survivors: Vec<u8> = lab.member_ids();
    let survivors: Vec<u8> = survivors.into_iter().filter(|id| *id != owner).collect();
    lab.wait_serving(&survivors)?;
    without_the_dead(&lab, &survivors)?;
    let (next, sa) = wait_tunnel_of(&lab, &survivors)?;
    check(&lab, &sa).context("taken over")?;
    ensure!(lab.peer.established()? == 1, "the peer has no IKE SA");
    Ok(format!(
        "host to host: begun by either side at member {owner}, rekeyed, taken over by {next}"
    ))
}

/// Its neighbours have noticed that a member is dead: its host, which lives, would go on by itself.
fn without_the_dead(lab: &Lab, survivors: &[u8]) -> Result<()> {
    lab.network.spray_among(survivors)?;
    lab.network.inside_among(survivors)
}

/// The one IKE SA that the survivors have.
fn wait_tunnel_of(lab: &Lab, survivors: &[u8]) -> Result<(u8, Value)> {
    let mut found = None;
    wait_until(Duration::from_secs(20), "the tunnel's next owner", || {
        for id in survivors {
            let sas = lab.cluster.member((*id).into())?.ask("sas")?;
            if let Some([sa]) = sas["ike_sas"].as_array().map(Vec::as_slice) {
                found = Some((*id, sa.clone()));
            }
        }
        Ok(found.is_some())
    })?;
    found.context("no tunnel")
}
