//! A host of the lab: a network namespace with folders of its own.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::device;
use super::enter::{self, Enclosure};
use super::limit;
use super::run::{self, Run};
use super::wait::wait_until;

/// A network namespace. Dropping it deletes it.
#[derive(Debug)]
pub struct Node {
    /// Short name inside the lab: `m1`, `r`, `p`.
    pub name: String,
    unique: String,
    namespace: String,
    logs: PathBuf,
    run_dir: PathBuf,
    bpf_dir: Option<PathBuf>,
    /// Lines for `ip` that are collected, if they are.
    lines: Mutex<Option<String>>,
}

impl Node {
    /// Makes the namespace, with its loopback device up.
    ///
    /// # Errors
    /// Without root, or a kernel without network namespaces.
    pub fn new(run: &Run, name: &str) -> Result<Self> {
        Self::make(run, name, name)
    }

    /// Several nodes at once. What [`Node::ip`] is told they collect until [`Node::flush`]: on an
    /// emulated machine a program takes half a second to start.
    ///
    /// # Errors
    /// As for [`Node::new`].
    pub fn collecting(run: &Run, names: &[String]) -> Result<Vec<Self>> {
        let mut lines = String::new();
        for name in names {
            let namespace = run.namespace(name);
            run::register_namespace(&namespace);
            lines += &format!("netns add {namespace}\n");
        }
        batch(None, &lines)?;
        let node = |name: &String| {
            let mut node = Self::of_namespace(run, name, name)?;
            node.lines = Mutex::new(Some(String::new()));
            Ok(node)
        };
        names.iter().map(node).collect()
    }

    /// Another node of a name that was used before: the same name, nothing else in common.
    ///
    /// # Errors
    /// As for [`Node::new`].
    pub fn another(run: &Run, name: &str, generation: u32) -> Result<Self> {
        Self::make(run, name, &format!("{name}g{generation}"))
    }

    fn make(run: &Run, name: &str, unique: &str) -> Result<Self> {
        let namespace = run.namespace(unique);
        run::register_namespace(&namespace);
        command("ip", &["netns", "add", &namespace])?;
        Self::of_namespace(run, name, unique)
    }

    fn of_namespace(run: &Run, name: &str, unique: &str) -> Result<Self> {
        let node = Self {
            name: name.into(),
            unique: unique.into(),
            namespace: run.namespace(unique),
            logs: run.logs().to_owned(),
            run_dir: run.folder(unique, "run")?,
            bpf_dir: None,
            lines: Mutex::new(None),
        };
        node.inside(|| device::up("lo"))?;
        Ok(node)
    }

    /// Gives the node a BPF file system of its own; its pins live as long as the node.
    ///
    /// # Errors
    /// The mount fails.
    pub fn with_bpffs(mut self, run: &Run) -> Result<Self> {
        let dir = run.folder(&self.unique, "bpf")?;
        enter::mount_bpffs(&dir)?;
        run::register_mount(&dir);
        self.bpf_dir = Some(dir);
        Ok(self)
    }

    /// The namespace's name, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The namespace's handle.
    pub fn netns_path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// The folder that programs of this node see as `/run`.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// The folder that programs of this node see as `/sys/fs/bpf`, if it has one.
    pub fn bpf_dir(&self) -> Option<&Path> {
        self.bpf_dir.as_deref()
    }

    /// The path of a log of this node.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{}-{name}", self.unique))
    }

    /// A command in the node's network namespace, with the lab's own view of the file system.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Enclosure::new(&self.netns_path())?.apply(&mut command);
        Ok(command)
    }

    /// A command that also has the node's `/run`, `/sys` and `/sys/fs/bpf`.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn enclosed(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        self.with_binds(program, &[])
    }

    /// The same, and `binds` shown to the command: (source, where it appears).
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn with_binds(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        binds: &[(&Path, &str)],
    ) -> Result<Command> {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        let mut enclosure = Enclosure::new(&self.netns_path())?;
        for (source, destination) in binds {
            enclosure = enclosure.bind(source, destination)?;
        }
        if let Some(dir) = &self.bpf_dir {
            enclosure = enclosure.bind(dir, "/sys/fs/bpf")?;
        }
        // Last: our own folders lie under /run and are out of sight from here on.
        enclosure.bind(&self.run_dir, "/run")?.apply(&mut command);
        Ok(command)
    }

    /// A command on a host that has the files of `stage` among its own in `/etc`, `/usr/sbin` and
    /// `/usr/share`, and nothing but them in `/var/lib`; with the node's `/run` and `/sys/fs/bpf`.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn installed(&self, program: impl AsRef<std::ffi::OsStr>, stage: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        let mut enclosure = Enclosure::new(&self.netns_path())?;
        for folder in ["etc", "usr/sbin", "usr/share"] {
            enclosure = enclosure.overlay(&stage.join(folder), &format!("/{folder}"))?;
        }
        enclosure = enclosure.bind(&stage.join("var/lib"), "/var/lib")?;
        if let Some(dir) = &self.bpf_dir {
            enclosure = enclosure.bind(dir, "/sys/fs/bpf")?;
        }
        enclosure.bind(&self.run_dir, "/run")?.apply(&mut command);
        Ok(command)
    }

    /// Runs `ip` with one command per line; a node that collects them runs them when it is flushed.
    ///
    /// # Errors
    /// A line fails; the error quotes it.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut collected = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *collected {
            Some(collected) => {
                collected.push_str(lines.trim_end());
                collected.push('\n');
                Ok(())
            }
            None => batch(Some(&self.namespace), lines),
        }
    }

    /// Runs the lines that were collected, and from here on every one at once.
    ///
    /// # Errors
    /// A line fails; the error quotes it.
    pub fn flush(&self) -> Result<()> {
        let mut collected = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match collected.take() {
            Some(lines) => batch(Some(&self.namespace), &lines),
            None => Ok(()),
        }
    }

    /// Runs a program in the namespace and returns its standard output.
    ///
    /// # Errors
    /// It cannot be started or fails; the error carries its messages.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = limit::output(self.command(program)?.args(args));
        let output = output.with_context(|| format!("cannot start {program}"))?;
        text_of(program, args, &output)
    }

    /// Starts a program that stays; its output goes to the log `log` (appended).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, mut command: Command, log: &str) -> Result<Process> {
        let path = self.log(log);
        let file = File::options().create(true).append(true).open(&path)?;
        command.stdout(file.try_clone()?).stderr(file);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        run::register_process(child.id());
        Ok(Process {
            name: format!("{}: {program}", self.name),
            child: Some(child),
            log: path,
        })
    }

    /// Sets kernel parameters of this namespace, written `net.ipv4.ip_forward=1`.
    ///
    /// # Errors
    /// A parameter does not exist or refuses the value.
    pub fn sysctl(&self, settings: &[&str]) -> Result<()> {
        enter::in_netns(&self.netns_path(), || {
            for setting in settings {
                let (name, value) = setting.split_once('=').context("a setting without `=`")?;
                let path = Path::new("/proc/sys").join(name.replace('.', "/"));
                fs::write(&path, value).with_context(|| format!("{setting} in {}", self.name))?;
            }
            Ok(())
        })
    }

    /// Runs `work` on a thread inside the namespace; sockets that it opens stay there.
    ///
    /// # Errors
    /// The namespace is gone, or `work` failed.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        enter::in_netns(&self.netns_path(), work)
    }

    /// Loads an nftables ruleset.
    ///
    /// # Errors
    /// nft refuses it.
    pub fn nft(&self, rules: &str) -> Result<()> {
        feed(self.command("nft")?.args(["-f", "-"]), rules)
    }

    /// Sends `count` echo requests and returns how many were answered, each within `wait` seconds.
    ///
    /// # Errors
    /// fping cannot be started or prints no statistics.
    pub fn ping(&self, from: Option<IpAddr>, to: IpAddr, count: u32, wait: u32) -> Result<u32> {
        let mut command = self.echoes(from, to, count, Duration::from_millis(200), wait)?;
        let text = limit::output(&mut command).context("fping")?.stderr;
        let text = String::from_utf8_lossy(&text);
        answered(&text).with_context(|| format!("fping {to}: {text}"))
    }

    /// The command that sends `count` echo requests; [`answered`] understands what it prints on its
    /// standard error. `ping` would not do: with the first answer it has, it waits for the last one
    /// no longer than twice the longest round trip.
    pub(crate) fn echoes(
        &self,
        from: Option<IpAddr>,
        to: IpAddr,
        count: u32,
        interval: Duration,
        wait: u32,
    ) -> Result<Command> {
        let (count, interval) = (count.to_string(), interval.as_millis().to_string());
        let wait = Duration::from_secs(wait.into()).as_millis().to_string();
        let mut command = self.command("fping")?;
        command.args(["-q", "-C", &count, "-p", &interval, "-t", &wait]);
        if let Some(source) = from {
            command.args(["-S", &source.to_string()]);
        }
        command.arg(to.to_string());
        Ok(command)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(dir) = &self.bpf_dir {
            run::remove_mount(dir);
        }
        run::remove_namespace(&self.namespace);
    }
}

/// The number of replies in the line that fping ends with: a time for each, `-` where none came.
/// `None` without such a line; fping's errors may have a colon in the same place.
pub(crate) fn answered(text: &str) -> Option<u32> {
    let (_, times) = text.lines().rev().find_map(|line| line.split_once(" : "))?;
    let mut replies = 0;
    for time in times.split_whitespace().filter(|time| *time != "-") {
        time.parse::<f64>().ok()?;
        replies += 1;
    }
    Some(replies)
}

/// A running program of a node. Dropping it kills it and waits for it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// The process id; 0 once it has ended.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// An error with the end of the log, if the program has ended by itself.
    ///
    /// # Errors
    /// It has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            bail!("{} was stopped", self.name)
        };
        if let Some(status) = child.try_wait()? {
            run::forget_process(child.id());
            self.child = None;
            bail!(
                "{} ended ({status}); it printed last:\n{}",
                self.name,
                tail(&self.output(), 15)
            );
        }
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.pid())?;
        if pid == 0 {
            bail!("{} is not running", self.name);
        }
        // SAFETY: kill(2) on our own child, which has not been waited for.
        if unsafe { libc::kill(pid, signal) } < 0 {
            return Err(std::io::Error::last_os_error()).context(self.name.clone());
        }
        Ok(())
    }

    /// Sends SIGTERM and waits for the end, at most `limit`.
    ///
    /// # Errors
    /// It did not end in time (it is killed then).
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        let name = self.name.clone();
        let mut ended = None;
        let waited = wait_until(limit, &format!("{name} to end"), || {
            ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            Ok(ended.is_some())
        });
        self.kill();
        waited?;
        ended.with_context(|| format!("{name} has no exit status"))
    }

    /// Kills it with SIGKILL and waits.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            run::forget_process(child.id());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `count` lines.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Runs `ip [-n namespace] -batch` over the lines; those that begin with `-6` go to `ip -6`, after
/// the others: a batch has one address family.
///
/// # Errors
/// A line fails.
pub(crate) fn batch(namespace: Option<&str>, lines: &str) -> Result<()> {
    let is_v6 = |line: &&str| line.trim_start().starts_with("-6 ");
    let (v6, any): (Vec<&str>, Vec<&str>) = lines.lines().partition(is_v6);
    let v6: Vec<&str> = v6
        .iter()
        .filter_map(|line| line.trim_start().strip_prefix("-6 "))
        .collect();
    for (family, lines) in [(None, any), (Some("-6"), v6)] {
        if lines.is_empty() {
            continue;
        }
        let mut command = Command::new("ip");
        if let Some(namespace) = namespace {
            command.args(["-n", namespace]);
        }
        command.args(family).args(["-batch", "-"]);
        feed(&mut command, &lines.join("\n"))?;
    }
    Ok(())
}

/// Runs a command with `input` on its standard input.
fn feed(command: &mut Command, input: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = limit::output_of_input(command, input).with_context(|| program.clone())?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed: {}\n{}", errors.trim(), numbered(input));
    }
    Ok(())
}

fn numbered(input: &str) -> String {
    let lines = input.lines().enumerate();
    lines
        .map(|(index, line)| format!("{:4} {line}\n", index + 1))
        .collect()
}

/// Runs a program and returns its standard output.
///
/// # Errors
/// It cannot be started or fails.
pub fn command(program: &str, args: &[&str]) -> Result<String> {
    let output = limit::output(Command::new(program).args(args).stdin(Stdio::null()));
    text_of(
        program,
        args,
        &output.with_context(|| format!("cannot start {program}"))?,
    )
}

fn text_of(program: &str, args: &[&str], output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{program} {}` failed ({}): {}{text}",
            args.join(" "),
            output.status,
            errors
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_statistics() {
        let text = "ICMP Host Unreachable from 10.1.0.9 for ICMP Echo sent to 10.1.0.100\n\
                    10.1.0.100 : 0.17 - 12.4\n";
        assert_eq!(answered(text), Some(2));
        assert_eq!(answered("fd00:1::100 : - - -\n"), Some(0));
        assert_eq!(answered("unknown host"), None);
        let refused = "fping: cannot bind source address : Cannot assign requested address\n";
        assert_eq!(answered(refused), None);
    }
}
