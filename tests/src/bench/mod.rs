//! `cargo xtask bench steering`: what the data path costs.
//!
//! Four kinds of figures, each from `BPF_PROG_TEST_RUN` in a network namespace of its own. Times
//! are the kernel's, taken around the program's runs: what setting up a run costs (two RCU grace
//! periods to patch the XDP dispatcher, for one) and turns of other processes are not in them.
//!
//! - *hot* (`…_ns`): one frame, run 200,000 times in one system call. Tables hold 65,536 entries,
//!   the entry looked up stays in the cache. Whole nanoseconds.
//! - *cold* (`…_ns_cold`): 65,536 frames, each with another random key, in random order, one
//!   system call each; the mean. It contains the kernel's two clock reads and an indirect call, as
//!   the empty program's does, and the misses on what the system call evicts from the cache in
//!   between: compare with `empty_ns_cold`, not with the hot figures.
//! - *fence*: as hot, over socket buffers that carry an SA's mark.
//! - *forwarding*: live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`) through the program and out of a
//!   veth whose far end counts and drops them in native XDP; delivered frames per second. The bare
//!   redirect sends the same frame the same way.
//!
//! All figures of a kind are taken in turn, round after round, so that a change of clock rate or
//! a busy neighbour meets all of them. Of times the smallest round counts (noise only adds) and the
//! median stands beside it; of rates the median counts. One thread, tied to one CPU.
//!
//! So that one frame can be run again and again, the member it is forwarded to has the frame's own
//! addresses: the program writes the twelve octets that already stand there. A frame that really
//! carried a marked source would take the "already forwarded" way the second time.

mod corner;
mod frames;
mod handshake;
mod measure;
mod operator;
mod report;
mod setup;
mod sync;

use std::path::Path;

use anyhow::{Context, Result};

pub use handshake::handshake;
pub use operator::operator;
pub use sync::sync;

/// Runs the bench, prints its table, and writes the report to `out`.
///
/// # Errors
/// No root, a kernel that refuses the programs, or a frame that did not take the way it should:
/// then the figures would mean something else.
pub fn steering(out: &Path) -> Result<()> {
    let report = corner::run(|corner| {
        let mut programs = setup::Programs::load(corner)?;
        measure::all(&mut programs)
    })?;
    print!("{report}");
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut text = serde_json::to_string_pretty(&report.to_json())?;
    text.push('\n');
    std::fs::write(out, text).with_context(|| out.display().to_string())
}
