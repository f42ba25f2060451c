//! What kind of world a seed makes.

use std::time::Duration;

use gateway_cluster::membership::Timing;

use super::rng::Rng;

/// The shape of a world.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) members: u8,
    pub(super) peers: u8,
    /// Faults happen in this time, …
    pub(super) trouble: Duration,
    pub(super) faults: u64,
    /// … and this long after the last one has healed everything must have converged.
    pub(super) patience: Duration,
    pub(super) timing: Timing,
    pub(super) witness: bool,
    pub(super) availability: bool,
    /// Loss between peers and members, in percent.
    pub(super) loss: u64,
    pub(super) duplication: u64,
    /// Loss of heartbeats, in percent.
    pub(super) heartbeat_loss: u64,
    /// One way, at most.
    pub(super) delay: Duration,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let members = match rng.below(100) {
            0..4 => 1,
            4..24 => 2,
            24..68 => 3,
            68..94 => 4,
            94..98 => 5,
            98 => 8,
            _ => 16,
        };
        let small = members <= 5;
        let two = members == 2;
        let witness = members % 2 == 0 && rng.percent(if two { 60 } else { 20 });
        Self {
            members,
            peers: if small { rng.between(1, 3) as u8 } else { 2 },
            trouble: Duration::from_secs(if small { 6 } else { 2 }),
            faults: rng.between(1, if small { 5 } else { 2 }),
            patience: Duration::from_secs(20),
            timing: Timing {
                cold_start: Duration::from_millis(700),
                ..Timing::DEFAULT
            },
            witness,
            availability: false,
            loss: rng.pick(&[0, 0, 2, 10, 25]).unwrap_or(0),
            duplication: rng.pick(&[0, 0, 5, 20]).unwrap_or(0),
            heartbeat_loss: rng.pick(&[0, 0, 0, 1, 5]).unwrap_or(0),
            delay: Duration::from_micros(rng.pick(&[300, 2_000, 8_000]).unwrap_or(300)),
        }
    }

    /// With two members whom nobody helps to decide, and who go on alone.
    pub(super) fn of_halves(self) -> Self {
        Self {
            members: 2,
            witness: false,
            availability: true,
            faults: self.faults.max(3),
            trouble: Duration::from_secs(6),
            ..self
        }
    }

    /// With three members whom nobody helps to decide, and no other trouble than what is staged.
    pub(super) fn of_three(self) -> Self {
        Self {
            members: 3,
            witness: false,
            faults: 0,
            trouble: Duration::from_secs(6),
            ..self
        }
    }
}
