//! Entering a node's namespaces: in a child process before it executes, or on a thread.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// What a child process is moved into before it executes.
pub(crate) struct Enclosure {
    netns: File,
    /// (source, destination) of bind mounts; none means the lab's own mount namespace.
    binds: Vec<(CString, CString)>,
    /// (mount options, destination) of overlays.
    overlays: Vec<(CString, CString)>,
}

impl Enclosure {
    /// The network namespace whose handle is the file `netns`.
    ///
    /// # Errors
    /// The namespace does not exist.
    pub(crate) fn new(netns: &Path) -> Result<Self> {
        let file = File::open(netns).with_context(|| netns.display().to_string())?;
        Ok(Self {
            netns: file,
            binds: Vec::new(),
            overlays: Vec::new(),
        })
    }

    /// Also shows what is in `source` among what is at `destination`, before it and read-only, in a
    /// mount namespace of the child's own.
    ///
    /// # Errors
    /// A path contains a zero byte.
    pub(crate) fn overlay(mut self, source: &Path, destination: &str) -> Result<Self> {
        let options = format!("lowerdir={}:{destination}", source.display());
        self.overlays
            .push((CString::new(options)?, CString::new(destination)?));
        Ok(self)
    }

    /// Also shows `source` at `destination`, in a mount namespace of the child's own.
    ///
    /// # Errors
    /// A path contains a zero byte.
    pub(crate) fn bind(mut self, source: &Path, destination: &str) -> Result<Self> {
        let source = CString::new(source.as_os_str().as_bytes())?;
        self.binds.push((source, CString::new(destination)?));
        Ok(self)
    }

    /// Makes `command` enter when it is spawned. The child dies with the lab's thread that
    /// spawned it, so that nothing outlives a killed run.
    pub(crate) fn apply(self, command: &mut Command) {
        // SAFETY: the closure runs between fork and exec and only makes system calls on memory
        // that was prepared before: nothing allocates, locks or panics.
        unsafe {
            command.pre_exec(move || {
                check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
                unblock_signals()?;
                check(libc::setns(self.netns.as_raw_fd(), libc::CLONE_NEWNET))?;
                if self.binds.is_empty() && self.overlays.is_empty() {
                    Ok(())
                } else {
                    enclose(&self.binds, &self.overlays)
                }
            });
        }
    }
}

/// The lab blocks the signals that it waits for; a child must not inherit that.
fn unblock_signals() -> io::Result<()> {
    // SAFETY: an empty signal set made here; no pointer outlives the calls.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut(),
        ))
    }
}

/// A private mount namespace with a `/sys` that shows the network namespace, the overlays, and the
/// binds: these may hide where the overlays come from.
fn enclose(binds: &[(CString, CString)], overlays: &[(CString, CString)]) -> io::Result<()> {
    // SAFETY: plain system calls on constant or prepared, zero-terminated strings.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        check(mount(c"none", c"/", None, flags, None))?;
        // A fresh sysfs over the old one: sysfs shows the devices of the mounter's namespace.
        check(mount(c"sysfs", c"/sys", Some(c"sysfs"), 0, None))?;
        for (options, destination) in overlays {
            let kind = Some(c"overlay");
            check(mount(c"overlay", destination, kind, 0, Some(options)))?;
        }
        for (source, destination) in binds {
            check(mount(source, destination, None, libc::MS_BIND, None))?;
        }
    }
    Ok(())
}

/// # Safety
/// As for mount(2); the pointers come from live C strings.
unsafe fn mount(
    source: &std::ffi::CStr,
    target: &std::ffi::CStr,
    kind: Option<&std::ffi::CStr>,
    flags: libc::c_ulong,
    options: Option<&std::ffi::CStr>,
) -> libc::c_int {
    let pointer =
        |text: Option<&std::ffi::CStr>| text.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    let (kind, options) = (pointer(kind), pointer(options));
    // SAFETY: the caller's.
    unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind,
            flags,
            options.cast(),
        )
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Runs `work` on a thread of its own inside the network namespace `netns`. Sockets that it
/// opens stay there; files under /proc/sys/net that it opens are that namespace's.
///
/// # Errors
/// The namespace cannot be entered, or `work` failed.
pub(crate) fn in_netns<T: Send>(
    netns: &Path,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let file = File::open(netns).with_context(|| netns.display().to_string())?;
    let fd: RawFd = file.as_raw_fd();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: setns on an open descriptor; it changes this thread only.
            check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) }).context("setns")?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The same on a thread that goes on by itself.
///
/// # Errors
/// The namespace does not exist.
pub(crate) fn spawn_in_netns<T: Send + 'static>(
    netns: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<std::thread::JoinHandle<Result<T>>> {
    let file = File::open(netns).with_context(|| netns.display().to_string())?;
    Ok(std::thread::spawn(move || {
        // SAFETY: setns on an open descriptor; it changes this thread only.
        check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }).context("setns")?;
        drop(file);
        work()
    }))
}

/// Mounts a new instance of the BPF file system at `dir`.
///
/// # Errors
/// mount(2) failed: no root, or a kernel without BPF.
pub(crate) fn mount_bpffs(dir: &Path) -> Result<()> {
    let target = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: live C strings.
    check(unsafe { mount(c"bpf", &target, Some(c"bpf"), 0, None) })
        .with_context(|| format!("mounting a BPF file system at {}", dir.display()))
}

/// Unmounts `dir`, at once for us and when its last user is gone for the others.
pub(crate) fn unmount(dir: &Path) {
    if let Ok(target) = CString::new(dir.as_os_str().as_bytes()) {
        // SAFETY: a live C string. A failure means it was not mounted.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}
