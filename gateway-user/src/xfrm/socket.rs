//! A netlink socket: requests in batches, each answered for.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use zeroize::Zeroizing;

use super::error::XfrmError;
use super::message::{Batch, MAX_REQUEST};
use super::parse::{Messages, acknowledgement};
use super::types::Request;

/// Requests in one `send`. Their acknowledgements (about 1 KiB of socket buffer each) must fit the
/// receive buffer, also where it cannot be raised.
pub(super) const BATCH: usize = 64;

const RECEIVE_BUFFER: libc::c_int = 4 << 20;
const DATAGRAM: usize = 64 << 10;

/// How one request ended.
pub(super) type Outcome = Result<(), (i32, Option<String>)>;

/// A blocking `NETLINK_XFRM` socket in the network namespace of the thread that opened it.
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) seq: u32,
    pub(super) batch: Batch,
    pub(super) datagram: Zeroizing<Vec<u8>>,
}

/// Opens a netlink socket of any protocol; `context`: what that is, with what it needs.
pub(super) fn raw(
    protocol: libc::c_int,
    flags: libc::c_int,
    context: &'static str,
) -> Result<OwnedFd, XfrmError> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags;
    // SAFETY: no pointers involved.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
    if raw < 0 {
        return Err(XfrmError::last_os(context));
    }
    // SAFETY: `raw` is a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Opens a netlink socket for XFRM that listens to the multicast groups in `groups` (a bit mask).
pub(super) fn open(groups: u32, flags: libc::c_int) -> Result<OwnedFd, XfrmError> {
    let context = "opening a NETLINK_XFRM socket (the kernel needs CONFIG_XFRM_USER)";
    let fd = raw(libc::NETLINK_XFRM, flags, context)?;
    // The privileged option ignores net.core.rmem_max; without the privilege the limit applies.
    if set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)
            .map_err(|source| io_error("setting the netlink receive buffer", source))?;
    }
    // SAFETY: all-zero is a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = groups;
    // SAFETY: the pointer and length describe `address`.
    let bound = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    if bound < 0 {
        return Err(XfrmError::last_os("binding a NETLINK_XFRM socket"));
    }
    Ok(fd)
}

pub(super) fn set_option(
    fd: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub(super) fn io_error(context: &'static str, source: io::Error) -> XfrmError {
    XfrmError::Io { context, source }
}

/// Receives one datagram of the kernel into `buffer`; its length, 0 for one that another process
/// sent.
pub(super) fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid sockaddr_nl.
    let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    let mut from_len = size_of_val(&from) as u32;
    loop {
        // SAFETY: the pointers and lengths describe `buffer` and `from`.
        let received = unsafe {
            libc::recvfrom(
                fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_TRUNC,
                (&raw mut from).cast(),
                &raw mut from_len,
            )
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        let len = received as usize;
        if len > buffer.len() {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        return Ok(if from.nl_pid == 0 { len } else { 0 });
    }
}

impl Socket {
    /// A socket in this thread's network namespace.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open() -> Result<Self, XfrmError> {
        let fd = open(0, 0)?;
        let netlink = |name, what| {
            set_option(&fd, libc::SOL_NETLINK, name, 1).map_err(|source| io_error(what, source))
        };
        netlink(libc::NETLINK_EXT_ACK, "asking for extended netlink errors")?;
        // Otherwise the kernel sends a refused request back, key included.
        netlink(libc::NETLINK_CAP_ACK, "asking for capped netlink errors")?;
        Ok(Self {
            fd,
            seq: 0,
            batch: Batch::new(BATCH * MAX_REQUEST),
            datagram: Zeroizing::new(vec![0; DATAGRAM]),
        })
    }

    #[cfg(test)]
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    pub(super) fn send(&mut self) -> Result<(), XfrmError> {
        let bytes = self.batch.bytes();
        // SAFETY: the pointer and length describe `bytes`. A netlink socket that is not connected
        // sends to the kernel.
        let sent = unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        let result = match usize::try_from(sent) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(XfrmError::Protocol("short send")),
            Err(_) => Err(XfrmError::last_os("sending to the kernel")),
        };
        self.batch.clear();
        result
    }

    /// Sends at most [`BATCH`] requests at once and collects their outcomes; `None` for those
    /// whose acknowledgement was lost because the receive buffer ran over.
    ///
    /// # Errors
    /// When the socket fails; how far the kernel got is unknown then.
    pub(super) fn exchange(
        &mut self,
        requests: &[Request<'_>],
    ) -> Result<Vec<Option<Outcome>>, XfrmError> {
        let first = self.seq.wrapping_add(1);
        // An acknowledgement costs as much as a light request, so only the last asks for one. The
        // kernel works and answers in order: with it, what was not refused before is done.
        let acked = |index: usize| index + 1 == requests.len() || !requests[index].is_light();
        for (index, request) in requests.iter().enumerate() {
            debug_assert!(self.batch.has_room());
            let seq = self.next_seq();
            self.batch.push(request, seq, acked(index));
        }
        let mut outcomes: Vec<Option<Outcome>> = vec![None; requests.len()];
        if requests.is_empty() {
            return Ok(outcomes);
        }
        self.send()?;
        while outcomes.last().is_some_and(Option::is_none) {
            let len = match receive(&self.fd, &mut self.datagram) {
                Ok(len) => len,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.drain(first, &mut outcomes);
                    return Ok(outcomes);
                }
                Err(source) => return Err(io_error("reading the kernel's answers", source)),
            };
            note(&self.datagram[..len], first, &mut outcomes);
        }
        for (index, outcome) in outcomes.iter_mut().enumerate() {
            if !acked(index) {
                outcome.get_or_insert(Ok(()));
            }
        }
        Ok(outcomes)
    }

    /// Reads what is there without waiting: after an overrun nothing more will come.
    fn drain(&mut self, first: u32, outcomes: &mut [Option<Outcome>]) {
        while readable(&self.fd) {
            match receive(&self.fd, &mut self.datagram) {
                Ok(len) => {
                    note(&self.datagram[..len], first, outcomes);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return,
            }
        }
    }
}

/// Notes the acknowledgements in a datagram. Requests are numbered from `first`.
fn note(datagram: &[u8], first: u32, outcomes: &mut [Option<Outcome>]) {
    for message in Messages(datagram) {
        if i32::from(message.header.kind) != libc::NLMSG_ERROR {
            continue;
        }
        let index = message.header.seq.wrapping_sub(first) as usize;
        let Some(slot) = outcomes.get_mut(index).filter(|slot| slot.is_none()) else {
            continue;
        };
        *slot = Some(match acknowledgement(&message) {
            Some((0, _)) => Ok(()),
            Some(refused) => Err(refused),
            None => Err((libc::EIO, Some("malformed acknowledgement".to_owned()))),
        });
    }
}

fn readable(fd: &OwnedFd) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the pointer and count describe `poll`.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}
