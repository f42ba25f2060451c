//! The simulator notices when a safety mechanism is missing: a rule is broken in worlds in which all
//! rules hold with it.
//!
//! Whole clusters have not been seen to miss the check of incarnations: the storms of the membership,
//! which say more about who votes, do.

use gateway_node::sim::{Mechanism, Options, run};

/// Seeds that are tried.
const SEEDS: u64 = 400;

/// A rule of DESIGN §6 that is broken without the mechanism, in a world that keeps all of them with
/// it. That something does not come to an end is not enough.
fn broken(without: Mechanism, heavy: bool) -> Option<String> {
    (0..SEEDS).find_map(|seed| {
        let options = Options {
            seed,
            heavy,
            ..Options::default()
        };
        let mutant = Options {
            without: Some(without),
            ..options
        };
        let violation = run(mutant).violation?;
        let broken = violation.contains("invariant") && run(options).violation.is_none();
        broken.then(|| format!("seed {seed}: {violation}"))
    })
}

fn is_noticed(without: Mechanism, heavy: bool) {
    let broken = broken(without, heavy);
    assert!(broken.is_some(), "nobody misses {without:?}");
    // For whoever wants to see which rule: --nocapture.
    println!("without {}: {}", without.name(), broken.unwrap_or_default());
}

#[test]
fn the_end_of_a_lease() {
    is_noticed(Mechanism::Lease, false);
}

#[test]
fn that_a_lease_counts_from_its_sending() {
    is_noticed(Mechanism::SendTime, false);
}

#[test]
fn the_wait_before_activation() {
    is_noticed(Mechanism::ActivationWait, false);
}

#[test]
fn flush_and_ack() {
    is_noticed(Mechanism::FlushAndAck, false);
}

#[test]
fn levelling() {
    is_noticed(Mechanism::Levelling, false);
}

#[test]
fn the_ceiling() {
    is_noticed(Mechanism::Ceiling, true);
}

#[test]
fn blocks_of_their_own() {
    is_noticed(Mechanism::DisjointBlocks, false);
}

#[test]
fn the_order_of_blocks() {
    is_noticed(Mechanism::BlockOrder, false);
}

#[test]
fn the_full_sync_gate() {
    is_noticed(Mechanism::FullSyncGate, false);
}

#[test]
fn epochs_of_records() {
    is_noticed(Mechanism::EpochCheck, false);
}

#[test]
fn epochs_of_views() {
    is_noticed(Mechanism::ViewEpochCheck, false);
}
