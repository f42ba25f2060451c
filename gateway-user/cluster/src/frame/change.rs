//! A change as a TLV.

use std::time::Duration;

use super::tlv::{HEADER, Once, Reader, Value, Writer};
use super::{FrameError, field};
use crate::change::{Change, Child, Cookie, Negotiation, Sa};
use crate::network::Network;
use crate::secret::Secret;

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

/// An upper bound of the octets that [`write`] appends.
pub(super) fn capacity(change: &Change) -> usize {
    const SMALL: usize = 128;
    match change {
        Change::SaUpsert(sa) => {
            let nets: usize = sa
                .children
                .iter()
                .map(|child| child.remote_nets.len())
                .sum();
            SMALL + sa.record.len() + SMALL * sa.children.len() + (HEADER + 21) * nets
        }
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
        Change::SaUpsert(sa) => writer.nested(field::UPSERT, |w| write_sa(w, sa)),
        Change::SaRemoved { local_spi } => {
            writer.nested(field::REMOVED, |w| w.tlv(LOCAL_COOKIE, local_spi));
        }
    }
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
        });
    }
    writer.tlv(RECORD, sa.record.expose());
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
    let mut children = Vec::new();
    for tlv in value.nested() {
        let (kind, value) = tlv?;
        match kind {
            LOCAL_COOKIE => local_spi.set(value, Value::array)?,
            CHILD => children.push(child(value.nested())?),
            RECORD => record.set(value, |value, _| Ok(Secret::from(value.0)))?,
            _ => {}
        }
    }
    Ok(Change::SaUpsert(Sa {
        local_spi: local_spi.required()?,
        children,
        record: record.required()?,
    }))
}

fn child(body: Reader<'_>) -> Result<Child, FrameError> {
    let mut spi_in = Once::new("inbound SPI");
    let mut spi_out = Once::new("outbound SPI");
    let mut vip = Once::new("VIP");
    let mut peer = Once::new("the peer's address");
    let mut remote_nets = Vec::new();
    for tlv in body {
        let (kind, value) = tlv?;
        match kind {
            SPI_IN => spi_in.set(value, Value::array)?,
            SPI_OUT => spi_out.set(value, Value::array)?,
            VIP => vip.set(value, Value::address)?,
            PEER => peer.set(value, Value::address)?,
            NETWORK => remote_nets.push(network(value)?),
            _ => {}
        }
    }
    Ok(Child {
        spi_in: spi_in.required()?,
        vip: vip.required()?,
        spi_out: spi_out.required()?,
        peer: peer.required()?,
        remote_nets,
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
