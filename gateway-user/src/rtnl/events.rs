//! Being told when interfaces, qdiscs or filters change.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// `RTMGRP_LINK` and `RTMGRP_TC`.
const GROUPS: u32 = (libc::RTMGRP_LINK | libc::RTMGRP_TC).cast_unsigned();

/// Says that something changed, not what: whoever asks looks at everything anyway, and so loses
/// nothing when the kernel has more to tell than the socket holds.
#[derive(Debug)]
pub(crate) struct Events(OwnedFd);

impl Events {
    /// Listens in the calling thread's network namespace from now on.
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: socket(2) takes no pointers; the result is checked before use.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                libc::NETLINK_ROUTE,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just returned by socket(2) and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the address is plain integers, for which zeros are valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = GROUPS;
        // SAFETY: the address is live and of the stated length.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(socket))
    }

    /// Waits until something has changed since the last call, at most `patience`; whether it has.
    ///
    /// # Errors
    /// The socket is unusable.
    pub(crate) fn wait(&self, patience: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one live pollfd.
        let ready = unsafe { libc::poll(&mut poll, 1, milliseconds) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            // A signal: the caller looks and comes back.
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(true),
                _ => Err(error),
            };
        }
        if ready == 0 {
            return Ok(false);
        }
        self.drain()?;
        Ok(true)
    }

    fn drain(&self) -> io::Result<()> {
        let mut cut = [0u8; 16];
        loop {
            // SAFETY: the buffer is live for the call; what does not fit is thrown away.
            let received =
                unsafe { libc::recv(self.0.as_raw_fd(), cut.as_mut_ptr().cast(), cut.len(), 0) };
            if received > 0 {
                continue;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // Told once that there was more than the socket holds.
                Some(libc::ENOBUFS | libc::EINTR) => {}
                _ if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                _ => return Err(error),
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
