//! `cargo xtask dist`: release binaries, the eBPF object inside them, and the files of deploy/.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup::{self, Needs};
use crate::{host, process};

/// Options of `cargo xtask dist`.
#[derive(Args)]
pub(crate) struct Options {}

/// What goes beside the binaries.
const FILES: [&str; 4] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "deploy"];

/// Runs the `dist` task: writes `target/dist/gateway-<version>.tar.gz`.
///
/// # Errors
/// The build or tar fails.
pub(crate) fn main(_: &Options) -> Result<()> {
    setup::ensure(Needs {
        lab: false,
        vm: false,
        checks: false,
    })?;
    process::run(host::cargo().args(["build", "--locked", "--release", "-p", "gateway-user"]))?;
    let name = format!("gateway-{}", env!("CARGO_PKG_VERSION"));
    let dist = host::output().join("dist");
    let dir = dist.join(&name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::create_dir_all(&dir)?;
    for binary in ["gatewayd", "gatewayctl"] {
        let from = host::target().join("release").join(binary);
        std::fs::copy(&from, dir.join(binary)).with_context(|| from.display().to_string())?;
    }
    for file in FILES {
        copy(&host::root().join(file), &dir)?;
    }
    let archive = dist.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "-C"])
        .arg(&dist);
    process::run(tar.arg("-czf").arg(&archive).arg(&name))?;
    println!("{}", archive.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    process::run(Command::new("cp").arg("-r").arg(from).arg(to))
}
