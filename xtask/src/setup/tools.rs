//! Tools that Debian does not package: bpf-linker, cargo-deny, and on Debian 12 virtme-ng; and
//! libreswan, which it does not let stand beside strongSwan.

use std::path::{Path, PathBuf};

use super::{Step, apt};
use crate::{bpf_toolchain, host, process};

/// The release that understands the LLVM of our compiler.
const BPF_LINKER: &str = "0.13.0";
/// Older ones do not understand today's `cargo metadata`.
const CARGO_DENY: &str = "0.20.2";
/// The release that the VM tier is known to work with.
const VIRTME_NG: &str = "1.42";

/// The step that builds bpf-linker, unless one is there.
pub(super) fn bpf_linker() -> Option<Step> {
    if bpf_toolchain::find_linker().is_some() {
        return None;
    }
    let feature = format!("llvm-{}", apt::LLVM);
    let llvm = format!("/usr/lib/llvm-{}", apt::LLVM);
    let command = [
        "cargo",
        "install",
        "bpf-linker",
        "--version",
        BPF_LINKER,
        "--locked",
        "--no-default-features",
        "--features",
        &feature,
    ];
    Some(Step::new("bpf-linker, from source", &command, false).env("LLVM_PREFIX", &llvm))
}

/// Where `cargo-deny` is: in PATH, else among our own tools.
pub(crate) fn cargo_deny() -> Option<PathBuf> {
    let own = deny_root().join("bin/cargo-deny");
    process::find("cargo-deny").or_else(|| own.is_file().then_some(own))
}

fn deny_root() -> PathBuf {
    host::output().join("tools/cargo-deny")
}

/// The step that builds cargo-deny, unless one is there. Unoptimised: it runs for a second, and
/// optimising it would take minutes.
pub(super) fn deny() -> Option<Step> {
    if cargo_deny().is_some() {
        return None;
    }
    let root = deny_root().to_string_lossy().into_owned();
    let command = [
        "cargo",
        "install",
        "cargo-deny",
        "--version",
        CARGO_DENY,
        "--locked",
        "--debug",
        "--no-default-features",
        "--root",
        &root,
    ];
    Some(Step::new("cargo-deny, from source", &command, false))
}

/// Unpacks libreswan, unless it is there: its package and strongSwan's exclude each other, and the
/// lab wants both as peers. What it depends on is installed.
pub(super) fn libreswan() -> Option<Step> {
    let root = host::output().join("tools/libreswan");
    if root.join("usr/libexec/ipsec/pluto").is_file() || process::find("apt-get").is_none() {
        return None;
    }
    let script = "set -e; mkdir -p \"$1\"; cd \"$1\"; rm -f libreswan_*.deb; apt-get update; \
        apt-get -o APT::Sandbox::User=root download libreswan; \
        apt-get satisfy -y --no-install-recommends \"$(dpkg-deb -f libreswan_*.deb Depends)\"; \
        dpkg-deb -x libreswan_*.deb .";
    let root = root.to_string_lossy().into_owned();
    let command = ["sh", "-c", script, "sh", &root];
    let why = "libreswan, unpacked beside strongSwan";
    Some(Step::new(why, &command, true).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Programs of Debian packages that are only unpacked: installed, they would start on this machine.
/// (package, programs)
const DAEMONS: [(&str, &[&str]); 4] = [
    ("bird2", &["usr/sbin/bird", "usr/sbin/birdc"]),
    ("keepalived", &["usr/sbin/keepalived"]),
    ("frr", &["usr/lib/frr/bgpd", "usr/bin/vtysh"]),
    ("prometheus", &["usr/bin/prometheus", "usr/bin/promtool"]),
];

fn daemons_root() -> PathBuf {
    host::output().join("tools/daemons")
}

/// Unpacks what is missing of [`DAEMONS`]. The libraries that they need are installed.
pub(super) fn daemons() -> Option<Step> {
    let root = daemons_root();
    let there =
        |program: &&str| Path::new("/").join(program).is_file() || root.join(program).is_file();
    let missing = DAEMONS
        .iter()
        .filter(|(_, programs)| !programs.iter().all(&there));
    let packages: Vec<&str> = missing.map(|(package, _)| *package).collect();
    if packages.is_empty() || process::find("apt-get").is_none() {
        return None;
    }
    let script = "set -e; mkdir -p \"$1\"; cd \"$1\"; shift; rm -f *.deb; apt-get update; \
        apt-get -o APT::Sandbox::User=root download \"$@\"; \
        for package in *.deb; do \
        libraries=$(dpkg-deb -f $package Depends | tr ',' '\\n' | grep '^ *lib' | grep -v '^ *libjs-'); \
        apt-get satisfy -y --no-install-recommends \"$(echo \"$libraries\" | paste -sd,)\"; \
        dpkg-deb -x $package .; done";
    let root = root.to_string_lossy().into_owned();
    let mut command = vec!["sh", "-c", script, "sh", &root];
    command.extend(&packages);
    let why = format!("unpacked for tests: {}", packages.join(", "));
    Some(Step::new(why, &command, true).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Where `promtool` is.
pub(crate) fn promtool() -> Option<PathBuf> {
    let own = daemons_root().join("usr/bin/promtool");
    process::find("promtool").or_else(|| own.is_file().then_some(own))
}

/// The Python environment of the tools.
fn environment() -> PathBuf {
    host::output().join("tools/virtme-ng")
}

/// Where `vng` is: in PATH, else in our environment.
pub(crate) fn vng() -> Option<PathBuf> {
    let own = environment().join("bin/vng");
    process::find("vng").or_else(|| own.is_file().then_some(own))
}

/// The steps that install virtme-ng, unless it is there.
pub(super) fn virtme() -> Vec<Step> {
    if vng().is_some() {
        return Vec::new();
    }
    let dir = environment();
    let python = system_python();
    let make = ["-m", "venv", &dir.to_string_lossy()].map(str::to_owned);
    let mut create = vec![python.as_str()];
    create.extend(make.iter().map(String::as_str));
    let pip = dir.join("bin/pip").to_string_lossy().into_owned();
    let release = format!("virtme-ng=={VIRTME_NG}");
    let install = [
        pip.as_str(),
        "install",
        "--quiet",
        "--disable-pip-version-check",
        &release,
    ];
    vec![
        Step::new("a Python environment for virtme-ng", &create, false),
        Step::new("virtme-ng, which boots the VM", &install, false),
    ]
}

/// Debian's Python: one found earlier in PATH may lie in a home that the VM cannot read.
fn system_python() -> String {
    let system = Path::new("/usr/bin/python3");
    if system.is_file() {
        system.display().to_string()
    } else {
        "python3".into()
    }
}

/// Newest stock kernel image under /boot, by version.
pub(crate) fn vm_kernel() -> Option<PathBuf> {
    let mut images: Vec<PathBuf> = std::fs::read_dir("/boot")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .filter(|path| modules_of(path).is_some_and(|dir| dir.is_dir()))
        .collect();
    images.sort_by_key(|path| version_key(&path.to_string_lossy()));
    images.pop()
}

/// The modules that belong to a kernel image.
fn modules_of(image: &Path) -> Option<PathBuf> {
    let name = image.file_name()?.to_string_lossy().into_owned();
    Some(Path::new("/lib/modules").join(name.strip_prefix("vmlinuz-")?))
}

fn version_key(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_kernel_is_chosen_by_number() {
        let mut names = [
            "vmlinuz-6.1.0-9-amd64",
            "vmlinuz-6.1.0-56-amd64",
            "vmlinuz-5.10.0-99-amd64",
        ];
        names.sort_by_key(|name| version_key(name));
        assert_eq!(names[2], "vmlinuz-6.1.0-56-amd64");
    }
}
