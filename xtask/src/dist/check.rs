//! The package in a clean Debian root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{host, lab, process};

/// What a booted root needs beyond Debian's smallest: systemd, and the tools that the check uses.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2";

/// Lets the lab install `package`, upgrade it to `upgrade` and remove it.
///
/// # Errors
/// A tool is missing, or the lab found something.
pub(super) fn run(package: &Path, upgrade: &Path) -> Result<()> {
    for (tool, from) in [
        ("debootstrap", "debootstrap"),
        ("systemd-nspawn", "systemd-container"),
    ] {
        if process::find(tool).is_none() {
            bail!("{tool} is missing: apt-get install {from}");
        }
    }
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
