//! Every case of the packet logic, in the kernel: verdict, octets, counters.

use std::collections::BTreeMap;

use gateway_common::abi::{map, size};
use gateway_common::model::ModelTables;
use gateway_common::model::cases::{Case, all, world};
use gateway_common::reason::{Action, Program};

use crate::kernel::{Kernel, Outcome, expected_stats, is_root};

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
        kernel.reset_counters();
        let name = format!("{:?}: {}", case.program, case.name);
        let expected = Outcome {
            action: case.reason.action(),
            frame: case.output(),
        };
        assert_eq!(
            kernel.run(case.program, &case.frame, case.mark),
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
    kernel.assert_unchanged(tables);
    assert!(cases.len() > 150, "only {} cases", cases.len());
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
