//! What can go wrong at start, each with its fix.

use std::io;
use std::path::PathBuf;

use super::tables::TableError;

/// Why steering could not start. Every message ends with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The pin folder is not on a bpf file system.
    #[error("{path}: not a bpf file system; fix: mount -t bpf bpf {path}")]
    NoBpffs {
        /// The configured mount point.
        path: PathBuf,
    },
    /// The process may not use BPF.
    #[error(
        "no permission to {operation}; fix: run as root, or give gatewayd CAP_BPF, CAP_NET_ADMIN \
         and CAP_PERFMON (systemd: AmbientCapabilities=)"
    )]
    Permission {
        /// What was refused.
        operation: String,
    },
    /// The kernel carries no type information.
    #[error(
        "/sys/kernel/btf/vmlinux is missing: this kernel was built without CONFIG_DEBUG_INFO_BTF; \
         fix: boot a distribution kernel (Debian 12, Ubuntu 22.04, RHEL 9 or later)"
    )]
    NoBtf,
    /// A configured interface does not exist here.
    #[error(
        "interface {name} ({role}) does not exist in this network namespace; fix: create it, or \
         correct [interfaces] in the configuration"
    )]
    NoInterface {
        /// Its configured name.
        name: String,
        /// `public`, `sync` or `inside`.
        role: &'static str,
    },
    /// One interface has two roles.
    #[error(
        "interface {name} is configured as {first} and as {second}; fix: give each role its own \
         interface in [interfaces]"
    )]
    TwoRoles {
        /// Its configured name.
        name: String,
        /// One role.
        first: &'static str,
        /// The other role.
        second: &'static str,
    },
    /// Somebody else's XDP program runs on an interface.
    #[error(
        "interface {interface} already runs XDP program {program_id} ({program}); fix: {fix}, or \
         set steering.attach = \"none\" (`bpftool net show dev {interface}` tells more)"
    )]
    OtherProgram {
        /// The interface.
        interface: String,
        /// The kernel's id of the program.
        program_id: u32,
        /// Its name.
        program: String,
        /// The command that removes it.
        fix: String,
    },
    /// A fence cannot be first on an interface.
    #[error("interface {interface}: the egress fence cannot be installed: {reason}; fix: {fix}")]
    Fence {
        /// The interface.
        interface: String,
        /// What stands in the way.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// The driver took the program in no allowed mode.
    #[error("interface {interface}: attaching in {mode} mode failed: {source}; fix: {fix}")]
    Attach {
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// A pinned map has another layout than this build.
    #[error(
        "pinned map {path} has another layout: {field} is {found}, this build needs {wanted}; \
         fix: stop every gatewayd and remove the pins (`rm -r {root}`; tunnels stay up, steering \
         pauses until the start)"
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// Which property differs.
        field: &'static str,
        /// Its value in the kernel.
        found: String,
        /// The value this build needs.
        wanted: String,
        /// The pin folder.
        root: PathBuf,
    },
    /// Another agent uses the same pins.
    #[error(
        "{path} is in use by another gatewayd; fix: stop it, or give this one its own \
         steering.bpffs"
    )]
    InUse {
        /// The pin folder.
        path: PathBuf,
    },
    /// The object was refused.
    #[error("the eBPF object was refused: {reason}; fix: {fix}")]
    Object {
        /// The loader's or verifier's words.
        reason: String,
        /// What to do.
        fix: &'static str,
    },
    /// A pin could not be made, read or removed.
    #[error(
        "{operation} {path}: {source}; fix: check the permissions and free inodes of the bpf file system"
    )]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// rtnetlink failed.
    #[error("{operation}: {source}; fix: see dmesg for the kernel's reason")]
    Netlink {
        /// What was asked.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A table could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
}
