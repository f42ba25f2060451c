//! Settings of network devices in the calling thread's namespace, by ioctl(2): as `ip link set` and
//! `ethtool -K` do it, without a program to start.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};

/// `ETHTOOL_STXCSUM` of linux/ethtool.h: checksums of what is sent are left to the device.
pub(crate) const TX_CHECKSUM: u32 = 0x17;
/// `ETHTOOL_SGRO`: packets of one flow are put together when they come in.
pub(crate) const GRO: u32 = 0x2c;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Sets a device up.
///
/// # Errors
/// There is no such device, or without privileges.
pub(crate) fn up(name: &str) -> Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = flags(name)? | libc::IFF_UP as libc::c_short;
    call(libc::SIOCSIFFLAGS, &mut request).with_context(|| format!("setting {name} up"))
}

/// Whether a device has said to the rest of the system that it has a carrier. It says so up to a
/// second later than it has: IKE daemons then look for a better path.
///
/// # Errors
/// There is no such device.
pub(crate) fn is_running(name: &str) -> Result<bool> {
    Ok(flags(name)? & libc::IFF_RUNNING as libc::c_short != 0)
}

fn flags(name: &str) -> Result<libc::c_short> {
    let mut request = request(name)?;
    call(libc::SIOCGIFFLAGS, &mut request).with_context(|| format!("flags of {name}"))?;
    // SAFETY: the call above has written this field of the union.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

/// Switches an offload on or off: [`TX_CHECKSUM`] or [`GRO`].
///
/// # Errors
/// There is no such device, it has not got the offload, or without privileges.
pub(crate) fn offload(name: &str, command: u32, on: bool) -> Result<()> {
    let mut value = Value {
        command,
        data: on.into(),
    };
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    call(libc::SIOCETHTOOL, &mut request).with_context(|| format!("offloads of {name}"))
}

fn request(name: &str) -> Result<libc::ifreq> {
    // SAFETY: a plain C structure for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(name.len() < request.ifr_name.len(), "{name} is too long");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn call(number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the structure that these requests take, and what it points to, live until it returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw mut *request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = format!("{:#}", up("nowhere0").unwrap_err());
        assert!(error.contains("nowhere0"), "{error}");
        assert!(offload("a-name-that-is-too-long", GRO, true).is_err());
    }
}
