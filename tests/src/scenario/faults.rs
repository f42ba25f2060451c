//! Agents that die and come back.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{INSIDE_HOST, Node, Plan, Spray, command, site_host};

/// SIGKILL.
pub(super) fn kill_restart(context: &Context) -> Result<String> {
    interrupted(context, "kill-restart", |lab, index| {
        lab.cluster.members[index].kill();
        Ok(())
    })
}

/// SIGTERM.
pub(super) fn stop_restart(context: &Context) -> Result<String> {
    interrupted(context, "drain-restart", |lab, index| {
        lab.cluster.members[index].stop()
    })
}

/// A member that does not own the SA loses its agent: XDP keeps redirecting to the owner. The
/// next agent takes over the same maps and links, with counters going on.
fn interrupted(
    context: &Context,
    name: &str,
    end: fn(&mut Lab, usize) -> Result<()>,
) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: 2,
            ..Plan::default()
        },
        ..Wishes::default()
    };
    let mut lab = Lab::sprayed(context, name, &wishes)?;
    let (owner, _) = lab.bring_up(0)?;
    lab.wait_tables(1, 1)?;
    let other = lab.other_than(owner);
    let index = usize::from(other) - 1;
    let before = kernel_objects(&lab.network.members[index])?;
    ensure!(!before.is_empty(), "member {other} pinned nothing");
    lab.network.spray(Spray::Only(other))?;
    let first = steer(&lab, owner, other)?;
    end(&mut lab, index)?;
    let second = steer(&lab, owner, other)?;
    ensure!(
        second > first,
        "nothing was redirected while the agent was dead"
    );
    let node = &lab.network.members[index];
    lab.cluster.members[index].restart(node)?;
    lab.cluster.wait_connected()?;
    let after = kernel_objects(node)?;
    ensure!(
        before == after,
        "maps or links were replaced:\n{before:?}\n{after:?}"
    );
    let stats = lab.cluster.members[index].ask("stats")?;
    let counted = stats["members"][owner.to_string()]["forwarded"]["packets"].as_u64();
    let counted = counted.unwrap_or(0);
    ensure!(
        counted >= second,
        "the counters started again: {counted}, was {second}"
    );
    // With its share of the slots it may have got this SA's.
    let owner = lab.owners_of(&[0].into())?;
    let via = if owner == other {
        lab.other_than(owner)
    } else {
        other
    };
    lab.network.spray(Spray::Only(via))?;
    let before_ping = received(&lab, owner, via)?;
    let third = steer(&lab, owner, via)?;
    ensure!(
        third > before_ping,
        "nothing was redirected after the restart"
    );
    lab.network.spray(Spray::PerPacket)?;
    lab.bring_up(1)?;
    Ok(format!(
        "redirected {first} before, {second} with no agent, {third} after; {} pins kept",
        after.len()
    ))
}

/// Sends ESP to `other`; returns how many frames `owner` has received from it by now.
fn steer(lab: &Lab, owner: u8, other: u8) -> Result<u64> {
    lab.network
        .peer
        .ping(Some(site_host(0).into()), INSIDE_HOST.into(), 5, 1)?;
    // The counters are per CPU and read by a system call; nothing is in flight any more.
    std::thread::sleep(Duration::from_millis(50));
    received(lab, owner, other)
}

/// Frames that `owner` has received from `other`.
fn received(lab: &Lab, owner: u8, other: u8) -> Result<u64> {
    let stats = lab.cluster.member(owner.into())?.ask("stats")?;
    Ok(stats["members"][other.to_string()]["received"]["packets"]
        .as_u64()
        .unwrap_or(0))
}

/// Kernel ids of the pinned maps and links, by the pin's path below the node's BPF file system.
fn kernel_objects(node: &Node) -> Result<BTreeMap<String, u64>> {
    let root = node
        .bpf_dir()
        .context("a member without a BPF file system")?;
    let mut found = BTreeMap::new();
    for kind in ["map", "link"] {
        for pin in pins(root, &format!("{kind}s"))? {
            let path = pin.display().to_string();
            let text = command("bpftool", &["-j", kind, "show", "pinned", &path])?;
            let shown: Value = serde_json::from_str(&text).context("bpftool's answer")?;
            let id = shown["id"]
                .as_u64()
                .with_context(|| format!("no id in {text}"))?;
            found.insert(pin.strip_prefix(root)?.display().to_string(), id);
        }
    }
    Ok(found)
}

/// The files in every folder called `name` under `root`.
fn pins(root: &Path, name: &str) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if folder.file_name().is_some_and(|last| last == name) {
                found.push(path);
            }
        }
    }
    Ok(found)
}
