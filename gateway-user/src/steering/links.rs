//! XDP links: pinned, by interface index, updated in place.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::{loaded_links, loaded_programs};
use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use serde::{Deserialize, Serialize};

use super::config::AttachMode;
use super::error::SteeringError;
use super::pins::pin_error;
use super::sys::{self, LinkKind};
use crate::rtnl::{self, Link, Socket};

/// How an interface runs its XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, on every interface but slower.
    Generic,
    /// Not at all (`attach = "none"`, or an inside interface whose program this build lacks).
    None,
}

impl XdpMode {
    /// The word in configuration and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::None => "none",
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Native => XDP_FLAGS_DRV_MODE,
            Self::Generic => XDP_FLAGS_SKB_MODE,
            Self::None => 0,
        }
    }
}

const XDP_PREFIX: &str = "xdp_";
const TCX_PREFIX: &str = "tcx_";

/// The pin of an interface's XDP link. By index: bpffs allows no dots, interface names do.
pub(super) fn xdp_pin(folder: &Path, interface: u32) -> PathBuf {
    folder.join(format!("{XDP_PREFIX}{interface}"))
}

/// The pin of an interface's tcx link.
pub(super) fn tcx_pin(folder: &Path, interface: u32) -> PathBuf {
    folder.join(format!("{TCX_PREFIX}{interface}"))
}

/// An attached XDP program.
#[derive(Debug)]
pub(super) struct XdpLink {
    /// Keeps the link in the kernel even if somebody removes the pin while the agent runs.
    link: OwnedFd,
    /// Native or generic.
    pub(super) mode: XdpMode,
}

impl XdpLink {
    /// What the kernel says about it.
    pub(super) fn info(&self) -> io::Result<sys::LinkInfo> {
        sys::link_info(self.link.as_fd(), LinkKind::Xdp)
    }
}

/// Attaches `program` to `link`: swaps the program of the pinned link if there is one, else makes
/// and pins one.
pub(super) fn attach(
    socket: &mut Socket,
    folder: &Path,
    link: &Link,
    program: BorrowedFd<'_>,
    wanted: AttachMode,
) -> Result<XdpLink, SteeringError> {
    let pin = xdp_pin(folder, link.index);
    if let Some(existing) = reuse(&pin, link, wanted)? {
        sys::update_link(existing.as_fd(), program)
            .map_err(|source| pin_error("update link", &pin, source))?;
        let mode = mode_of(socket, link)?;
        return Ok(XdpLink {
            link: existing,
            mode,
        });
    }
    let (new, mode) = create(link, program, wanted)?;
    sys::pin(new.as_fd(), &pin).map_err(|source| pin_error("pin link", &pin, source))?;
    Ok(XdpLink { link: new, mode })
}

/// The pinned link, if it still sits on this interface and runs in an allowed mode. Otherwise
/// the pin is removed.
fn reuse(pin: &Path, link: &Link, wanted: AttachMode) -> Result<Option<OwnedFd>, SteeringError> {
    let Some(existing) = open_link(pin)? else {
        return Ok(None);
    };
    let info = match sys::link_info(existing.as_fd(), LinkKind::Xdp) {
        Ok(info) => info,
        Err(source) if source.kind() == io::ErrorKind::InvalidData => {
            return Err(pin_error("reuse", pin, source));
        }
        Err(source) => return Err(pin_error("read link", pin, source)),
    };
    let here = link
        .xdp
        .filter(|xdp| info.interface == link.index && xdp.program_id == info.program_id);
    let Some(xdp) = here else {
        if info.interface != 0 {
            // The index means another interface in the namespace where this link was made.
            return Err(pin_error(
                "reuse link",
                pin,
                io::Error::other(
                    "it belongs to an interface of another network namespace; give every \
                     gatewayd its own steering.bpffs",
                ),
            ));
        }
        release(pin)?;
        return Ok(None);
    };
    let allowed = match wanted {
        AttachMode::Native => xdp.native,
        AttachMode::Generic => !xdp.native,
        AttachMode::Auto | AttachMode::None => true,
    };
    if !allowed {
        tracing::warn!(
            interface = link.name,
            "steering pauses on this interface: its program changes between native and generic"
        );
        release(pin)?;
        return Ok(None);
    }
    Ok(Some(existing))
}

/// Opens a pinned link; `None` if nothing is pinned there.
pub(super) fn open_link(pin: &Path) -> Result<Option<OwnedFd>, SteeringError> {
    match sys::open_pin(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(pin_error("open link", pin, source)),
    }
}

/// Detaches the link that is pinned here, if any, and removes the pin.
pub(super) fn release(pin: &Path) -> Result<(), SteeringError> {
    if let Some(link) = open_link(pin)?
        && let Err(error) = sys::detach_link(link.as_fd())
    {
        // The pin's removal detaches it all the same, a little later.
        tracing::debug!(pin = %pin.display(), %error, "could not detach a link at once");
    }
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(pin_error("remove", pin, source))
        }
        _ => Ok(()),
    }
}

fn create(
    link: &Link,
    program: BorrowedFd<'_>,
    wanted: AttachMode,
) -> Result<(OwnedFd, XdpMode), SteeringError> {
    let first = match wanted {
        AttachMode::Generic => XdpMode::Generic,
        AttachMode::Auto | AttachMode::Native | AttachMode::None => XdpMode::Native,
    };
    let refused = match sys::attach_xdp(program, link.index, first.flags()) {
        Ok(fd) => return Ok((fd, first)),
        Err(error) => error,
    };
    if let Some(error) = conflict(link, &refused) {
        return Err(error);
    }
    if wanted != AttachMode::Auto {
        return Err(attach_error(link, first, refused));
    }
    tracing::warn!(
        interface = link.name,
        reason = %refused,
        "the driver takes no native XDP program; attaching in generic mode, which is slower"
    );
    match sys::attach_xdp(program, link.index, XdpMode::Generic.flags()) {
        Ok(fd) => Ok((fd, XdpMode::Generic)),
        Err(error) => {
            Err(conflict(link, &error)
                .unwrap_or_else(|| attach_error(link, XdpMode::Generic, error)))
        }
    }
}

/// Names the other program on the interface, if that is why the kernel refused.
fn conflict(link: &Link, error: &io::Error) -> Option<SteeringError> {
    match error.raw_os_error()? {
        libc::EPERM => Some(SteeringError::Permission {
            operation: format!("attach an XDP program to {}", link.name),
        }),
        libc::EBUSY | libc::EEXIST => {
            let program_id = link.xdp.map_or(0, |xdp| xdp.program_id);
            Some(SteeringError::OtherProgram {
                interface: link.name.clone(),
                program_id,
                program: program_name(program_id),
                fix: how_to_remove(&link.name, program_id),
            })
        }
        _ => None,
    }
}

fn attach_error(link: &Link, mode: XdpMode, source: io::Error) -> SteeringError {
    let fix = match source.raw_os_error() {
        Some(libc::EOPNOTSUPP | 524) if mode == XdpMode::Native => {
            "set steering.attach = \"auto\" or \"generic\": the driver has no native XDP"
        }
        Some(libc::EINVAL | libc::ERANGE | libc::E2BIG) => {
            "lower the MTU, switch LRO off and reduce the number of queues (dmesg names the \
             driver's limit), or set steering.attach = \"generic\""
        }
        _ => "see dmesg for the driver's reason, or set steering.attach = \"generic\"",
    };
    SteeringError::Attach {
        interface: link.name.clone(),
        mode: mode.as_str(),
        source,
        fix,
    }
}

/// The name of the program with this id, as far as the kernel tells.
pub(super) fn program_name(id: u32) -> String {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unnamed".to_owned())
}

/// The command that takes a foreign program off an interface. One that was attached by a link
/// goes with the link only.
pub(super) fn how_to_remove(interface: &str, program_id: u32) -> String {
    let link = loaded_links()
        .filter_map(Result::ok)
        .find(|link| link.program_id() == program_id);
    match link {
        Some(link) => format!("`bpftool link detach id {}`", link.id()),
        None => format!(
            "`ip link set dev {interface} xdp off` (xdpgeneric for a generic one), or the tool \
             that attached it"
        ),
    }
}

fn mode_of(socket: &mut Socket, link: &Link) -> Result<XdpMode, SteeringError> {
    let now = rtnl::link_by_index(socket, link.index).map_err(|source| SteeringError::Netlink {
        operation: format!("read interface {}", link.name),
        source: source.into(),
    })?;
    Ok(match now.and_then(|link| link.xdp) {
        Some(xdp) if xdp.native => XdpMode::Native,
        Some(_) => XdpMode::Generic,
        None => XdpMode::None,
    })
}

/// Removes the XDP pins of every interface outside `steered` and the tcx pins of every one outside
/// `fenced`, which detaches them. Answers the interface indices.
pub(super) fn remove_unwanted(
    folder: &Path,
    steered: &[u32],
    fenced: &[u32],
) -> Result<Vec<u32>, SteeringError> {
    let mut removed = Vec::new();
    let entries = fs::read_dir(folder).map_err(|source| pin_error("list", folder, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| pin_error("list", folder, source))?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let (number, wanted) = match name.strip_prefix(XDP_PREFIX) {
            Some(number) => (Some(number), steered),
            None => (name.strip_prefix(TCX_PREFIX), fenced),
        };
        match number.and_then(|number| number.parse::<u32>().ok()) {
            Some(index) if wanted.contains(&index) => {}
            index => {
                release(&entry.path())?;
                removed.extend(index);
            }
        }
    }
    removed.sort_unstable();
    removed.dedup();
    Ok(removed)
}
