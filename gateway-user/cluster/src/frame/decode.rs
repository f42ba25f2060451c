//! From octets to frames.

use gateway_common::{member::MemberId, slot::Slot};

use super::tlv::{Once, Reader, Value};
use super::{
    DeltaSeq, Frame, FrameError, Hello, Incarnation, MAX_NAME, Path, Position, Scope, Taken,
    change, field,
};
use crate::change::{Change, Cookie, Stamp};
use crate::secret::Secret;
use crate::slot_set::SlotSet;
use crate::view::Epoch;

/// Types of changes: what is not known among them has its number nevertheless, and is carried. TLVs
/// of other types say something about a change and may be skipped.
const CHANGES: std::ops::RangeInclusive<u16> = field::OPENED..=39;

pub(super) fn decode_hello(body: Reader<'_>) -> Result<Hello, FrameError> {
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

/// The one change among the TLVs of a frame; types below `field::OPENED` are other fields.
fn set_change(change: &mut Once<Change>, kind: u16, value: Value<'_>) -> Result<(), FrameError> {
    match kind {
        field::OPENED => change.set(value, change::opened),
        field::CLOSED => change.set(value, change::closed),
        field::UPSERT => change.set(value, change::upsert),
        field::REMOVED => change.set(value, change::removed),
        field::VIEW => change.set(value, change::view),
        field::CHECKPOINTS => change.set(value, change::checkpoints),
        field::COOKIE_SECRET => {
            change.set(value, |v, _| Ok(Change::CookieSecret(Secret::from(v.0))))
        }
        kind if CHANGES.contains(&kind) => change.set(value, |v, _| {
            let body = Secret::from(v.0);
            Ok(Change::Unknown { kind, body })
        }),
        _ => Ok(()),
    }
}

/// A delta, or an entry of a snapshot: that one says in which epoch it was written.
pub(super) fn decode_change(body: Reader<'_>, is_entry: bool) -> Result<Frame, FrameError> {
    let mut epoch = Once::new("epoch");
    let mut seq = Once::new("sequence number");
    let mut slot = Once::new("slot");
    let mut change = Once::new("change");
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            field::EPOCH if is_entry => epoch.set(value, Value::u64)?,
            field::SEQ => seq.set(value, Value::u64)?,
            field::SLOT => slot.set(value, Value::u8)?,
            kind => set_change(&mut change, kind, value)?,
        }
    }
    let seq = DeltaSeq(seq.required()?);
    let slot = Slot(slot.required()?);
    if !is_entry {
        let change = change.required()?;
        return Ok(Frame::Delta { seq, slot, change });
    }
    let epoch = Epoch(epoch.required()?);
    Ok(Frame::Entry {
        written: Stamp { epoch, seq },
        slot,
        change: change.required()?,
    })
}

pub(super) fn decode_relay(body: Reader<'_>) -> Result<Frame, FrameError> {
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

pub(super) fn decode_order(body: Reader<'_>) -> Result<Frame, FrameError> {
    let mut octets = Once::new("order");
    for tlv in body {
        let (kind, value) = tlv?;
        if kind == field::ORDER {
            octets.set(value, |value, _| Ok(Secret::from(value.0)))?;
        }
    }
    Ok(Frame::Order {
        octets: octets.required()?,
    })
}

/// The fields that the small frames consist of.
pub(super) struct Numbers {
    seq: Once<u64>,
    pub(super) entries: Once<u64>,
    pub(super) nonce: Once<u64>,
    epoch: Once<u64>,
    levelled: Once<u64>,
    snapshot: Once<u64>,
    complete: Once<u8>,
    slots: Once<[u8; 32]>,
    cookie: Once<Cookie>,
}

pub(super) fn decode_numbers(body: Reader<'_>) -> Result<Numbers, FrameError> {
    let mut numbers = Numbers {
        seq: Once::new("sequence number"),
        entries: Once::new("number of entries"),
        nonce: Once::new("nonce"),
        epoch: Once::new("epoch"),
        levelled: Once::new("levelled epoch"),
        snapshot: Once::new("number of the snapshot"),
        complete: Once::new("complete"),
        slots: Once::new("slots"),
        cookie: Once::new("our cookie"),
    };
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            field::SEQ => numbers.seq.set(value, Value::u64)?,
            field::ENTRIES => numbers.entries.set(value, Value::u64)?,
            field::NONCE => numbers.nonce.set(value, Value::u64)?,
            field::EPOCH => numbers.epoch.set(value, Value::u64)?,
            field::LEVELLED => numbers.levelled.set(value, Value::u64)?,
            field::SNAPSHOT => numbers.snapshot.set(value, Value::u64)?,
            field::COMPLETE => numbers.complete.set(value, Value::u8)?,
            field::SLOTS => numbers.slots.set(value, Value::array)?,
            field::COOKIE => numbers.cookie.set(value, Value::array)?,
            _ => {}
        }
    }
    Ok(numbers)
}

pub(super) fn decode_ack(body: Reader<'_>) -> Result<Frame, FrameError> {
    let numbers = decode_numbers(body)?;
    let taken = match numbers.snapshot.optional() {
        Some(snapshot) => Some(Taken {
            snapshot,
            entries: numbers.entries.required()?,
            complete: numbers.complete.required()? != 0,
        }),
        None => None,
    };
    Ok(Frame::Ack {
        seq: DeltaSeq(numbers.seq.required()?),
        epoch: Epoch(numbers.epoch.required()?),
        levelled: Epoch(numbers.levelled.required()?),
        taken,
    })
}

pub(super) fn decode_begin(body: Reader<'_>) -> Result<Frame, FrameError> {
    let numbers = decode_numbers(body)?;
    Ok(Frame::SnapshotBegin {
        snapshot: numbers.snapshot.required()?,
        seq: DeltaSeq(numbers.seq.required()?),
        scope: Scope {
            epoch: Epoch(numbers.epoch.required()?),
            slots: SlotSet::from_octets(&numbers.slots.required()?),
        },
    })
}

pub(super) fn decode_tail(body: Reader<'_>) -> Result<Frame, FrameError> {
    let mut member = Once::new("member");
    let mut incarnation = Once::new("incarnation");
    let mut delta = Once::new("delta");
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            field::MEMBER => member.set(value, parse_member)?,
            field::INCARNATION => incarnation.set(value, Value::u64)?,
            field::DELTA => delta.set(value, |value, _| Ok(Secret::from(value.0)))?,
            _ => {}
        }
    }
    Ok(Frame::Tail {
        member: member.required()?,
        incarnation: Incarnation(incarnation.required()?),
        delta: delta.required()?,
    })
}

pub(super) fn decode_move(body: Reader<'_>) -> Result<Frame, FrameError> {
    const FIELD: &str = "IKE SA";
    let mut slot = Once::new("slot");
    let mut change = Once::new(FIELD);
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            field::SLOT => slot.set(value, Value::u8)?,
            field::UPSERT => change.set(value, change::upsert)?,
            _ => {}
        }
    }
    let Change::SaUpsert(sa) = change.required()? else {
        return Err(FrameError::Invalid(FIELD));
    };
    Ok(Frame::Move {
        slot: Slot(slot.required()?),
        sa: Box::new(sa),
    })
}

pub(super) fn decode_moved(body: Reader<'_>) -> Result<Frame, FrameError> {
    let numbers = decode_numbers(body)?;
    Ok(Frame::Moved {
        local_spi: numbers.cookie.required()?,
        taken: numbers.complete.required()? != 0,
    })
}
