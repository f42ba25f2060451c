//! Real-time scheduling of the calling thread.

use std::io;

/// In the middle of the range: above everything ordinary, below the kernel's own watchdogs.
const PRIORITY: libc::c_int = 20;

/// Has the kernel run this thread before every ordinary one (`SCHED_RR`). Threads that it starts
/// are ordinary again.
pub(super) fn real_time() -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: PRIORITY,
    };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread; the kernel only reads the structure.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
