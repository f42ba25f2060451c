//! What copies cost in a real kernel.

use std::time::Instant;

use anyhow::{Result, ensure};
use gateway_ike::output::ChildSa;
use gateway_node::effect::Standing;
use gateway_user::xfrm::{CopyMove, Moved, Tunnels, Xfrm};

use super::pair::{PLAIN, Pair, ends};
use crate::scenario::Context;

const COUNT: u32 = 1_000;

/// Installs, moves, adopts and removes copies of [`COUNT`] children.
pub(in crate::scenario) fn rates(context: &Context) -> Result<String> {
    let pair = Pair::new(context, "xfrm-copy-rates")?;
    let open =
        || -> Result<Tunnels> { Ok(Tunnels::new(Box::new(pair.b.inside(|| Ok(Xfrm::open()?))?))) };
    let mut tunnels = open()?;
    let children: Vec<ChildSa> = (0..COUNT).map(child).collect();
    tunnels.install_copy(&children[0], at(0))?;
    tunnels.remove_child(children[0].id())?;

    let install = time(|| {
        children
            .iter()
            .try_for_each(|child| tunnels.install_copy(child, at(0)))
            .map_err(Into::into)
    })?;
    let moves = |to: u64| -> Vec<CopyMove> {
        children
            .iter()
            .map(|child| CopyMove {
                child: child.id(),
                slot: child.slot,
                standing: at(to),
            })
            .collect()
    };
    let mut moved = f64::INFINITY;
    for round in 1..=5 {
        let moves = moves(round * 16_384);
        moved = moved.min(time(|| {
            let done = tunnels.move_copies(&moves);
            ensure!(done.iter().all(|m| *m == Moved::Done), "not moved");
            Ok(())
        })?);
    }
    let mut out_only = moves(9 * 16_384);
    for to in &mut out_only {
        to.standing.sequence_in = 0;
    }
    let out_only = time(|| {
        tunnels.move_copies(&out_only);
        Ok(())
    })?;
    let mut tunnels = open()?;
    let adopt = time(|| {
        let found = tunnels.begin_adoption()?;
        ensure!(found == 2 * COUNT as usize, "{found} SAs");
        for child in &children {
            tunnels.install_copy(child, at(10 * 16_384))?;
        }
        let done = tunnels.finish_adoption()?;
        ensure!(
            (done.sas_deleted, done.policies_deleted) == (0, 0),
            "{done:?}"
        );
        Ok(())
    })?;
    let remove = time(|| {
        children
            .iter()
            .try_for_each(|child| tunnels.remove_child(child.id()))
            .map_err(Into::into)
    })?;
    Ok(format!(
        "per child, both directions: install {install:.0} µs, move {moved:.1} µs ({out_only:.1} µs \
         without inbound checkpoint), adopt {adopt:.0} µs, remove {remove:.0} µs"
    ))
}

fn at(sequence: u64) -> Standing {
    Standing {
        sequence_out: sequence,
        ceiling: sequence + 16_384,
        sequence_in: sequence,
    }
}

fn child(number: u32) -> ChildSa {
    let (mut child, _) = ends(PLAIN, 1);
    let [_, _, high, low] = number.to_be_bytes();
    child.name = format!("net-{number}");
    child.spi_in = [0xca, 1, high, low];
    child.spi_out = [0xcb, 1, high, low];
    child.remote_ts.truncate(1);
    child.local_ts.truncate(1);
    for (end, last) in [(0, 0), (1, 255)] {
        let network = [10, 100 + high, low, last].into();
        match end {
            0 => child.remote_ts[0].start = network,
            _ => child.remote_ts[0].end = network,
        }
    }
    child
}

/// µs per child.
fn time(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(COUNT))
}
