//! `cargo xtask demo`: one tunnel from stock strongSwan into the cluster, with a commentary.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::setup::{self, Needs};
use crate::vm::{self, Machine};
use crate::{host, lab, process};

/// Longest that the demo may take once everything is built.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct Options {
    /// Use the VM even if the running kernel has ESP.
    #[arg(long)]
    vm: bool,
}

/// Runs the `demo` task; the report goes to `target/demo/report.json`, logs beside it.
///
/// # Errors
/// No root, or any step of the demo failed.
pub(crate) fn main(options: &Options) -> Result<()> {
    if !host::is_root() {
        setup::ensure(Needs {
            lab: true,
            vm: true,
            checks: false,
        })?;
        bail!("the demo makes network namespaces and needs root: sudo -E cargo xtask demo");
    }
    let in_vm = options.vm || !lab::kernel_has_esp();
    setup::ensure(Needs {
        lab: true,
        vm: in_vm,
        checks: false,
    })?;
    lab::build()?;
    let dir = host::output().join("demo");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::create_dir_all(&dir)?;
    let report = dir.join("report.json");
    let good = if in_vm {
        let machine = Machine::find()?;
        println!(
            "This kernel ({}) has no ESP: booting {}.",
            host::kernel(),
            machine.describe()
        );
        let line = format!(
            "cd '{}' && GATEWAY_LAB_PATIENCE={} '{}' demo --esp vm --logs '{}'",
            host::root().display(),
            machine.patience(),
            lab::program().display(),
            dir.display()
        );
        vm::run(&machine, &line, LIMIT)?
    } else {
        let mut command = Command::new(lab::program());
        command
            .current_dir(host::root())
            .args(["demo", "--esp", "native", "--logs"])
            .arg(&dir);
        println!("$ {}", process::shown(&command));
        command.status()?.success()
    };
    // The report is written last: its presence says that every step was gone through.
    if !good || !report.is_file() {
        bail!("the demo failed; its logs are in {}", dir.display());
    }
    println!("report: {}", report.display());
    Ok(())
}
