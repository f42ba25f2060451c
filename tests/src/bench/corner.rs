//! A network namespace with the two veth pairs that the bench needs, and a thread tied to a CPU.

use std::io;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

/// The interfaces of the bench.
#[derive(Debug)]
pub(super) struct Corner {
    /// Index of the interface that frames are forwarded out of.
    pub(super) wire: u32,
    /// Its far end.
    pub(super) far_end: &'static str,
}

const WIRE: &str = "wire0";
const FAR_END: &str = "wire1";

/// Runs `work` on a thread in a namespace of its own, which goes with the thread.
pub(super) fn run<T: Send>(work: impl FnOnce(&Corner) -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let corner = enter()?;
            work(&corner)
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the bench thread panicked")))
    })
}

fn enter() -> Result<Corner> {
    // SAFETY: unshare takes no pointers and affects this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error()).context("new network namespace (needs root)");
    }
    pin_to_one_cpu()?;
    ip("link set lo up")?;
    ip(&format!("link add {WIRE} type veth peer name {FAR_END}"))?;
    ip(&format!("link set {WIRE} up"))?;
    ip(&format!("link set {FAR_END} up"))?;
    let name = std::ffi::CString::new(WIRE)?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let wire = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if wire == 0 {
        return Err(io::Error::last_os_error()).context(WIRE);
    }
    Ok(Corner {
        wire,
        far_end: FAR_END,
    })
}

/// Ties this thread to the last CPU it may run on: interrupts tend to land on the first.
fn pin_to_one_cpu() -> Result<()> {
    // SAFETY: a CPU set is plain integers, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: set is live and of the stated size.
    if unsafe { libc::sched_getaffinity(0, size, &mut set) } < 0 {
        return Err(io::Error::last_os_error()).context("sched_getaffinity");
    }
    let last = (0..libc::CPU_SETSIZE as usize)
        .rev()
        // SAFETY: the index is below CPU_SETSIZE.
        .find(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .context("no CPU to run on")?;
    // SAFETY: as above, for the set that is written.
    let result = unsafe {
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(last, &mut set);
        libc::sched_setaffinity(0, size, &set)
    };
    if result < 0 {
        return Err(io::Error::last_os_error()).context("sched_setaffinity");
    }
    Ok(())
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .context("ip (package iproute2)")?;
    if !output.status.success() {
        bail!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
