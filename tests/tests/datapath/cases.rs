//! Every case of the packet logic, in the kernel: verdict, octets, counters.

use std::collections::BTreeMap;

use gateway_common::abi::{map, size};
use gateway_common::model::ModelTables;
use gateway_common::model::cases::{Case, all, world};
use gateway_common::reason::{Action, Program};

use crate::kernel::{Kernel, Outcome, Skb, expected_stats, is_root};

/// `PEER_STATS` after one case.
fn expected_peer_stats(case: &Case) -> BTreeMap<u32, (u64, u64)> {
    let octets = case.frame.len() as u64;
    let index = match (case.program, case.reason.action()) {
        (_, Action::Forward) => case.member,
        (Program::Sync, Action::Pass) if case.member != 0 => size::MEMBERS + case.member,
        _ => return BTreeMap::new(),
    };
    BTreeMap::from([(index, (1, octets))])
}

#[test]
fn every_case_ends_in_the_kernel_as_on_the_host() {
    if !is_root("the cases in the kernel") {
        return;
    }
    let tables = world();
    let mut kernel = Kernel::load(&tables);
    run_all(&mut kernel, &tables);
    kernel.forget_few_vips();
    run_all(&mut kernel, &tables);
    run_all(&mut Kernel::load_as_on_old_kernels(&tables), &tables);
}

fn run_all(kernel: &mut Kernel, tables: &ModelTables) {
    let cases = all();
    for case in &cases {
        kernel.settings(case.settings.unwrap_or(tables.settings));
        kernel.lease(case.lease.unwrap_or(tables.lease));
        kernel.reset_counters();
        let skb = Skb {
            mark: case.mark,
            segments: case.segments,
            size: 0,
        };
        let name = format!("{:?}: {}", case.program, case.name);
        let expected = Outcome {
            action: case.reason.action(),
            frame: case.output(),
        };
        assert_eq!(
            kernel.run(case.program, &case.frame, skb),
            expected,
            "{name}"
        );
        let stats = expected_stats([(case.reason, case.frame.as_slice())].into_iter());
        assert_eq!(
            kernel.counters(map::STATS),
            stats,
            "{name}: {}",
            case.reason
        );
        let peers = expected_peer_stats(case);
        assert_eq!(kernel.counters(map::PEER_STATS), peers, "{name}: peers");
    }
    kernel.settings(tables.settings);
    kernel.lease(tables.lease);
    kernel.assert_unchanged(tables);
    assert!(cases.len() > 150, "only {} cases", cases.len());
}

/// A packet of the fence's cases that leaves, and its mark.
fn leaving(name: &str) -> (Vec<u8>, Skb) {
    let case = all().into_iter().find(|case| case.name == name);
    let case = case.expect("there is such a case");
    let skb = Skb {
        mark: case.mark,
        ..Skb::default()
    };
    (case.frame, skb)
}

/// The clock of `LEASE`, in nanoseconds.
fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: time is live for the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    assert_eq!(result, 0);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[test]
fn a_lease_ends_by_itself() {
    if !is_root("the lease in the kernel") {
        return;
    }
    let mut kernel = Kernel::load(&world());
    let (frame, skb) = leaving("keepalive, own slot");
    let mut leaves = |until: u64| {
        kernel.lease(until);
        kernel.run(Program::Egress, &frame, skb).action == Action::Pass
    };
    assert!(leaves(now_ns() + 3_600_000_000_000));
    assert!(!leaves(now_ns()));
    // The coarse clock may be up to a tick behind: a lease that ended within it is over all the
    // same, so the next call must see the end whatever the tick.
    for _ in 0..200 {
        assert!(!leaves(now_ns()));
    }
    let until = now_ns() + 20_000_000;
    while now_ns() < until {
        // Whether it still leaves here depends on who is faster; afterwards nothing does.
        leaves(until);
    }
    assert!(!leaves(until));
}

#[test]
fn segments_that_the_kernel_has_not_counted_are_bounded() {
    if !is_root("uncounted segments") {
        return;
    }
    let kernel = Kernel::load(&world());
    let (frame, skb) = leaving("at the ceiling");
    let run = |segments, size| {
        let skb = Skb {
            segments,
            size,
            ..skb
        };
        kernel.run(Program::Egress, &frame, skb).action
    };
    assert_eq!(run(0, 0), Action::Pass);
    assert_eq!(run(1, 20), Action::Pass, "counted: one");
    assert_eq!(run(2, 20), Action::Drop);
    assert_eq!(run(0, 20), Action::Drop, "not counted: at least two");
}

/// Writes the cases as the corpus of the fuzz target `frame`:
/// `cargo test -p gateway-tests --test datapath -- --ignored write_the_corpus`.
#[test]
#[ignore = "writes into the source tree"]
fn write_the_corpus() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for case in all() {
        let words = format!("{} {}", case.program.as_str(), case.name);
        let name: String = words
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        std::fs::write(corpus.join("frame").join(name), case.frame).expect("written");
    }
    for seed in 0u64..8 {
        let name = corpus.join("frame_mutated").join(format!("seed_{seed}"));
        std::fs::write(name, seed.to_be_bytes()).expect("written");
    }
}
