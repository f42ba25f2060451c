//! The simulator notices when a safety mechanism is missing: a rule is broken in worlds in which all
//! rules hold with it.

use gateway_node::sim::{Mechanism, Options, run};

/// Seeds that are tried.
const SEEDS: u64 = 400;

/// A rule of DESIGN §6 that is broken without the mechanism, in a world that keeps all of them with
/// it. That something does not come to an end is not enough.
fn broken(without: Mechanism, world: Options) -> Option<String> {
    (0..SEEDS).find_map(|seed| {
        let options = Options { seed, ..world };
        let mutant = Options {
            without: Some(without),
            ..options
        };
        let violation = run(mutant).violation?;
        let broken = violation.contains("invariant") && run(options).violation.is_none();
        broken.then(|| format!("seed {seed}: {violation}"))
    })
}

fn is_noticed(without: Mechanism) {
    is_noticed_in(without, Options::default());
}

fn is_noticed_in(without: Mechanism, world: Options) {
    let broken = broken(without, world);
    assert!(broken.is_some(), "nobody misses {without:?}");
    // For whoever wants to see which rule: --nocapture.
    println!("without {}: {}", without.name(), broken.unwrap_or_default());
}

#[test]
fn the_end_of_a_lease() {
    is_noticed(Mechanism::Lease);
}

#[test]
fn that_a_lease_counts_from_its_sending() {
    is_noticed(Mechanism::SendTime);
}

#[test]
fn the_wait_before_activation() {
    is_noticed(Mechanism::ActivationWait);
}

#[test]
fn flush_and_ack() {
    is_noticed(Mechanism::FlushAndAck);
}

#[test]
fn levelling() {
    is_noticed(Mechanism::Levelling);
}

#[test]
fn the_ceiling() {
    let world = Options {
        heavy: true,
        ..Options::default()
    };
    is_noticed_in(Mechanism::Ceiling, world);
}

#[test]
fn blocks_of_their_own() {
    is_noticed(Mechanism::DisjointBlocks);
}

#[test]
fn the_order_of_blocks() {
    is_noticed(Mechanism::BlockOrder);
}

#[test]
fn the_full_sync_gate() {
    is_noticed(Mechanism::FullSyncGate);
}

#[test]
fn epochs_of_records() {
    is_noticed(Mechanism::EpochCheck);
}

#[test]
fn epochs_of_views() {
    is_noticed(Mechanism::ViewEpochCheck);
}

#[test]
fn that_a_new_run_is_a_new_member() {
    let world = Options {
        sides: true,
        ..Options::default()
    };
    is_noticed_in(Mechanism::Incarnation, world);
}

#[test]
fn that_half_of_a_view_jumps() {
    let world = Options {
        halves: true,
        ..Options::default()
    };
    is_noticed_in(Mechanism::Jump, world);
}

#[test]
fn that_a_new_sa_waits_until_all_know_it() {
    let world = Options {
        rekeys: true,
        ..Options::default()
    };
    is_noticed_in(Mechanism::FirstNumbers, world);
}

#[test]
fn that_each_run_of_each_member_has_its_own_ivs() {
    let world = Options {
        halves: true,
        ..Options::default()
    };
    is_noticed_in(Mechanism::IvPrefix, world);
}
