//! Members leave while peers wait for their answers to IKE_AUTH: who goes on serving completes what
//! was begun, though nobody but its responder had the keys.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Plan, packets_counted, wait_until};

const SITES: u64 = 12;
/// Counts IKE_SA_INIT requests, which know no responder's SPI, and drops IKE_AUTH: exchange types 34 and
/// 35 in the 18th octet behind the UDP header, and behind the non-ESP marker.
const RULES: &str = "table inet begun {
    counter init {}
    chain forward { type filter hook forward priority 0;
        udp dport 500 @th,128,64 0 @th,208,8 34 counter name init
    }
}
table inet hold {
    chain forward { type filter hook forward priority 1;
        udp dport 500 @th,208,8 35 drop
        udp dport 4500 @th,64,32 0 @th,240,8 35 drop
    }
}";

/// One member is drained, then another one stopped, between IKE_SA_INIT and IKE_AUTH of 12 peers.
pub(super) fn negotiations(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: SITES as u16,
            ..Plan::default()
        },
        ..Wishes::default()
    };
    let mut lab = Lab::sprayed(context, "negotiations-handed-over", &wishes)?;
    lab.wait_serving(&[1, 2, 3])?;
    lab.network.router.nft(RULES)?;
    let before = half_open(&lab, &[1, 2, 3])?;
    ensure!(before == [0, 0, 0], "half-open before: {before:?}");
    let names: Vec<String> = (1..=SITES).map(|number| format!("site-{number}")).collect();
    for name in &names {
        // No answer is waited for.
        let args = [
            "--initiate",
            "--ike",
            name,
            "--child",
            "net",
            "--timeout",
            "-1",
        ];
        lab.peer.swanctl(&args)?;
    }
    let what = "all members together to have answered 12 IKE_SA_INIT";
    wait_until(Duration::from_secs(10), what, || {
        Ok(half_open(&lab, &[1, 2, 3])?.iter().sum::<u64>() == SITES)
    })?;
    let shares = half_open(&lab, &[1, 2, 3])?;
    // SPIs, and with them the slots, are random: a member given beforehand would have none once in
    // 130 runs.
    let mut by_share = [1, 2, 3];
    by_share.sort_by_key(|id| std::cmp::Reverse(shares[usize::from(*id) - 1]));
    let [drained, stopped, left] = by_share;

    lab.cluster.member(drained.into())?.gatewayctl(&["drain"])?;
    lab.wait_serving(&[stopped.min(left), stopped.max(left)])?;
    lab.cluster.member_mut(stopped)?.stop()?;
    lab.wait_alone(left)?;
    let what = "the last member to hold all 12 negotiations";
    wait_until(Duration::from_secs(2), what, || {
        Ok(half_open(&lab, &[left.into()])? == [SITES])
    })?;
    lab.network.router.nft("delete table inet hold")?;
    // A peer repeats IKE_AUTH after 4, 11, 24 and 47 seconds.
    wait_until(Duration::from_secs(60), "12 tunnels", || {
        Ok(lab.peer.established()? as u64 == SITES)
    })?;
    let begun = packets_counted(&lab.network.router, "begun")?;
    ensure!(
        begun.get("init") == Some(&SITES),
        "IKE_SA_INIT requests: {begun:?}, of {SITES} peers"
    );
    let taken = lab
        .cluster
        .member(left.into())?
        .engine("negotiations_taken_over")?;
    let others = SITES - shares[usize::from(left) - 1];
    ensure!(
        taken == others,
        "member {left} took over {taken} negotiations, half-open by member: {shares:?}"
    );
    Ok(format!(
        "half-open by member {shares:?}; {taken} taken over by member {left}, {SITES} tunnels up by \
         {SITES} IKE_SA_INIT"
    ))
}

fn half_open(lab: &Lab, members: &[u64]) -> Result<Vec<u64>> {
    let count = |id: &u64| {
        let status = lab.cluster.member(*id)?.ask("status")?;
        Ok(status["half_open"].as_u64().unwrap_or(0))
    };
    members.iter().map(count).collect()
}
