//! `cargo xtask demo`: what happens when a stock peer connects, told as it happens.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Context;
use super::failover::{Hit, Outcome, Rig};
use super::harness::{Lab, TOMBSTONE, Wishes};
use crate::lab::{
    Fault, Node, Plan, command, exchange, find_pin, ike_sa_init, probe_interval, site_address, tail,
};

/// Pings in each direction.
const PINGS: u32 = 5;

/// Runs the demo and writes `report.json` into the folder of the logs.
///
/// # Errors
/// Any step did not do what it should; the message names the step.
pub fn demo(context: &Context, esp: &str) -> Result<()> {
    let start = Instant::now();
    say("Building the network: peer P, router R, members 1 to 3, inside host H, all namespaces.");
    let wishes = Wishes {
        plan: Plan {
            sites: 2,
            ..Plan::default()
        },
        ..Wishes::default()
    };
    let mut lab = Lab::sprayed(context, "run", &wishes).context("starting the lab")?;
    introduce(&lab)?;
    half_open(&lab).context("a half-open negotiation")?;
    let story = tunnel(&lab).context("bringing up the tunnel")?;
    let pings = ping(&lab, story.owner).context("pinging through the tunnel")?;
    ownership(&lab).context("the ownership tables")?;
    let mut facts = collect(&lab, &story, pings, esp)?;
    (lab, facts.failover) = failover(lab).context("killing the owner")?;
    teardown(&mut lab).context("teardown")?;
    drop(lab);
    let seconds = (start.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let report = facts.report(seconds);
    summarise(&report);
    let file = context.logs.join("report.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&report)?)
        .with_context(|| file.display().to_string())
}

fn say(text: &str) {
    println!("\n>> {text}");
}

fn show(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

fn introduce(lab: &Lab) -> Result<()> {
    for member in &lab.cluster.members {
        let status = member.ask("status")?;
        println!(
            "   member {}: {}, {} of 256 slots, XDP {}, SAs go to: {}",
            member.id,
            status["state"].as_str().unwrap_or("?"),
            status["slots_owned"],
            status["steering"]["mode"].as_str().unwrap_or("?"),
            status["kernel_backend"].as_str().unwrap_or("?"),
        );
    }
    println!("   peer: stock {}", lab.peer.version()?);
    println!("   R sends every packet for the VIP to the next member in turn.");
    Ok(())
}

/// A first message without a second: an entry in the table of negotiations on every member.
fn half_open(lab: &Lab) -> Result<()> {
    say("A stranger sends one IKE_SA_INIT and nothing more. Its owner tells the others:");
    let from = site_address(&lab.network.plan, 1);
    let answer = exchange(
        &lab.network.peer,
        from,
        &ike_sa_init(1),
        Duration::from_secs(5),
    )?;
    ensure!(answer.is_some(), "IKE_SA_INIT was not answered");
    let mut rows = Value::Null;
    crate::lab::wait_until(Duration::from_secs(5), "the entry on every member", || {
        for member in &lab.cluster.members {
            rows = member.ask("table")?["negotiations"].take();
            if rows.as_array().is_none_or(Vec::is_empty) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    let holder = rows[0]["member"].as_u64().unwrap_or(0);
    let other = lab.other_than(u8::try_from(holder).unwrap_or(1));
    let node = &lab.network.members[usize::from(other) - 1];
    println!("   member {holder} holds it; the kernel's map on member {other}, by bpftool:");
    show(&dump(node, "SEP_my_IKE_packet")?);
    Ok(())
}

/// `bpftool map dump pinned` of a map of this node.
fn dump(node: &Node, map: &str) -> Result<String> {
    let pin = find_pin(node.bpf_dir().context("no BPF file system")?, map)?;
    command(
        "bpftool",
        &["map", "dump", "pinned", &pin.display().to_string()],
    )
}

struct Story {
    owner: u8,
    exchanges: u64,
    ike_redirected: u64,
    spi: String,
}

fn tunnel(lab: &Lab) -> Result<Story> {
    lab.network.count_at_router()?;
    let before = lab.cluster.redirected()?.0;
    say("swanctl --initiate --ike site-1 --child net");
    let (owner, sa) = lab.bring_up(0)?;
    let told = lab.peer.log();
    let lines = told.lines().filter(|line| {
        [
            "sending packet",
            "received packet",
            "established",
            "selected proposal",
        ]
        .iter()
        .any(|word| line.contains(word))
    });
    show(&tail(&lines.collect::<Vec<_>>().join("\n"), 9));
    let received = lab.network.sent_to_members()?;
    for (id, sent) in (1u8..).zip(&received) {
        let role = if id == owner {
            "the owner"
        } else {
            "not the owner"
        };
        let forwarded = lab.cluster.member(id.into())?.reasons(&[
            "ike_sa_forwarded",
            "negotiation_forwarded",
            "new_ike_forwarded",
        ])?;
        println!(
            "   member {id}: received {} IKE datagram(s) from R, is {role}; XDP redirected {forwarded} so far",
            sent.ike
        );
    }
    let ike_redirected = lab.cluster.redirected()?.0 - before;
    ensure!(
        ike_redirected >= 1,
        "no IKE datagram of the tunnel was redirected"
    );
    ensure!(
        lab.peer.retransmissions() == 0 || lab.cluster.was_starved()?,
        "the peer had to repeat a request"
    );
    let child = &sa["children"][0];
    println!(
        "   member {owner} owns slot {}: {} === {}, ESP {} in, {} out",
        sa["slot"], child["local_ts"], child["remote_ts"], child["spi_in"], child["spi_out"]
    );
    let spi = child["spi_in"].as_str().unwrap_or_default().to_owned();
    Ok(Story {
        owner,
        exchanges: lab.peer.requests_sent() as u64,
        ike_redirected,
        spi,
    })
}

fn ping(lab: &Lab, owner: u8) -> Result<(u32, u32)> {
    ensure!(
        lab.kernel_esp,
        "this kernel has no ESP: run the demo in the VM"
    );
    say("Pings: from the host behind P to H, and from H to the host behind P.");
    let (sent, lost) = lab.ping_both_ways(0, PINGS)?;
    println!("   {} of {sent} answered", sent - lost);
    ensure!(lost == 0, "{lost} of {sent} pings were lost");
    let redirected = lab.esp_was_steered(owner)?;
    for (id, sent) in (1u8..).zip(lab.network.sent_to_members()?) {
        let member = lab.cluster.member(id.into())?;
        let (kept, forwarded) = (
            member.reasons(&["esp_local"])?,
            member.reasons(&["esp_forwarded"])?,
        );
        println!(
            "   member {id}: {} ESP packet(s) from R: kept {kept}, redirected {forwarded} to member {owner}",
            sent.esp
        );
    }
    ensure!(redirected >= 1, "no ESP packet was redirected");
    let node = &lab.network.members[usize::from(owner) - 1];
    println!("   the kernel's SA on member {owner}:");
    let counters = node.output("ip", &["-s", "xfrm", "state"])?;
    let wanted = ["src ", "proto esp", "replay-window", "packets"];
    let lines: Vec<&str> = counters
        .lines()
        .filter(|line| wanted.iter().any(|word| line.contains(word)))
        .filter(|line| !line.contains("auth") && !line.contains("aead"))
        .collect();
    show(&lines.join("\n"));
    Ok((sent, lost))
}

fn ownership(lab: &Lab) -> Result<()> {
    say("gatewayctl table, as any member shows it:");
    let output = lab.cluster.member(1)?.gatewayctl(&["table"])?;
    ensure!(output.status.success(), "gatewayctl table: {output:?}");
    show(&String::from_utf8_lossy(&output.stdout));
    say("The same entries in the kernel's maps on member 1, by bpftool:");
    for map in ["IKE_SA", "ESP_SA"] {
        println!("   {map}");
        show(&dump(&lab.network.members[0], map)?);
    }
    Ok(())
}

/// The owner's agent is killed while pings run: another member goes on, and nobody negotiates.
fn failover(lab: Lab) -> Result<(Lab, Value)> {
    let mut rig = Rig::adopt(lab, 1)?;
    let owner = rig.busiest()?;
    say(&format!(
        "Numbered pings every {} ms through the tunnel. kill -9 for the agent of member {owner}, the owner.",
        probe_interval().as_millis()
    ));
    rig.start_traffic()?;
    let fault = Fault::Sigkill;
    let at = rig.hit(fault, owner, &[])?;
    rig.go_on(Duration::from_secs(2));
    let record = rig.finish()?;
    let hit = Hit {
        fault,
        victim: owner,
        at,
        moves: 1,
    };
    let outcome = Outcome::of(&rig, hit, &record)?;
    for member in rig
        .lab
        .cluster
        .members
        .iter()
        .filter(|member| member.id != owner)
    {
        for line in member.log().lines().filter(|line| line.contains("LOST")) {
            println!("   member {} logged: {line}", member.id);
        }
    }
    let new_owner = rig.lab.owners_of(&rig.sites_of(owner))?;
    println!(
        "   member {new_owner} owns the tunnel now. Silence: {} ms, {} of {} pings lost.",
        outcome.gap_ms.unwrap_or_default(),
        outcome.probes_lost,
        outcome.probes
    );
    println!(
        "   The peer's view: {} new IKE_SA_INIT, {} packets refused as replays; {} ESP packets captured, \
         {} sequence numbers used twice.",
        outcome.new_ike_sa_inits,
        outcome.replay_drops_at_peer,
        outcome.esp_captured,
        outcome.repeated_sequence_numbers
    );
    outcome.require(hit, &record)?;
    say(&format!(
        "Member {owner} starts again, fetches all SAs, and takes its share of the slots."
    ));
    let lab = &mut rig.lab;
    fault.heal(&mut lab.cluster, &mut lab.network, &lab.run, owner, 1)?;
    rig.wait_whole()?;
    let report = json!({
        "fault": outcome.fault,
        "detected_ms": outcome.detected_ms,
        "gap_ms": outcome.gap_ms,
        "pings_lost": outcome.probes_lost,
        "renegotiations": outcome.new_ike_sa_inits,
        "replay_drops_at_peer": outcome.replay_drops_at_peer,
        "pings_sent": outcome.probes,
        "ping_interval_ms": outcome.probe_interval_ms,
        "repeated_sequence_numbers": outcome.repeated_sequence_numbers,
        "new_owner": new_owner,
    });
    Ok((rig.lab, report))
}

/// What goes into the report.
struct Facts {
    kernel: String,
    esp: String,
    members: usize,
    peer: String,
    owner: u8,
    exchanges: u64,
    spi: String,
    received: Value,
    ike_redirected: u64,
    esp_redirected: u64,
    pings: (u32, u32),
    failover: Value,
}

fn collect(lab: &Lab, story: &Story, pings: (u32, u32), esp: &str) -> Result<Facts> {
    let mut received = serde_json::Map::new();
    for (id, sent) in (1u8..).zip(lab.network.sent_to_members()?) {
        received.insert(id.to_string(), json!(sent.ike + sent.esp));
    }
    Ok(Facts {
        kernel: command("uname", &["-r"])?.trim().to_owned(),
        esp: esp.to_owned(),
        members: lab.cluster.members.len(),
        peer: lab.peer.version()?,
        owner: story.owner,
        exchanges: story.exchanges,
        spi: story.spi.clone(),
        received: Value::Object(received),
        ike_redirected: story.ike_redirected,
        esp_redirected: lab.cluster.redirected()?.1,
        pings,
        failover: Value::Null,
    })
}

impl Facts {
    fn report(&self, seconds: f64) -> Value {
        json!({
            "kernel": self.kernel,
            "esp": self.esp,
            "members": self.members,
            "peer": self.peer,
            "ike_established": true,
            "owner": self.owner,
            "esp_spi": self.spi,
            "exchanges": self.exchanges,
            "packets_received_by_member": self.received,
            "ike_redirected": self.ike_redirected,
            "esp_redirected": self.esp_redirected,
            "pings_sent": self.pings.0,
            "pings_lost": self.pings.1,
            "failover": self.failover,
            "seconds": seconds,
        })
    }
}

fn teardown(lab: &mut Lab) -> Result<()> {
    say("swanctl --terminate, then every agent is stopped.");
    lab.peer.swanctl(&["--terminate", "--ike", "site-1"])?;
    crate::lab::wait_until(TOMBSTONE, "the SAs' entries to go", || {
        for member in &lab.cluster.members {
            let table = member.ask("table")?;
            let rows = |key: &str| table[key].as_array().map_or(1, Vec::len);
            if rows("ike_sas") + rows("esp_sas") > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    println!("   no member has an entry of it left");
    for member in &mut lab.cluster.members {
        member.stop()?;
    }
    println!("   agents ended; namespaces are being removed");
    println!("   logs: {}", lab.run.logs().display());
    Ok(())
}

fn summarise(report: &Value) {
    say("Summary");
    if let Value::Object(fields) = report {
        for (name, value) in fields {
            println!("   {name:28} {value}");
        }
    }
}
