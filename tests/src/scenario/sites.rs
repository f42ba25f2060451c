//! Many tunnels.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::Plan;

const SITES: u16 = 100;
/// How many negotiations run at the same time: below the cookie threshold, so that no exchange
/// is added by a cookie.
const WORKERS: usize = 8;

/// 100 tunnels from distinct addresses with per-packet spraying: none needs a retransmission, and
/// every exchange was processed by exactly one member.
pub(super) fn hundred(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: SITES,
            ..Plan::default()
        },
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "sites-100", &wishes)?;
    let names: Vec<String> = (1..=SITES).map(|number| format!("site-{number}")).collect();
    let start = Instant::now();
    let failed = lab.peer.initiate_all(&names, WORKERS, 30);
    let seconds = start.elapsed().as_secs_f64();
    ensure!(
        failed.is_empty(),
        "{} tunnels failed, first: {}",
        failed.len(),
        failed[0]
    );
    let up = lab.peer.established()?;
    ensure!(up == usize::from(SITES), "the peer has {up} IKE SAs");
    let exchanges = lab.every_exchange_once(0)?;
    ensure!(
        exchanges == 2 * u64::from(SITES),
        "{exchanges} exchanges for {SITES} tunnels"
    );
    owned_once(&lab)?;
    lab.wait_tables(SITES.into(), SITES.into())?;
    let relayed = lab.cluster.engine("relayed_out")?;
    let (ike, _) = lab.cluster.redirected()?;
    ensure!(
        ike > u64::from(SITES) / 2,
        "only {ike} IKE datagrams were redirected by XDP"
    );
    let sent: Vec<u64> = lab
        .network
        .sent_to_members()?
        .iter()
        .map(|sent| sent.ike)
        .collect();
    Ok(format!(
        "{SITES} up in {seconds:.1} s, {exchanges} exchanges, datagrams by member {sent:?}, \
         {ike} redirected, {relayed} relayed"
    ))
}

/// Every site's SA is listed by one member only, and the members share the work.
fn owned_once(lab: &Lab) -> Result<()> {
    let mut sites = std::collections::BTreeMap::new();
    let mut by_member = std::collections::BTreeMap::new();
    for (member, sa) in lab.cluster.ike_sas()? {
        let site = sa["remote_id"].as_str().unwrap_or_default().to_owned();
        let other = sites.insert(site.clone(), member);
        ensure!(other.is_none(), "{site} is owned by {member} and {other:?}");
        *by_member.entry(member).or_insert(0_u32) += 1;
    }
    ensure!(
        sites.len() == usize::from(SITES),
        "{} sites are owned",
        sites.len()
    );
    ensure!(
        by_member.len() == lab.cluster.members.len(),
        "only some members own: {by_member:?}"
    );
    Ok(())
}
