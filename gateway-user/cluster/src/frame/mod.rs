//! The frames that members exchange: `version, kind, TLVs…`.
//!
//! Decoding is total: it never panics, reads each octet once and allocates in proportion to the
//! frame. Unknown kinds and unknown TLVs are skipped, so that a later release can add to both.

mod change;
mod decode;
mod encode;
mod tlv;

use std::net::SocketAddr;

use gateway_common::{member::MemberId, slot::Slot};

use self::decode::{
    decode_ack, decode_begin, decode_change, decode_hello, decode_move, decode_moved,
    decode_numbers, decode_order, decode_relay, decode_tail,
};
pub(crate) use self::encode::{
    encode_delta, encode_entry, encode_move, encode_relay, encode_sa_entry, encode_tail,
};
use self::encode::{encode_hello, small};
use self::tlv::Reader;
use crate::change::{Change, Cookie, Sa, Stamp};
use crate::secret::Secret;
use crate::slot_set::SlotSet;
use crate::view::Epoch;

/// First octet of every frame.
pub const FRAME_VERSION: u8 = 2;

/// Protocol level that [`Hello::protocol`] announces; levels only add.
pub const PROTOCOL: u16 = 2;

/// The longest frame in octets; a transport refuses longer ones before it allocates.
pub const MAX_FRAME: usize = 1 << 20;

/// The longest cluster name in octets.
pub const MAX_NAME: usize = 255;

/// Tells one run of an agent from another: unique per member, otherwise without meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Numbers the deltas of one incarnation of a sender, from 1, without gaps. 0 = before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeltaSeq(pub u64);

impl DeltaSeq {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A position in a sender's stream of deltas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which run of the sender.
    pub incarnation: Incarnation,
    /// The last delta.
    pub seq: DeltaSeq,
}

/// What a snapshot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The view of the sender, in which it is level.
    pub epoch: Epoch,
    /// Everything in these slots, which are the sender's, and nothing else is in them. What the
    /// sender owns beyond them the listener knows already.
    pub slots: SlotSet,
}

/// How much of a snapshot has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which snapshot, numbered per connection from 1.
    pub snapshot: u64,
    /// Entries taken.
    pub entries: u64,
    /// Its end has come, and it is in effect.
    pub complete: bool,
}

/// Where an IKE datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The VIP and port it was addressed to.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

/// What a member says first on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's [`PROTOCOL`].
    pub protocol: u16,
    /// Who speaks; has to be the identity of its certificate.
    pub member: MemberId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Cluster id, 1..=255.
    pub cluster_id: u8,
    /// Cluster name, at most [`MAX_NAME`] octets.
    pub cluster_name: String,
    /// Digest of what has to be configured alike on all members.
    pub config_hash: [u8; 32],
    /// The last delta that the speaker has applied of the listener's stream, if any.
    pub received: Option<Position>,
}

/// Something that one member sends to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// First frame in each direction.
    Hello(Hello),
    /// A numbered change.
    Delta {
        /// Its number.
        seq: DeltaSeq,
        /// The slot it belongs to.
        slot: Slot,
        /// The change.
        change: Change,
    },
    /// Everything up to `seq` is applied.
    Ack {
        /// Position in the listener's stream.
        seq: DeltaSeq,
        /// The speaker's view.
        epoch: Epoch,
        /// The last view in which the streams that ended are level here.
        levelled: Epoch,
        /// The snapshot under way or the last one on this connection.
        taken: Option<Taken>,
    },
    /// Entries follow.
    SnapshotBegin {
        /// On this connection, from 1.
        snapshot: u64,
        /// The listener goes on after this delta; changes after it come as deltas, meanwhile.
        seq: DeltaSeq,
        /// What it stands for.
        scope: Scope,
    },
    /// An entry of the snapshot under way, as it stands when it is sent.
    Entry {
        /// When it was written.
        written: Stamp,
        /// Its slot.
        slot: Slot,
        /// A change that makes it.
        change: Change,
    },
    /// Forget what is in the slots of the snapshot and has not been named since
    /// [`Frame::SnapshotBegin`].
    SnapshotEnd {
        /// Number of entries.
        entries: u64,
    },
    /// A delta of a member that is not in the view any more, which the listener lacks.
    Tail {
        /// Whose.
        member: MemberId,
        /// Of which run.
        incarnation: Incarnation,
        /// A [`Frame::Delta`], encoded.
        delta: Secret,
    },
    /// The listener owns `slot`: it shall take this IKE SA over into it.
    Move {
        /// The slot that it goes to.
        slot: Slot,
        /// The SA.
        sa: Box<Sa>,
    },
    /// The SA is in `slot` now, and all members have it.
    Moved {
        /// Our IKE SPI.
        local_spi: Cookie,
        /// Whether it was taken; otherwise it stays where it was.
        taken: bool,
    },
    /// An IKE datagram that the listener has to process.
    Relay {
        /// As it was received.
        path: Path,
        /// Without non-ESP marker.
        datagram: Vec<u8>,
    },
    /// Something that the listener has to see to, because it owns the slot; an operator or a packet
    /// asked for it on another member. What it says is the driver's business.
    Order {
        /// The driver's octets.
        octets: Secret,
    },
    /// Are you there?
    Ping {
        /// Comes back.
        nonce: u64,
    },
    /// Yes.
    Pong {
        /// From the ping.
        nonce: u64,
    },
    /// A kind that this release does not know.
    Unknown(u8),
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first octet is not [`FRAME_VERSION`].
    #[error("frame version {0}, this release speaks version {FRAME_VERSION}")]
    Version(u8),
    /// Longer than [`MAX_FRAME`].
    #[error("frame longer than {MAX_FRAME} octets")]
    TooLong,
    /// Ends within a header or a value.
    #[error("frame is cut short")]
    Truncated,
    /// A TLV that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A TLV that may come once comes twice.
    #[error("{0} comes twice")]
    Duplicate(&'static str),
    /// A value of the wrong length or out of range.
    #[error("{0} has an invalid value")]
    Invalid(&'static str),
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const DELTA: u8 = 2;
    pub(super) const ACK: u8 = 3;
    pub(super) const SNAPSHOT_BEGIN: u8 = 4;
    pub(super) const SNAPSHOT_END: u8 = 5;
    pub(super) const RELAY: u8 = 6;
    pub(super) const PING: u8 = 7;
    pub(super) const PONG: u8 = 8;
    pub(super) const ENTRY: u8 = 9;
    pub(super) const TAIL: u8 = 10;
    // 11 was a request to send everything again.
    pub(super) const MOVE: u8 = 12;
    pub(super) const MOVED: u8 = 13;
    pub(super) const ORDER: u8 = 14;
}

mod field {
    pub(super) const SEQ: u16 = 1;
    pub(super) const SLOT: u16 = 2;
    pub(super) const ENTRIES: u16 = 3;
    pub(super) const NONCE: u16 = 4;
    pub(super) const PROTOCOL: u16 = 10;
    pub(super) const MEMBER: u16 = 11;
    pub(super) const INCARNATION: u16 = 12;
    pub(super) const CLUSTER_ID: u16 = 13;
    pub(super) const CLUSTER_NAME: u16 = 14;
    pub(super) const CONFIG_HASH: u16 = 15;
    pub(super) const RECEIVED: u16 = 16;
    pub(super) const LOCAL: u16 = 20;
    pub(super) const REMOTE: u16 = 21;
    pub(super) const DATAGRAM: u16 = 22;
    pub(super) const OPENED: u16 = 30;
    pub(super) const CLOSED: u16 = 31;
    pub(super) const UPSERT: u16 = 32;
    pub(super) const REMOVED: u16 = 33;
    pub(super) const VIEW: u16 = 34;
    pub(super) const CHECKPOINTS: u16 = 35;
    pub(super) const COOKIE_SECRET: u16 = 36;
    pub(super) const EPOCH: u16 = 40;
    pub(super) const LEVELLED: u16 = 41;
    pub(super) const SNAPSHOT: u16 = 42;
    pub(super) const COMPLETE: u16 = 43;
    pub(super) const SLOTS: u16 = 44;
    pub(super) const DELTA: u16 = 45;
    pub(super) const COOKIE: u16 = 46;
    pub(super) const ORDER: u16 = 47;
}

impl Frame {
    /// As octets. The receiver refuses more than [`MAX_FRAME`] of them.
    pub fn encode(&self) -> Secret {
        match self {
            Self::Hello(hello) => encode_hello(hello),
            Self::Delta { seq, slot, change } => encode_delta(*seq, *slot, change),
            Self::Ack {
                seq,
                epoch,
                levelled,
                taken,
            } => small(kind::ACK, |w| {
                w.tlv(field::SEQ, &seq.0.to_be_bytes());
                w.tlv(field::EPOCH, &epoch.0.to_be_bytes());
                w.tlv(field::LEVELLED, &levelled.0.to_be_bytes());
                if let Some(taken) = taken {
                    w.tlv(field::SNAPSHOT, &taken.snapshot.to_be_bytes());
                    w.tlv(field::ENTRIES, &taken.entries.to_be_bytes());
                    w.tlv(field::COMPLETE, &[u8::from(taken.complete)]);
                }
            }),
            Self::SnapshotBegin {
                snapshot,
                seq,
                scope,
            } => small(kind::SNAPSHOT_BEGIN, |w| {
                w.tlv(field::SNAPSHOT, &snapshot.to_be_bytes());
                w.tlv(field::SEQ, &seq.0.to_be_bytes());
                w.tlv(field::EPOCH, &scope.epoch.0.to_be_bytes());
                w.tlv(field::SLOTS, &scope.slots.to_octets());
            }),
            Self::Entry {
                written,
                slot,
                change,
            } => encode_entry(*written, *slot, change),
            Self::SnapshotEnd { entries } => small(kind::SNAPSHOT_END, |w| {
                w.tlv(field::ENTRIES, &entries.to_be_bytes());
            }),
            Self::Tail {
                member,
                incarnation,
                delta,
            } => encode_tail(*member, *incarnation, delta),
            Self::Move { slot, sa } => encode_move(*slot, sa),
            Self::Moved { local_spi, taken } => small(kind::MOVED, |w| {
                w.tlv(field::COOKIE, local_spi);
                w.tlv(field::COMPLETE, &[u8::from(*taken)]);
            }),
            Self::Relay { path, datagram } => encode_relay(path, datagram),
            Self::Order { octets } => small(kind::ORDER, |w| w.tlv(field::ORDER, octets.expose())),
            Self::Ping { nonce } => small(kind::PING, |w| {
                w.tlv(field::NONCE, &nonce.to_be_bytes());
            }),
            Self::Pong { nonce } => small(kind::PONG, |w| {
                w.tlv(field::NONCE, &nonce.to_be_bytes());
            }),
            Self::Unknown(kind) => small(*kind, |_| {}),
        }
    }

    /// From octets.
    ///
    /// # Errors
    ///
    /// [`FrameError`] says what is wrong; nothing of a wrong frame counts.
    pub fn decode(octets: &[u8]) -> Result<Self, FrameError> {
        if octets.len() > MAX_FRAME {
            return Err(FrameError::TooLong);
        }
        let (version, rest) = octets.split_first().ok_or(FrameError::Truncated)?;
        if *version != FRAME_VERSION {
            return Err(FrameError::Version(*version));
        }
        let (kind, body) = rest.split_first().ok_or(FrameError::Truncated)?;
        let body = Reader::new(body);
        match *kind {
            kind::HELLO => decode_hello(body).map(Self::Hello),
            kind::DELTA => decode_change(body, false),
            kind::ACK => decode_ack(body),
            kind::SNAPSHOT_BEGIN => decode_begin(body),
            kind::ENTRY => decode_change(body, true),
            kind::SNAPSHOT_END => decode_numbers(body).and_then(|numbers| {
                let entries = numbers.entries.required()?;
                Ok(Self::SnapshotEnd { entries })
            }),
            kind::TAIL => decode_tail(body),
            kind::MOVE => decode_move(body),
            kind::MOVED => decode_moved(body),
            kind::RELAY => decode_relay(body),
            kind::ORDER => decode_order(body),
            kind::PING => decode_numbers(body).and_then(|numbers| {
                let nonce = numbers.nonce.required()?;
                Ok(Self::Ping { nonce })
            }),
            kind::PONG => decode_numbers(body).and_then(|numbers| {
                let nonce = numbers.nonce.required()?;
                Ok(Self::Pong { nonce })
            }),
            unknown => Ok(Self::Unknown(unknown)),
        }
    }
}

#[cfg(test)]
mod tests;
