//! What the kernel's verifier has to do before a program runs.

use gateway_common::model::ModelTables;
use gateway_common::reason::Program;

use crate::kernel::{Kernel, is_root};

/// Instructions that the verifier may go through, each as often as it meets it: about twice what
/// Linux 6.18 needs. Every start of the agent waits for it, and the kernel's limit is a million.
const BUDGETS: [(Program, u32); 4] = [
    (Program::Ingress, 36_000),
    (Program::Egress, 17_000),
    (Program::Inside, 3_000),
    (Program::Sync, 2_000),
];

#[test]
fn the_verifier_is_done_within_its_budget() {
    if !is_root("the verifier's budget") {
        return;
    }
    let tables = ModelTables::default();
    for kernel in [
        Kernel::load(&tables),
        Kernel::load_as_on_old_kernels(&tables),
    ] {
        for (program, budget) in BUDGETS {
            let Some(verified) = kernel.verified(program) else {
                eprintln!("SKIPPED the verifier's budget: kernels before 5.16 do not tell");
                return;
            };
            assert!(
                verified <= budget,
                "{program:?}: {verified} instructions, budget {budget}"
            );
        }
    }
}
