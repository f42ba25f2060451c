//! Datagrams of the membership protocol, integers in network order:
//!
//! ```text
//! magic "GwMs" | version 1 | kind | incarnation (8) | sequence (8) | body
//! ```
//!
//! The incarnation and sequence are the sender's. Heartbeats are TLVs (type 1, length 2 octets), the
//! other bodies fixed fields. Unknown TLVs, and octets behind the fields that are known here, are
//! skipped: a later version may add to either. [`decode`] is total.

mod cursor;
mod heartbeat;
mod view;

pub use heartbeat::{Heartbeat, MAX_REASON, Preference};

use gateway_common::member::MemberId;

use self::cursor::{Cursor, Writer};
use super::io::Persisted;
use super::set::MemberSet;
use crate::frame::Incarnation;
use crate::view::{Epoch, Tenure, View};

const MAGIC: [u8; 4] = *b"GwMs";
const VERSION: u8 = 2;

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sender's run.
    pub incarnation: Incarnation,
    /// Grows with every datagram of that run; copies of a datagram share it.
    pub sequence: u64,
    /// What it says.
    pub message: Message,
}

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Here I am, in this state.
    Heartbeat(Box<Heartbeat>),
    /// Answer to a heartbeat.
    Ack(Ack),
    /// Paxos 1a.
    Prepare {
        /// Which decision.
        basis: Basis,
        /// Of which attempt.
        ballot: Ballot,
    },
    /// Paxos 1b.
    Promise {
        /// Which decision.
        basis: Basis,
        /// Of which attempt.
        ballot: Ballot,
        /// What the acceptor has accepted of an earlier attempt.
        accepted: Option<(Ballot, Box<View>)>,
        /// What the acceptor has on disk: a cold start depends on it.
        persisted: Persisted,
    },
    /// Paxos 2a.
    Accept {
        /// Which decision.
        basis: Basis,
        /// Of which attempt.
        ballot: Ballot,
        /// The value.
        view: Box<View>,
    },
    /// Paxos 2b, to everybody.
    Accepted {
        /// Which decision.
        basis: Basis,
        /// Of which attempt.
        ballot: Ballot,
        /// Not a vote: a new run of a voter has put the view on disk and will not take part in a
        /// cold start beside it.
        noted: bool,
        /// Transmit rights that may still run.
        left: Left,
    },
    /// The acceptor has promised a higher ballot.
    Reject {
        /// Which decision.
        basis: Basis,
        /// The higher one.
        promised: Ballot,
    },
    /// This view was decided.
    Commit {
        /// The view.
        view: Box<View>,
        /// No majority stands behind it.
        unsafe_takeover: bool,
        /// Transmit rights that may still run.
        left: Left,
    },
    /// The sender knows nothing later than this epoch: asks for a [`Message::Commit`].
    ViewRequest(Epoch),
    /// The sender leaves and serves nothing any more.
    Goodbye,
}

/// Answer to a heartbeat, at once and on the same interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The installed view of who answers.
    pub epoch: Epoch,
    /// Run that the heartbeat was of.
    pub incarnation: Incarnation,
    /// Its sequence.
    pub sequence: u64,
    /// The lease is granted, in this epoch, from the time at which the heartbeat was sent.
    pub granted: bool,
}

/// Which decision a Paxos message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The view that follows the one of this epoch; its members decide.
    After(Epoch),
    /// The first view of members that know of no live one; the configured members decide.
    Cold,
}

/// Attempt of a proposer; the higher one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ballot {
    /// Counts.
    pub round: u32,
    /// Makes it unique.
    pub proposer: MemberId,
}

/// Transmit rights that may still run when the message is sent, on the sender's clock, rounded up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Until the sender's installed view may be active everywhere, microseconds.
    pub settle: u32,
    /// Until the owner's lease has surely ended, microseconds, for those where it may run.
    pub owners: Vec<(MemberId, u32)>,
}

/// Why a datagram was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another protocol or version.
    #[error("not of this protocol or version")]
    Foreign,
    /// Too short.
    #[error("truncated")]
    Truncated,
    /// A later version's message.
    #[error("unknown kind of message")]
    UnknownKind,
    /// A field has a value that it cannot have.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// Parses a datagram. Total: any octets give a datagram or an error.
pub fn decode(octets: &[u8]) -> Result<Datagram, DecodeError> {
    let mut body = Cursor(octets);
    if body.bytes(MAGIC.len())? != MAGIC || body.u8()? != VERSION {
        return Err(DecodeError::Foreign);
    }
    let kind = body.u8()?;
    let incarnation = Incarnation(body.u64()?);
    let sequence = body.u64()?;
    let message = match kind {
        1 => Message::Heartbeat(Box::new(heartbeat::decode(body)?)),
        2 => Message::Ack(Ack {
            epoch: Epoch(body.u64()?),
            incarnation: Incarnation(body.u64()?),
            sequence: body.u64()?,
            granted: body.u8()? == 1,
        }),
        3..=7 => decode_paxos(kind, body)?,
        8 => {
            let unsafe_takeover = body.u8()? == 1;
            let mut view = Box::new(view::decode(&mut body)?);
            let left = view::decode_left(&mut body)?;
            view::decode_jumps(&mut body, &mut view)?;
            Message::Commit {
                view,
                unsafe_takeover,
                left,
            }
        }
        9 => Message::ViewRequest(Epoch(body.u64()?)),
        10 => Message::Goodbye,
        _ => return Err(DecodeError::UnknownKind),
    };
    Ok(Datagram {
        incarnation,
        sequence,
        message,
    })
}

fn decode_paxos(kind: u8, mut body: Cursor<'_>) -> Result<Message, DecodeError> {
    let basis = match (body.u8()?, body.u64()?) {
        (0, epoch) => Basis::After(Epoch(epoch)),
        (1, _) => Basis::Cold,
        _ => return Err(DecodeError::Invalid("basis")),
    };
    let ballot = decode_ballot(&mut body)?;
    Ok(match kind {
        3 => Message::Prepare { basis, ballot },
        4 => {
            let mut persisted = Persisted {
                epoch: Epoch(body.u64()?),
                members: MemberSet::from_bits(body.u64()?),
                latest: Tenure::default(),
            };
            let accepted = match body.u8()? {
                0 => None,
                _ => Some((decode_ballot(&mut body)?, decode_last_view(&mut body)?)),
            };
            // An earlier version does not say.
            if !body.0.is_empty() {
                persisted.latest = Tenure(body.u64()?);
            }
            Message::Promise {
                basis,
                ballot,
                accepted,
                persisted,
            }
        }
        5 => Message::Accept {
            basis,
            ballot,
            view: decode_last_view(&mut body)?,
        },
        6 => Message::Accepted {
            basis,
            ballot,
            noted: body.u8()? == 1,
            left: view::decode_left(&mut body)?,
        },
        _ => Message::Reject {
            basis,
            promised: ballot,
        },
    })
}

fn decode_last_view(body: &mut Cursor<'_>) -> Result<Box<View>, DecodeError> {
    let mut view = Box::new(view::decode(body)?);
    view::decode_jumps(body, &mut view)?;
    Ok(view)
}

fn decode_ballot(body: &mut Cursor<'_>) -> Result<Ballot, DecodeError> {
    Ok(Ballot {
        round: body.u32()?,
        proposer: body.member()?,
    })
}

impl Datagram {
    /// The octets to send: less than 1,450 for a view of 63 members whose slots have changed hands about as often.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes(&MAGIC);
        out.u8(VERSION);
        out.u8(self.message.kind());
        out.u64(self.incarnation.0);
        out.u64(self.sequence);
        self.message.encode(&mut out);
        out.0
    }
}

impl Message {
    const fn kind(&self) -> u8 {
        match self {
            Self::Heartbeat(_) => 1,
            Self::Ack(_) => 2,
            Self::Prepare { .. } => 3,
            Self::Promise { .. } => 4,
            Self::Accept { .. } => 5,
            Self::Accepted { .. } => 6,
            Self::Reject { .. } => 7,
            Self::Commit { .. } => 8,
            Self::ViewRequest(_) => 9,
            Self::Goodbye => 10,
        }
    }

    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Heartbeat(heartbeat) => heartbeat.encode(out),
            Self::Ack(ack) => {
                out.u64(ack.epoch.0);
                out.u64(ack.incarnation.0);
                out.u64(ack.sequence);
                out.u8(ack.granted.into());
            }
            Self::Prepare { basis, ballot } => encode_head(out, *basis, *ballot),
            Self::Promise {
                basis,
                ballot,
                accepted,
                persisted,
            } => {
                encode_head(out, *basis, *ballot);
                out.u64(persisted.epoch.0);
                out.u64(persisted.members.bits());
                out.u8(accepted.is_some().into());
                if let Some((ballot, view)) = accepted {
                    encode_ballot(out, *ballot);
                    view::encode(out, view);
                    view::encode_jumps(out, view);
                }
                out.u64(persisted.latest.0);
            }
            Self::Accept {
                basis,
                ballot,
                view,
            } => {
                encode_head(out, *basis, *ballot);
                view::encode(out, view);
                view::encode_jumps(out, view);
            }
            Self::Accepted {
                basis,
                ballot,
                noted,
                left,
            } => {
                encode_head(out, *basis, *ballot);
                out.u8((*noted).into());
                view::encode_left(out, left);
            }
            Self::Reject { basis, promised } => encode_head(out, *basis, *promised),
            Self::Commit {
                view,
                unsafe_takeover,
                left,
            } => {
                out.u8((*unsafe_takeover).into());
                view::encode(out, view);
                view::encode_left(out, left);
                view::encode_jumps(out, view);
            }
            Self::ViewRequest(epoch) => out.u64(epoch.0),
            Self::Goodbye => {}
        }
    }
}

fn encode_head(out: &mut Writer, basis: Basis, ballot: Ballot) {
    match basis {
        Basis::After(epoch) => {
            out.u8(0);
            out.u64(epoch.0);
        }
        Basis::Cold => {
            out.u8(1);
            out.u64(0);
        }
    }
    encode_ballot(out, ballot);
}

fn encode_ballot(out: &mut Writer, ballot: Ballot) {
    out.u32(ballot.round);
    out.member(Some(ballot.proposer));
}

#[cfg(test)]
mod tests;
