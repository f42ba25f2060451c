//! Unauthenticated floods.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Plan, flood};

/// How many forged requests, and over what time: bounded, and well above every threshold.
const REQUESTS: u32 = 4000;
const DURATION: Duration = Duration::from_secs(4);
/// `cookie_threshold` of the members.
const THRESHOLD: u64 = 30;

/// While forged requests pour in, a negotiation succeeds, an established SA lives on, and no
/// member has work with the requests that belong to another.
pub(super) fn spoofed(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: 4,
            ..Plan::default()
        },
        ike: "cookie_threshold = 30",
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "flood", &wishes)?;
    lab.bring_up(0)?;
    lab.wait_tables(1, 1)?;
    let before = deltas_sent(&lab)?;
    let sent = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&lab.network.peer, REQUESTS, DURATION));
        for site in 1..4 {
            lab.bring_up(site)?;
        }
        flooding
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let cookies = lab.cluster.engine("cookies_sent")?;
    ensure!(
        cookies > u64::from(sent) / 2,
        "{cookies} cookies for {sent} forged requests"
    );
    let members = lab.cluster.members.len() as u64;
    let half_open: u64 = half_open(&lab)?.iter().sum();
    ensure!(
        half_open <= members * (THRESHOLD + 4),
        "{half_open} half-open SAs were made"
    );
    // Mirrored were at most the entries below the threshold, coming and going, and the SAs of
    // three sites; a delta per forged request would be thousands.
    let mirrored = deltas_sent(&lab)? - before;
    let bound = members * (members - 1) * (2 * THRESHOLD + 40);
    ensure!(
        mirrored <= bound,
        "{mirrored} deltas were mirrored, at most {bound} are due"
    );
    lab.wait_tables(4, 4)?;
    // The SA from before the flood answers.
    lab.peer.swanctl(&["--terminate", "--ike", "site-1"])?;
    lab.wait_tables(3, 3)?;
    let retransmissions = lab.peer.retransmissions();
    ensure!(
        retransmissions == 0,
        "the live peers had to repeat {retransmissions} requests"
    );
    Ok(format!(
        "{sent} forged requests: {cookies} cookies, {half_open} half-open, {mirrored} deltas; \
         3 tunnels came up meanwhile"
    ))
}

/// Deltas that members sent to others, summed.
fn deltas_sent(lab: &Lab) -> Result<u64> {
    let mut sum = 0;
    for member in &lab.cluster.members {
        let answer = member.ask("members")?;
        let rows = answer["members"].as_array().cloned().unwrap_or_default();
        sum += rows
            .iter()
            .filter_map(|row| row["sent"].as_u64())
            .sum::<u64>();
    }
    Ok(sum)
}

fn half_open(lab: &Lab) -> Result<Vec<u64>> {
    let count = |member: &crate::lab::Member| {
        Ok(member.ask("status")?["half_open"]
            .as_u64()
            .unwrap_or(u64::MAX))
    };
    lab.cluster.members.iter().map(count).collect()
}

/// Cookies switched out of reach and a small half-open limit: the surplus is dropped in silence,
/// and logged in a few lines, not one per packet.
pub(super) fn half_open_full(context: &Context) -> Result<String> {
    const LIMIT: u64 = 10;
    let wishes = Wishes {
        ike: "cookie_threshold = 100000\nhalf_open_limit = 10\nhalf_open_timeout = \"10s\"",
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "half-open-full", &wishes)?;
    let sent = flood(&lab.network.peer, 600, Duration::from_secs(1))?;
    let per_member = half_open(&lab)?;
    let full = per_member.iter().all(|count| *count == LIMIT);
    ensure!(
        full,
        "half-open by member after {sent} requests: {per_member:?}, limit {LIMIT}"
    );
    // A burst of lines, then a rate: never one per packet.
    let lines = lab.log_lines(&["half-open limit"]).len();
    let bound = 10 * lab.cluster.members.len();
    ensure!(
        (1..=bound).contains(&lines),
        "{lines} log lines about {sent} requests, at most {bound} are due"
    );
    // Timed out, they make room for a real peer.
    crate::lab::wait_until(
        Duration::from_secs(25),
        "the half-open SAs to time out",
        || Ok(half_open(&lab)?.iter().all(|count| *count == 0)),
    )?;
    lab.bring_up(0)?;
    Ok(format!(
        "{sent} requests left {per_member:?} half-open SAs and {lines} log lines"
    ))
}
