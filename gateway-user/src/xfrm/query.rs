//! Questions to the kernel: one SA, where many stand, everything.

use std::os::fd::OwnedFd;

use zeroize::{Zeroize, Zeroizing};

use super::error::XfrmError;
use super::parse::{Messages, acknowledgement, deleted, replay_event};
use super::replay::Standpoint;
use super::socket::{Socket, io_error, open, receive, set_option};
use super::types::{SaId, SaState};
use super::uapi::{XFRMNLGRP_SA, msg};

/// How often a dump is started anew because the table changed while it was read.
const DUMP_ATTEMPTS: usize = 5;

impl Socket {
    /// One SA, handed to `read` as message payload.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(super) fn query<T>(
        &mut self,
        id: &SaId,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, XfrmError> {
        let operation = || format!("query SA {id}");
        let seq = self.next_seq();
        self.batch.push_query(id, seq);
        self.send()?;
        loop {
            let len = receive(&self.fd, &mut self.datagram)
                .map_err(|source| io_error("reading an SA", source))?;
            let mut answer = None;
            for message in Messages(&self.datagram[..len]).filter(|m| m.header.seq == seq) {
                answer = Some(match i32::from(message.header.kind) {
                    libc::NLMSG_ERROR => {
                        let (errno, words) = acknowledgement(&message).unwrap_or((libc::EIO, None));
                        Err(XfrmError::refused_operation(operation(), errno, words))
                    }
                    _ => read(message.payload).ok_or(XfrmError::Protocol("no ESP tunnel SA")),
                });
            }
            // The answer may hold a key.
            self.datagram[..len].zeroize();
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// Where SAs stand, in their order. At most [`BATCH`] at once.
    ///
    /// # Errors
    /// When the socket fails or its receive buffer runs over; inside, what the kernel answered.
    pub(super) fn standpoints(
        &mut self,
        ids: &[SaId],
    ) -> Result<Vec<Result<Standpoint, XfrmError>>, XfrmError> {
        let first = self.seq.wrapping_add(1);
        for id in ids {
            let seq = self.next_seq();
            self.batch.push_replay_query(id, seq);
        }
        let mut answers: Vec<Option<Result<Standpoint, XfrmError>>> =
            ids.iter().map(|_| None).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.send()?;
        while answers.iter().any(Option::is_none) {
            let len = receive(&self.fd, &mut self.datagram)
                .map_err(|source| io_error("reading replay states", source))?;
            for message in Messages(&self.datagram[..len]) {
                let index = message.header.seq.wrapping_sub(first) as usize;
                let (Some(answer), Some(id)) = (answers.get_mut(index), ids.get(index)) else {
                    continue;
                };
                *answer = Some(match i32::from(message.header.kind) {
                    libc::NLMSG_ERROR => {
                        let (errno, words) = acknowledgement(&message).unwrap_or((libc::EIO, None));
                        let operation = format!("query SA {id}");
                        Err(XfrmError::refused_operation(operation, errno, words))
                    }
                    _ => replay_event(message.payload)
                        .map(|(_, _, standpoint)| standpoint)
                        .ok_or(XfrmError::Protocol("no replay state")),
                });
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// All SAs or policies (`kind`), each handed to `read`, which may pass over it.
    ///
    /// # Errors
    /// What the kernel answered, or when the table changes faster than it can be read.
    pub(super) fn dump<T>(
        &mut self,
        kind: u16,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, XfrmError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(items) = self.try_dump(kind, &read)? {
                return Ok(items);
            }
        }
        Err(XfrmError::Protocol("the table kept changing during a dump"))
    }

    fn try_dump<T>(
        &mut self,
        kind: u16,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, XfrmError> {
        let seq = self.next_seq();
        self.batch.push_dump(kind, seq);
        self.send()?;
        let mut items = Vec::new();
        let mut interrupted = false;
        loop {
            let len = receive(&self.fd, &mut self.datagram)
                .map_err(|source| io_error("reading a dump", source))?;
            let mut end = None;
            for message in Messages(&self.datagram[..len]).filter(|m| m.header.seq == seq) {
                interrupted |= message.header.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match i32::from(message.header.kind) {
                    libc::NLMSG_DONE => end = Some(0),
                    libc::NLMSG_ERROR => {
                        end = Some(acknowledgement(&message).map_or(libc::EIO, |(errno, _)| errno));
                    }
                    _ => items.extend(read(message.payload)),
                }
            }
            // A dump of SAs holds keys.
            self.datagram[..len].zeroize();
            match end {
                Some(0) => return Ok((!interrupted).then_some(items)),
                Some(errno) => {
                    let operation = "dump the kernel's SAs or policies".to_owned();
                    return Err(XfrmError::refused_operation(operation, errno, None));
                }
                None => {}
            }
        }
    }
}

/// Hears the last words of an SA that is deleted while it lives: the notification holds the SA's
/// replay state as it was when no packet could use it any more.
pub(super) struct LastWords {
    fd: OwnedFd,
    datagram: Zeroizing<Vec<u8>>,
}

impl LastWords {
    /// In this thread's network namespace, deaf until [`Self::listen`].
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub(super) fn open() -> Result<Self, XfrmError> {
        Ok(Self {
            fd: open(0, libc::SOCK_NONBLOCK)?,
            datagram: Zeroizing::new(vec![0; 8 << 10]),
        })
    }

    /// Hears what is deleted from now on.
    ///
    /// # Errors
    /// When the group cannot be joined.
    pub(super) fn listen(&self) -> Result<(), XfrmError> {
        let group = XFRMNLGRP_SA as libc::c_int;
        set_option(
            &self.fd,
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            group,
        )
        .map_err(|source| io_error("listening for the deletion of an SA", source))
    }

    /// What `id` said, after its deletion was acknowledged; `None` if it was lost. Deaf again.
    pub(super) fn of(&mut self, id: &SaId) -> Option<SaState> {
        let group = XFRMNLGRP_SA as libc::c_int;
        // It fails for sockets that never joined.
        let _ = set_option(
            &self.fd,
            libc::SOL_NETLINK,
            libc::NETLINK_DROP_MEMBERSHIP,
            group,
        );
        let mut words = None;
        loop {
            match receive(&self.fd, &mut self.datagram) {
                Ok(len) => {
                    let found = Messages(&self.datagram[..len])
                        .filter(|message| message.header.kind == msg::DELSA)
                        .filter_map(|message| deleted(message.payload))
                        .find(|state| state.id == *id);
                    words = words.or(found);
                    // It holds a key.
                    self.datagram[..len].zeroize();
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return words,
            }
        }
    }
}
