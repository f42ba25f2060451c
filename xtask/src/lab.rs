//! Running `gateway-lab`, here or in the VM.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::vm::{self, Machine};
use crate::{host, process};

/// Longest that one boot of the VM may take with everything it runs.
const VM_LIMIT: Duration = Duration::from_secs(40 * 60);
/// The same for the nightly run.
const VM_NIGHTLY_LIMIT: Duration = Duration::from_secs(10 * 60 * 60);

/// What the nightly run adds: every fault, so many times.
const NIGHTLY: [&str; 3] = ["--nightly", "--repeat", "20"];

/// Which scenarios to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Those that gate.
    Gating,
    /// Every fault under traffic, 20 times.
    Nightly,
}

impl Choice {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Gating => &[],
            Self::Nightly => &NIGHTLY,
        }
    }

    /// The folder of the logs, below the tier's.
    fn folder(self) -> &'static str {
        match self {
            Self::Gating => "gating",
            Self::Nightly => "nightly",
        }
    }
}

/// How one scenario ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scenario {
    /// Its name.
    pub(crate) name: String,
    /// Whether everything it asserts held.
    pub(crate) passed: bool,
    /// Whether it could not be run here; the detail says why.
    pub(crate) skipped: bool,
    /// Wall-clock time.
    pub(crate) seconds: f64,
    /// What it measured, or why it failed.
    pub(crate) detail: String,
}

/// The binary.
pub(crate) fn program() -> PathBuf {
    host::binaries().join("gateway-lab")
}

/// Whether the running kernel can install an ESP SA: tried in a scratch namespace, which needs
/// root; without root the answer is no.
pub(crate) fn kernel_has_esp() -> bool {
    if !host::is_root() {
        return false;
    }
    // On a stock kernel the module comes with the first SA; AES-GCM wants drbg loaded before.
    let script = "modprobe -qa esp4 drbg gcm seqiv 2>/dev/null; \
                  ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel \
                  aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128";
    process::capture(Command::new("unshare").args(["-n", "sh", "-c", script])).is_some()
}

/// Builds the binaries that the lab runs: one development-profile build for everything.
///
/// # Errors
/// The build fails.
pub(crate) fn build() -> Result<()> {
    process::run(host::cargo_workspace("build").arg("--bins"))
}

/// Builds the same for release; returns the lab's binary.
///
/// # Errors
/// The build fails.
pub(crate) fn build_released() -> Result<PathBuf> {
    process::run(host::cargo_workspace("build").args(["--bins", "--release"]))?;
    Ok(host::target().join("release/gateway-lab"))
}

/// Runs scenarios on this kernel.
///
/// # Errors
/// The lab could not be run at all; scenarios that fail are in the answer.
pub(crate) fn native(choice: Choice) -> Result<Vec<Scenario>> {
    let logs = host::output().join("lab/native").join(choice.folder());
    std::fs::create_dir_all(&logs)?;
    let results = logs.join("results.json");
    let mut command = Command::new(program());
    command
        .current_dir(host::root())
        .args(["run", "--tier", "native", "--logs"])
        .arg(&logs);
    command
        .arg("--results")
        .arg(&results)
        .args(choice.arguments());
    let _ = std::fs::remove_file(&results);
    println!("$ {}", process::shown(&command));
    let status = command.status().context("cannot start gateway-lab")?;
    read(&results, Ok(status.success()))
}

/// Runs scenarios in one boot of the VM.
///
/// # Errors
/// The VM does not boot, or the lab could not be run in it.
pub(crate) fn in_vm(choice: Choice) -> Result<Vec<Scenario>> {
    let machine = Machine::find()?;
    println!("VM: {}", machine.describe());
    let logs = host::output().join("lab/vm").join(choice.folder());
    std::fs::create_dir_all(&logs)?;
    let results = logs.join("results.json");
    let _ = std::fs::remove_file(&results);
    // The guest keeps nothing of the host's files: from its own memory, programs start faster.
    let line = format!(
        "mkdir /tmp/lab && cd '{}' && cp gateway-lab gatewayd gatewayctl /tmp/lab && cd '{}' && \
         GATEWAY_LAB_PATIENCE={} /tmp/lab/gateway-lab run --tier vm --logs '{}' --results '{}' {}",
        host::binaries().display(),
        host::root().display(),
        machine.patience(),
        logs.display(),
        results.display(),
        choice.arguments().join(" "),
    );
    let limit = match choice {
        Choice::Gating => VM_LIMIT,
        Choice::Nightly => VM_NIGHTLY_LIMIT,
    };
    read(&results, vm::run(&machine, &line, limit))
}

/// What the lab has written, whether or not it came to its end.
fn read(file: &Path, ended_well: Result<bool>) -> Result<Vec<Scenario>> {
    match (std::fs::read(file), ended_well) {
        (Err(_), Err(error)) => Err(error),
        (bytes, ended_well) => {
            let bytes = bytes.context("the lab left no results; see its output above")?;
            judge(&bytes, ended_well)
        }
    }
}

/// The scenarios, and one that has failed if the lab did not come to its end, or says that something
/// failed which is not among them.
fn judge(results: &[u8], ended_well: Result<bool>) -> Result<Vec<Scenario>> {
    let (mut scenarios, complete) = parse(results)?;
    let failed = scenarios
        .iter()
        .any(|scenario| !scenario.passed && !scenario.skipped);
    let wrong = match ended_well {
        Err(error) => Some(format!("{error:#}")),
        Ok(_) if !complete => Some("the lab was cut off".to_owned()),
        Ok(false) if !failed => Some("the lab failed; see its output above".to_owned()),
        Ok(_) => None,
    };
    scenarios.extend(wrong.map(|detail| Scenario {
        name: "the lab itself".to_owned(),
        passed: false,
        skipped: false,
        seconds: 0.0,
        detail,
    }));
    Ok(scenarios)
}

fn parse(bytes: &[u8]) -> Result<(Vec<Scenario>, bool)> {
    let report: Value = serde_json::from_slice(bytes).context("the lab's results")?;
    let rows = report["scenarios"]
        .as_array()
        .context("the lab's results hold no scenarios")?;
    let scenarios = rows
        .iter()
        .map(|row| Scenario {
            name: row["scenario"].as_str().unwrap_or("unnamed").to_owned(),
            passed: row["passed"].as_bool().unwrap_or(false),
            skipped: row["skipped"].as_bool().unwrap_or(false),
            seconds: row["seconds"].as_f64().unwrap_or(0.0),
            detail: row["detail"].as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    Ok((scenarios, report["complete"].as_bool().unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_without_a_verdict_have_failed() {
        let text = br#"{"complete": true, "scenarios": [{"scenario": "a", "passed": true}, {}]}"#;
        let (scenarios, complete) = parse(text).unwrap();
        assert!(complete && scenarios[0].passed && !scenarios[1].passed);
        assert!(parse(b"[]").is_err());
    }

    #[test]
    fn what_ran_before_the_lab_was_cut_off_is_told() {
        let text = br#"{"complete": false, "scenarios": [{"scenario": "a", "passed": true}]}"#;
        let verdicts = |ended_well| -> Vec<(String, bool)> {
            let scenarios = judge(text, ended_well).unwrap().into_iter();
            scenarios.map(|row| (row.detail, row.passed)).collect()
        };
        let cut_off = anyhow::anyhow!("no end in 5 s");
        let expected = |why: &str| vec![(String::new(), true), (why.to_owned(), false)];
        assert_eq!(verdicts(Err(cut_off)), expected("no end in 5 s"));
        assert_eq!(verdicts(Ok(true)), expected("the lab was cut off"));
        let text = br#"{"complete": true, "scenarios": [{"scenario": "a", "passed": true}]}"#;
        assert!(judge(text, Ok(true)).unwrap().iter().all(|row| row.passed));
        assert!(
            judge(text, Ok(false))
                .unwrap()
                .iter()
                .any(|row| !row.passed)
        );
    }
}
