//! Two members: half of a view is left when one is lost. A witness decides, or the proof that
//! nobody is there.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::Context;
use super::super::harness::Wishes;
use super::judge::{Hit, answered_in_the_end, milliseconds, nothing_repeated};
use super::rig::{Rig, SITES as MANY};
use super::{judged, one_with, struck};
use crate::lab::{Fault, Moment, PeerSa, Plan, Probes, Timing, patience, wait_until};

const SITES: u16 = 6;

fn wishes(witness: bool) -> Wishes {
    Wishes {
        plan: Plan {
            members: 2,
            sites: SITES,
            ..Plan::default()
        },
        witness,
        cluster: if witness {
            ""
        } else {
            "two_member = \"availability\"\n"
        },
        timing: Some(Timing::usual()),
        ..Wishes::default()
    }
}

/// The witness dies and comes back, and nothing happens; then a member's host is gone, and the
/// witness's vote makes the other one's view a safe one.
pub(in super::super) fn witness(context: &Context) -> Result<String> {
    let mut rig = Rig::start(context, "two-witness", &wishes(true))?;
    heard(&rig)?;
    let epoch = rig.lab.cluster.members[0].ask("view")?["epoch"].take();
    rig.lab.witness.as_mut().context("no witness")?.kill();
    rig.go_on(3 * rig.lab.cluster.timing.lost / patience());
    for member in &rig.lab.cluster.members {
        let view = member.ask("view")?;
        ensure!(
            view["epoch"] == epoch && view["active"] == true,
            "member {} stopped because the witness was gone: {view}",
            member.id
        );
    }
    rig.lab.witness.as_mut().context("no witness")?.restart()?;
    heard(&rig)?;
    let (victim, at) = struck(&mut rig, Fault::MemberRemoved)?;
    rig.go_on(Duration::from_secs(2));
    let risky = risky(&rig, victim)?;
    ensure!(
        risky == 0,
        "with a witness no view is without a majority: {risky} were"
    );
    let hit = Hit {
        fault: Fault::MemberRemoved,
        victim,
        at,
        moves: 2,
    };
    Ok(judged(rig, hit, None)?.0.brief())
}

/// Nobody decides: the survivor finds by ARP that the other's host is gone, and takes over at its own
/// risk.
pub(in super::super) fn availability(context: &Context) -> Result<String> {
    let mut rig = Rig::start(context, "two-availability", &wishes(false))?;
    let (victim, at) = struck(&mut rig, Fault::MemberRemoved)?;
    rig.go_on(Duration::from_secs(2));
    let risky = risky(&rig, victim)?;
    ensure!(
        risky == 1,
        "a takeover without a majority is counted once: {risky}"
    );
    let hit = Hit {
        fault: Fault::MemberRemoved,
        victim,
        at,
        moves: 2,
    };
    Ok(judged(rig, hit, None)?.0.brief())
}

/// Both live, do not find each other, and are reached by router, inside host and peers: both serve
/// everything. When they meet again no number has gone out twice, there is one view, and every tunnel
/// carries traffic.
pub(in super::super) fn split(context: &Context) -> Result<String> {
    let mut wishes = wishes(false);
    wishes.plan.sites = MANY;
    let mut rig = Rig::start(context, "two-split", &wishes)?;
    rig.start_traffic()?;
    let at = Moment::now();
    rig.lab.network.divide(true)?;
    wait_until(
        Duration::from_secs(10),
        "both halves to go on alone",
        || Ok(risky(&rig, 1)? == 1 && risky(&rig, 2)? == 1),
    )?;
    rig.go_on(Duration::from_secs(4));
    rig.lab.network.divide(false)?;
    let divided = Moment::now().since(at);
    rig.wait_whole().context("the halves have met again")?;
    // Behind the pause, 50 of them are seen to in a second.
    rig.go_on(Duration::from_secs(8));
    let record = rig.finish()?;
    let after = rig.lab.peer.ike_sas()?;
    let stays = |(site, sas): &(&String, &Vec<PeerSa>)| {
        let now = after.get(*site).map_or(&[][..], Vec::as_slice);
        sas.iter()
            .all(|sa| now.iter().any(|one| one.spis == sa.spis))
    };
    let kept = rig.before.iter().filter(stays).count();
    let reconciled = reconciled(&rig)?;
    let lost: usize = record.probes.iter().map(Probes::lost).sum();
    let sent: usize = record.probes.iter().map(|one| one.sent.len()).sum();
    let gaps = record
        .probes
        .iter()
        .map(|one| milliseconds(one.longest_silence().0));
    let brief = format!(
        "divided for {:.1} s, {} of {} IKE SAs are those of before, {reconciled} reconciled, {} INIT, \
         {lost} of {sent} probes lost, longest silence of a tunnel {:.0} ms, {} ESP captured, {} replays at \
         the peer",
        divided.as_secs_f64(),
        kept,
        rig.before.len(),
        record.evidence.new_negotiations(Moment(0)),
        gaps.fold(0.0, f64::max),
        record.evidence.esp_packets(),
        rig.refused_by_peer()?.saturating_sub(rig.replay_drops),
    );
    nothing_repeated(&record.evidence).with_context(|| brief.clone())?;
    answered_in_the_end(&record.probes).with_context(|| brief.clone())?;
    ensure!(kept == rig.before.len(), "IKE SAs were lost: {brief}");
    Ok(brief)
}

/// IKE SAs that the members have brought in line with each other.
fn reconciled(rig: &Rig) -> Result<u64> {
    let members = rig.lab.cluster.members.iter();
    members
        .map(|member| {
            Ok(member.ask("stats")?["engine"]["reconciled"]
                .as_u64()
                .unwrap_or(0))
        })
        .sum()
}

/// An agent dies and its host goes on answering ARP: the other one does not take over, since for all
/// it knows both would serve. The agent's next run goes on with what the other one kept for it.
pub(in super::super) fn agent_dies(context: &Context) -> Result<String> {
    let mut rig = Rig::start(context, "two-agent-dies", &wishes(false))?;
    rig.start_traffic()?;
    let victim = rig.busiest()?;
    let before = rig.lab.slots_seen_by(other(victim))?;
    let at = Moment::now();
    rig.lab.cluster.member_mut(victim)?.kill();
    // Longer than silence and probes of three networks take.
    rig.go_on(Duration::from_secs(3));
    let after = rig.lab.slots_seen_by(other(victim))?;
    let risky = risky(&rig, victim)?;
    ensure!(
        after == before && risky == 0,
        "took over from a host that answers: {before:?}, {after:?}, {risky} views without a majority"
    );
    rig.finish()?;
    let node = rig.lab.network.member(victim)?;
    rig.lab.cluster.member_mut(victim)?.restart(node)?;
    rig.wait_whole()
        .context("the restarted agent is not taken in")?;
    let back = Moment::now().since(at);
    // Both have been in the view all along, but the new run serves only from the next one on.
    let what = format!("all {SITES} IKE SAs to be served again");
    wait_until(Duration::from_secs(5), &what, || {
        Ok(rig.lab.owners()?.len() == usize::from(SITES))
    })?;
    for site in 1..=SITES {
        let name = format!("site-{site}");
        rig.lab
            .peer
            .swanctl(&["--rekey", "--child", "net", "--ike", &name])
            .with_context(|| format!("rekeying {name} after the restart"))?;
    }
    Ok(format!(
        "nobody took over; whole again {:.1} s after the death, 3 of them before the restart; \
         all {SITES} IKE SAs go on",
        back.as_secs_f64()
    ))
}

/// The fast profile under traffic.
pub(in super::super) fn fast(context: &Context) -> Result<String> {
    Ok(one_with(context, "takeover-fast", Fault::Sigkill, Timing::fast())?.brief())
}

const fn other(member: u8) -> u8 {
    3 - member
}

/// Views without a majority that the survivor has formed.
fn risky(rig: &Rig, victim: u8) -> Result<u64> {
    let stats = rig.lab.cluster.member(other(victim).into())?.ask("stats")?;
    stats["membership"]["unsafe_takeovers"]
        .as_u64()
        .context("takeovers without a majority are not counted")
}

/// Waits until both members hear the witness.
fn heard(rig: &Rig) -> Result<()> {
    let recent = rig.lab.cluster.timing.lost.as_secs_f64();
    wait_until(
        Duration::from_secs(10),
        "both members to hear the witness",
        || {
            for member in &rig.lab.cluster.members {
                let age = member.ask("view")?["witness_heard_seconds"].as_f64();
                if age.is_none_or(|age| age > recent) {
                    return Ok(false);
                }
            }
            Ok(true)
        },
    )
}
