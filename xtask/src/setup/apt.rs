//! Debian packages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Needs, Step};
use crate::bpf_toolchain::{DEBIAN_PACKAGES, Toolchain};
use crate::{host, process};

/// LLVM release that bpf-linker is built against: the one of Debian's `rustc-web`.
pub(super) const LLVM: u32 = 22;

/// Needed to compile: C for the cryptographic library.
const BUILD: [&str; 2] = ["gcc", "libc6-dev"];

/// Needed to build bpf-linker, and only then.
const LINKER_BUILD: [&str; 6] = [
    "g++",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
];

/// The lab: namespaces, packet tools, a stock IKEv2 peer.
const LAB: [&str; 13] = [
    "iproute2",
    "ethtool",
    "bpftool",
    "tcpdump",
    "fping",
    "kmod",
    "procps",
    "nftables",
    "strongswan-charon",
    "strongswan-swanctl",
    "libcharon-extra-plugins",
    "libstrongswan-standard-plugins",
    "libstrongswan-extra-plugins",
];

/// What only tests use: the browser that looks at the web page.
const CHECKS: [&str; 1] = ["chromium"];

/// The VM: a stock kernel and a machine to boot it on.
const VM: [&str; 3] = ["linux-image-amd64", "qemu-system-x86", "busybox-static"];

/// The packages that are wanted here and not installed. Empty on a machine without dpkg, where
/// the tools themselves have to be in PATH.
pub(super) fn missing(needs: Needs) -> Vec<String> {
    if process::find("dpkg-query").is_none() {
        return Vec::new();
    }
    let wanted = wanted(needs);
    let installed = installed(&wanted);
    wanted
        .into_iter()
        .filter(|name| !installed.contains(name))
        .collect()
}

fn wanted(needs: Needs) -> Vec<String> {
    let mut names: Vec<&str> = BUILD.to_vec();
    if crate::bpf_toolchain::find_linker().is_none() {
        names.extend(LINKER_BUILD);
    }
    if !has_library_source() {
        names.extend(DEBIAN_PACKAGES);
    }
    if uses_debian_rust() {
        names.extend(["rustfmt-web", "rust-web-clippy"]);
    }
    if needs.lab {
        names.extend(LAB);
    }
    if needs.checks {
        names.extend(CHECKS);
    }
    if needs.vm {
        names.extend(VM);
        names.extend(virtme_packages());
    }
    names.into_iter().map(str::to_owned).collect()
}

/// Debian 12 has no virtme-ng; there it goes into a Python environment of our own.
fn virtme_packages() -> &'static [&'static str] {
    if super::tools::vng().is_some() {
        return &[];
    }
    match host::distribution().major {
        1..=12 => &["python3", "python3-venv"],
        _ => &["virtme-ng"],
    }
}

/// Whether some compiler can build for BPF, leaving the linker aside.
fn has_library_source() -> bool {
    match Toolchain::find() {
        Ok(_) => true,
        // The search stops at the first good compiler when only the linker is missing.
        Err(missing) => missing.causes.len() == 1 && missing.causes[0].contains("bpf-linker"),
    }
}

/// Whether the `cargo` that runs us is Debian's, whose lints and formatter are extra packages.
fn uses_debian_rust() -> bool {
    let ours = std::env::var_os("CARGO").map(PathBuf::from);
    let cargo = ours.or_else(|| process::find("cargo"));
    cargo.is_some_and(|path| path == Path::new("/usr/bin/cargo"))
}

fn installed(names: &[String]) -> BTreeSet<String> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["-W", "-f", "${db:Status-Status} ${Package}\\n"])
        .args(names);
    // dpkg-query fails if it does not know one of the names, and still prints the others.
    let text = query
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    parse_installed(&String::from_utf8_lossy(&text))
}

fn parse_installed(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect()
}

/// The steps that install `packages`.
pub(super) fn install(packages: &[String]) -> Vec<Step> {
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    let mut command = vec!["apt-get", "install", "-y", "--no-install-recommends"];
    command.extend(&names);
    let why = format!("{} Debian package(s)", names.len());
    let install = Step::new(why, &command, true).env("DEBIAN_FRONTEND", "noninteractive");
    let update = Step::new("the package lists", &["apt-get", "update"], true);
    vec![update, install]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_installed_packages_do_not_count() {
        let text = "installed gcc\nconfig-files nftables\nnot-installed kmod\ninstalled bpftool\n";
        let names: Vec<String> = parse_installed(text).into_iter().collect();
        assert_eq!(names, ["bpftool", "gcc"]);
    }
}
