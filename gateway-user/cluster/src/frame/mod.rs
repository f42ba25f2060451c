//! The frames that members exchange: `version, kind, TLVs…`.
//!
//! Decoding is total: it never panics, reads each octet once and allocates in proportion to the
//! frame. Unknown kinds and unknown TLVs are skipped, so that a later release can add to both.

mod change;
mod tlv;

use std::net::SocketAddr;

use gateway_common::{member::MemberId, slot::Slot};

use self::tlv::{Once, Reader, Value, Writer};
use crate::change::Change;
use crate::secret::Secret;

/// First octet of every frame.
pub const FRAME_VERSION: u8 = 1;

/// Protocol level that [`Hello::protocol`] announces; levels only add.
pub const PROTOCOL: u16 = 1;

/// The longest frame in octets; a transport refuses longer ones before it allocates.
pub const MAX_FRAME: usize = 1 << 20;

/// The longest cluster name in octets.
pub const MAX_NAME: usize = 255;

/// Tells one run of an agent from another: unique per member, otherwise without meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// Stands for every run in a view without membership; no run has this number.
    pub const ANY: Self = Self(u64::MAX);
}

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
    /// A numbered change; between [`Frame::SnapshotBegin`] and [`Frame::SnapshotEnd`] an entry of
    /// the snapshot, with the number of the change that made it.
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
        /// Entries taken of the snapshot under way, for its flow control.
        snapshot_entries: Option<u64>,
    },
    /// The entries that follow are all that the sender owns.
    SnapshotBegin {
        /// The snapshot contains the effect of all deltas up to here.
        seq: DeltaSeq,
    },
    /// Replace what is known of the sender by the entries since [`Frame::SnapshotBegin`].
    SnapshotEnd {
        /// Number of entries.
        entries: u64,
    },
    /// An IKE datagram that the listener has to process.
    Relay {
        /// As it was received.
        path: Path,
        /// Without non-ESP marker.
        datagram: Vec<u8>,
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
}

impl Frame {
    /// As octets. The receiver refuses more than [`MAX_FRAME`] of them.
    pub fn encode(&self) -> Secret {
        match self {
            Self::Hello(hello) => encode_hello(hello),
            Self::Delta { seq, slot, change } => encode_delta(*seq, *slot, change),
            Self::Ack {
                seq,
                snapshot_entries,
            } => small(kind::ACK, |w| {
                w.tlv(field::SEQ, &seq.0.to_be_bytes());
                if let Some(entries) = snapshot_entries {
                    w.tlv(field::ENTRIES, &entries.to_be_bytes());
                }
            }),
            Self::SnapshotBegin { seq } => small(kind::SNAPSHOT_BEGIN, |w| {
                w.tlv(field::SEQ, &seq.0.to_be_bytes());
            }),
            Self::SnapshotEnd { entries } => small(kind::SNAPSHOT_END, |w| {
                w.tlv(field::ENTRIES, &entries.to_be_bytes());
            }),
            Self::Relay { path, datagram } => encode_relay(path, datagram),
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
            kind::DELTA => decode_delta(body),
            kind::ACK => decode_numbers(body).and_then(|numbers| {
                Ok(Self::Ack {
                    seq: DeltaSeq(numbers.seq.required()?),
                    snapshot_entries: numbers.entries.optional(),
                })
            }),
            kind::SNAPSHOT_BEGIN => decode_numbers(body).and_then(|numbers| {
                let seq = DeltaSeq(numbers.seq.required()?);
                Ok(Self::SnapshotBegin { seq })
            }),
            kind::SNAPSHOT_END => decode_numbers(body).and_then(|numbers| {
                let entries = numbers.entries.required()?;
                Ok(Self::SnapshotEnd { entries })
            }),
            kind::RELAY => decode_relay(body),
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

/// Encodes [`Frame::Delta`] from a borrowed change.
pub(crate) fn encode_delta(seq: DeltaSeq, slot: Slot, change: &Change) -> Secret {
    let mut writer = Writer::with_capacity(64 + change::capacity(change));
    writer.raw(&[FRAME_VERSION, kind::DELTA]);
    writer.tlv(field::SEQ, &seq.0.to_be_bytes());
    writer.tlv(field::SLOT, &[slot.0]);
    change::write(&mut writer, change);
    Secret::new(writer.finish())
}

/// Encodes [`Frame::Relay`] from a borrowed datagram.
pub(crate) fn encode_relay(path: &Path, datagram: &[u8]) -> Secret {
    let mut writer = Writer::with_capacity(64 + datagram.len());
    writer.raw(&[FRAME_VERSION, kind::RELAY]);
    writer.socket(field::LOCAL, path.local);
    writer.socket(field::REMOTE, path.remote);
    writer.tlv(field::DATAGRAM, datagram);
    Secret::new(writer.finish())
}

fn small(kind: u8, body: impl FnOnce(&mut Writer)) -> Secret {
    let mut writer = Writer::with_capacity(32);
    writer.raw(&[FRAME_VERSION, kind]);
    body(&mut writer);
    Secret::new(writer.finish())
}

fn encode_hello(hello: &Hello) -> Secret {
    let mut writer = Writer::with_capacity(160 + hello.cluster_name.len());
    writer.raw(&[FRAME_VERSION, kind::HELLO]);
    writer.tlv(field::PROTOCOL, &hello.protocol.to_be_bytes());
    writer.tlv(field::MEMBER, &[hello.member.get()]);
    writer.tlv(field::INCARNATION, &hello.incarnation.0.to_be_bytes());
    writer.tlv(field::CLUSTER_ID, &[hello.cluster_id]);
    writer.tlv(field::CLUSTER_NAME, hello.cluster_name.as_bytes());
    writer.tlv(field::CONFIG_HASH, &hello.config_hash);
    if let Some(Position { incarnation, seq }) = hello.received {
        writer.nested(field::RECEIVED, |w| {
            w.raw(&incarnation.0.to_be_bytes());
            w.raw(&seq.0.to_be_bytes());
        });
    }
    Secret::new(writer.finish())
}

fn decode_hello(body: Reader<'_>) -> Result<Hello, FrameError> {
    let mut protocol = Once::new("protocol");
    let mut member = Once::new("member");
    let mut incarnation = Once::new("incarnation");
    let mut cluster_id = Once::new("cluster id");
    let mut cluster_name = Once::new("cluster name");
    let mut config_hash = Once::new("configuration hash");
    let mut received = Once::new("received position");
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            field::PROTOCOL => protocol.set(value, Value::u16)?,
            field::MEMBER => member.set(value, parse_member)?,
            field::INCARNATION => incarnation.set(value, Value::u64)?,
            field::CLUSTER_ID => cluster_id.set(value, Value::u8)?,
            field::CLUSTER_NAME => cluster_name.set(value, parse_name)?,
            field::CONFIG_HASH => config_hash.set(value, Value::array)?,
            field::RECEIVED => received.set(value, parse_position)?,
            _ => {}
        }
    }
    Ok(Hello {
        protocol: protocol.required()?,
        member: member.required()?,
        incarnation: Incarnation(incarnation.required()?),
        cluster_id: cluster_id.required()?,
        cluster_name: cluster_name.required()?,
        config_hash: config_hash.required()?,
        received: received.optional(),
    })
}

fn parse_member(value: Value<'_>, name: &'static str) -> Result<MemberId, FrameError> {
    MemberId::new(value.u8(name)?).ok_or(FrameError::Invalid(name))
}

fn parse_name(value: Value<'_>, name: &'static str) -> Result<String, FrameError> {
    if value.0.len() > MAX_NAME {
        return Err(FrameError::Invalid(name));
    }
    let text = std::str::from_utf8(value.0).map_err(|_| FrameError::Invalid(name))?;
    Ok(text.to_owned())
}

fn parse_position(value: Value<'_>, name: &'static str) -> Result<Position, FrameError> {
    let both = u128::from_be_bytes(value.array(name)?);
    Ok(Position {
        incarnation: Incarnation((both >> 64) as u64),
        seq: DeltaSeq(both as u64),
    })
}

fn decode_delta(body: Reader<'_>) -> Result<Frame, FrameError> {
    let mut seq = Once::new("sequence number");
    let mut slot = Once::new("slot");
    let mut change = Once::new("change");
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            field::SEQ => seq.set(value, Value::u64)?,
            field::SLOT => slot.set(value, Value::u8)?,
            field::OPENED => change.set(value, change::opened)?,
            field::CLOSED => change.set(value, change::closed)?,
            field::UPSERT => change.set(value, change::upsert)?,
            field::REMOVED => change.set(value, change::removed)?,
            _ => {}
        }
    }
    Ok(Frame::Delta {
        seq: DeltaSeq(seq.required()?),
        slot: Slot(slot.required()?),
        change: change.required()?,
    })
}

fn decode_relay(body: Reader<'_>) -> Result<Frame, FrameError> {
    let mut local = Once::new("local address");
    let mut remote = Once::new("remote address");
    let mut datagram = Once::new("datagram");
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            field::LOCAL => local.set(value, Value::socket)?,
            field::REMOTE => remote.set(value, Value::socket)?,
            field::DATAGRAM => datagram.set(value, |value, _| Ok(value.0.to_vec()))?,
            _ => {}
        }
    }
    let path = Path {
        local: local.required()?,
        remote: remote.required()?,
    };
    Ok(Frame::Relay {
        path,
        datagram: datagram.required()?,
    })
}

/// The numbers that the small frames consist of.
struct Numbers {
    seq: Once<u64>,
    entries: Once<u64>,
    nonce: Once<u64>,
}

fn decode_numbers(body: Reader<'_>) -> Result<Numbers, FrameError> {
    let mut numbers = Numbers {
        seq: Once::new("sequence number"),
        entries: Once::new("number of entries"),
        nonce: Once::new("nonce"),
    };
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            field::SEQ => numbers.seq.set(value, Value::u64)?,
            field::ENTRIES => numbers.entries.set(value, Value::u64)?,
            field::NONCE => numbers.nonce.set(value, Value::u64)?,
            _ => {}
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests;
