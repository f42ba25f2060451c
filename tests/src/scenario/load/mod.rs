//! Many SAs: what it costs to copy them to a member that joins, and to take them over.
//!
//! Real agents, real handshakes, the real sync channel; only the kernel's SAs are recorded instead of
//! installed, whatever this kernel can do, and nobody sends ESP. HA mode, so that one member owns
//! everything and another takes everything over.

mod cost;
mod crowded;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use cost::{Cost, MIB};
use crowded::Crowded;

pub use cost::Cost as LoadCost;

/// Measures these numbers of SAs, each above the last, and hands each row over as soon as it is
/// there.
///
/// # Errors
/// A lab cannot be built, or a member did not do what it should.
pub fn costs(
    context: &Context,
    sizes: &[usize],
    mut take: impl FnMut(Cost) -> Result<()>,
) -> Result<()> {
    let mut crowded = Crowded::start(context, "bench-sync")?;
    for size in sizes {
        let cost = crowded
            .measure(*size)
            .with_context(|| format!("{size} SAs"))?;
        take(cost)?;
    }
    Ok(())
}

/// A thousand: gating.
pub(super) fn thousand(context: &Context) -> Result<String> {
    held(context, "load-1000", 1_000)
}

/// A hundred thousand: nightly.
pub(super) fn hundred_thousand(context: &Context) -> Result<String> {
    held(context, "load-100000", 100_000)
}

/// One size, and what must hold at any.
fn held(context: &Context, name: &str, size: usize) -> Result<String> {
    let mut crowded = Crowded::start(context, name)?;
    let cost = crowded.measure(size)?;
    let brief = cost.brief();
    let lost = crowded.lost();
    ensure!(
        cost.longest_heartbeat_pause_ms < lost.as_secs_f64() * 1e3 / 2.0,
        "heartbeats came late during the full sync: {brief}"
    );
    ensure!(
        cost.freezes == 0 && cost.views == 1,
        "only the joining changes the view: {brief}"
    );
    ensure!(
        cost.unanswered == 0,
        "exchanges got lost during the full sync: {brief}"
    );
    ensure!(cost.lost_ike_sas == 0, "IKE SAs were lost: {brief}");
    // A snapshot is made as it is sent: what it takes beside the records does not grow with them.
    ensure!(
        cost.sender_growth_bytes < 64 * MIB,
        "the full sync is held in memory: {brief}"
    );
    ensure!(
        cost.bytes_per_sa <= 1536.0,
        "more than 1.5 KB per SA: {brief}"
    );
    Ok(brief)
}
