//! What this machine is, and where the workspace lies.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// The workspace's top directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else `target` in the workspace.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::path::absolute(&dir).unwrap_or_else(|_| dir.into()),
        None => root().join("target"),
    }
}

/// Where reports and lab logs go: `target` in the workspace, wherever cargo builds.
pub(crate) fn output() -> PathBuf {
    root().join("target")
}

/// Where the binaries of the development profile lie.
pub(crate) fn binaries() -> PathBuf {
    target().join("debug")
}

/// A `cargo` command in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set for us by cargo, about xtask itself; build scripts of other packages must not see it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// `cargo <subcommand>` for everything that builds for the host. Always all of it: a dependency has
/// the features that the chosen packages ask for, so that another choice is another build.
pub(crate) fn cargo_workspace(subcommand: &str) -> Command {
    let mut command = cargo();
    command.args([subcommand, "--locked", "--workspace"]);
    command.args(["--exclude", "gateway-ebpf"]);
    command
}

/// Whether we run with effective user id 0.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("Uid:"))?;
            line.split_whitespace().nth(2).map(|id| id == "0")
        })
        .unwrap_or(false)
}

/// A Debian release as /etc/os-release names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// `ID`, for example `debian`.
    pub(crate) id: String,
    /// `VERSION_ID`'s major number, 0 if there is none (Debian sid).
    pub(crate) major: u32,
    /// `PRETTY_NAME`.
    pub(crate) name: String,
}

/// Reads /etc/os-release.
pub(crate) fn distribution() -> Distribution {
    parse_os_release(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

fn parse_os_release(text: &str) -> Distribution {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    let version = value("VERSION_ID");
    let major = version
        .split('.')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    Distribution {
        id: value("ID"),
        major,
        name: value("PRETTY_NAME"),
    }
}

/// The running kernel's release.
pub(crate) fn kernel() -> String {
    process::capture(Command::new("uname").arg("-r"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_of_debian() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        let found = parse_os_release(text);
        assert_eq!((found.id.as_str(), found.major), ("debian", 12));
        assert_eq!(parse_os_release("ID=debian\n").major, 0);
    }
}
