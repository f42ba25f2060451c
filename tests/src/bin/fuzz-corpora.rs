//! Runs the fuzz targets over mutations of their corpora, on the stable toolchain.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use clap::Parser;
use gateway_tests::mutate::{self, Plan};

/// Runs the fuzz targets over mutations of their corpora.
#[derive(Parser)]
struct Options {
    /// Only these targets; all if none is named.
    targets: Vec<String>,
    /// Seconds for all of them together; the endpoint gets more of it than a small parser.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The seconds are for each target.
    #[arg(long)]
    each: bool,
    /// A fixed number of inputs per target from a fixed seed, however long that takes.
    #[arg(long, conflicts_with_all = ["seconds", "each"])]
    gate: bool,
    /// Where the random numbers begin; by default at the time of day, but for the gate.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder with the corpora.
    #[arg(long, default_value = "tests/fuzz/corpus")]
    corpora: PathBuf,
    /// Where inputs go that break a promise.
    #[arg(long, default_value = "target/fuzz")]
    findings: PathBuf,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz-corpora: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<bool> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = match options.gate {
        true => mutate::GATE_SEED,
        false => now.as_secs(),
    };
    let plan = Plan {
        corpora: options.corpora,
        findings: options.findings,
        targets: options.targets,
        time: Duration::from_secs(options.seconds),
        each: options.each,
        gate: options.gate,
        seed: options.seed.unwrap_or(seed),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let begin = Instant::now();
    let ran = mutate::run(&plan)?;
    let inputs: u64 = ran.iter().map(|one| one.inputs).sum();
    for one in &ran {
        println!("{:20} {:>12} inputs", one.target, one.inputs);
        if let Some(finding) = &one.finding {
            println!("    FOUND: {}", finding.display());
        }
    }
    println!(
        "{inputs} inputs of {} targets in {} s, seed {:#x}",
        ran.len(),
        begin.elapsed().as_secs(),
        plan.seed
    );
    Ok(ran.iter().all(|one| one.finding.is_none()))
}
