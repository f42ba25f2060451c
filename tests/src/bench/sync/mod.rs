//! `cargo xtask bench sync`: what copying SAs costs, and taking them over.
//!
//! Real agents in the lab tell most of it ([`crate::scenario::LoadCost`]): handshakes with real
//! cryptography, the sync channel with its TLS, the steering's maps. Where the kernel has no ESP
//! nobody counts packets, so what a higher ceiling costs comes from the cores ([`group`]): three
//! members in one process, each a whole [`gateway_node::Node`], whose frames are handed over in
//! memory, octet for octet what the channel carries inside TLS. They also count the requests to the
//! new owner's kernel. Their cryptography is a toy.

mod group;
mod peers;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::group::Group;
use self::peers::Peers;
use crate::scenario::{self, LoadCost, load_costs};

/// SAs of the cores: their costs per SA are the same for any number.
const CORE_SAS: u32 = 1_000;

/// One size.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    load: LoadCost,
    /// From the cores.
    #[serde(flatten)]
    core: Core,
}

/// What the cores tell.
#[derive(Debug, Clone, Copy, Serialize)]
struct Core {
    /// Octets per CHILD_SA to tell one member of a higher ceiling.
    bytes_per_ceiling_raise: f64,
    /// Requests to the new owner's kernel during a takeover.
    takeover_kernel_requests: u64,
}

/// Measures these numbers of SAs, prints the rows, and writes them to `out`, one by one.
///
/// # Errors
/// A member did not do what it should: then the figures would mean something else.
pub fn sync(context: &scenario::Context, sizes: &[usize], out: &Path) -> Result<()> {
    let core = core(CORE_SAS).context("the cores")?;
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut rows = Vec::new();
    load_costs(context, sizes, |load| {
        let row = Row { load, core };
        println!("{}", serde_json::to_string(&row)?);
        rows.push(row);
        std::fs::write(out, serde_json::to_string_pretty(&rows)? + "\n")
            .with_context(|| out.display().to_string())
    })
}

fn core(size: u32) -> Result<Core> {
    let mut group = Group::new(3)?;
    let mut peers = Peers::new();
    // Member 1 owns all slots.
    group.connect(1, 2)?;
    group.connect(1, 3)?;
    group.connect(2, 3)?;
    // A view admits who has greeted the others.
    group.settle(|_| true)?;
    group.view(&[1, 2, 3])?;
    group
        .settle(|group| group.serves(1))
        .context("member 1 does not come to serve")?;
    for _ in 0..size {
        peers.establish(&mut group, 1)?;
    }
    group
        .settle(|group| group.known(2) == size as usize)
        .context("member 2 does not learn of all SAs")?;
    let bytes_per_ceiling_raise = raised(&mut group, &peers)?;
    group.lose(1);
    let requests = group.kernel_requests(2);
    group.view(&[2, 3])?;
    group
        .settle(|group| group.serves(2))
        .context("member 2 does not come to serve")?;
    let takeover_kernel_requests = group.kernel_requests(2) - requests;
    peers.ask_first(&mut group, 2)?;
    Ok(Core {
        bytes_per_ceiling_raise,
        takeover_kernel_requests,
    })
}

/// Tells the owner that every outbound SA has come to half of what it may count; returns the octets
/// per SA that went to one other member.
fn raised(group: &mut Group, peers: &Peers) -> Result<f64> {
    let children = group.children(1);
    ensure!(
        children.len() >= peers.count(),
        "{} children",
        children.len()
    );
    let before = group.octets(1, 2);
    for child in &children {
        group.has_sent(1, *child, 9_000)?;
    }
    group.pass(Duration::from_secs(1))?;
    let octets = group.octets(1, 2) - before;
    Ok((octets as f64 / children.len() as f64 * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raise_is_small_and_a_takeover_touches_no_sa() {
        let core = core(40).unwrap();
        println!("{core:?}");
        assert!(core.bytes_per_ceiling_raise > 0.0, "{core:?}");
        assert!(core.bytes_per_ceiling_raise <= 64.0, "{core:?}");
        assert_eq!(core.takeover_kernel_requests, 0, "{core:?}");
    }
}
