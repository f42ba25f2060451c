//! A packet socket on one interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::Socket;

/// Frames in and out of one interface.
pub(super) struct PacketSocket {
    socket: Socket,
    index: libc::c_int,
}

impl PacketSocket {
    /// On the interface with this index; receives frames of all kinds, those that it sends too.
    pub(super) fn open(index: u32) -> io::Result<Self> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: socket(2) takes no pointers; the result is checked before use.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::c_int::from(all),
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just returned by socket(2) and belongs to nobody else.
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let index = libc::c_int::try_from(index).unwrap_or(0);
        let address = link_address(index);
        // SAFETY: pointer and length describe `address`, which outlives the call.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, index })
    }

    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let address = link_address(self.index);
        // SAFETY: both pointers and lengths describe values that outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Whether a frame that `wanted` likes comes within `limit`.
    pub(super) fn wait_for(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut buffer = [0; 256];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return false;
            }
            match io::Read::read(&mut &self.socket, &mut buffer) {
                Ok(length) if wanted(&buffer[..length]) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

fn link_address(index: libc::c_int) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    }
}
