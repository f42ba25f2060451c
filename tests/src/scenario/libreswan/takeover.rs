//! The owner of tunnels with libreswan dies under traffic: they go on, and none begins anew.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::Context;
use super::hint;
use super::ways::{Bench, SITES, Way};
use crate::lab::{Traffic, patience, probe_interval, wait_until};

/// Certificates, post-quantum keys, ESP in UDP; begun by either side.
pub(in super::super) fn killed(context: &Context) -> Result<String> {
    // The traffic that goes on meanwhile is IPv4 outside, and nobody moves.
    let (sites, _) = SITES.split_at(6);
    let bench = Bench::start(context, "libreswan-killed", false, sites)?;
    with(bench, sites.len())
}

/// From behind a NAT, with certificates.
pub(in super::super) fn killed_behind_nat(context: &Context) -> Result<String> {
    const BEHIND: [(Way, bool); 2] = [(Way::Rsa, false), (Way::Ecdsa, false)];
    with(
        Bench::start(context, "libreswan-killed-nat", true, &BEHIND)?,
        BEHIND.len(),
    )
}

fn with(mut bench: Bench, sites: usize) -> Result<String> {
    for site in 0..sites {
        bench.bring_up(site)?;
    }
    let all: Vec<u8> = bench.cluster.members.iter().map(|m| m.id).collect();
    let before = tunnels(&bench, &all)?;
    ensure!(before.len() == sites, "tunnels: {before:?}");
    let owner = *all
        .iter()
        .max_by_key(|id| before.values().filter(|tunnel| tunnel.0 == **id).count())
        .context("no member")?;
    let owned = before.values().filter(|tunnel| tunnel.0 == owner).count();
    let begun = beginnings(&bench, &all)?;
    let traffic = Traffic::start(&bench.network, u16::try_from(sites)?, probe_interval())?;
    std::thread::sleep(Duration::from_secs(1));
    // What the dead one has counted goes with it.
    let counted = bench
        .cluster
        .member(owner.into())?
        .engine("init_requests")?;
    bench.cluster.member_mut(owner)?.kill();
    let survivors: Vec<u8> = all.into_iter().filter(|id| *id != owner).collect();
    // As the neighbours do when a member's health ends.
    bench.network.spray_among(&survivors)?;
    bench.network.inside_among(&survivors)?;
    wait_until(Duration::from_secs(20), "the survivors to have all", || {
        Ok(tunnels(&bench, &survivors)?.len() == sites)
    })
    .with_context(|| hint(&bench.cluster))?;
    std::thread::sleep(Duration::from_secs(1) * patience());
    let probes = traffic.finish()?;
    for site in 0..sites {
        bench.ping(site).with_context(|| "after the takeover")?;
    }
    let after = tunnels(&bench, &survivors)?;
    for (site, tunnel) in &before {
        let now = after.get(site);
        ensure!(
            now.is_some_and(|now| now.1 == tunnel.1),
            "{site} had the IKE SA {}, now {now:?}",
            tunnel.1
        );
    }
    let now = beginnings(&bench, &survivors)? + counted;
    ensure!(
        now == begun,
        "{} IKE_SA_INIT after the kill",
        now.abs_diff(begun)
    );
    let silence = probes.iter().map(|probes| probes.longest_silence().0).max();
    Ok(format!(
        "{}: {sites} tunnels, {owned} of them of member {owner}, which died; the same IKE SAs \
         afterwards, longest silence {} ms",
        bench.peer.version(),
        silence.unwrap_or_default().as_millis()
    ))
}

/// Site → owner and the IKE SA's SPIs, as these members list their own.
fn tunnels(bench: &Bench, members: &[u8]) -> Result<BTreeMap<String, (u8, Value)>> {
    let mut found = BTreeMap::new();
    for id in members {
        let mut sas = bench.cluster.member((*id).into())?.ask("sas")?;
        for sa in sas["ike_sas"].as_array_mut().into_iter().flatten() {
            let site = sa["remote_id"].as_str().unwrap_or_default().to_owned();
            let spis = Value::Array(vec![sa["local_spi"].take(), sa["remote_spi"].take()]);
            ensure!(
                found.insert(site.clone(), (*id, spis)).is_none(),
                "{site} has two IKE SAs"
            );
        }
    }
    Ok(found)
}

/// IKE_SA_INIT requests that these members have taken up.
fn beginnings(bench: &Bench, members: &[u8]) -> Result<u64> {
    let members = members.iter();
    members
        .map(|id| bench.cluster.member((*id).into())?.engine("init_requests"))
        .sum()
}
