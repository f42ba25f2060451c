//! The worked examples of `deploy/examples`: the very files, on hosts of the lab.
//!
//! A folder of an example is what belongs on one host, beginning at `/`. The host's programs see it
//! there, among the files of the machine, and start what the packages' units start.

use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::node::{Node, Process};
use super::run::Run;

/// Why a scenario was not run: something that it needs is not here. It has not passed.
#[derive(Debug)]
pub struct Skipped(pub String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Where the repository is.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where `cargo xtask setup` unpacks Debian packages whose daemons are not to start with the machine.
pub(super) const UNPACKED: &str = "target/tools/daemons";

/// Where FRR's own libraries are; an installed FRR finds them by itself.
const FRR_LIBRARIES: &str = "usr/lib/x86_64-linux-gnu/frr";

/// An example's folder.
#[derive(Debug)]
pub struct Example {
    folder: PathBuf,
    binaries: PathBuf,
    /// Whether SAs go into the kernel, or are only recorded.
    kernel_esp: bool,
    programs: Vec<String>,
}

/// A host with one of the example's folders.
#[derive(Debug)]
pub struct ExampleHost {
    stage: PathBuf,
}

impl Example {
    /// The example `name`, which needs these programs beside the gateway's own.
    ///
    /// # Errors
    /// [`Skipped`] if one of them is not here.
    pub fn new(name: &str, binaries: &Path, kernel_esp: bool, programs: &[&str]) -> Result<Self> {
        for name in programs {
            program(name)?;
        }
        Ok(Self {
            folder: repository().join("deploy/examples").join(name),
            binaries: binaries.to_owned(),
            kernel_esp,
            programs: programs.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    /// Puts the files of the folder `host` on `node`, with the programs.
    ///
    /// # Errors
    /// There is no such folder, or a file cannot be copied.
    pub fn install(&self, run: &Run, node: &Node, host: &str) -> Result<ExampleHost> {
        let stage = run.folder(&node.name, "stage")?;
        for folder in ["etc", "usr/sbin", "usr/share/gateway", "var/lib"] {
            fs::create_dir_all(stage.join(folder))?;
        }
        copy(&self.folder.join(host), &stage)?;
        let config = stage.join("etc/gateway/gateway.toml");
        if !self.kernel_esp && config.exists() {
            // The one thing that this kernel cannot do.
            let text = fs::read_to_string(&config)?;
            fs::write(&config, text + "\n[kernel]\nbackend = \"recording\"\n")?;
        }
        for program in ["gatewayd", "gatewayctl"] {
            let to = stage.join("usr/sbin").join(program);
            symlink(self.binaries.join(program), &to).with_context(|| to.display().to_string())?;
        }
        for program in &self.programs {
            if let Some(found) = find(program).filter(|found| !found.starts_with("/usr/sbin")) {
                symlink(found, stage.join("usr/sbin").join(program))?;
            }
        }
        for name in ["health-check.sh", "frr-announce.sh"] {
            let script = stage.join("usr/share/gateway").join(name);
            fs::copy(repository().join("deploy/routing").join(name), &script)?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        }
        Ok(ExampleHost { stage })
    }

    /// Makes the cluster's certificates and the witness's key as the example's README does, and puts
    /// them on the members' hosts and, if there is one, on the witness.
    ///
    /// # Errors
    /// `gatewayctl` fails.
    pub fn secrets(
        &self,
        run: &Run,
        members: &[ExampleHost],
        witness: Option<&ExampleHost>,
        psk: &str,
    ) -> Result<()> {
        let ca = run.log("ca").display().to_string();
        self.gatewayctl(&["pki", "init", "--dir", &ca, "--cluster", "hq"])?;
        for (id, host) in (1..).zip(members) {
            let (member, sync) = (format!("{id}"), format!("10.99.0.{id}"));
            let out = host.file("etc/gateway/pki").display().to_string();
            self.gatewayctl(&[
                "pki",
                "issue",
                "--dir",
                &ca,
                "--member",
                &member,
                "--sync-address",
                &sync,
                "--out",
                &out,
            ])?;
            host.put("etc/gateway/psk/site-1", &format!("{psk}\n"))?;
        }
        if let Some(witness) = witness {
            let key = run.log("witness.key");
            self.gatewayctl(&["pki", "witness", "--out", &key.display().to_string()])?;
            let key = fs::read_to_string(key)?;
            for host in members.iter().chain([witness]) {
                host.put("etc/gateway/witness.key", &key)?;
            }
        }
        Ok(())
    }

    fn gatewayctl(&self, args: &[&str]) -> Result<()> {
        let mut command = Command::new(self.binaries.join("gatewayctl"));
        let output = command
            .args(args)
            .output()
            .context("cannot start gatewayctl")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "gatewayctl {}: {errors}",
            args.join(" ")
        );
        Ok(())
    }
}

impl ExampleHost {
    /// The place of one of the host's own files.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.stage.join(path)
    }

    fn command(&self, node: &Node, program: &str) -> Result<Command> {
        let mut command = node.installed(program, &self.stage)?;
        let libraries = repository().join(UNPACKED).join(FRR_LIBRARIES);
        if libraries.is_dir() {
            command.env("LD_LIBRARY_PATH", std::path::absolute(libraries)?);
        }
        Ok(command)
    }

    /// What a unit among the host's own files starts: the value of `key`.
    ///
    /// # Errors
    /// There is no such unit or key.
    pub fn unit_line(&self, unit: &str, key: &str) -> Result<String> {
        value_of(&self.file("etc/systemd/system").join(unit), key)
    }

    /// Writes a file with mode 0600.
    fn put(&self, path: &str, text: &str) -> Result<()> {
        let file = self.file(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        Ok(fs::set_permissions(
            file,
            fs::Permissions::from_mode(0o600),
        )?)
    }

    /// Starts a command line that stays; its output goes to the node's log `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, node: &Node, line: &str, log: &str) -> Result<Process> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        let mut command = self.command(node, program)?;
        command.args(words).env("NO_COLOR", "1");
        node.spawn(command, log)
    }

    /// Runs a command line; returns what it printed.
    ///
    /// # Errors
    /// It fails; the error has what it printed.
    pub fn run(&self, node: &Node, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        let output = self.command(node, program)?.args(words).output();
        let output = output.context(line.to_owned())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("`{line}` on {}: {text}{errors}", node.name);
        }
        Ok(text)
    }
}

/// What a unit of `deploy/systemd` starts: the value of `key`, without the mark that lets it fail.
///
/// # Errors
/// There is no such unit or key.
pub fn unit_line(unit: &str, key: &str) -> Result<String> {
    value_of(&repository().join("deploy/systemd").join(unit), key)
}

fn value_of(unit: &Path, key: &str) -> Result<String> {
    let text = fs::read_to_string(unit).with_context(|| unit.display().to_string())?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = value.with_context(|| format!("{} has no {key}", unit.display()))?;
    Ok(value.trim_start_matches('-').to_owned())
}

/// The place of a program that not every host has.
///
/// # Errors
/// [`Skipped`] if it is not here.
pub fn program(name: &str) -> Result<PathBuf> {
    let why = || {
        Skipped(format!(
            "there is no {name} here: cargo xtask setup, as root"
        ))
    };
    Ok(find(name).ok_or_else(why)?)
}

/// A program in PATH, in a folder of the system's programs, or among the unpacked ones.
fn find(program: &str) -> Option<PathBuf> {
    let unpacked = repository().join(UNPACKED);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = ["usr/sbin", "usr/lib/frr", "usr/bin"];
    let system = folders.map(|folder| Path::new("/").join(folder));
    std::env::split_paths(&path)
        .chain(system)
        .chain(folders.map(|folder| unpacked.join(folder)))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .and_then(|file| std::path::absolute(file).ok())
}

/// Copies a tree; files become readable for root alone.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        let line = unit_line("gatewayd.service", "ExecStopPost").unwrap();
        assert_eq!(
            line,
            "/usr/sbin/gatewayd --withdraw --config /etc/gateway/gateway.toml"
        );
        assert!(unit_line("gatewayd.service", "ExecNothing").is_err());
    }

    /// The members of an example have one configuration, as its first lines say.
    #[test]
    fn members_of_an_example_differ_in_their_number_alone() {
        for (example, members) in [
            ("ha-witness", &["gw-a", "gw-b"][..]),
            ("ha-keepalived", &["gw-a", "gw-b"]),
            ("ecmp-bird", &["gw-a", "gw-b", "gw-c"]),
            ("ecmp-frr", &["gw-a", "gw-b", "gw-c"]),
        ] {
            let folder = repository().join("deploy/examples").join(example);
            let mut first = None;
            for (id, member) in (1..).zip(members) {
                let file = folder.join(member).join("etc/gateway/gateway.toml");
                let text = fs::read_to_string(&file).unwrap();
                let local = format!("local = {id}\n");
                assert!(text.contains(&local), "{}", file.display());
                let rest: Vec<String> = text
                    .lines()
                    .filter(|line| !line.starts_with('#') && !line.starts_with("local = "))
                    .map(str::to_owned)
                    .collect();
                let first = first.get_or_insert_with(|| rest.clone());
                assert_eq!(*first, rest, "{}", file.display());
            }
        }
    }
}
