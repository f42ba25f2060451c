//! One run of the lab: its names, its folders, and their removal whatever happens.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::enter;

/// Everything of ours that outlives a process: removed on drop, on Ctrl-C, and by the next run.
#[derive(Default)]
struct Registry {
    processes: BTreeSet<u32>,
    namespaces: BTreeSet<String>,
    mounts: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Where the sockets and mounts of all runs lie: a tmpfs, since Unix sockets cannot be made on
/// the file system that a VM shares with its host.
const RUNTIME: &str = "/run/gateway-lab";
/// Names of our namespaces begin with this and the process id of their run.
const PREFIX: &str = "gwlab";

fn with_registry<T>(work: impl FnOnce(&mut Registry) -> T) -> T {
    let mut guard = REGISTRY
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    work(guard.get_or_insert_default())
}

/// Names and folders of one scenario.
#[derive(Debug)]
pub struct Run {
    prefix: String,
    runtime: PathBuf,
    logs: PathBuf,
}

impl Run {
    /// A new run of `scenario`, with logs under `base/<scenario>`.
    ///
    /// # Errors
    /// The folders cannot be made; without root, `/run` is not writable.
    pub fn new(base: &Path, scenario: &str) -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}", std::process::id());
        let runtime = Path::new(RUNTIME).join(&prefix);
        let logs = base.join(scenario);
        if logs.exists() {
            fs::remove_dir_all(&logs).with_context(|| logs.display().to_string())?;
        }
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        fs::create_dir_all(&runtime).with_context(|| runtime.display().to_string())?;
        with_registry(|registry| registry.folders.insert(runtime.clone()));
        Ok(Self {
            prefix,
            runtime,
            logs,
        })
    }

    /// Where the logs of this run go; they stay.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// A file for the log `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }

    /// The name of the network namespace of `node`.
    pub(crate) fn namespace(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// A folder of `node` on a tmpfs, made on first use.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn folder(&self, node: &str, name: &str) -> Result<PathBuf> {
        let dir = self.runtime.join(node).join(name);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // What the nodes did not remove themselves, such as a half-built network.
        remove_runtime(&self.prefix);
        with_registry(|registry| registry.folders.remove(&self.runtime));
    }
}

/// Remembers a process that has to die with the run.
pub(crate) fn register_process(pid: u32) {
    with_registry(|registry| registry.processes.insert(pid));
}

/// Forgets a process that has been waited for.
pub(crate) fn forget_process(pid: u32) {
    with_registry(|registry| registry.processes.remove(&pid));
}

/// Remembers a mount.
pub(crate) fn register_mount(dir: &Path) {
    with_registry(|registry| registry.mounts.insert(dir.to_owned()));
}

/// Unmounts and forgets.
pub(crate) fn remove_mount(dir: &Path) {
    enter::unmount(dir);
    with_registry(|registry| registry.mounts.remove(dir));
}

/// Remembers a network namespace by name.
pub(crate) fn register_namespace(name: &str) {
    with_registry(|registry| registry.namespaces.insert(name.to_owned()));
}

/// Deletes and forgets a network namespace.
pub(crate) fn remove_namespace(name: &str) {
    delete_namespace(name);
    with_registry(|registry| registry.namespaces.remove(name));
}

/// As `ip netns delete` does it.
fn delete_namespace(name: &str) {
    let handle = Path::new("/run/netns").join(name);
    enter::unmount(&handle);
    let _ = fs::remove_file(handle);
}

/// Kills and removes everything that is registered.
fn remove_all() {
    with_registry(|registry| {
        for pid in std::mem::take(&mut registry.processes) {
            kill(pid);
        }
        for dir in std::mem::take(&mut registry.mounts) {
            enter::unmount(&dir);
        }
        for name in std::mem::take(&mut registry.namespaces) {
            delete_namespace(&name);
        }
        for dir in std::mem::take(&mut registry.folders) {
            let _ = fs::remove_dir_all(dir);
        }
    });
}

fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: kill(2) on a child that has not been waited for, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Removes everything on SIGINT, SIGTERM and SIGHUP, then exits with 130. To be called before
/// the first thread is started, since threads inherit the blocked signals.
pub fn clean_up_on_signals() {
    // SAFETY: a local signal set, initialised by sigemptyset; the thread uses its own copy.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    };
    std::thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: waits for the signals blocked above.
        unsafe { libc::sigwait(&raw const set, &raw mut signal) };
        eprintln!("\nlab: signal {signal}, removing namespaces and processes");
        remove_all();
        std::process::exit(130);
    });
}

/// Removes what dead runs left behind: killed with SIGKILL, they could not do it themselves.
pub fn clean_up_stale() {
    let mut stale = BTreeSet::new();
    for dir in [RUNTIME, "/run/netns"] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(pid) = owner_of(&name).filter(|pid| !alive(*pid)) {
                stale.insert((pid, name));
            }
        }
    }
    for (pid, name) in stale {
        eprintln!("lab: removing {name} of the dead run {pid}");
        if Path::new("/run/netns").join(&name).exists() {
            kill_inhabitants(&name);
            delete_namespace(&name);
        } else {
            remove_runtime(&name);
        }
    }
}

/// The process id in a name of ours.
fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn alive(pid: u32) -> bool {
    // A recycled process id belongs to something else than the lab.
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.starts_with("gateway-lab") || name.starts_with("gateway_tests"))
}

fn kill_inhabitants(namespace: &str) {
    let Ok(output) = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output()
    else {
        return;
    };
    for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        if let Ok(pid) = pid.parse() {
            kill(pid);
        }
    }
    // The namespace can be deleted while they die; this only lets their sockets go first.
    std::thread::sleep(Duration::from_millis(100));
}

/// Unmounts everything under a run's runtime folder and removes it.
fn remove_runtime(prefix: &str) {
    let dir = Path::new(RUNTIME).join(prefix);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        if let Some(target) = line.split(' ').nth(1).map(Path::new)
            && target.starts_with(&dir)
        {
            enter::unmount(target);
        }
    }
    let _ = fs::remove_dir_all(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_process_id() {
        assert_eq!(owner_of("gwlab4711-0-m1"), Some(4711));
        assert_eq!(owner_of("gwlab4711-12"), Some(4711));
        assert_eq!(owner_of("other"), None);
    }
}
