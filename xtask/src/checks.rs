//! Static checks: format, lints, and running the workspace's tests with a count.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{host, process, setup};

/// Whether cargo knows the sub-command (`fmt`, `clippy`).
pub(crate) fn has_subcommand(name: &str) -> bool {
    process::capture(host::cargo().args([name, "--version"])).is_some()
}

/// `cargo fmt --check` over the whole workspace.
///
/// # Errors
/// Something is not formatted.
pub(crate) fn format() -> Result<String> {
    process::run(host::cargo().args(["fmt", "--all", "--check"]))?;
    Ok(String::new())
}

/// clippy over everything that builds for the host, warnings are errors.
///
/// # Errors
/// clippy finds something.
pub(crate) fn lints() -> Result<String> {
    let arguments = ["--all-targets", "--", "-D", "warnings"];
    process::run(host::cargo_workspace("clippy").args(arguments))?;
    Ok(String::new())
}

/// promtool over the alert rules: their syntax, and what each is silent and fires about.
///
/// # Errors
/// promtool is missing, or finds something.
pub(crate) fn alerts() -> Result<String> {
    let tool = setup::promtool().context("promtool is missing: cargo xtask setup, as root")?;
    for args in [
        &["check", "config", "--syntax-only", "prometheus.yml"][..],
        &["check", "rules", "alerts.yml"],
        &["test", "rules", "alerts_test.yml"],
    ] {
        let mut command = Command::new(&tool);
        command.current_dir(host::root().join("deploy/prometheus"));
        process::run(command.args(args))?;
    }
    Ok(String::new())
}

/// Unit, property and integration tests of the workspace. Returns (passed, failed, ignored).
///
/// # Errors
/// Nothing could be run.
pub(crate) fn unit_tests(extra: &[&str]) -> Result<(u64, u64, u64, bool)> {
    let mut command = host::cargo_workspace("test");
    // Mostly other crates' generic functions around the cores, which are packages of their own: to
    // optimise them, twice, takes three times as long as all that runs of them here.
    command.args(["--config", "profile.dev.package.gateway-user.opt-level=0"]);
    command.arg("--no-fail-fast");
    if !extra.is_empty() {
        command.arg("--").args(extra);
    }
    counted(&mut command)
}

/// Runs a test command, passing its output on and adding up the `test result:` lines.
fn counted(command: &mut Command) -> Result<(u64, u64, u64, bool)> {
    println!("$ {}", process::shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let stdout = child.stdout.take().context("a child without output")?;
    let mut totals = (0, 0, 0);
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        if let Some((passed, failed, ignored)) = parse_result(&line) {
            totals = (totals.0 + passed, totals.1 + failed, totals.2 + ignored);
        }
    }
    let ok = child.wait()?.success();
    if totals.0 + totals.1 == 0 {
        bail!("no test was run");
    }
    Ok((totals.0, totals.1, totals.2, ok))
}

/// (passed, failed, ignored) of a line that libtest closes a binary with.
fn parse_result(line: &str) -> Option<(u64, u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        rest.split(&['.', ';'][..])
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some((
        number("passed")?,
        number("failed")?,
        number("ignored").unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_closing_line() {
        let line = "test result: FAILED. 11 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(parse_result(line), Some((11, 2, 1)));
        assert_eq!(parse_result("test a ... ok"), None);
    }
}
