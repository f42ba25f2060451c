//! Runs scenarios of the lab: `gateway-lab list | run | demo`. Needs root.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use gateway_tests::lab;
use gateway_tests::scenario::{self, Context, Packages, Scenario, Tier as Place};

/// The lab of the gateway cluster.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the scenarios.
    List,
    /// Run scenarios: all that fit, or the named ones.
    Run(RunOptions),
    /// Bring up one tunnel, tell what happens, and write a report.
    Demo(DemoOptions),
    /// Measure what failovers cost, and write the rows to a file as JSON.
    BenchFailover(BenchOptions),
    /// Measure what copying SAs and taking them over costs, and write the rows to a file as JSON.
    BenchSync(SyncOptions),
    /// Measure what handshakes cost the responder, beside strongSwan, and write the rows to a file
    /// as JSON.
    BenchHandshake(HandshakeOptions),
    /// Measure what the operator's questions cost one agent with many SAs, and write the rows to a
    /// file as JSON.
    BenchOperator(OperatorOptions),
    /// Install, upgrade and remove the Debian package in a clean root, as one of three members.
    Package(PackageOptions),
    /// Exit with 0 if the running kernel has ESP, with 3 if not.
    Probe,
}

#[derive(clap::Args)]
struct DemoOptions {
    /// What the report says about where ESP is done: `native` or `vm`.
    #[arg(long, default_value = "native")]
    esp: String,
    /// Where the report and the logs go.
    #[arg(long, default_value = "target/demo")]
    logs: PathBuf,
}

#[derive(clap::Args)]
struct BenchOptions {
    /// Where the rows go.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The machine is an emulated one: no judging of times.
    #[arg(long)]
    vm: bool,
    /// Only the rows of this system, `gateway` or `strongswan`.
    #[arg(long)]
    only: Option<String>,
    /// Where the logs go.
    #[arg(long, default_value = "target/bench/lab")]
    logs: PathBuf,
}

#[derive(clap::Args)]
struct PackageOptions {
    /// A Debian root.
    #[arg(long)]
    root: PathBuf,
    /// The package.
    #[arg(long)]
    old: PathBuf,
    /// Its upgrade, in the same folder.
    #[arg(long)]
    new: PathBuf,
    /// Where the logs go.
    #[arg(long, default_value = "target/lab")]
    logs: PathBuf,
}

#[derive(clap::Args)]
struct SyncOptions {
    /// Where the rows go.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How many SAs, row by row, each more than the last.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    sizes: Vec<usize>,
    /// Where the logs go.
    #[arg(long, default_value = "target/bench/lab")]
    logs: PathBuf,
}

#[derive(clap::Args)]
struct OperatorOptions {
    /// Where the rows go.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How many SAs, row by row, each more than the last.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000])]
    sizes: Vec<usize>,
    /// Where the logs go.
    #[arg(long, default_value = "target/bench/lab")]
    logs: PathBuf,
}

#[derive(clap::Args)]
struct HandshakeOptions {
    /// Where the rows go.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How many IKE SAs the rows that tell memory establish.
    #[arg(long, default_value_t = 10_000)]
    sas: usize,
    /// Where the logs go.
    #[arg(long, default_value = "target/bench/lab")]
    logs: PathBuf,
}

#[derive(clap::Args)]
struct RunOptions {
    /// Names of scenarios; all if none is given.
    scenarios: Vec<String>,
    /// Which scenarios: `native` is all that this kernel can do, `vm` only those that need ESP.
    #[arg(long, value_enum, default_value = "native")]
    tier: Tier,
    /// Every fault, instead of what gates.
    #[arg(long)]
    nightly: bool,
    /// How many times each is run; the first that fails is the last.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Where the logs go.
    #[arg(long, default_value = "target/lab")]
    logs: PathBuf,
    /// Also write the results to this file, as JSON.
    #[arg(long)]
    results: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    Native,
    Vm,
}

fn main() -> ExitCode {
    lab::clean_up_on_signals();
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gateway-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    if let Command::List = cli.command {
        for scenario in scenario::all() {
            let tier = scenario.tier.as_str();
            println!("{:24} {tier:15} {}", scenario.name, scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    // SAFETY: geteuid(2) cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        bail!("the lab makes network namespaces and needs root");
    }
    lab::clean_up_stale();
    match &cli.command {
        Command::Run(options) => run_scenarios(options),
        Command::Demo(options) => {
            scenario::demo(&context(&options.logs)?, &options.esp)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::BenchFailover(options) => bench_failover(options).map(|()| ExitCode::SUCCESS),
        Command::BenchSync(options) => {
            let context = context(&options.logs)?;
            gateway_tests::bench::sync(&context, &options.sizes, &options.out)
                .map(|()| ExitCode::SUCCESS)
        }
        Command::BenchHandshake(options) => {
            let context = context(&options.logs)?;
            gateway_tests::bench::handshake(&context, options.sas, &options.out)
                .map(|()| ExitCode::SUCCESS)
        }
        Command::BenchOperator(options) => {
            let context = context(&options.logs)?;
            gateway_tests::bench::operator(&context, &options.sizes, &options.out)
                .map(|()| ExitCode::SUCCESS)
        }
        Command::Package(options) => package(options).map(|()| ExitCode::SUCCESS),
        Command::Probe | Command::List => {
            let has = lab::kernel_has_esp(&std::env::temp_dir())?;
            Ok(if has {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(3)
            })
        }
    }
}

fn package(options: &PackageOptions) -> Result<()> {
    let name = |file: &Path| {
        let name = file.file_name().context("a package without a name")?;
        Ok::<_, anyhow::Error>(name.to_string_lossy().into_owned())
    };
    let folder = std::path::absolute(&options.old)?;
    let packages = Packages {
        root: std::path::absolute(&options.root)?,
        folder: folder.parent().context("no folder")?.to_owned(),
        old: name(&options.old)?,
        new: name(&options.new)?,
    };
    println!(
        "{}",
        scenario::package(&context(&options.logs)?, &packages)?
    );
    Ok(())
}

/// Rows are written one by one: a bench that is cut off still tells how far it came.
fn bench_failover(options: &BenchOptions) -> Result<()> {
    let context = context(&options.logs)?;
    let mut rows = Vec::new();
    let only = options.only.as_deref();
    scenario::failover_rows(&context, options.vm, only, |row| {
        let value = serde_json::to_value(&row)?;
        println!(
            "{:10} {:8} {:9} {:16} gap {:>7} ms, detected {:>6} ms, {} lost SAs, {} INITs, {} replays, {} repeated",
            row.system.split(' ').next().unwrap_or_default(),
            row.profile.split(' ').next().unwrap_or_default(),
            row.esp,
            row.outcome.fault,
            value["gap_ms"],
            value["detected_ms"],
            row.outcome.lost_ike_sas,
            row.outcome.new_ike_sa_inits,
            row.outcome.replay_drops_at_peer,
            row.outcome.repeated_sequence_numbers,
        );
        rows.push(value);
        std::fs::write(&options.out, serde_json::to_vec_pretty(&rows)?)
            .with_context(|| options.out.display().to_string())
    })
}

fn context(logs: &Path) -> Result<Context> {
    let logs = std::path::absolute(logs)?;
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let program = std::env::current_exe()?;
    let binaries = program
        .parent()
        .context("a program without a folder")?
        .to_owned();
    let kernel_esp = lab::kernel_has_esp(&logs)?;
    Ok(Context {
        logs,
        binaries,
        kernel_esp,
    })
}

fn selected(options: &RunOptions, kernel_esp: bool) -> Result<Vec<Scenario>> {
    let all = scenario::all();
    if options.scenarios.is_empty() {
        let wanted = |scenario: &Scenario| {
            let here = scenario.tier.fits(kernel_esp);
            if options.nightly {
                return here && (scenario.is_failover() || scenario.tier.is_nightly());
            }
            let asked = options.tier == Tier::Native || scenario.tier != Place::Native;
            here && asked && !scenario.tier.is_nightly()
        };
        return Ok(all.into_iter().filter(wanted).collect());
    }
    let find = |name: &String| {
        let found = all.iter().find(|scenario| scenario.name == name).copied();
        let found =
            found.with_context(|| format!("no scenario `{name}`: see `gateway-lab list`"))?;
        if !found.tier.fits(kernel_esp) {
            let (what, hint) = if kernel_esp {
                (
                    "is for kernels without",
                    "its namesake failover-… is for this one",
                )
            } else {
                ("needs", "run it in `cargo xtask vm`")
            };
            bail!("`{name}` {what} ESP: {hint}");
        }
        Ok(found)
    };
    options.scenarios.iter().map(find).collect()
}

fn run_scenarios(options: &RunOptions) -> Result<ExitCode> {
    let context = context(&options.logs)?;
    let scenarios = selected(options, context.kernel_esp)?;
    // Asked first: what it is in a machine that was booted for this depends on the time since.
    match lab::patience() {
        1 => {}
        factor => println!("lab: a slow machine: times are {factor} times as long"),
    }
    let mut results = Vec::new();
    let (mut failed, mut skipped) = (0_u32, 0_usize);
    for scenario in &scenarios {
        println!("--- {}: {}", scenario.name, scenario.about);
        for round in 1..=options.repeat {
            let start = Instant::now();
            let outcome = guarded(*scenario, &context);
            let seconds = start.elapsed().as_secs_f64();
            let (word, detail) = match outcome {
                Ok(detail) => ("passed", detail),
                Err(error) if error.is::<lab::Skipped>() => ("SKIPPED", error.to_string()),
                Err(error) => ("FAILED", format!("{error:#}")),
            };
            let (passed, left_out) = (word == "passed", word == "SKIPPED");
            let last = !passed || round == options.repeat;
            failed += u32::from(!passed && !left_out);
            skipped += usize::from(left_out);
            println!("{:20} {word} {seconds:7.1} s  {detail}", scenario.name);
            if !passed && !left_out {
                println!("    logs: {}", context.logs.join(scenario.name).display());
            }
            results.push(serde_json::json!({
                "scenario": scenario.name, "round": round, "passed": passed,
                "skipped": left_out, "seconds": seconds,
                "detail": detail,
            }));
            write_results(options, &results, false)?;
            if last {
                break;
            }
        }
    }
    write_results(options, &results, true)?;
    println!(
        "lab: {} passed, {failed} failed, {skipped} skipped",
        results.len() - failed as usize - skipped
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Results are written after every scenario: a run that is cut off still tells how far it came.
fn write_results(
    options: &RunOptions,
    results: &[serde_json::Value],
    complete: bool,
) -> Result<()> {
    let Some(file) = &options.results else {
        return Ok(());
    };
    let report = serde_json::json!({ "complete": complete, "scenarios": results });
    std::fs::write(file, serde_json::to_vec_pretty(&report)?)
        .with_context(|| file.display().to_string())
}

/// A scenario that panics has failed like any other.
fn guarded(scenario: Scenario, context: &Context) -> Result<String> {
    let work = std::panic::AssertUnwindSafe(|| (scenario.run)(context));
    std::panic::catch_unwind(work).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown");
        bail!("it panicked: {text}")
    })
}
