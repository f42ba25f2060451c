//! The peer is sent elsewhere, and sends the gateway elsewhere.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::Context;
use super::ways::{Bench, Way, name};
use super::{hint, spis};
use crate::lab::{VIP, site_address, wait_until};

/// Sent elsewhere by the gateway, in IKE_SA_INIT and when it is up; and the other way round.
pub(in super::super) fn redirect(context: &Context) -> Result<String> {
    let sites = [
        (Way::Redirected, false),
        (Way::Redirecting, true),
        (Way::Childless, true),
    ];
    let bench = Bench::with_members(context, "libreswan-redirect", 1, false, &sites)?;
    bench.bring_up(0)?;
    let sent = bench.cluster.engine("redirects_sent")?;
    ensure!(sent == 1, "IKE_SA_INIT was redirected {sent} times");
    let site = name(0);
    let old = spis(&bench.cluster, &site)?.0;
    let mut told = 0;
    for member in &bench.cluster.members {
        let output = member.gatewayctl(&["redirect", &VIP.to_string(), "--connection", &site])?;
        told += u32::from(output.stdout.starts_with(b"1"));
    }
    ensure!(told == 1, "{told} members redirected an IKE SA");
    wait_until(Duration::from_secs(30), "the peer to begin anew", || {
        let mine = bench.cluster.ike_sas()?;
        let mine = mine
            .iter()
            .filter(|(_, sa)| sa["remote_id"] == site.as_str());
        let mine: Vec<_> = mine.collect();
        Ok(mine.len() == 1 && mine[0].1["local_spi"] != old && bench.peer.children(&site)? == 1)
    })
    .with_context(|| hint(&bench.cluster))?;
    bench.ping(0)?;
    bench.bring_up(1)?;
    let spare = site_address(&bench.network.plan, u16::try_from(sites.len())?).to_string();
    let sas = bench.cluster.ike_sas()?;
    let mine = sas
        .iter()
        .find(|(_, sa)| sa["remote_id"] == name(1).as_str());
    let remote = mine.context("no IKE SA")?.1["remote"].to_string();
    ensure!(
        remote.contains(&spare),
        "sent to {spare}, the gateway went to {remote}"
    );
    bench.bring_up(2)?;
    Ok(format!(
        "{}: redirected in IKE_SA_INIT and when up; sent the gateway to {spare}; with `childless = \
         prefer` the CHILD_SA came with IKE_AUTH",
        bench.peer.version()
    ))
}
