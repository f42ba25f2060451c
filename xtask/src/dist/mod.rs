//! `cargo xtask dist`: release binaries, the eBPF object inside them, and the files of deploy/, as
//! an archive and as a Debian package.

mod check;
mod deb;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup::{self, Needs};
use crate::{host, process};

/// Options of `cargo xtask dist`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only the archive: for hosts without Debian's tools.
    #[arg(long)]
    no_deb: bool,
    /// The package's revision: 0.1.0-N.
    #[arg(long, value_name = "N", default_value_t = 1)]
    revision: u32,
    /// Pack the binaries of the development profile: quick to build, slow to run.
    #[arg(long)]
    dev: bool,
    /// Afterwards install, upgrade and remove the package in a clean Debian root, in the lab. Needs
    /// root, debootstrap and systemd-container.
    #[arg(long, conflicts_with = "no_deb")]
    check: bool,
}

/// What goes beside the binaries.
const FILES: [&str; 4] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "deploy"];

/// Runs the `dist` task: writes `target/dist/gateway-<version>.tar.gz` and
/// `gateway_<version>-<revision>_<architecture>.deb` beside it.
///
/// # Errors
/// The build or tar fails, or the check that is asked for.
pub(crate) fn main(options: &Options) -> Result<()> {
    if options.check {
        check::possible()?;
    }
    setup::ensure(Needs {
        lab: false,
        vm: false,
        checks: false,
    })?;
    let profile = if options.dev { "dev" } else { "release" };
    let mut build = host::cargo();
    build.args([
        "build",
        "--locked",
        "-p",
        "gateway-user",
        "--profile",
        profile,
    ]);
    process::run(&mut build)?;
    let binaries = host::target().join(if options.dev { "debug" } else { "release" });
    let name = format!("gateway-{}", env!("CARGO_PKG_VERSION"));
    let dist = host::output().join("dist");
    let dir = dist.join(&name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::create_dir_all(&dir)?;
    for binary in ["gatewayd", "gatewayctl"] {
        let from = binaries.join(binary);
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
    if options.no_deb {
        return Ok(());
    }
    let build = |revision: u32| {
        let version = format!("{}-{revision}", env!("CARGO_PKG_VERSION"));
        let package = deb::Package {
            version: &version,
            binaries: &binaries,
            dist: &dist,
        };
        package.build()
    };
    let package = build(options.revision)?;
    println!("{}", package.display());
    if options.check {
        let upgrade = build(options.revision + 1)?;
        check::run(&package, &upgrade)?;
        std::fs::remove_file(upgrade)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    process::run(Command::new("cp").arg("-r").arg(from).arg(to))
}
