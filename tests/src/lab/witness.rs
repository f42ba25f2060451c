//! The witness: a third host that decides between two members.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::network::{Cable, Network};
use super::node::{Node, Process};
use super::run::Run;
use super::timing::Timing;
use super::wait::wait_until;

/// Its address, on the inside network.
pub const WITNESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 200);
/// Its UDP port.
pub const WITNESS_PORT: u16 = 4516;

/// `gatewayd --witness` on a host of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Witness {
    process: Process,
    node: Node,
    binaries: PathBuf,
    config: PathBuf,
}

impl Witness {
    /// Makes the key and starts the witness of a cluster; the members' files need
    /// [`Witness::table`].
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(binaries: &Path, run: &Run, network: &Network, timing: Timing) -> Result<Self> {
        let key = key_file(run);
        let mut command = Command::new(binaries.join("gatewayctl"));
        let output = command
            .args(["pki", "witness", "--out"])
            .arg(&key)
            .output()
            .context("cannot start gatewayctl")?;
        ensure!(
            output.status.success(),
            "gatewayctl pki witness: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let node = network.host_on(run, "w", Cable::Inside, WITNESS)?;
        let members: Vec<String> = (1..=network.plan.members)
            .map(|id| id.to_string())
            .collect();
        let config = run.log("witness.toml");
        let text = format!(
            "members = [{}]\nprofile = \"{}\"\nlease = \"{}ms\"\nlisten = \"{WITNESS}\"\n\
             port = {WITNESS_PORT}\nkey_file = \"{}\"\nstate_dir = \"/run/witness\"\n",
            members.join(", "),
            timing.profile,
            timing.lease.as_millis(),
            key.display(),
        );
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let process = spawn(binaries, &node, &config)?;
        let witness = Self {
            process,
            node,
            binaries: binaries.to_owned(),
            config,
        };
        witness.wait_ready(1)?;
        Ok(witness)
    }

    /// What the members' configuration files have to say.
    pub fn table(run: &Run) -> String {
        format!(
            "[witness]\naddress = \"{WITNESS}\"\nport = {WITNESS_PORT}\nkey_file = \"{}\"\n",
            key_file(run).display()
        )
    }

    /// The host.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again after [`Witness::kill`], with what it promised before.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        let runs = self.runs();
        self.process = spawn(&self.binaries, &self.node, &self.config)?;
        self.wait_ready(runs + 1)
    }

    /// Fails if it has ended by itself.
    ///
    /// # Errors
    /// It has; the error quotes its log.
    pub fn check_alive(&mut self) -> Result<()> {
        self.process.check_alive()
    }

    fn runs(&self) -> usize {
        self.process.output().matches("witness for members").count()
    }

    fn wait_ready(&self, runs: usize) -> Result<()> {
        wait_until(Duration::from_secs(10), "the witness to listen", || {
            Ok(self.runs() >= runs)
        })
    }
}

fn key_file(run: &Run) -> PathBuf {
    run.log("witness.key")
}

fn spawn(binaries: &Path, node: &Node, config: &Path) -> Result<Process> {
    let mut command = node.enclosed(binaries.join("gatewayd"))?;
    command
        .args(["--witness", "--config"])
        .arg(config)
        .env("NO_COLOR", "1");
    node.spawn(command, "witness.log")
}
