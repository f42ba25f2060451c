//! Running other programs, visibly.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = Vec::new();
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        words.push(quoted(word));
    }
    words.join(" ")
}

fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Prints the command and runs it with our own standard streams.
///
/// # Errors
/// The program could not be started or ended with a code other than 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Kills a process and all that it started and those started in turn.
pub(crate) fn kill_tree(root: u32) {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok();
        if let (Some(pid), Some(parent)) = (pid, stat.as_deref().and_then(parent)) {
            parents.push((pid, parent));
        }
    }
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(above) = tree.get(next).copied() {
        let below = parents.iter().filter(|(_, parent)| *parent == above);
        tree.extend(below.map(|(pid, _)| *pid));
        next += 1;
    }
    let pids = tree.iter().map(u32::to_string);
    // Who has ended by itself cannot be killed; there is nothing else that could go wrong.
    let _ = Command::new("kill")
        .arg("-KILL")
        .args(pids)
        .stderr(Stdio::null())
        .status();
}

/// The parent in a line of `/proc/PID/stat` (proc(5)). The name before it, in parentheses, may hold
/// anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Runs the command silently and returns what it printed, or `None` if it is missing or failed.
pub(crate) fn capture(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first file of that name in `PATH`, or in the system directories that a user's `PATH` lacks.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(name))
        .find(|file| executable(file))
}

fn executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_ends_with_its_root() {
        let mut root = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = root.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        let below: u32 = line.trim().parse().unwrap();
        assert_eq!(
            std::fs::read_to_string(format!("/proc/{below}/stat"))
                .ok()
                .as_deref()
                .and_then(parent),
            Some(root.id())
        );
        kill_tree(root.id());
        root.wait().unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{below}/stat"));
            stat.map_or(true, |stat| {
                parent(&stat) != Some(root.id()) || stat.contains(") Z ")
            })
        };
        assert!((0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            gone()
        }));
    }

    #[test]
    fn a_name_with_parentheses_hides_no_parent() {
        assert_eq!(parent("17 (a) S 5 (b)) R 42 17 17 0 -1"), Some(42));
    }
}
