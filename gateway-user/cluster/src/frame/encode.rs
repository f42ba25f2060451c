//! From frames to octets.

use gateway_common::{member::MemberId, slot::Slot};

use super::tlv::Writer;
use super::{DeltaSeq, FRAME_VERSION, Hello, Incarnation, Path, Position, change, field, kind};
use crate::change::{Change, Sa, Stamp};
use crate::secret::Secret;

/// Encodes [`Frame::Delta`] from a borrowed change.
pub(crate) fn encode_delta(seq: DeltaSeq, slot: Slot, change: &Change) -> Secret {
    let mut writer = Writer::with_capacity(64 + change::capacity(change));
    writer.raw(&[FRAME_VERSION, kind::DELTA]);
    writer.tlv(field::SEQ, &seq.0.to_be_bytes());
    writer.tlv(field::SLOT, &[slot.0]);
    change::write(&mut writer, change);
    Secret::new(writer.finish())
}

/// Encodes [`Frame::Entry`] from a borrowed change.
pub(crate) fn encode_entry(written: Stamp, slot: Slot, change: &Change) -> Secret {
    let mut writer = Writer::with_capacity(96 + change::capacity(change));
    writer.raw(&[FRAME_VERSION, kind::ENTRY]);
    writer.tlv(field::EPOCH, &written.epoch.0.to_be_bytes());
    writer.tlv(field::SEQ, &written.seq.0.to_be_bytes());
    writer.tlv(field::SLOT, &[slot.0]);
    change::write(&mut writer, change);
    Secret::new(writer.finish())
}

/// Encodes [`Frame::Entry`] from a borrowed SA.
pub(crate) fn encode_sa_entry(written: Stamp, slot: Slot, sa: &Sa) -> Secret {
    let mut writer = Writer::with_capacity(96 + change::sa_capacity(sa));
    writer.raw(&[FRAME_VERSION, kind::ENTRY]);
    writer.tlv(field::EPOCH, &written.epoch.0.to_be_bytes());
    writer.tlv(field::SEQ, &written.seq.0.to_be_bytes());
    writer.tlv(field::SLOT, &[slot.0]);
    change::write_upsert(&mut writer, sa);
    Secret::new(writer.finish())
}

/// Encodes [`Frame::Tail`] from a borrowed delta.
pub(crate) fn encode_tail(member: MemberId, incarnation: Incarnation, delta: &Secret) -> Secret {
    let mut writer = Writer::with_capacity(64 + delta.len());
    writer.raw(&[FRAME_VERSION, kind::TAIL]);
    writer.tlv(field::MEMBER, &[member.get()]);
    writer.tlv(field::INCARNATION, &incarnation.0.to_be_bytes());
    writer.tlv(field::DELTA, delta.expose());
    Secret::new(writer.finish())
}

/// Encodes [`Frame::Move`] from a borrowed SA.
pub(crate) fn encode_move(slot: Slot, sa: &Sa) -> Secret {
    let mut writer = Writer::with_capacity(96 + change::sa_capacity(sa));
    writer.raw(&[FRAME_VERSION, kind::MOVE]);
    writer.tlv(field::SLOT, &[slot.0]);
    change::write_upsert(&mut writer, sa);
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

pub(super) fn small(kind: u8, body: impl FnOnce(&mut Writer)) -> Secret {
    let mut writer = Writer::with_capacity(160);
    writer.raw(&[FRAME_VERSION, kind]);
    body(&mut writer);
    Secret::new(writer.finish())
}

pub(super) fn encode_hello(hello: &Hello) -> Secret {
    let mut writer = Writer::with_capacity(160 + hello.cluster_name.len());
    writer.raw(&[FRAME_VERSION, kind::HELLO]);
    writer.tlv(field::PROTOCOL, &hello.protocol.to_be_bytes());
    writer.tlv(field::MEMBER, &[hello.member.get()]);
    writer.tlv(field::INCARNATION, &hello.incarnation.0.to_be_bytes());
    writer.tlv(field::CLUSTER_ID, &[hello.cluster_id]);
    writer.tlv(field::CLUSTER_NAME, hello.cluster_name.as_bytes());
    writer.tlv(field::CONFIG_HASH, &hello.config_hash);
    if let Some(position) = hello.received {
        writer.nested(field::RECEIVED, |w| write_position(w, position));
    }
    Secret::new(writer.finish())
}

pub(super) fn write_position(writer: &mut Writer, position: Position) {
    writer.raw(&position.incarnation.0.to_be_bytes());
    writer.raw(&position.seq.0.to_be_bytes());
}
