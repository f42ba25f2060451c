//! The package in a clean Debian root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{host, lab, process};

/// What a booted root needs beyond Debian's smallest: systemd, and the tools that the check uses.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2";

/// Whether this host can run the check.
///
/// # Errors
/// It runs as somebody else than root, or programs are missing: all of them are named.
pub(super) fn possible() -> Result<()> {
    ensure!(host::is_root(), "the package is checked as root");
    let tools = [
        ("debootstrap", "debootstrap"),
        ("systemd-nspawn", "systemd-container"),
    ];
    let missing = tools
        .iter()
        .filter(|(tool, _)| process::find(tool).is_none());
    let (tools, from): (Vec<&str>, Vec<&str>) = missing.copied().unzip();
    ensure!(
        tools.is_empty(),
        "missing: {}. fix: apt-get install {}",
        tools.join(", "),
        from.join(" ")
    );
    Ok(())
}

/// Lets the lab install `package`, upgrade it to `upgrade` and remove it.
///
/// # Errors
/// The Debian root cannot be made, or the lab found something.
pub(super) fn run(package: &Path, upgrade: &Path) -> Result<()> {
    let root = debian_root()?;
    lab::build()?;
    let mut check = Command::new(lab::program());
    check.arg("package").arg("--root").arg(root);
    check.arg("--old").arg(package).arg("--new").arg(upgrade);
    process::run(check.arg("--logs").arg(host::output().join("lab")))
}

/// A root of this host's Debian release, made once.
fn debian_root() -> Result<PathBuf> {
    let root = host::output().join("tools/debian-root");
    let unfinished = root.with_extension("unfinished");
    if root.is_dir() {
        return Ok(root);
    }
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).with_context(|| unfinished.display().to_string())?;
    }
    let release = match host::distribution().major {
        12 => "bookworm",
        13 => "trixie",
        _ => bail!("the package is checked on Debian 12 or 13"),
    };
    let mut make = Command::new("debootstrap");
    make.args(["--variant=minbase", &format!("--include={PACKAGES}")]);
    process::run(make.arg(release).arg(&unfinished))?;
    std::fs::rename(&unfinished, &root)?;
    Ok(root)
}
