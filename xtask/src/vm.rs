//! `cargo xtask vm`: a stock Debian kernel on this machine's root file system, under virtme-ng.
//!
//! The guest sees the host's files through a throw-away overlay; only the workspace's `target`
//! and the folder of the binaries are the real ones. KVM is used where it works: some virtual
//! machines offer /dev/kvm and never get a guest past its firmware, so it is tried once and the
//! answer is kept.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::setup::{self, Needs};
use crate::{host, process};

/// Options of `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct Options {
    /// Show the guest kernel's messages.
    #[arg(long, short)]
    verbose: bool,
    /// Longest that the VM may run, in seconds.
    #[arg(long, default_value_t = 1800)]
    limit: u64,
    /// What to run in the guest, as root; a shell if nothing is given.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// Runs the `vm` task.
///
/// # Errors
/// The VM does not boot, or the command in it fails.
pub(crate) fn main(options: &Options) -> Result<()> {
    setup::ensure(Needs {
        lab: true,
        vm: true,
        checks: false,
    })?;
    let machine = Machine::find()?;
    let line = options
        .command
        .iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ");
    if line.is_empty() || options.verbose {
        let line = (!line.is_empty()).then_some(line.as_str());
        return process::run(&mut machine.command(options.verbose, line));
    }
    let good = run(&machine, &line, Duration::from_secs(options.limit))?;
    ensure!(good, "the command failed in the VM");
    Ok(())
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What a guest without KVM is told by its kernel's command line: not to test each cipher for most
/// of a minute before it lends it; that the clock of the CPUs is one (it is the host's), since it
/// takes a slow device for each look at the time otherwise; and not to mitigate attacks on a CPU
/// that does not speculate, each of whose indirect jumps becomes a dozen.
const EMULATED: [&str; 3] = ["cryptomgr.notests", "tsc=reliable", "mitigations=off"];

/// A VM that can be booted here.
pub(crate) struct Machine {
    vng: PathBuf,
    kernel: PathBuf,
    kvm: bool,
}

impl Machine {
    /// Looks for the pieces.
    ///
    /// # Errors
    /// virtme-ng or a kernel image with its modules is missing.
    pub(crate) fn find() -> Result<Self> {
        let vng = setup::vng().context("virtme-ng is missing: cargo xtask setup --with-vm")?;
        let kernel = setup::vm_kernel()
            .context("no kernel image with modules in /boot: apt-get install linux-image-amd64")?;
        let kvm = kvm_works(&kernel);
        Ok(Self { vng, kernel, kvm })
    }

    /// What `GATEWAY_LAB_PATIENCE` is in the guest: how many times slower than real hardware it may
    /// be. How slow an emulated one is it tells by how long it took to boot.
    pub(crate) fn patience(&self) -> &'static str {
        if self.kvm { "2" } else { "by-boot" }
    }

    /// One line about the machine.
    pub(crate) fn describe(&self) -> String {
        let kernel = self
            .kernel
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let how = if self.kvm { "KVM" } else { "emulated, no KVM" };
        format!("{} ({how})", kernel.trim_start_matches("vmlinuz-"))
    }

    /// The command that boots the VM and runs `line` in its shell.
    pub(crate) fn command(&self, verbose: bool, line: Option<&str>) -> Command {
        let mut command = Command::new(&self.vng);
        // virtme-ng starts its own helpers by name.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = self.vng.parent().map(Path::to_owned).into_iter();
        if let Ok(path) = std::env::join_paths(dirs.chain(std::env::split_paths(&path))) {
            command.env("PATH", path);
        }
        command
            .current_dir(host::root())
            .arg("-r")
            .arg(&self.kernel);
        command.args([
            "--user",
            "root",
            "--cpus",
            &cpus().to_string(),
            "--memory",
            "2G",
        ]);
        if !self.kvm {
            command.arg("--disable-kvm");
            for parameter in EMULATED {
                command.args(["--append", parameter]);
            }
        }
        if verbose {
            command.arg("--verbose");
        }
        for dir in writable() {
            command.arg("--rwdir").arg(dir);
        }
        if let Some(line) = line {
            command.arg("--").arg(line);
        }
        command
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().min(4))
}

/// Folders that the guest writes through to the host.
fn writable() -> Vec<PathBuf> {
    let mut dirs = vec![host::output()];
    if !host::target().starts_with(host::output()) {
        dirs.push(host::target());
    }
    dirs
}

/// Whether a guest gets as far as its kernel's first message under KVM. Asked once per machine
/// boot: the answer lies in `target/tools`.
fn kvm_works(kernel: &Path) -> bool {
    if !Path::new("/dev/kvm").exists() {
        return false;
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let file = host::output().join("tools/kvm-probe");
    if let Ok(text) = std::fs::read_to_string(&file)
        && let Some(answer) = text.strip_prefix(boot.trim())
    {
        return answer.trim() == "works";
    }
    println!("vm: /dev/kvm is there; trying for at most 15 s whether a guest boots with it");
    let works = try_kvm(kernel).unwrap_or(false);
    let word = if works { "works" } else { "does not work" };
    println!("vm: KVM {word}");
    // Only a cache: a failure to write it costs the next run 15 s.
    let _ = std::fs::create_dir_all(host::output().join("tools"));
    let _ = std::fs::write(&file, format!("{} {word}\n", boot.trim()));
    works
}

fn try_kvm(kernel: &Path) -> Result<bool> {
    let log = host::output().join("tools");
    std::fs::create_dir_all(&log)?;
    let log = log.join("kvm-probe.log");
    let mut child = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35,accel=kvm",
            "-m",
            "256M",
            "-nographic",
            "-no-reboot",
        ])
        .args(["-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log)?)
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut booted = false;
    while !booted && Instant::now() < deadline && child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(200));
        let mut text = Vec::new();
        std::fs::File::open(&log)?.read_to_end(&mut text)?;
        booted = String::from_utf8_lossy(&text).contains("Linux version");
    }
    child.kill()?;
    child.wait()?;
    Ok(booted)
}

/// Boots the VM, runs `line` in it and returns, once it has powered off, whether that succeeded.
///
/// # Errors
/// virtme-ng cannot be started or does not end in `limit`.
pub(crate) fn run(machine: &Machine, line: &str, limit: Duration) -> Result<bool> {
    let mut command = machine.command(false, Some(line));
    println!("$ {}", process::shown(&command));
    // Both are pipes: what is a file, QEMU opens anew for the guest and so truncates it.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start virtme-ng")?;
    let output = child.stdout.take().context("a child without output")?;
    let errors = child.stderr.take().context("a child without errors")?;
    let printers = [
        std::thread::spawn(move || print_plain(output)),
        std::thread::spawn(move || print_plain(errors)),
    ];
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            // virtme-ng alone would leave QEMU behind, and with it a processor's load on what comes
            // after.
            process::kill_tree(child.id());
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    // A helper that outlives virtme-ng may hold the pipe open; what matters has been printed.
    if status.is_some() {
        for printer in printers {
            let _ = printer.join();
        }
    }
    status
        .map(|status| status.success())
        .with_context(|| format!("the VM did not finish in {} s", limit.as_secs()))
}

/// Prints lines without what the guest's firmware and console do to a terminal.
fn print_plain(output: impl Read) {
    let mut blank = true;
    for line in BufReader::new(output).split(b'\n') {
        let Ok(line) = line else { return };
        let text = plain(&String::from_utf8_lossy(&line));
        if !(blank && text.is_empty()) {
            println!("{text}");
        }
        blank = text.is_empty();
    }
}

/// The text without carriage returns and escape sequences.
fn plain(text: &str) -> String {
    // What stands before a carriage return has been overwritten.
    let text = text.trim_end_matches('\r');
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // CSI: parameters up to a final letter. ESC c and the like are complete with that.
            '\u{1b}' => {
                if chars.next() == Some('[') {
                    while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
                }
            }
            c if c.is_control() && c != '\t' => {}
            c => out.push(c),
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_cannot_clear_the_screen() {
        assert_eq!(
            plain("\u{1b}c\u{1b}[?7l\u{1b}[2J\u{1b}[0mSeaBIOS\r"),
            "SeaBIOS"
        );
        assert_eq!(plain("tunnel-v4  passed"), "tunnel-v4  passed");
        assert_eq!(plain("      \r  member 1\r"), "  member 1");
    }
}
