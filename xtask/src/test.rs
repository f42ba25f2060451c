//! `cargo xtask test`: everything that gates.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::lab::{self, Choice, Scenario};
use crate::setup::{self, Needs};
use crate::summary::{Outcome, Row, Summary, first_line};
use crate::{checks, deps, host, process};

/// Worlds of the nightly run.
const NIGHTLY_SEEDS: u32 = 100_000;

/// What each fuzz target gets in the nightly run.
const NIGHTLY_FUZZ_SECONDS: u64 = 30 * 60;

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave the VM tier out.
    #[arg(long)]
    native_only: bool,
    /// The full matrix: also the tests that are marked as ignored, every fault 20 times, 100,000
    /// simulated worlds, and longer fuzzing.
    #[arg(long)]
    nightly: bool,
    /// Fuzz each target for this many seconds, in place of a fixed number of inputs: with coverage if
    /// cargo-fuzz is there, else by mutations of the corpora. 0: not at all.
    #[arg(long, value_name = "N")]
    fuzz_seconds: Option<u64>,
}

/// Runs the `test` task.
///
/// # Errors
/// Something failed, or could not be run here; the table says what.
pub(crate) fn main(options: &Options) -> Result<()> {
    let start = Instant::now();
    let mut summary = Summary::default();
    let lacks = prepare(options, &mut summary);
    static_checks(&mut summary);
    unit_tests(options, &mut summary);
    let built = summary.step("build", || lab::build().map(|()| String::new()));
    if lacks.is_empty() && built {
        labs(options, &mut summary);
    } else {
        let why = if built {
            lacks.join("; ")
        } else {
            "the build failed".into()
        };
        summary.skip("native lab", &why);
        summary.skip("VM lab", &why);
    }
    if options.nightly {
        simulate(&mut summary);
    }
    if built {
        fuzz(options, &mut summary);
    } else {
        summary.skip("fuzzing", "the build failed");
    }
    println!(
        "\n{} s on {}",
        start.elapsed().as_secs(),
        host::distribution().name
    );
    summary.print();
    finish(&summary, &lacks)
}

/// A run that had to leave gating parts out has not passed.
fn finish(summary: &Summary, lacks: &[String]) -> Result<()> {
    let (passed, failed, _) = summary.totals();
    if failed > 0 {
        bail!("{failed} test(s) failed");
    }
    if !lacks.is_empty() {
        bail!("not everything could be run here: {}", lacks.join("; "));
    }
    if passed == 0 {
        bail!("nothing was run");
    }
    Ok(())
}

/// Setup; what cannot be had here is returned in words and is no reason to run nothing at all.
fn prepare(options: &Options, summary: &mut Summary) -> Vec<String> {
    let mut lacks = Vec::new();
    if !host::is_root() {
        lacks.push("network namespaces and BPF need root".to_owned());
    }
    let vm = !options.native_only && !lab::kernel_has_esp();
    let needs = Needs {
        lab: true,
        vm,
        checks: true,
    };
    if !summary.step("setup", || setup::ensure(needs).map(|()| setup::describe())) {
        lacks.push("the setup is not complete".into());
    }
    lacks
}

fn static_checks(summary: &mut Summary) {
    if checks::has_subcommand("fmt") {
        summary.step("format", checks::format);
    } else {
        summary.skip(
            "format",
            "cargo-fmt is missing: rustup component add rustfmt",
        );
    }
    if checks::has_subcommand("clippy") {
        summary.step("clippy", checks::lints);
    } else {
        summary.skip(
            "clippy",
            "cargo-clippy is MISSING: rustup component add clippy",
        );
    }
    summary.step("alert rules", checks::alerts);
    summary.step("dependencies of the cores", deps::check);
    summary.step("licences, sources, bans", deps::deny);
    match deps::advisories() {
        Some(outcome) => {
            summary.step("advisories", || outcome);
        }
        None => summary.skip("advisories", "their database cannot be reached"),
    }
}

fn unit_tests(options: &Options, summary: &mut Summary) {
    println!("\n=== unit and property tests");
    let start = Instant::now();
    let extra: &[&str] = if options.nightly {
        &["--include-ignored"]
    } else {
        &[]
    };
    let row = match checks::unit_tests(extra) {
        Ok((passed, failed, ignored, ok)) => {
            // A binary that aborts prints no result line; it still counts as a failure.
            let failed = if ok { failed } else { failed.max(1) };
            let detail = format!("{passed} passed, {failed} failed, {ignored} ignored");
            (passed, failed, detail)
        }
        Err(error) => (0, 1, first_line(&format!("{error:#}"))),
    };
    let outcome = if row.1 == 0 {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    summary.push(Row {
        name: "unit and property tests".into(),
        outcome,
        count: (row.0, row.1),
        took: start.elapsed(),
        detail: row.2,
    });
}

fn labs(options: &Options, summary: &mut Summary) {
    lab_runs(options, summary, Choice::Gating, "");
    if options.nightly {
        lab_runs(options, summary, Choice::Nightly, ", every fault");
    }
}

fn lab_runs(options: &Options, summary: &mut Summary, choice: Choice, what: &str) {
    let (native, vm) = (format!("native lab{what}"), format!("VM lab{what}"));
    println!("\n=== {native}");
    record(summary, &native, lab::native(choice));
    if options.native_only {
        summary.skip(&vm, "--native-only");
    } else if lab::kernel_has_esp() {
        println!("\nthe running kernel has ESP: the VM's scenarios were run natively");
    } else {
        println!("\n=== {vm}");
        record(summary, &vm, lab::in_vm(choice));
    }
}

/// The simulator beyond what the unit tests run: other seeds, many of them.
fn simulate(summary: &mut Summary) {
    let name = format!("simulator, {NIGHTLY_SEEDS} seeds");
    summary.step(&name, || {
        let seeds = format!("0..{NIGHTLY_SEEDS}");
        process::run(host::cargo().args([
            "run",
            "--locked",
            "--release",
            "-p",
            "gateway-node",
            "--features",
            "simulator",
            "--bin",
            "simulate",
            "--",
            "--seeds",
            &seeds,
        ]))
        .map(|()| String::new())
    });
}

fn record(summary: &mut Summary, tier: &str, outcome: Result<Vec<Scenario>>) {
    let scenarios = match outcome {
        Ok(scenarios) => scenarios,
        Err(error) => {
            summary.step(tier, || Err(error));
            return;
        }
    };
    if scenarios.is_empty() {
        summary.step(tier, || bail!("no scenario was run"));
    }
    for scenario in scenarios {
        if scenario.skipped {
            summary.skip(&format!("{tier}: {}", scenario.name), &scenario.detail);
            continue;
        }
        let good = scenario.passed;
        summary.push(Row {
            name: format!("{tier}: {}", scenario.name),
            outcome: if good {
                Outcome::Passed
            } else {
                Outcome::Failed
            },
            count: if good { (1, 0) } else { (0, 1) },
            took: Duration::from_secs_f64(scenario.seconds.max(0.0)),
            detail: first_line(&scenario.detail),
        });
    }
}

/// Fuzzes; the corpora themselves are run by the unit tests.
fn fuzz(options: &Options, summary: &mut Summary) {
    let each = options
        .fuzz_seconds
        .or(options.nightly.then_some(NIGHTLY_FUZZ_SECONDS));
    match each {
        None => mutations(summary, &["--gate"]),
        Some(0) => {}
        Some(seconds) if checks::has_subcommand("fuzz") => guided(summary, seconds),
        Some(seconds) => mutations(summary, &["--each", "--seconds", &seconds.to_string()]),
    }
}

/// Mutations of the corpora, without coverage: with any compiler.
fn mutations(summary: &mut Summary, plan: &[&str]) {
    summary.step("fuzzing, mutations of the corpora", || {
        let mut command = Command::new(host::binaries().join("fuzz-corpora"));
        command.current_dir(host::root()).args(plan);
        command.arg("--findings").arg(host::output().join("fuzz"));
        process::run(&mut command).map(|()| plan.join(" "))
    });
}

/// With coverage.
fn guided(summary: &mut Summary, seconds: u64) {
    let dir = host::root().join("tests/fuzz");
    let mut list = host::cargo();
    list.args(["fuzz", "list", "--fuzz-dir"])
        .arg(&dir)
        .env("RUSTC_BOOTSTRAP", "1");
    for target in process::capture(&mut list).unwrap_or_default().lines() {
        summary.step(&format!("fuzz {target}"), || {
            let limit = format!("-max_total_time={seconds}");
            let mut command = host::cargo();
            command
                .args(["fuzz", "run", "--fuzz-dir"])
                .arg(&dir)
                .args(["--sanitizer", "none"]);
            command
                .args([target, "--", &limit])
                .env("RUSTC_BOOTSTRAP", "1");
            process::run(&mut command).map(|()| format!("{seconds} s"))
        });
    }
}
