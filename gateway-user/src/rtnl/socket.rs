//! The socket: one request at a time, answered before the next.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use socket2::Socket as RawSocket;

use super::message::{Reply, Request, attribute, replies, text, u32_at};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel sizes dump datagrams to at most 32 KiB.
const BUFFER: usize = 64 * 1024;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Dumps that a concurrent change interrupted are repeated this often.
const DUMP_ATTEMPTS: usize = 5;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", .reason.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub(crate) struct NetlinkError {
    /// The errno.
    pub(crate) error: io::Error,
    /// The kernel's extended acknowledgement, if it gave one.
    pub(crate) reason: Option<String>,
}

impl NetlinkError {
    /// The errno, if the kernel (and not the socket) said no.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.error.raw_os_error()
    }
}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            reason: None,
        }
    }
}

impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> Self {
        Self::new(error.error.kind(), error.to_string())
    }
}

/// An rtnetlink socket of the network namespace that the opening thread was in.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: RawSocket,
    sequence: u32,
}

impl Socket {
    /// Opens the socket. Answers are awaited for at most five seconds.
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: socket(2) takes no pointers; the result is checked before use.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just returned by socket(2) and belongs to nobody else.
        let socket = RawSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_GET_STRICT_CHK] {
            set_flag(&socket, option)?;
        }
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends `request`, which must carry `NLM_F_ACK`, and waits for the acknowledgement.
    pub(crate) fn execute(&mut self, request: &mut Request) -> Result<(), NetlinkError> {
        self.exchange(request, |_| ()).map(|_| ())
    }

    /// Sends `request` and collects what `parse` makes of each reply: of a dump, or of one answer
    /// that is followed by an acknowledgement. A dump that the kernel reports as inconsistent is
    /// repeated.
    pub(crate) fn query<T>(
        &mut self,
        request: &mut Request,
        parse: impl Fn(&Reply<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let consistent = self.exchange(request, |reply| found.extend(parse(reply)))?;
            if consistent {
                return Ok(found);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR).into())
    }

    fn exchange(
        &mut self,
        request: &mut Request,
        mut each: impl FnMut(&Reply<'_>),
    ) -> Result<bool, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.socket.send(request.finish(sequence))?;
        let mut buffer = vec![0u8; BUFFER];
        let mut consistent = true;
        loop {
            let received = self.receive(&mut buffer)?;
            for reply in replies(&buffer[..received]) {
                if reply.sequence != sequence {
                    continue;
                }
                consistent &= i32::from(reply.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(reply.kind) {
                    libc::NLMSG_ERROR => return outcome(&reply).map(|()| consistent),
                    libc::NLMSG_DONE => return Ok(consistent),
                    _ => each(&reply),
                }
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // MSG_TRUNC reports the true length, so that a cut datagram is an error and not a
        // half-read table.
        // SAFETY: buffer is valid for writes of its length for the duration of the call.
        let received = unsafe {
            libc::recv(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_TRUNC,
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        if received > buffer.len() {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        Ok(received)
    }
}

/// An acknowledgement, or the error with the kernel's own words.
fn outcome(reply: &Reply<'_>) -> Result<(), NetlinkError> {
    let code = u32_at(reply.payload, 0).map_or(-libc::EPROTO, u32::cast_signed);
    if code == 0 {
        return Ok(());
    }
    // The refused request follows, cut to its header unless the kernel echoes all of it.
    const NLM_F_CAPPED: u16 = 0x100;
    let echoed = if reply.flags & NLM_F_CAPPED != 0 {
        16
    } else {
        u32_at(reply.payload, 4).map_or(16, |length| length as usize)
    };
    Err(NetlinkError {
        error: io::Error::from_raw_os_error(-code),
        reason: attribute(reply.payload, 4 + echoed, NLMSGERR_ATTR_MSG).map(text),
    })
}

fn set_flag(socket: &RawSocket, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is a c_int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
