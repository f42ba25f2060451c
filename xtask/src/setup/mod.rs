//! `cargo xtask setup`: finds or installs what the build and the lab need, and says what it does.

mod apt;
mod tools;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::bpf_toolchain::Toolchain;
use crate::{host, process};

pub(crate) use tools::{cargo_deny, promtool, vm_kernel, vng};

/// Options of `cargo xtask setup`.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only say what is missing; install nothing. Exits non-zero if something is.
    #[arg(long)]
    check: bool,
    /// Also prepare the VM where the running kernel has ESP of its own.
    #[arg(long)]
    with_vm: bool,
}

/// What a command is going to do here; decides what has to be in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Namespaces, strongSwan and packet tools.
    pub(crate) lab: bool,
    /// The VM with a stock kernel.
    pub(crate) vm: bool,
    /// What only the checks of `test` use.
    pub(crate) checks: bool,
}

/// One thing that is missing, and the command that brings it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    why: String,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    root: bool,
}

impl Step {
    fn new(why: impl Into<String>, command: &[&str], root: bool) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self {
            why: why.into(),
            command,
            environment: Vec::new(),
            root,
        }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn run(&self) -> Result<()> {
        println!("setup: {}", self.why);
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .envs(self.environment.iter().cloned());
        process::run(&mut command)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(f, "{name}={value} ")?;
        }
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        write!(f, "{}", process::shown(&command))
    }
}

/// Runs the `setup` task.
///
/// # Errors
/// Something is missing and cannot be installed, or may not be (`--check`).
pub(crate) fn main(options: &Options) -> Result<()> {
    let needs = Needs {
        lab: true,
        vm: options.with_vm || !crate::lab::kernel_has_esp(),
        checks: true,
    };
    let missing = missing(needs);
    if options.check {
        return report(&missing);
    }
    ensure(needs)?;
    println!("setup: everything is in place ({})", describe());
    Ok(())
}

/// Installs what `needs` lacks; silent and quick if nothing does.
///
/// # Errors
/// A step failed, or needs root and we are not: then the error is the list of commands to run.
pub(crate) fn ensure(needs: Needs) -> Result<()> {
    // Some steps only show once an earlier one is done: bpf-linker needs LLVM's headers first.
    for _ in 0..4 {
        let steps = missing(needs);
        if steps.is_empty() {
            return Ok(());
        }
        if !host::is_root() && steps.iter().any(|step| step.root) {
            return report(&steps);
        }
        for step in &steps {
            step.run()?;
        }
    }
    report(&missing(needs))
}

fn missing(needs: Needs) -> Vec<Step> {
    let packages = apt::missing(needs);
    if !packages.is_empty() {
        return apt::install(&packages);
    }
    let mut steps = Vec::new();
    steps.extend(tools::bpf_linker());
    if needs.lab {
        steps.extend(tools::libreswan());
        steps.extend(tools::daemons());
    }
    if needs.vm {
        steps.extend(tools::virtme());
    }
    if needs.checks {
        steps.extend(tools::deny());
    }
    steps
}

fn report(steps: &[Step]) -> Result<()> {
    if steps.is_empty() {
        // bpf-linker stands in PATH, the packages are there: what is left is a compiler problem.
        return match Toolchain::find() {
            Ok(_) => Ok(()),
            Err(missing) => bail!("{missing}"),
        };
    }
    let mut text =
        String::from("something is missing; run this as root, then `cargo xtask setup`:");
    for step in steps {
        text.push_str(&format!("\n  {step}    # {}", step.why));
    }
    bail!("{text}")
}

/// One line about the tools that were found.
pub(crate) fn describe() -> String {
    let compiler = match Toolchain::find() {
        Ok(toolchain) => format!(
            "eBPF compiler {}, LLVM {}",
            toolchain.version, toolchain.llvm
        ),
        Err(_) => "no eBPF compiler".into(),
    };
    let vng = vng().map_or("no virtme-ng".into(), |path: PathBuf| {
        path.display().to_string()
    });
    format!("{compiler}; {vng}")
}
