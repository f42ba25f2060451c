//! A sync network that loses packets: nobody is taken for a member that lags.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{Node, Plan, SYNC, packets_counted, wait_until};

/// Tunnels, each rekeyed again and again.
const SITES: u16 = 4;
/// Rekeyings per tunnel: each is two messages that wait until the other members have the state.
const ROUNDS: u16 = 12;
/// One of so many segments of the sync channel is lost, in each direction.
const ONE_IN: u32 = 50;

/// Every fiftieth segment between members is lost while tunnels are rekeyed.
pub(super) fn sync(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: SITES,
            ..Plan::default()
        },
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, "sync-loss", &wishes)?;
    lab.wait_serving(&lab.member_ids())?;
    for site in 0..SITES {
        lab.bring_up(site)?;
    }
    let before = Judgement::of(&lab)?;
    for node in &lab.network.members {
        lose(node)?;
    }
    let mut published = wait_level(&lab, 0)?;
    for _ in 0..ROUNDS {
        for site in 1..=SITES {
            let name = format!("site-{site}");
            lab.peer
                .swanctl(&["--rekey", "--child", "net", "--ike", &name])
                .with_context(|| format!("{name} with one of {ONE_IN} segments lost"))?;
            // What is sent later would show TCP what was lost.
            published = wait_level(&lab, published)?;
        }
    }
    let after = Judgement::of(&lab)?;
    ensure!(
        before.epochs == after.epochs,
        "before: {before:#?}\nafter: {after:#?}"
    );
    let mut lost = 0;
    for node in &lab.network.members {
        lost += packets_counted(node, "loss")?
            .get("lost")
            .context("no counter")?;
    }
    // Each rekeying takes more than ten segments.
    ensure!(
        lost >= u64::from(SITES * ROUNDS) / 10,
        "only {lost} segments were lost"
    );
    let late = after.late - before.late;
    // What is sent again may be lost again. By itself TCP is late with every second one.
    ensure!(
        late <= lost / 5,
        "{lost} segments lost, a member was called late {late} times"
    );
    Ok(format!(
        "{} rekeyings, {lost} segments lost, called late {late} times, no view changed",
        SITES * ROUNDS
    ))
}

/// Waits until all members have acknowledged more than `before` deltas; returns how many.
fn wait_level(lab: &Lab, before: u64) -> Result<u64> {
    let mut published = 0;
    let what = format!("more than {before} deltas to be acknowledged");
    wait_until(Duration::from_secs(10), &what, || {
        published = 0;
        for member in &lab.cluster.members {
            let sync = member.ask("sync")?;
            let peers = sync["peers"].as_array().into_iter().flatten();
            if peers.into_iter().any(|peer| peer["lag"] != 0) {
                return Ok(false);
            }
            published += sync["published"]
                .as_u64()
                .context("no number of deltas in the answer of sync")?;
        }
        Ok(published > before)
    })?;
    Ok(published)
}

/// What the members think of each other.
#[derive(Debug)]
struct Judgement {
    /// Member → epoch of its view.
    epochs: BTreeMap<u8, Value>,
    /// How often a member did not acknowledge in time.
    late: u64,
}

impl Judgement {
    fn of(lab: &Lab) -> Result<Self> {
        let (mut epochs, mut late) = (BTreeMap::new(), 0);
        for member in &lab.cluster.members {
            epochs.insert(member.id, member.ask("status")?["epoch"].take());
            let sync = member.ask("sync")?;
            for peer in sync["peers"].as_array().into_iter().flatten() {
                late += peer["lagged"]
                    .as_u64()
                    .with_context(|| format!("member {} tells {peer}", member.id))?;
            }
        }
        Ok(Self { epochs, late })
    }
}

fn lose(node: &Node) -> Result<()> {
    node.nft(&format!(
        "table inet loss {{\ncounter lost {{ }}\nchain input {{\n\
         type filter hook input priority 0;\n\
         tcp dport {SYNC} numgen inc mod {ONE_IN} 0 counter name lost drop\n\
         tcp sport {SYNC} numgen inc mod {ONE_IN} 0 counter name lost drop\n}}\n}}\n"
    ))
}
