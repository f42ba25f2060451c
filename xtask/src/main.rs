//! Development tasks: `cargo xtask setup | demo | test | bench | vm | dist`.
//!
//! `demo`, `test`, `bench` and `vm` call `setup` themselves: on a machine where everything is in
//! place it costs well under a second.

mod bench;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with gateway-user's build script, which uses other parts of it"
)]
mod bpf_toolchain;
mod checks;
mod demo;
mod deps;
mod dist;
mod host;
mod lab;
mod process;
mod setup;
mod summary;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of the gateway cluster.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what the build and the lab need.
    Setup(setup::Options),
    /// Bring up one tunnel from stock strongSwan into a three-member cluster and show what happens.
    Demo(demo::Options),
    /// Format, lints, dependency check, unit tests, the native lab and the VM lab.
    Test(test::Options),
    /// Measure; results go to target/bench/.
    Bench(bench::Options),
    /// Boot the lab's VM and run a command in it.
    Vm(vm::Options),
    /// Build the release binaries and pack them with the files of deploy/.
    Dist(dist::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(options) => setup::main(&options),
        Task::Demo(options) => demo::main(&options),
        Task::Test(options) => test::main(&options),
        Task::Bench(options) => bench::main(&options),
        Task::Vm(options) => vm::main(&options),
        Task::Dist(options) => dist::main(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
