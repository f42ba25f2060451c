//! What the kernel does on its own.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroize;

use super::error::XfrmError;
use super::parse::{Messages, acquire, expiry, replay_event};
use super::socket::{open, receive, set_option};
use super::types::{PolicyKey, SaId};
use super::uapi::{XFRMNLGRP_ACQUIRE, XFRMNLGRP_AEVENTS, XFRMNLGRP_EXPIRE, msg};

/// One thing that the kernel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XfrmEvent {
    /// An SA reached a lifetime.
    Expired {
        /// Which; anybody's, not only ours.
        sa: SaId,
        /// `true`: the SA is gone. `false`: a soft limit (this agent sets none).
        hard: bool,
    },
    /// An SA used up as many sequence numbers as it was told to tell after. Echoes of somebody's
    /// `XFRM_MSG_NEWAE` are none.
    Replay {
        /// Which; anybody's, not only ours.
        sa: SaId,
        /// Last sequence number sent.
        sequence_out: u64,
        /// Highest sequence number received.
        sequence_in: u64,
    },
    /// A packet wants to go where a policy asks for an SA, and there is none. The packet is lost; the
    /// kernel asks again for the next one after [`ASK_AGAIN_SECONDS`].
    Acquire {
        /// Which policy; anybody's, not only ours.
        policy: PolicyKey,
    },
    /// Events were lost: [`super::Tunnels::hear`] reads the SAD and SPD again.
    Overrun,
}

/// How long the kernel waits for an SA that it has asked for before it asks again.
pub const ASK_AGAIN_SECONDS: u32 = 5;

const GROUPS: u32 = 1 << (XFRMNLGRP_EXPIRE - 1) | 1 << (XFRMNLGRP_AEVENTS - 1);

/// A non-blocking socket that hears of the SAs of one network namespace.
pub struct Events {
    fd: OwnedFd,
    pending: VecDeque<XfrmEvent>,
    datagram: Vec<u8>,
}

/// Keeps SAs quiet that are installed from now on in this thread's network namespace without a word
/// about replay events: while anybody listens, the kernel's defaults (every 2 packets, every second)
/// would tell of all traffic of every other keying daemon's SAs. Ours say what they want themselves.
///
/// # Errors
/// When the two files under `/proc/sys/net/core` cannot be written; nothing depends on it but load.
pub fn quiet_defaults() -> io::Result<()> {
    for name in ["xfrm_aevent_rseqth", "xfrm_aevent_etime"] {
        // Of the thread: /proc/sys shows the namespace of who opens it.
        std::fs::write(format!("/proc/sys/net/core/{name}"), "0")?;
    }
    Ok(())
}

/// Lets the kernel ask again soon for an SA that does not come, in this thread's network namespace:
/// every [`ASK_AGAIN_SECONDS`] while packets want it.
///
/// # Errors
/// When the file under `/proc/sys/net/core` cannot be written; then a tunnel that did not come up at
/// once stays down for the 165 s that are the default.
pub fn ask_again_soon() -> io::Result<()> {
    let seconds = ASK_AGAIN_SECONDS.to_string();
    std::fs::write("/proc/sys/net/core/xfrm_acq_expires", seconds)
}

impl Events {
    /// Listens in this thread's network namespace, from now on.
    ///
    /// # Errors
    /// When the socket cannot be opened; joining the group needs CAP_NET_ADMIN.
    pub fn open() -> Result<Self, XfrmError> {
        Ok(Self {
            fd: open(GROUPS, libc::SOCK_NONBLOCK)?,
            pending: VecDeque::new(),
            datagram: vec![0; 8 << 10],
        })
    }

    /// Whether to hear of packets that want an SA which is not there. Not at first: while somebody
    /// does, the kernel keeps a state without SPI for each such packet of any policy.
    ///
    /// # Errors
    /// When the socket refuses it.
    pub fn hear_acquires(&self, on: bool) -> io::Result<()> {
        let name = if on {
            libc::NETLINK_ADD_MEMBERSHIP
        } else {
            libc::NETLINK_DROP_MEMBERSHIP
        };
        set_option(
            &self.fd,
            libc::SOL_NETLINK,
            name,
            XFRMNLGRP_ACQUIRE as libc::c_int,
        )
    }

    /// The next event; `None` if there is none now.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn try_next(&mut self) -> io::Result<Option<XfrmEvent>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            match receive(&self.fd, &mut self.datagram) {
                Ok(len) => {
                    self.pending.extend(events(&self.datagram[..len]));
                    self.datagram[..len].zeroize();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Some(XfrmEvent::Overrun));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The events in one datagram.
fn events(datagram: &[u8]) -> impl Iterator<Item = XfrmEvent> + '_ {
    Messages(datagram).filter_map(|message| match message.header.kind {
        msg::EXPIRE => {
            let (sa, hard) = expiry(message.payload)?;
            Some(XfrmEvent::Expired { sa, hard })
        }
        msg::ACQUIRE => acquire(message.payload).map(|policy| XfrmEvent::Acquire { policy }),
        msg::NEWAE => {
            let (sa, echo, standpoint) = replay_event(message.payload)?;
            (!echo).then_some(XfrmEvent::Replay {
                sa,
                sequence_out: standpoint.position.sequence_out,
                sequence_in: standpoint.position.sequence_in,
            })
        }
        _ => None,
    })
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// [`Events`] for tokio.
pub struct EventStream(AsyncFd<Events>);

impl EventStream {
    /// Registers with the runtime of the calling task.
    ///
    /// # Errors
    /// When the descriptor cannot be registered.
    pub fn new(events: Events) -> io::Result<Self> {
        // SAFETY: `events` owns its descriptor and never replaces or closes it before it is dropped
        // (the field is private and nothing assigns it).
        Ok(Self(unsafe {
            AsyncFd::register_with_interest(events, Interest::READABLE)?
        }))
    }

    /// [`Events::hear_acquires`].
    ///
    /// # Errors
    /// When the socket refuses it.
    pub fn hear_acquires(&self, on: bool) -> io::Result<()> {
        self.0.get_ref().hear_acquires(on)
    }

    /// The next event. Cancel-safe.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn next(&mut self) -> io::Result<XfrmEvent> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            match guard.get_inner_mut().try_next()? {
                Some(event) => return Ok(event),
                None => guard.clear_ready(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_ike::mark::Mark;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::xfrm::uapi::{
        AeventId, Id, NlAttr, NlMsgHdr, ReplayEsnHead, Selector, UserAcquire, UserExpire,
        UserPolicyInfo, UserSaId, UserSaInfo, attr,
    };
    use crate::xfrm::{Direction, PolicySelector};

    fn datagram(kind: u16, hard: u8) -> Vec<u8> {
        let expire = UserExpire {
            state: UserSaInfo {
                id: Id {
                    daddr: [192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    spi: [0xc0, 0, 0, 1],
                    proto: 50,
                    pad: [0; 3],
                },
                family: libc::AF_INET as u16,
                ..UserSaInfo::default()
            },
            hard,
            pad: [0; 7],
        };
        let header = NlMsgHdr {
            len: (size_of::<NlMsgHdr>() + size_of::<UserExpire>()) as u32,
            kind,
            ..NlMsgHdr::default()
        };
        [header.as_bytes(), expire.as_bytes()].concat()
    }

    #[test]
    fn expiries_name_the_sa_and_other_messages_are_passed_over() {
        let sa = SaId::new([0xc0, 0, 0, 1], "192.0.2.1".parse().unwrap());
        let both = [datagram(msg::EXPIRE, 1), datagram(msg::EXPIRE, 0)].concat();
        let found: Vec<_> = events(&both).collect();
        let expired = |hard| XfrmEvent::Expired { sa, hard };
        assert_eq!(found, [expired(true), expired(false)]);
        assert_eq!(events(&datagram(msg::NEWSA, 1)).count(), 0);
        assert_eq!(events(&both[..both.len() - 1]).count(), 1);
    }

    fn replay(flags: u32) -> Vec<u8> {
        let id = AeventId {
            sa_id: UserSaId {
                daddr: [192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                spi: [0xc0, 0, 0, 1],
                family: libc::AF_INET as u16,
                proto: 50,
                pad: 0,
            },
            flags,
            ..AeventId::default()
        };
        let state = ReplayEsnHead {
            oseq: 5,
            oseq_hi: 1,
            seq: 9,
            ..ReplayEsnHead::default()
        };
        let attribute = NlAttr {
            len: (size_of::<NlAttr>() + size_of::<ReplayEsnHead>()) as u16,
            kind: attr::REPLAY_ESN_VAL,
        };
        let payload = [id.as_bytes(), attribute.as_bytes(), state.as_bytes()].concat();
        let header = NlMsgHdr {
            len: (size_of::<NlMsgHdr>() + payload.len()) as u32,
            kind: msg::NEWAE,
            ..NlMsgHdr::default()
        };
        [header.as_bytes(), &payload].concat()
    }

    #[test]
    fn packets_are_told_and_echoes_are_not() {
        // By count, by the clock, and by somebody's NEWAE.
        let all = [replay(16), replay(32), replay(64)].concat();
        let told = XfrmEvent::Replay {
            sa: SaId::new([0xc0, 0, 0, 1], "192.0.2.1".parse().unwrap()),
            sequence_out: (1 << 32) + 5,
            sequence_in: 9,
        };
        assert_eq!(events(&all).collect::<Vec<_>>(), [told, told]);
    }

    fn acquisition(proto: u8, if_id: u32) -> Vec<u8> {
        let asked = UserAcquire {
            id: Id {
                proto,
                ..Id::default()
            },
            policy: UserPolicyInfo {
                sel: Selector {
                    saddr: [10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    daddr: [10, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    family: libc::AF_INET as u16,
                    prefixlen_s: 16,
                    prefixlen_d: 24,
                    ..Selector::default()
                },
                dir: 1,
                ..UserPolicyInfo::default()
            },
            ..UserAcquire::default()
        };
        let attribute = NlAttr {
            len: (size_of::<NlAttr>() + 4) as u16,
            kind: attr::IF_ID,
        };
        let payload = [asked.as_bytes(), attribute.as_bytes(), &if_id.to_ne_bytes()].concat();
        let header = NlMsgHdr {
            len: (size_of::<NlMsgHdr>() + payload.len()) as u32,
            kind: msg::ACQUIRE,
            ..NlMsgHdr::default()
        };
        [header.as_bytes(), &payload].concat()
    }

    #[test]
    fn a_packet_without_sa_names_its_policy() {
        // linux/xfrm.h, as the compiler lays it out for 64 bits.
        assert_eq!(size_of::<UserAcquire>(), 280);
        let selector = PolicySelector::between(
            "10.1.0.0/16".parse().unwrap(),
            "10.2.0.0/24".parse().unwrap(),
        );
        let policy = PolicyKey {
            direction: Direction::Out,
            selector,
            if_id: 7,
            mark: Mark::NONE,
        };
        let found: Vec<_> = events(&acquisition(50, 7)).collect();
        assert_eq!(found, [XfrmEvent::Acquire { policy }]);
        // AH is nobody's here.
        assert_eq!(events(&acquisition(51, 7)).count(), 0);
        let whole = acquisition(50, 7);
        assert_eq!(events(&whole[..whole.len() - 9]).count(), 0);
    }

    #[test]
    fn nothing_to_hear_is_no_error() {
        let mut events = Events::open().unwrap();
        events.hear_acquires(true).unwrap();
        events.hear_acquires(false).unwrap();
        assert_eq!(events.try_next().unwrap(), None);
    }
}
