//! `cargo xtask bench sync`: what copying SAs costs, and taking them over.
//!
//! Three members in one process, each a whole [`gateway_node::Node`]: engine and cluster core. Their
//! frames are handed over in memory, octet for octet what the sync channel carries inside TLS, and
//! one thread carries out one member's work at a time, so seconds are processor seconds of all
//! members together. Requests to kernels are acknowledged at once, as the recording back end does.
//! The cryptography of the handshakes is a toy: it is not what is measured, and a hundred thousand
//! real ones would take minutes.

mod group;
mod peers;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::group::Group;
use self::peers::Peers;

const SIZES: [u32; 3] = [1_000, 10_000, 100_000];

/// One size.
#[derive(Debug, Serialize)]
struct Row {
    /// Pairs of IKE SA and CHILD_SA that the joining member was given.
    full_sync_sas: u32,
    /// Until it had all of them.
    full_sync_seconds: f64,
    /// Octets of a pair's delta to one member.
    bytes_per_sa: f64,
    /// Octets of a pair in a snapshot.
    snapshot_bytes_per_sa: f64,
    /// Octets per CHILD_SA to tell one member of a higher ceiling; 0 if nothing was told.
    bytes_per_ceiling_raise: f64,
    /// From the new view to serving it, for all SAs at once.
    takeover_ms: f64,
    /// Until the new owner had answered the first peer, whose SA it had to wake.
    first_answer_ms: f64,
    /// Requests to the new owner's kernel during the takeover.
    takeover_kernel_requests: u64,
}

/// Runs the bench, prints its rows, and writes them to `out`.
///
/// # Errors
/// A member did not do what it should: then the figures would mean something else.
pub fn sync(out: &Path) -> Result<()> {
    let mut rows = Vec::new();
    for size in SIZES {
        let row = measured(size).with_context(|| format!("{size} SAs"))?;
        println!("{}", serde_json::to_string(&row)?);
        rows.push(row);
        if let Some(folder) = out.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::write(out, serde_json::to_string_pretty(&rows)? + "\n")
            .with_context(|| out.display().to_string())?;
    }
    Ok(())
}

fn measured(size: u32) -> Result<Row> {
    let mut group = Group::new(3)?;
    let mut peers = Peers::new();
    // Members 1 and 2 are a view, of which member 1 owns all slots; member 3 has yet to come.
    group.connect(1, 2)?;
    group.view(&[1, 2])?;
    group.settle(|group| group.serves(1))?;
    let before = group.octets(1, 2);
    for _ in 0..size {
        peers.establish(&mut group, 1)?;
    }
    group.settle(|group| group.known(2) == size as usize)?;
    let deltas = group.octets(1, 2) - before;

    let before = group.octets_to(3);
    let start = Instant::now();
    group.connect(1, 3)?;
    group.connect(2, 3)?;
    group.settle(|group| group.is_complete(3, &[1, 2]))?;
    let full_sync = start.elapsed();
    let snapshot = group.octets_to(3) - before;
    ensure!(
        group.known(3) == size as usize,
        "{} of {size} SAs arrived",
        group.known(3)
    );

    let raise = raised(&mut group, &peers)?;

    group.view(&[1, 2, 3])?;
    group.settle(|group| group.serves(1))?;
    group.lose(1);
    let requests = group.kernel_requests(2);
    let start = Instant::now();
    group.view(&[2, 3])?;
    group.settle(|group| group.serves(2))?;
    let takeover = start.elapsed();
    let requests = group.kernel_requests(2) - requests;
    peers.ask_first(&mut group, 2)?;
    let first_answer = start.elapsed();
    let each = |octets: u64| (octets as f64 / f64::from(size)).round();
    Ok(Row {
        full_sync_sas: size,
        full_sync_seconds: (full_sync.as_secs_f64() * 1e4).round() / 1e4,
        bytes_per_sa: each(deltas),
        snapshot_bytes_per_sa: each(snapshot),
        bytes_per_ceiling_raise: raise,
        takeover_ms: milliseconds(takeover),
        first_answer_ms: milliseconds(first_answer),
        takeover_kernel_requests: requests,
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
    group.settle(|_| true)?;
    let octets = group.octets(1, 2) - before;
    Ok((octets as f64 / children.len() as f64 * 10.0).round() / 10.0)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "nightly: a bench in small"]
    fn a_small_cluster_is_measured_whole() {
        let row = measured(40).unwrap();
        assert_eq!(row.full_sync_sas, 40);
        assert!(
            row.bytes_per_sa > 200.0 && row.bytes_per_sa < 4000.0,
            "{row:?}"
        );
        assert!(row.snapshot_bytes_per_sa > 200.0, "{row:?}");
        assert_eq!(
            row.takeover_kernel_requests, 0,
            "a takeover touches no SA: {row:?}"
        );
    }
}
