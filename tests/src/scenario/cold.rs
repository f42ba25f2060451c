//! Starting when nobody serves: after a power failure one of three members comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Plan, Spray, exchange, ike_sa_init, site_address, wait_until};

/// The member that comes back first.
const FIRST: u8 = 2;

/// It waits for the others, and serves when the operator says so.
pub(super) fn bootstrap(context: &Context) -> Result<String> {
    let mut lab = powerless(context, "cold-bootstrap", "")?;
    let before = back_alone(&mut lab)?;
    let what = "the member to say what it waits for";
    wait_until(Duration::from_secs(15), what, || {
        Ok(!lab
            .log_lines(&["too few members to form a view"])
            .is_empty())
    })?;
    let member = lab.cluster.member(FIRST.into())?;
    ensure!(
        member.ask("view")?["active"] == false,
        "one of three serves by itself"
    );
    let from = site_address(&lab.network.plan, 0);
    let wait = Duration::from_millis(300);
    let answer = exchange(&lab.network.peer, from, &ike_sa_init(1), wait)?;
    ensure!(answer.is_none(), "one of three answers by itself");
    let output = member.gatewayctl(&["bootstrap"])?;
    ensure!(
        output.status.success(),
        "gatewayctl bootstrap: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    whole_again(&mut lab, before)
}

/// Configured so, it does not wait for anybody.
pub(super) fn boot_alone(context: &Context) -> Result<String> {
    let mut lab = powerless(context, "cold-boot-alone", "boot_alone = true\n")?;
    let before = back_alone(&mut lab)?;
    whole_again(&mut lab, before)
}

/// A lab in which everything worked once.
fn powerless(context: &Context, name: &str, cluster: &'static str) -> Result<Lab> {
    let wishes = Wishes {
        plan: Plan {
            sites: 2,
            ..Plan::default()
        },
        cluster,
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, name, &wishes)?;
    lab.wait_serving(&lab.member_ids())?;
    lab.bring_up(0)?;
    Ok(lab)
}

/// All agents die and one starts again; returns the epoch of the last view before.
fn back_alone(lab: &mut Lab) -> Result<u64> {
    let before = lab.cluster.member(FIRST.into())?.ask("view")?["epoch"].as_u64();
    let before = before.context("a view without an epoch")?;
    for member in &mut lab.cluster.members {
        member.kill();
    }
    lab.network.spray(Spray::Only(FIRST))?;
    let node = lab.network.member(FIRST)?;
    lab.cluster.member_mut(FIRST)?.restart(node)?;
    Ok(before)
}

/// The first one serves alone; then the others come, and it goes on with them.
fn whole_again(lab: &mut Lab, before: u64) -> Result<String> {
    lab.wait_alone(FIRST)?;
    let epoch = lab.cluster.member(FIRST.into())?.ask("view")?["epoch"].as_u64();
    let epoch = epoch.context("a view without an epoch")?;
    ensure!(
        epoch > before,
        "epoch {epoch} after {before}: it went back or stood still"
    );
    lab.peer.initiate("site-2", 20)?;
    for id in lab.member_ids().into_iter().filter(|id| *id != FIRST) {
        let node = lab.network.member(id)?;
        lab.cluster.member_mut(id)?.restart(node)?;
    }
    lab.cluster.wait_connected()?;
    lab.wait_serving(&lab.member_ids())?;
    lab.network.spray(Spray::PerPacket)?;
    let owners = lab.owners()?;
    ensure!(
        owners.len() == 1 && owners.contains_key("site-2"),
        "the IKE SA of the time alone: {owners:?}"
    );
    lab.peer
        .swanctl(&["--rekey", "--child", "net", "--ike", "site-2"])
        .context("rekeying what was negotiated with the first member alone")?;
    let last = lab.cluster.member(FIRST.into())?.ask("view")?["epoch"].take();
    Ok(format!(
        "view {before} before, {epoch} alone, {last} together; the IKE SA of the time alone goes on"
    ))
}
