//! What copies cost in a real kernel.

use std::time::Instant;

use anyhow::{Result, ensure};
use gateway_ike::output::ChildSa;
use gateway_node::effect::Standing;
use gateway_user::xfrm::{CopyMove, Moved, Request, SaId, Tunnels, Xfrm};

use super::pair::{PLAIN, Pair, ends};
use crate::scenario::Context;

const COUNT: u32 = 500;
const ROUNDS: u64 = 4;

/// µs per child.
#[derive(Clone, Copy)]
struct Costs {
    nothing: f64,
    install: f64,
    moved: f64,
    out_only: f64,
    adopt: f64,
    remove: f64,
}

/// Installs, moves, adopts and removes copies of [`COUNT`] children, [`ROUNDS`] times, and reports each
/// cost's best round: other work on the machine only ever adds.
pub(in crate::scenario) fn rates(context: &Context) -> Result<String> {
    let pair = Pair::new(context, "xfrm-copy-rates")?;
    let children: Vec<ChildSa> = (0..COUNT).map(child).collect();
    let mut best = round(&pair, &children)?;
    for _ in 1..ROUNDS {
        let costs = round(&pair, &children)?;
        best = Costs {
            nothing: best.nothing.min(costs.nothing),
            install: best.install.min(costs.install),
            moved: best.moved.min(costs.moved),
            out_only: best.out_only.min(costs.out_only),
            adopt: best.adopt.min(costs.adopt),
            remove: best.remove.min(costs.remove),
        };
    }
    let times = |cost: f64| format!("{cost:.1} µs ({:.1} x)", cost / best.nothing);
    Ok(format!(
        "per child, both directions and policies: no-op request {:.1} µs, install {}, move {} (without \
         inbound checkpoint {}), adopt {}, remove {}",
        best.nothing,
        times(best.install),
        times(best.moved),
        times(best.out_only),
        times(best.adopt),
        times(best.remove)
    ))
}

fn round(pair: &Pair, children: &[ChildSa]) -> Result<Costs> {
    let open = || -> Result<Tunnels> {
        let kernel = pair.b.inside(|| Ok(Xfrm::open()?))?;
        Ok(Tunnels::new(Box::new(kernel)))
    };
    let mut tunnels = open()?;
    let ids: Vec<SaId> = children.iter().map(sa_out).collect();
    let deletions: Vec<Request<'_>> = ids.iter().map(Request::DeleteSa).collect();
    let nothing = time(|| {
        tunnels.kernel().apply(&deletions);
        Ok(())
    })?;
    let install = time(|| install_all(&mut tunnels, children, 0))?;
    let moved = time(|| moves(&mut tunnels, children, at(16_384)))?;
    let out_only = Standing {
        sequence_in: 0,
        ..at(32_768)
    };
    let out_only = time(|| moves(&mut tunnels, children, out_only))?;
    let mut tunnels = open()?;
    let policies = tunnels.kernel().dump_policies()?.len();
    let adopt = time(|| {
        let found = tunnels.begin_adoption()?;
        ensure!(found == 2 * COUNT as usize, "{found} SAs");
        install_all(&mut tunnels, children, 49_152)?;
        let removed = super::finish_adoption(&mut tunnels)?;
        ensure!(removed == 0, "{removed} SAs removed");
        Ok(())
    })?;
    let kept = tunnels.kernel().dump_policies()?.len();
    ensure!(kept == policies, "{kept} of {policies} policies kept");
    let remove = time(|| {
        for child in children {
            tunnels.remove_child(child.id())?;
        }
        Ok(())
    })?;
    Ok(Costs {
        nothing,
        install,
        moved,
        out_only,
        adopt,
        remove,
    })
}

fn install_all(tunnels: &mut Tunnels, children: &[ChildSa], sequence: u64) -> Result<()> {
    for child in children {
        tunnels.install_copy(child, at(sequence))?;
    }
    Ok(())
}

fn moves(tunnels: &mut Tunnels, children: &[ChildSa], standing: Standing) -> Result<()> {
    let to = |child: &ChildSa| CopyMove {
        child: child.id(),
        slot: child.slot,
        standing,
    };
    let moves: Vec<CopyMove> = children.iter().map(to).collect();
    let done = tunnels.move_copies(&moves);
    ensure!(done.iter().all(|moved| *moved == Moved::Done), "not moved");
    Ok(())
}

fn sa_out(child: &ChildSa) -> SaId {
    SaId::new(child.spi_out, child.remote)
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
