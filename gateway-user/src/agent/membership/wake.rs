//! Waking the thread out of its poll.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// The other threads' end.
#[derive(Debug)]
pub(super) struct Waker(UnixStream);

/// The thread's end.
#[derive(Debug)]
pub(super) struct Wakes(UnixStream);

pub(super) fn pair() -> io::Result<(Waker, Wakes)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((Waker(ours), Wakes(theirs)))
}

impl Waker {
    /// A full buffer is a wake that is on its way already.
    pub(super) fn wake(&self) {
        let _ = (&self.0).write(&[1]);
    }
}

impl Wakes {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes back all wakes.
    pub(super) fn clear(&mut self) {
        let mut buffer = [0; 256];
        while matches!(self.0.read(&mut buffer), Ok(read) if read == buffer.len()) {}
    }
}
