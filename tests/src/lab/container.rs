//! A member as an operator installs it: a Debian root of its own, booted with systemd in a
//! container that shares the network of one of the lab's hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::node::{Node, Process};
use super::run;
use super::wait::wait_until;

/// Where [`Container::start`] shows the folder `shared`.
pub const SHARED: &str = "/mnt";

/// What a container may do beyond the usual: BPF, and the mounts of systemd's sandboxes.
const RIGHTS: [&str; 2] = [
    "--capability=all",
    "--system-call-filter=bpf perf_event_open @keyring @memlock @privileged",
];

/// A booted container. Dropping it ends it; what was written into its root is lost then.
#[derive(Debug)]
pub struct Container {
    process: Process,
    leader: u32,
}

impl Container {
    /// Boots the Debian root `root`, which stays as it is, with the network of `node`, and shows
    /// it the folder `shared` at [`SHARED`].
    ///
    /// # Errors
    /// It does not come up in time; its console is in the log `name`.
    pub fn start(node: &Node, root: &Path, shared: &Path, name: &str) -> Result<Self> {
        let mut command = Command::new("systemd-nspawn");
        command
            .args(["--quiet", "--register=no", "--keep-unit"])
            .args(["--volatile=overlay", "--boot", "--console=pipe"])
            .args(RIGHTS)
            .arg("--directory")
            .arg(root)
            .arg(format!(
                "--network-namespace-path={}",
                node.netns_path().display()
            ))
            .arg(format!("--bind-ro={}:{SHARED}", shared.display()))
            .stdin(Stdio::null());
        if let Some(dir) = node.bpf_dir() {
            command.arg(format!("--bind={}:/sys/fs/bpf", dir.display()));
        }
        let process = node.spawn(command, name)?;
        let mut container = Self { process, leader: 0 };
        container.wait_booted()?;
        Ok(container)
    }

    fn wait_booted(&mut self) -> Result<()> {
        let id = self.process.pid();
        wait_until(Duration::from_secs(60), "the container to boot", || {
            self.process.check_alive()?;
            // The first child is a helper of systemd-nspawn, which ends.
            if let Some(leader) = child_of(id) {
                self.leader = leader;
            }
            // "degraded" is good enough: units of a bare root may fail in a container.
            let state = self.run("systemctl", &["is-system-running"]);
            Ok(state.is_ok_and(|said| matches!(said.trim(), "running" | "degraded")))
        })?;
        run::register_process(self.leader);
        Ok(())
    }

    /// Runs a program in the container and returns what it printed, standard error behind it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        Ok(self.output(program, args)?.1)
    }

    /// As [`Container::run`].
    ///
    /// # Errors
    /// It cannot be started, or fails; the error quotes what it printed.
    pub fn must(&self, program: &str, args: &[&str]) -> Result<String> {
        let (good, text) = self.output(program, args)?;
        if !good {
            bail!("in the container: {program} {}: {text}", args.join(" "));
        }
        Ok(text)
    }

    fn output(&self, program: &str, args: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader.to_string()])
            .args([
                "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
            ])
            .arg(program)
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        let output = command.output().context("cannot start nsenter")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), text))
    }

    /// A path of the container as it is seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.leader.to_string())
            .join("root")
            .join(inside.trim_start_matches('/'))
    }
}

/// The container's first process, and with it all others: they would outlive systemd-nspawn.
impl Drop for Container {
    fn drop(&mut self) {
        if let Ok(leader) = i32::try_from(self.leader)
            && leader > 0
        {
            // SAFETY: kill(2). Its parent, systemd-nspawn, has not been ended: the id is still its own.
            unsafe { libc::kill(leader, libc::SIGKILL) };
            run::forget_process(self.leader);
        }
    }
}

/// The first child of a process.
fn child_of(process: u32) -> Option<u32> {
    let file = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(file).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
