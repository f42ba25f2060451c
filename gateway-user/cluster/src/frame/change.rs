//! A change as a TLV.

use std::time::Duration;

use super::tlv::{HEADER, INTEGER, Once, Reader, Value, Writer};
use super::{FrameError, field};
use gateway_common::member::MemberId;
use gateway_common::slot::Slot;

use super::{DeltaSeq, Incarnation, Position};
use crate::change::{
    Change, Checkpoint, Child, Cookie, Marker, Negotiation, Reached, Reserved, Sa,
};
use crate::network::Network;
use crate::secret::Secret;
use crate::view::{Epoch, Tenure};

const LOCAL_COOKIE: u16 = 1;
const PEER_COOKIE: u16 = 2;
const PEER: u16 = 3;
const LIFETIME_MS: u16 = 4;
const CHILD: u16 = 5;
const RECORD: u16 = 6;
const SPI_IN: u16 = 7;
const SPI_OUT: u16 = 8;
const VIP: u16 = 9;
const NETWORK: u16 = 10;
const IDENTITIES: u16 = 11;
const EPOCH: u16 = 12;
const WHOLE: u16 = 13;
const REACHED: u16 = 14;
const MOVES: u16 = 16;
const RESERVED: u16 = 17;

/// Most octets of a checkpoint.
const CHECKPOINT_LEN: usize = 13 + 4 * INTEGER;

/// Enough for a few fields of fixed length.
const SMALL: usize = 160;

/// An upper bound of the octets that [`write_upsert`] appends.
pub(super) fn sa_capacity(sa: &Sa) -> usize {
    let children = sa.children.iter();
    let nets: usize = children.map(|child| child.remote_nets.len()).sum();
    let fixed = SMALL + sa.record.len() + sa.unknown.len();
    fixed + SMALL * sa.children.len() + (HEADER + 21) * nets
}

/// An upper bound of the octets that [`write`] appends.
pub(super) fn capacity(change: &Change) -> usize {
    match change {
        Change::SaUpsert(sa) => sa_capacity(sa),
        Change::View(marker) => SMALL + 40 * marker.reached.len(),
        Change::Checkpoints(checkpoints) => HEADER + CHECKPOINT_LEN * checkpoints.len(),
        Change::CookieSecret(secret) => SMALL + secret.len(),
        Change::Unknown { body, .. } => SMALL + body.len(),
        Change::NegotiationOpened { .. }
        | Change::NegotiationClosed { .. }
        | Change::SaRemoved { .. } => SMALL,
    }
}

pub(super) fn write(writer: &mut Writer, change: &Change) {
    match change {
        Change::NegotiationOpened {
            negotiation,
            lifetime,
        } => writer.nested(field::OPENED, |w| {
            let lifetime = u32::try_from(lifetime.as_millis()).unwrap_or(u32::MAX);
            w.tlv(LOCAL_COOKIE, &negotiation.local_cookie);
            w.tlv(PEER_COOKIE, &negotiation.peer_cookie);
            w.address(PEER, negotiation.peer);
            w.tlv(LIFETIME_MS, &lifetime.to_be_bytes());
        }),
        Change::NegotiationClosed { local_cookie } => {
            writer.nested(field::CLOSED, |w| w.tlv(LOCAL_COOKIE, local_cookie));
        }
        Change::SaUpsert(sa) => write_upsert(writer, sa),
        Change::SaRemoved { local_spi } => {
            writer.nested(field::REMOVED, |w| w.tlv(LOCAL_COOKIE, local_spi));
        }
        Change::View(marker) => writer.nested(field::VIEW, |w| write_marker(w, marker)),
        Change::Checkpoints(checkpoints) => writer.nested(field::CHECKPOINTS, |w| {
            for checkpoint in checkpoints {
                write_checkpoint(w, checkpoint);
            }
        }),
        Change::CookieSecret(secret) => writer.tlv(field::COOKIE_SECRET, secret.expose()),
        Change::Unknown { kind, body } => writer.tlv(*kind, body.expose()),
    }
}

pub(super) fn write_upsert(writer: &mut Writer, sa: &Sa) {
    writer.nested(field::UPSERT, |w| write_sa(w, sa));
}

fn write_sa(writer: &mut Writer, sa: &Sa) {
    writer.tlv(LOCAL_COOKIE, &sa.local_spi);
    for child in &sa.children {
        writer.nested(CHILD, |w| {
            w.tlv(SPI_IN, &child.spi_in);
            w.tlv(SPI_OUT, &child.spi_out);
            w.address(VIP, child.vip);
            w.address(PEER, child.peer);
            for network in &child.remote_nets {
                w.nested(NETWORK, |w| write_network(w, network));
            }
            w.nested(RESERVED, |w| write_reserved(w, &child.reserved));
        });
    }
    if let Some(identities) = &sa.identities {
        writer.tlv(IDENTITIES, identities);
    }
    if sa.moves != 0 {
        writer.tlv(MOVES, &sa.moves.to_be_bytes());
    }
    writer.tlv(RECORD, sa.record.expose());
    writer.raw(sa.unknown.expose());
}

fn write_marker(writer: &mut Writer, marker: &Marker) {
    writer.tlv(EPOCH, &marker.epoch.0.to_be_bytes());
    writer.tlv(WHOLE, &marker.whole.0.to_be_bytes());
    for reached in &marker.reached {
        writer.nested(REACHED, |w| {
            w.raw(&[reached.member.get()]);
            w.raw(&reached.position.incarnation.0.to_be_bytes());
            w.raw(&reached.position.seq.0.to_be_bytes());
            w.raw(&reached.ended.0.to_be_bytes());
        });
    }
}

fn write_checkpoint(writer: &mut Writer, checkpoint: &Checkpoint) {
    writer.raw(&checkpoint.local_spi);
    writer.raw(&checkpoint.spi_in);
    write_reserved(writer, &checkpoint.reserved);
    writer.integer(checkpoint.sequence_in);
}

fn write_reserved(writer: &mut Writer, reserved: &Reserved) {
    writer.raw(&[reserved.slot.0]);
    writer.integer(reserved.tenure.0);
    let units = u16::try_from(reserved.block / Reserved::UNIT).unwrap_or(u16::MAX);
    writer.integer(units.into());
    writer.integer(reserved.ceiling);
}

fn cut_reserved(value: &mut Value<'_>, name: &'static str) -> Result<Reserved, FrameError> {
    let [slot] = value.chunk(name)?;
    let tenure = Tenure(value.integer(name)?);
    let units: u16 = value.integer(name)?;
    Ok(Reserved {
        slot: Slot(slot),
        tenure,
        block: u32::from(units) * Reserved::UNIT,
        ceiling: value.integer(name)?,
    })
}

fn reserved(mut value: Value<'_>, name: &'static str) -> Result<Reserved, FrameError> {
    let reserved = cut_reserved(&mut value, name)?;
    if value.0.is_empty() {
        Ok(reserved)
    } else {
        Err(FrameError::Invalid(name))
    }
}

pub(super) fn view(value: Value<'_>, _: &'static str) -> Result<Change, FrameError> {
    let mut epoch = Once::new("epoch");
    let mut whole = Once::new("epoch of what is whole");
    let mut positions = Vec::new();
    for tlv in value.nested() {
        let (kind, value) = tlv?;
        match kind {
            EPOCH => epoch.set(value, Value::u64)?,
            WHOLE => whole.set(value, Value::u64)?,
            REACHED => positions.push(reached(value)?),
            _ => {}
        }
    }
    Ok(Change::View(Marker {
        epoch: Epoch(epoch.required()?),
        whole: Epoch(whole.required()?),
        reached: positions,
    }))
}

fn reached(value: Value<'_>) -> Result<Reached, FrameError> {
    const FIELD: &str = "position";
    let octets = value.array::<25>(FIELD)?;
    let part = |from: usize| Value(&octets[from..from + 8]).u64(FIELD);
    Ok(Reached {
        member: MemberId::new(octets[0]).ok_or(FrameError::Invalid(FIELD))?,
        position: Position {
            incarnation: Incarnation(part(1)?),
            seq: DeltaSeq(part(9)?),
        },
        ended: Epoch(part(17)?),
    })
}

pub(super) fn checkpoints(mut value: Value<'_>, name: &'static str) -> Result<Change, FrameError> {
    let mut checkpoints = Vec::new();
    while !value.0.is_empty() {
        checkpoints.push(Checkpoint {
            local_spi: value.chunk(name)?,
            spi_in: value.chunk(name)?,
            reserved: cut_reserved(&mut value, name)?,
            sequence_in: value.integer(name)?,
        });
    }
    if checkpoints.is_empty() {
        return Err(FrameError::Invalid(name));
    }
    Ok(Change::Checkpoints(checkpoints))
}

fn write_network(writer: &mut Writer, network: &Network) {
    writer.raw(&network.zone().to_be_bytes());
    writer.raw(&[network.prefix_len()]);
    match network.address() {
        std::net::IpAddr::V4(v4) => writer.raw(&v4.octets()),
        std::net::IpAddr::V6(v6) => writer.raw(&v6.octets()),
    }
}

pub(super) fn opened(value: Value<'_>, _: &'static str) -> Result<Change, FrameError> {
    let mut local_cookie = Once::new("our cookie");
    let mut peer_cookie = Once::new("the peer's cookie");
    let mut peer = Once::new("the peer's address");
    let mut lifetime = Once::new("lifetime");
    for tlv in value.nested() {
        let (kind, value) = tlv?;
        match kind {
            LOCAL_COOKIE => local_cookie.set(value, Value::array)?,
            PEER_COOKIE => peer_cookie.set(value, Value::array)?,
            PEER => peer.set(value, Value::address)?,
            LIFETIME_MS => lifetime.set(value, Value::u32)?,
            _ => {}
        }
    }
    Ok(Change::NegotiationOpened {
        negotiation: Negotiation {
            local_cookie: local_cookie.required()?,
            peer_cookie: peer_cookie.required()?,
            peer: peer.required()?,
        },
        lifetime: Duration::from_millis(u64::from(lifetime.required()?)),
    })
}

pub(super) fn closed(value: Value<'_>, _: &'static str) -> Result<Change, FrameError> {
    let local_cookie = cookie(value.nested())?;
    Ok(Change::NegotiationClosed { local_cookie })
}

pub(super) fn removed(value: Value<'_>, _: &'static str) -> Result<Change, FrameError> {
    let local_spi = cookie(value.nested())?;
    Ok(Change::SaRemoved { local_spi })
}

fn cookie(body: Reader<'_>) -> Result<Cookie, FrameError> {
    let mut cookie = Once::new("our cookie");
    for tlv in body {
        let (kind, value) = tlv?;
        if kind == LOCAL_COOKIE {
            cookie.set(value, Value::array)?;
        }
    }
    cookie.required()
}

pub(super) fn upsert(value: Value<'_>, _: &'static str) -> Result<Change, FrameError> {
    let mut local_spi = Once::new("our cookie");
    let mut record = Once::new("record");
    let mut identities = Once::new("identities");
    let mut moves = Once::new("moves");
    let octets = value.0.len();
    let mut children = Vec::new();
    let mut unknown: Option<Writer> = None;
    for tlv in value.nested() {
        let (kind, value) = tlv?;
        match kind {
            LOCAL_COOKIE => local_spi.set(value, Value::array)?,
            CHILD => children.push(child(value.nested())?),
            MOVES => moves.set(value, Value::u32)?,
            IDENTITIES => identities.set(value, Value::array)?,
            RECORD => record.set(value, |value, _| Ok(Secret::from(value.0)))?,
            _ => unknown
                .get_or_insert_with(|| Writer::with_capacity(octets))
                .tlv(kind, value.0),
        }
    }
    Ok(Change::SaUpsert(Sa {
        local_spi: local_spi.required()?,
        children,
        identities: identities.optional(),
        moves: moves.optional().unwrap_or(0),
        record: record.required()?,
        unknown: unknown.map_or_else(Secret::default, |w| Secret::new(w.finish())),
    }))
}

fn child(body: Reader<'_>) -> Result<Child, FrameError> {
    let mut spi_in = Once::new("inbound SPI");
    let mut spi_out = Once::new("outbound SPI");
    let mut vip = Once::new("VIP");
    let mut peer = Once::new("the peer's address");
    let mut numbers = Once::new("reserved numbers");
    let mut remote_nets = Vec::new();
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            SPI_IN => spi_in.set(value, Value::array)?,
            SPI_OUT => spi_out.set(value, Value::array)?,
            VIP => vip.set(value, Value::address)?,
            PEER => peer.set(value, Value::address)?,
            NETWORK => remote_nets.push(network(value)?),
            RESERVED => numbers.set(value, reserved)?,
            _ => {}
        }
    }
    Ok(Child {
        spi_in: spi_in.required()?,
        vip: vip.required()?,
        spi_out: spi_out.required()?,
        peer: peer.required()?,
        remote_nets,
        reserved: numbers.required()?,
    })
}

fn network(value: Value<'_>) -> Result<Network, FrameError> {
    const FIELD: &str = "remote network";
    let (head, address) = value
        .0
        .split_first_chunk::<5>()
        .ok_or(FrameError::Invalid(FIELD))?;
    let [z0, z1, z2, z3, prefix_len] = *head;
    let zone = u32::from_be_bytes([z0, z1, z2, z3]);
    let address = Value(address).address(FIELD)?;
    Network::new(zone, address, prefix_len).ok_or(FrameError::Invalid(FIELD))
}
