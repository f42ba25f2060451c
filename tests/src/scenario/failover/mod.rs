//! Members that die, hang, are cut off or are taken out of service while tunnels carry traffic.
//!
//! With ESP in the kernel the traffic is real. Without, stand-ins carry it ([`crate::lab::StandIn`]):
//! the same faults then show steering, fence, membership and IKE at the machine's own speed.

mod bench;
mod ha;
mod judge;
mod rig;
mod stock;
mod two;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::harness::Wishes;
use crate::lab::{Fault, Moment, Plan, Push, Timing, probe_interval, wait_until};
use judge::milliseconds;
use rig::{Record, plan};

pub use bench::{Row, rows};
pub(super) use ha::addresses_move;
pub(super) use judge::Hit;
pub use judge::Outcome;
pub(super) use rig::Rig;
pub(super) use two::{agent_dies, availability, fast, split, witness};

macro_rules! scenarios {
    ($($name:ident $fault:ident,)+) => {$(
        #[doc = concat!("`", stringify!($fault), "` under traffic.")]
        pub(super) fn $name(context: &Context) -> Result<String> {
            let fault = Fault::$fault;
            let name = format!("{}-{fault}", prefix(context));
            Ok(one_with(context, &name, fault, Timing::usual())?.brief())
        }
    )+};
}

scenarios! {
    sigkill Sigkill,
    drain Drain,
    member_removed MemberRemoved,
    sync_cut SyncCut,
    public_cut PublicCut,
    upgrade Upgrade,
    two_in_a_row TwoInARow,
    replaced Replaced,
    isolated Isolated,
    deaf Deaf,
    mute Mute,
}

/// How the scenarios are called, by who carries the traffic.
fn prefix(context: &Context) -> &'static str {
    if context.kernel_esp {
        "failover"
    } else {
        "takeover"
    }
}

/// One fault of the member that owns most, with traffic before, during and after it; then the
/// member comes back, with real traffic still running.
fn one_with(context: &Context, name: &str, fault: Fault, timing: Timing) -> Result<Outcome> {
    let mut rig = Rig::start(context, name, &wishes(fault, timing))?;
    let (victim, at) = struck(&mut rig, fault)?;
    let next = if fault.is_double() {
        let next = rig.lab.owners_of(&rig.sites_of(victim))?;
        rig.hit(fault, next, &[victim])?;
        Some(next)
    } else {
        None
    };
    rig.go_on(Duration::from_secs(2));
    let moves = if fault.is_double() { 4 } else { 2 };
    let hit = Hit {
        fault,
        victim,
        at,
        moves,
    };
    let outcome = judged(rig, hit, next)?.0;
    Ok(outcome)
}

/// Traffic flows, and the member that owns most is hit.
fn struck(rig: &mut Rig, fault: Fault) -> Result<(u8, Moment)> {
    rig.start_traffic()?;
    let victim = rig.busiest()?;
    Ok((victim, rig.hit(fault, victim, &[])?))
}

fn wishes(fault: Fault, timing: Timing) -> Wishes {
    // Of four, two in a row may go and leave a majority of the view each time.
    let members = if fault.is_double() { 4 } else { 3 };
    Wishes {
        plan: Plan { members, ..plan() },
        timing: Some(timing),
        mixed: true,
        ..Wishes::default()
    }
}

/// Heals, ends traffic and captures and judges. Stand-ins know nothing of what agents change when
/// a member comes back, so their traffic ends before.
fn judged(mut rig: Rig, hit: Hit, second: Option<u8>) -> Result<(Outcome, Record)> {
    let early = if rig.lab.kernel_esp {
        None
    } else {
        Some(rig.finish()?)
    };
    let healed = Moment::now();
    for victim in second.into_iter().chain([hit.victim]) {
        heal(&mut rig, hit.fault, victim)?;
    }
    rig.wait_whole().with_context(|| {
        format!(
            "member {} does not come back after {}",
            hit.victim, hit.fault
        )
    })?;
    rig.one_owner_each(hit)?;
    rig.agents_tell_what_was_counted()?;
    rig.go_on(Duration::from_secs(1));
    let record = match early {
        Some(record) => record,
        None => rig.finish()?,
    };
    let outcome = Outcome::of(&rig, hit, &record)?;
    outcome.require(hit, &record)?;
    if hit.fault.ends_the_lease() {
        nothing_after_the_lease(&rig, hit, healed, &record)?;
    }
    exchanges_go_on(&rig, hit.victim)?;
    Ok((outcome, record))
}

/// Between the end of its lease and its healing nothing left the victim.
fn nothing_after_the_lease(rig: &Rig, hit: Hit, healed: Moment, record: &Record) -> Result<()> {
    let end = hit.at.plus(rig.lab.cluster.timing.lease_bound());
    let (late, last) = record.evidence.sent_between(hit.victim, end, healed);
    ensure!(
        late == 0,
        "member {} sent {late} packets after its lease, the last {:?} ms after {}",
        hit.victim,
        last.map(|last| milliseconds(last.since(hit.at))),
        hit.fault
    );
    Ok(())
}

/// The victim becomes whole.
fn heal(rig: &mut Rig, fault: Fault, victim: u8) -> Result<()> {
    let lab = &mut rig.lab;
    fault.heal(&mut lab.cluster, &mut lab.network, &lab.run, victim, 1)?;
    if matches!(fault, Fault::Replaced | Fault::MemberRemoved) {
        rig.tap(victim)?;
    }
    Ok(())
}

/// The SAs that moved still do IKE: the peer rekeys their children, and nobody begins anew.
fn exchanges_go_on(rig: &Rig, victim: u8) -> Result<()> {
    let sites = rig.sites_of(victim);
    let few = if rig.lab.kernel_esp { 3 } else { sites.len() }.min(sites.len());
    let before = rig.lab.peer.rekeyed_children();
    for site in sites.iter().take(few) {
        let name = format!("site-{}", site + 1);
        rig.lab
            .peer
            .swanctl(&["--rekey", "--child", "net", "--ike", &name])
            .with_context(|| format!("rekeying {name} after the takeover"))?;
    }
    let what = format!("{few} children to be rekeyed");
    wait_until(Duration::from_secs(15), &what, || {
        let rekeyed = rig.lab.peer.rekeyed_children() - before;
        Ok(rekeyed >= few && rig.lab.peer.installed()? == usize::from(rig.sites))
    })
}

/// A member stops without dying while traffic from the inside goes on entering it: it sends nothing
/// after its lease. Woken up again it does no harm.
pub(super) fn sigstop(context: &Context) -> Result<String> {
    let fault = Fault::Sigstop;
    let name = format!("{}-{fault}", prefix(context));
    let mut rig = Rig::start(context, &name, &wishes(fault, Timing::usual()))?;
    let victim = rig.busiest()?;
    let push = Push::start(&rig.lab.network, victim, rig.sites, 2 * probe_interval())?;
    rig.start_traffic()?;
    let at = rig.hit(fault, victim, &[])?;
    let before = push.sent();
    rig.go_on(Duration::from_secs(2));
    let pushed = push.sent() - before;
    let dropped = rig.fence_drops(victim, "fence_lease_over")?;
    let lease = rig.lab.cluster.timing.lease_bound();
    let hit = Hit {
        fault,
        victim,
        at,
        moves: 2,
    };
    let (outcome, _) = judged(rig, hit, None)?;
    drop(push);
    ensure!(
        pushed > 0 && dropped > 0,
        "{pushed} packets entered the stopped member, {dropped} met its fence after the lease"
    );
    Ok(format!(
        "{pushed} packets entered the stopped member, {dropped} met its fence after the lease of {} ms, none left; {}",
        lease.as_millis(),
        outcome.brief()
    ))
}
