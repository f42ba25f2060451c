//! MTU, offloads, other programs.

use std::os::fd::AsRawFd;

use super::super::config::{AttachMode, Role, SteeringConfig};
use super::super::links::{how_to_remove, program_name, xdp_pin};
use super::super::sys::{self, LinkKind};
use super::{Check, Severity, steering_severity, unreadable};
use crate::rtnl::{self, Link, Socket};

const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETH_FLAG_LRO: u32 = 1 << 15;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// The configured interfaces that exist, and a failed check for each that does not.
pub(super) fn find(
    socket: &mut Socket,
    config: &SteeringConfig,
) -> (Vec<(Link, Role)>, Vec<Check>) {
    let (mut found, mut checks) = (Vec::new(), Vec::new());
    for (name, role) in config.roles() {
        match rtnl::link_by_name(socket, name) {
            Ok(Some(link)) => {
                checks.push(Check::passed("interface", name, "present".to_owned()));
                found.push((link, role));
            }
            Ok(None) => checks.push(Check::failed(
                "interface",
                name,
                Severity::Error,
                format!("the {} interface does not exist", role.as_str()),
                "create it, or correct [interfaces] in the configuration".to_owned(),
            )),
            Err(error) => checks.push(unreadable("interface", name, &error.to_string())),
        }
    }
    (found, checks)
}

pub(super) fn checks(config: &SteeringConfig, links: &[(Link, Role)]) -> Vec<Check> {
    let mut checks: Vec<Check> = mtu(config, links).into_iter().collect();
    for (link, role) in links {
        checks.extend(lro(config, link));
        checks.push(other_program(config, link));
        if *role == Role::Sync {
            checks.extend(veth(config, link));
        }
    }
    checks
}

/// A forwarded frame is as long as it came in: one that is too long for the sync interface is
/// dropped by the redirect, without a counter.
fn mtu(config: &SteeringConfig, links: &[(Link, Role)]) -> Option<Check> {
    let (sync, _) = links.iter().find(|(_, role)| *role == Role::Sync)?;
    let (largest, _) = links
        .iter()
        .filter(|(_, role)| *role != Role::Sync)
        .max_by_key(|(link, _)| link.mtu)?;
    if sync.mtu >= largest.mtu {
        let message = format!("{} octets, enough for every interface", sync.mtu);
        return Some(Check::passed("mtu", &sync.name, message));
    }
    Some(Check::failed(
        "mtu",
        &sync.name,
        steering_severity(config),
        format!(
            "{} octets, but {} has {}: longer frames are lost when they are forwarded",
            sync.mtu, largest.name, largest.mtu
        ),
        format!("ip link set dev {} mtu {}", sync.name, largest.mtu),
    ))
}

fn lro(config: &SteeringConfig, link: &Link) -> Option<Check> {
    let flags = ethtool(&link.name, ETHTOOL_GFLAGS).ok()?;
    if flags & ETH_FLAG_LRO == 0 {
        return Some(Check::passed("lro", &link.name, "off".to_owned()));
    }
    Some(Check::failed(
        "lro",
        &link.name,
        steering_severity(config),
        "large receive offload is on: it merges packets before XDP sees them and refuses \
         programs"
            .to_owned(),
        format!("ethtool -K {} lro off", link.name),
    ))
}

/// A veth accepts redirected frames only with NAPI on: with GRO, or with a native program, as ours
/// is where the driver can, and a veth can.
fn veth(config: &SteeringConfig, link: &Link) -> Option<Check> {
    if link.kind.as_deref() != Some("veth") {
        return None;
    }
    let gro = ethtool(&link.name, ETHTOOL_GGRO).ok()? != 0;
    let native = match link.xdp {
        Some(xdp) => xdp.native,
        None => matches!(config.attach, AttachMode::Auto | AttachMode::Native),
    };
    if gro || native {
        return Some(Check::passed(
            "veth",
            &link.name,
            "takes redirected frames".to_owned(),
        ));
    }
    Some(Check::failed(
        "veth",
        &link.name,
        Severity::Warning,
        "a veth without GRO and without a native XDP program drops the frames that its peer \
         redirects to it"
            .to_owned(),
        format!("ethtool -K {} gro on", link.name),
    ))
}

fn other_program(config: &SteeringConfig, link: &Link) -> Check {
    let Some(xdp) = link.xdp else {
        return Check::passed("xdp", &link.name, "no other program".to_owned());
    };
    if is_ours(config, link, xdp.program_id) {
        return Check::passed("xdp", &link.name, "runs the gateway's program".to_owned());
    }
    let name = program_name(xdp.program_id);
    Check::failed(
        "xdp",
        &link.name,
        steering_severity(config),
        format!("already runs XDP program {} ({name})", xdp.program_id),
        how_to_remove(&link.name, xdp.program_id),
    )
}

/// Ours is what the pinned link runs. Without the right to open pins the name has to do.
fn is_ours(config: &SteeringConfig, link: &Link, program_id: u32) -> bool {
    let pin = xdp_pin(&config.pin_root().join("links"), link.index);
    match sys::open_pin(&pin) {
        Ok(fd) => {
            use std::os::fd::AsFd;
            sys::link_info(fd.as_fd(), LinkKind::Xdp)
                .is_ok_and(|info| info.program_id == program_id)
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            program_name(program_id).starts_with("gateway_")
        }
        Err(_) => false,
    }
}

/// Runs an ethtool command that answers one word.
fn ethtool(interface: &str, command: u32) -> std::io::Result<u32> {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut value = Value { command, data: 0 };
    // SAFETY: ifreq is plain integers and a pointer, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(interface.bytes())
    {
        *target = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: request and the value that it points to are live for the call; the command writes
    // no more than the struct's second word.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(value.data)
}
