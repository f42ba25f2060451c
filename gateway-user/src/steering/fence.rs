//! The egress fence: first in line on every interface that an ESP packet can leave by.
//!
//! On kernels from 6.6 a pinned tcx link with order "first"; before, a clsact filter at the lowest
//! preference, replaced atomically. Any filter in front of it that answers `TC_ACT_OK` would let
//! packets around it, and `tc qdisc del … clsact` removes it without a word: so its place is
//! verified again and again, not only at start.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gateway_common::abi::program;

use super::error::SteeringError;
use super::links::{open_link, program_name, release, tcx_pin};
use super::pins::pin_error;
use super::sys::{self, LinkKind};
use crate::rtnl::{self, Link, NetlinkError, Socket};

/// Which hook the fence uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceHook {
    /// A pinned link on the tcx egress hook (kernel 6.6 and later).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

/// The fence on one interface.
#[derive(Debug)]
pub(super) enum Fence {
    /// By link.
    Tcx(OwnedFd),
    /// By filter; the kernel's id of the program it runs.
    Clsact(u32),
}

/// What is wrong with a fence that was installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// Gone: qdisc or filter deleted, link detached.
    Missing,
    /// Another program or filter runs before it.
    NotFirst(String),
}

/// Installs the fence on `link`, or swaps the program of the one that is there.
pub(super) fn install(
    socket: &mut Socket,
    folder: &Path,
    link: &Link,
    fence: BorrowedFd<'_>,
    program_id: u32,
    hook: Option<FenceHook>,
) -> Result<Fence, SteeringError> {
    if hook == Some(FenceHook::Clsact) {
        return install_clsact(socket, link, fence, program_id);
    }
    match install_tcx(folder, link, fence) {
        Err(SteeringError::Attach { source, .. })
            if hook.is_none() && source.raw_os_error() == Some(libc::EINVAL) =>
        {
            // The kernel does not know this hook: it is older than 6.6.
            install_clsact(socket, link, fence, program_id)
        }
        other => other.map(Fence::Tcx),
    }
}

fn install_tcx(
    folder: &Path,
    link: &Link,
    fence: BorrowedFd<'_>,
) -> Result<OwnedFd, SteeringError> {
    let pin = tcx_pin(folder, link.index);
    if let Some(existing) = open_link(&pin)? {
        let info = sys::link_info(existing.as_fd(), LinkKind::TcxEgress)
            .map_err(|source| pin_error("read link", &pin, source))?;
        if info.interface == link.index {
            sys::update_link(existing.as_fd(), fence)
                .map_err(|source| pin_error("update link", &pin, source))?;
            return Ok(existing);
        }
        release(&pin)?;
    }
    let new = sys::attach_tcx_first(fence, link.index).map_err(|source| tcx_error(link, source))?;
    sys::pin(new.as_fd(), &pin).map_err(|source| pin_error("pin link", &pin, source))?;
    Ok(new)
}

/// Puts `fence`, a second copy of the program, in front of everything on the hook, then lets the
/// old link go.
pub(super) fn renew_tcx(
    folder: &Path,
    link: &Link,
    fence: BorrowedFd<'_>,
) -> Result<Fence, SteeringError> {
    let new = sys::attach_tcx_first(fence, link.index).map_err(|source| tcx_error(link, source))?;
    let pin = tcx_pin(folder, link.index);
    release(&pin)?;
    sys::pin(new.as_fd(), &pin).map_err(|source| pin_error("pin link", &pin, source))?;
    Ok(Fence::Tcx(new))
}

fn tcx_error(link: &Link, source: io::Error) -> SteeringError {
    if source.raw_os_error() == Some(libc::EPERM) {
        return SteeringError::Permission {
            operation: format!("attach the egress fence to {}", link.name),
        };
    }
    SteeringError::Attach {
        interface: link.name.clone(),
        mode: "tcx",
        source,
        fix: "`bpftool net show` lists what else is attached there",
    }
}

fn install_clsact(
    socket: &mut Socket,
    link: &Link,
    fence: BorrowedFd<'_>,
    program_id: u32,
) -> Result<Fence, SteeringError> {
    rtnl::ensure_clsact(socket, link.index).map_err(|error| clsact_error(link, &error))?;
    rtnl::replace_egress(socket, link.index, fence, program::EGRESS)
        .map_err(|error| clsact_error(link, &error))?;
    Ok(Fence::Clsact(program_id))
}

fn clsact_error(link: &Link, error: &NetlinkError) -> SteeringError {
    match error.errno() {
        Some(libc::EPERM) => SteeringError::Permission {
            operation: format!("attach the egress fence to {}", link.name),
        },
        Some(libc::EINVAL | libc::EEXIST) => SteeringError::Fence {
            interface: link.name.clone(),
            reason: format!("something else holds the egress preference 1: {error}"),
            fix: format!(
                "move it to a higher preference (`tc filter show dev {} egress`)",
                link.name
            ),
        },
        _ => SteeringError::Fence {
            interface: link.name.clone(),
            reason: error.to_string(),
            fix: "load the kernel modules sch_ingress and cls_bpf".to_owned(),
        },
    }
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("the egress fence was removed"),
            Self::NotFirst(other) => write!(f, "{other} runs before the egress fence"),
        }
    }
}

impl Fence {
    /// Which hook it uses.
    pub(super) const fn hook(&self) -> FenceHook {
        match self {
            Self::Tcx(_) => FenceHook::Tcx,
            Self::Clsact(_) => FenceHook::Clsact,
        }
    }

    /// Whether the fence still stands, in front of everything else.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub(super) fn check(&self, socket: &mut Socket, link: &Link) -> io::Result<Option<Breach>> {
        match self {
            Self::Tcx(fd) => check_tcx(fd.as_fd(), link),
            Self::Clsact(id) => check_clsact(socket, link, *id),
        }
    }
}

fn check_tcx(fd: BorrowedFd<'_>, link: &Link) -> io::Result<Option<Breach>> {
    let info = sys::link_info(fd, LinkKind::TcxEgress)?;
    if info.interface != link.index {
        return Ok(Some(Breach::Missing));
    }
    let programs = sys::tcx_egress_programs(link.index)?;
    Ok(match programs.first() {
        Some(first) if *first == info.program_id => None,
        Some(first) => Some(Breach::NotFirst(format!(
            "tcx program {first} ({})",
            program_name(*first)
        ))),
        None => Some(Breach::Missing),
    })
}

fn check_clsact(socket: &mut Socket, link: &Link, id: u32) -> io::Result<Option<Breach>> {
    // tcx programs run before the qdisc's filters, whatever the preference.
    if let Some(first) = tcx_programs_if_any(link.index).first() {
        let name = program_name(*first);
        return Ok(Some(Breach::NotFirst(format!(
            "tcx program {first} ({name})"
        ))));
    }
    let filters = rtnl::egress_filters(socket, link.index)?;
    let ours = |filter: &rtnl::EgressFilter| filter.is_ours() && filter.program_id == Some(id);
    Ok(match filters.first() {
        Some(first) if ours(first) => None,
        Some(first) if filters.iter().any(ours) => Some(Breach::NotFirst(format!(
            "{} filter {} at preference {}",
            first.kind, first.handle, first.preference
        ))),
        _ => Some(Breach::Missing),
    })
}

fn tcx_programs_if_any(interface: u32) -> Vec<u32> {
    // Kernels without tcx refuse the query.
    sys::tcx_egress_programs(interface).unwrap_or_default()
}

/// Removes the fence filters that an earlier start left on interfaces outside `wanted`; fences by
/// link go with their pins.
pub(super) fn remove_unwanted(socket: &mut Socket, wanted: &[u32]) -> Result<(), SteeringError> {
    let failed = |source: NetlinkError| SteeringError::Netlink {
        operation: "remove the fence from interfaces that are no longer configured".to_owned(),
        source: source.into(),
    };
    for link in rtnl::links(socket).map_err(failed)? {
        if wanted.contains(&link.index) {
            continue;
        }
        let filters = rtnl::egress_filters(socket, link.index).map_err(failed)?;
        let ours = filters
            .iter()
            .any(|filter| filter.is_ours() && filter.name.as_deref() == Some(program::EGRESS));
        if ours {
            rtnl::delete_egress(socket, link.index).map_err(failed)?;
            tracing::info!(interface = link.name, "removed the egress fence");
        }
    }
    Ok(())
}
