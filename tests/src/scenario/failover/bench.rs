//! The rows of `cargo xtask bench failover`.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::super::Context;
use super::judge::{Hit, Outcome};
use super::rig::Rig;
use super::{stock, struck, wishes};
use crate::lab::{Fault, Timing};

/// One row: who, how configured, on what, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `gateway`, or what it is compared with.
    pub system: &'static str,
    /// How soon the system judges.
    pub profile: &'static str,
    /// Who did ESP: `native` (the running kernel, or user space where noted in `system`), `vm`, or
    /// `synthetic`: stand-ins without cryptography.
    pub esp: &'static str,
    /// What was measured.
    #[serde(flatten)]
    pub outcome: Outcome,
}

const FAULTS: [Fault; 5] = [
    Fault::Sigkill,
    Fault::Sigstop,
    Fault::MemberRemoved,
    Fault::Drain,
    Fault::Upgrade,
];

/// Measures every fault in both profiles, and what it is compared with, in the same lab under the
/// same traffic. `vm` says that the machine is emulated: then the fast profile, which asks for a
/// punctual machine, is left out. `only` names one of
/// the systems. Each row is handed to `take` as soon as it is there.
///
/// # Errors
/// A lab cannot be built, or nobody took over. A cost that is too high is a figure, not an error.
pub fn rows(
    context: &Context,
    vm: bool,
    only: Option<&str>,
    mut take: impl FnMut(Row) -> Result<()>,
) -> Result<()> {
    let wanted = |system: &str| only.is_none_or(|only| only == system);
    let esp = match (context.kernel_esp, vm) {
        (true, true) => "vm",
        (true, false) => "native",
        (false, _) => "synthetic",
    };
    let profiles: &[Timing] = if vm {
        &[Timing::usual()]
    } else {
        &[Timing::usual(), Timing::fast()]
    };
    for timing in profiles.iter().filter(|_| wanted("gateway")) {
        for fault in FAULTS {
            let name = format!("bench-{}-{fault}", timing.profile);
            let outcome = measured(context, &name, fault, *timing)?;
            take(Row {
                system: "gateway",
                profile: timing.profile,
                esp,
                outcome,
            })?;
        }
    }
    if !wanted("strongswan") {
        return Ok(());
    }
    let esp = if vm { "vm" } else { "native" };
    for pace in &stock::PACES {
        take(Row {
            system: stock::SYSTEM,
            profile: pace.profile,
            esp,
            outcome: stock::renegotiating(context, pace)?,
        })?;
    }
    Ok(())
}

/// One fault, not healed.
fn measured(context: &Context, name: &str, fault: Fault, timing: Timing) -> Result<Outcome> {
    let mut rig = Rig::start(context, name, &wishes(fault, timing))?;
    let (victim, at) = struck(&mut rig, fault)?;
    rig.go_on(Duration::from_secs(2));
    let record = rig.finish()?;
    let hit = Hit {
        fault,
        victim,
        at,
        moves: 1,
    };
    Outcome::of(&rig, hit, &record)
}
