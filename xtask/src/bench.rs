//! `cargo xtask bench [NAME]`: builds the bench binaries for release and runs them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::setup::{self, Needs};
use crate::vm::{self, Machine};
use crate::{host, lab, process};

/// How a bench is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A release binary of this name that writes its report with `--out FILE`.
    Program(&'static str),
    /// The lab, as the tests build it: what counts there are the members' timers.
    Failover,
    /// The lab's command of this name, everything built for release: what counts there is the
    /// processor's time.
    Lab(&'static str),
}

/// Benches by name.
const BENCHES: [(&str, Kind); 5] = [
    ("steering", Kind::Program("bench-steering")),
    ("failover", Kind::Failover),
    ("sync", Kind::Lab("bench-sync")),
    ("handshake", Kind::Lab("bench-handshake")),
    ("operator", Kind::Lab("bench-operator")),
];

/// Longest that the failover bench may run in the VM.
const VM_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Which benches; all if none is named.
    names: Vec<String>,
    /// `failover`: also with the kernel's ESP in the VM, if this kernel has none.
    #[arg(long)]
    vm: bool,
}

/// Runs the `bench` task; reports go to `target/bench/NAME.json`.
///
/// # Errors
/// An unknown name, no root, or a bench that fails.
pub(crate) fn main(options: &Options) -> Result<()> {
    let chosen = choose(&options.names)?;
    if !host::is_root() {
        bail!("the benches load BPF programs and need root");
    }
    setup::ensure(Needs {
        lab: true,
        vm: options.vm,
        checks: false,
    })?;
    let dir = host::output().join("bench");
    std::fs::create_dir_all(&dir)?;
    for (name, kind) in chosen {
        let report = dir.join(format!("{name}.json"));
        match kind {
            Kind::Program(binary) => program(binary, &report)?,
            Kind::Lab(command) => {
                let program = lab::build_released()?;
                in_lab(&program, command, &report, &dir.join("lab"))?;
            }
            Kind::Failover => failover(&report, &dir, options.vm && !lab::kernel_has_esp())?,
        }
        println!("{}", report.display());
    }
    Ok(())
}

fn program(binary: &str, report: &Path) -> Result<()> {
    let build = ["--release", "--bin", binary];
    process::run(host::cargo_workspace("build").args(build))?;
    let program = host::target().join("release").join(binary);
    process::run(
        Command::new(program)
            .current_dir(host::root())
            .arg("--out")
            .arg(report),
    )
}

fn in_lab(program: &Path, command: &str, report: &Path, logs: &Path) -> Result<()> {
    process::run(
        Command::new(program)
            .current_dir(host::root())
            .args([command, "--out"])
            .arg(report)
            .arg("--logs")
            .arg(logs),
    )
}

/// The rows of this kernel, and after them those of the VM.
fn failover(report: &Path, dir: &Path, vm: bool) -> Result<()> {
    lab::build()?;
    let logs = dir.join("lab");
    in_lab(&lab::program(), "bench-failover", report, &logs)?;
    if !vm {
        return Ok(());
    }
    let machine = Machine::find()?;
    let part = dir.join("failover-vm.json");
    let line = format!(
        "cd '{}' && GATEWAY_LAB_PATIENCE={} '{}' bench-failover --vm --out '{}' --logs '{}'",
        host::root().display(),
        machine.patience(),
        lab::program().display(),
        part.display(),
        logs.join("vm").display()
    );
    let good = vm::run(&machine, &line, VM_LIMIT)?;
    ensure!(good, "the failover bench failed in the VM");
    append(report, &part)
}

/// Adds the rows of one report to another.
fn append(report: &Path, part: &Path) -> Result<()> {
    let rows = |file: &Path| -> Result<Vec<Value>> {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        serde_json::from_slice(&bytes).with_context(|| file.display().to_string())
    };
    let mut all = rows(report)?;
    all.extend(rows(part)?);
    std::fs::write(report, serde_json::to_vec_pretty(&all)?)?;
    std::fs::remove_file(part)?;
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<(&'static str, Kind)>> {
    let unknown = names
        .iter()
        .find(|name| !BENCHES.iter().any(|(known, _)| known == name));
    if let Some(name) = unknown {
        let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        bail!("no bench `{name}`; there are: {}", known.join(", "));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|chosen| chosen == name);
    Ok(BENCHES
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_benches_are_refused() {
        assert_eq!(choose(&[]).unwrap().len(), BENCHES.len());
        assert!(choose(&["stearing".into()]).is_err());
    }
}
