//! What the tree may depend on: licences, sources and banned packages by `.cargo/deny.toml`, and
//! for the cores, which must stay sans-IO, a list of all that is allowed.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{host, process, setup};

/// Packages that do I/O, keep time or bring a runtime have no business in these two.
const CORES: [&str; 2] = ["gateway-ike", "gateway-cluster"];

/// What a core may depend on: values, encodings, and derive macros with their helpers. None of
/// these opens a file or a socket, reads a clock or draws random numbers. A new one is looked at
/// before it goes onto the list.
const ALLOWED: [&str; 18] = [
    "const-oid",
    "der",
    "der_derive",
    "flagset",
    "gateway-cluster",
    "gateway-common",
    "gateway-ike",
    "proc-macro2",
    "quote",
    "spki",
    "subtle",
    "syn",
    "thiserror",
    "thiserror-impl",
    "unicode-ident",
    "x509-cert",
    "zeroize",
    "zeroize_derive",
];

/// Checks both cores.
///
/// # Errors
/// A core depends, directly or not, on a package that is not allowed.
pub(crate) fn check() -> Result<String> {
    let mut counts = Vec::new();
    for core in CORES {
        let mut command = host::cargo();
        command.args(["tree", "--locked", "--prefix", "none", "--format", "{p}"]);
        command.args(["--edges", "normal", "--package", core]);
        println!("$ {}", process::shown(&command));
        let text = process::capture(&mut command).context("cargo tree failed")?;
        let found = packages(&text);
        if !found.contains(core) {
            bail!("cargo tree does not list {core} itself:\n{text}");
        }
        let bad = forbidden(&found);
        if !bad.is_empty() {
            bail!(
                "{core} must stay sans-IO, but its dependency tree has: {}",
                bad.join(", ")
            );
        }
        counts.push(format!("{core}: {} packages, none does I/O", found.len()));
    }
    println!("{}", counts.join("\n"));
    Ok(counts.join("; "))
}

/// `cargo deny`, whose rules are in `.cargo/deny.toml`.
///
/// # Errors
/// A package breaks a rule, or cargo-deny is missing.
pub(crate) fn deny() -> Result<String> {
    process::run(cargo_deny()?.args(["check", "bans", "licenses", "sources"]))?;
    Ok(String::new())
}

/// Holds the lock file against the database of known vulnerabilities, and says nothing if the
/// database cannot be had.
///
/// # Errors
/// A locked package has a known vulnerability.
pub(crate) fn advisories() -> Option<Result<String>> {
    process::capture(cargo_deny().ok()?.args(["fetch", "db"]))?;
    let check = || {
        process::run(cargo_deny()?.args(["check", "--disable-fetch", "advisories"]))?;
        Ok(String::new())
    };
    Some(check())
}

fn cargo_deny() -> Result<Command> {
    let tool = setup::cargo_deny().context("cargo-deny is missing: cargo xtask setup")?;
    let mut command = Command::new(tool);
    let manifest = host::root().join("Cargo.toml");
    command.arg("--manifest-path").arg(manifest).arg("--locked");
    Ok(command)
}

fn packages(tree: &str) -> BTreeSet<String> {
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

fn forbidden(found: &BTreeSet<String>) -> Vec<String> {
    found
        .iter()
        .filter(|name| !ALLOWED.contains(&name.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_deep_in_the_tree_is_found() {
        let tree = "gateway-ike v0.1.0 (/x)\nsubtle v2.6.1\nthiserror v2.0.0\nmio v1.0.0\ntokio v1.48.0 (*)\n";
        assert_eq!(forbidden(&packages(tree)), ["mio", "tokio"]);
    }
}
