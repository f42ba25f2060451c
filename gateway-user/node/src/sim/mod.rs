//! The deterministic simulator: clusters of real [`crate::Node`]s and memberships with modelled
//! kernels, networks and peers, faults by seed, and the invariants after every event ([`check`]).
//!
//! ```sh
//! cargo run -p gateway-node --release --features simulator --bin simulate -- --seeds 0..1000
//! cargo run -p gateway-node --release --features simulator --bin simulate -- --seed 17 --trace
//! ```

mod agent;
mod check;
mod config;
mod deliver;
mod end;
mod esp;
mod event;
mod faults;
mod fence;
mod handshake;
mod host;
mod junk;
mod kernel;
mod mechanism;
mod net;
mod peer;
mod peer_acts;
mod plan;
mod rng;
#[cfg(test)]
mod scenes;
mod witness;
mod world;

use std::time::Duration;

pub use self::mechanism::Mechanism;
use self::world::World;

/// What to simulate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Decides about everything.
    pub seed: u64,
    /// Prints what happens.
    pub trace: bool,
    /// Nothing fails.
    pub quiet: bool,
    /// Traffic uses up sequence numbers as fast as ceilings rise.
    pub heavy: bool,
    /// Three members, of which one changes sides and starts anew, time and again.
    pub sides: bool,
    /// Two members without a witness, of which each goes on when it does not find the other.
    pub halves: bool,
    /// Three members that rekey CHILD_SAs under traffic, and fail while they do.
    pub rekeys: bool,
    /// All members run without it.
    pub without: Option<Mechanism>,
}

/// How a simulation ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was simulated.
    pub options: Options,
    /// The first rule that was broken, if any.
    pub violation: Option<String>,
    /// Number of events.
    pub events: u64,
    /// IKE messages that left members.
    pub ike_sent: u64,
    /// ESP packets that left members.
    pub esp_sent: u64,
    /// From the end of the last fault until everything had converged, in simulated time.
    pub settled_after: Duration,
}

impl Outcome {
    /// The command that shows what happened.
    pub fn replay(&self) -> String {
        let Options {
            seed,
            quiet,
            heavy,
            sides,
            halves,
            rekeys,
            without,
            ..
        } = self.options;
        let quiet = if quiet { " --quiet" } else { "" };
        let heavy = if heavy { " --heavy" } else { "" };
        let sides = if sides { " --sides" } else { "" };
        let halves = if halves { " --halves" } else { "" };
        let rekeys = if rekeys { " --rekeys" } else { "" };
        let without = without.map_or(String::new(), |m| format!(" --without {}", m.name()));
        format!(
            "cargo run -p gateway-node --release --features simulator --bin simulate -- --seed \
             {seed} --trace{quiet}{heavy}{sides}{halves}{rekeys}{without}"
        )
    }
}

/// Runs one world to its end or to the first violation.
pub fn run(options: Options) -> Outcome {
    let mut world = World::new(options);
    world.trace_plan();
    let trouble = world.now + Duration::from_millis(2000) + world.plan.trouble;
    world.run_until(trouble);
    world.heal();
    let healed = world.now;
    let deadline = healed + world.plan.patience;
    let step = Duration::from_millis(200);
    loop {
        let next = world.now + step;
        world.run_until(next);
        if world.check.violation.is_some() {
            break;
        }
        match world.unsettled() {
            None => break,
            Some(why) if world.now >= deadline => {
                world.check.fail(format!("not settled in the end: {why}"));
                break;
            }
            Some(_) => {}
        }
    }
    world.check_peers();
    if let Some(violation) = &world.check.violation {
        world.trace(|| format!("VIOLATION {violation}"));
    }
    Outcome {
        options,
        violation: world.check.violation.clone(),
        events: world.events,
        ike_sent: world.check.ike_sent,
        esp_sent: world.check.esp_sent,
        settled_after: world.now - healed,
    }
}

impl World {
    fn trace_plan(&self) {
        self.trace(|| format!("seed {} {:?}", self.seed, self.plan));
    }
}
