//! `cargo xtask bench [NAME]`: builds the bench binaries for release and runs them.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::setup::{self, Needs};
use crate::{host, process};

/// Benches: name, and the binary that writes its report with `--out FILE`.
const BENCHES: [(&str, &str); 1] = [("steering", "bench-steering")];

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Which benches; all if none is named.
    names: Vec<String>,
}

/// Runs the `bench` task; reports go to `target/bench/NAME.json`.
///
/// # Errors
/// An unknown name, no root, or a bench that fails.
pub(crate) fn main(options: &Options) -> Result<()> {
    let chosen = choose(&options.names)?;
    if !host::is_root() {
        bail!("the benches load BPF programs and need root");
    }
    setup::ensure(Needs {
        lab: true,
        vm: false,
    })?;
    let dir = host::output().join("bench");
    std::fs::create_dir_all(&dir)?;
    for (name, binary) in chosen {
        let build = [
            "build",
            "--locked",
            "--release",
            "-p",
            "gateway-tests",
            "--bin",
            binary,
        ];
        process::run(host::cargo().args(build))?;
        let report = dir.join(format!("{name}.json"));
        let program = host::target().join("release").join(binary);
        process::run(
            Command::new(program)
                .current_dir(host::root())
                .arg("--out")
                .arg(&report),
        )?;
        println!("{}", report.display());
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<(&'static str, &'static str)>> {
    let unknown = names
        .iter()
        .find(|name| !BENCHES.iter().any(|(known, _)| known == name));
    if let Some(name) = unknown {
        let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        bail!("no bench `{name}`; there are: {}", known.join(", "));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|chosen| chosen == name);
    Ok(BENCHES
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_benches_are_refused() {
        assert_eq!(choose(&[]).unwrap().len(), BENCHES.len());
        assert!(choose(&["stearing".into()]).is_err());
    }
}
