//! The state of an interface by ioctl: netlink would wait whenever anybody changes any interface of
//! the host, and heartbeats cannot.

use std::ffi::CString;
use std::os::fd::AsRawFd;

/// What the kernel says of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Its index: another one is another interface.
    pub(super) index: u32,
    /// Up, and with a carrier.
    pub(super) running: bool,
}

/// The interface called `name` in the network namespace of `socket`, if there is one.
pub(super) fn of(socket: &impl AsRawFd, name: &str) -> Option<State> {
    let name = CString::new(name).ok()?;
    let flags = flags(socket, &name)?;
    // SAFETY: the name is a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    (index != 0).then_some(State {
        index,
        running: flags & up == up,
    })
}

fn flags(socket: &impl AsRawFd, name: &CString) -> Option<libc::c_int> {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let octets = name.as_bytes();
    if octets.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(octets) {
        *to = from.cast_signed();
    }
    // SAFETY: the kernel reads and writes the structure, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    if result < 0 {
        return None;
    }
    // SAFETY: SIOCGIFFLAGS has written this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Some(libc::c_int::from(flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_there_and_others_are_not() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let lo = of(&socket, "lo").unwrap();
        assert_eq!((lo.index, lo.running), (1, true));
        assert_eq!(of(&socket, "no-such-if"), None);
        assert_eq!(of(&socket, "longer-than-any-name"), None);
    }
}
