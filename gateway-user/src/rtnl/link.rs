//! Interfaces.

use super::message::{Reply, Request, attribute, text, u32_at};
use super::socket::{NetlinkError, Socket};

const IFINFOMSG: usize = 16;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_INFO_KIND: u16 = 1;

/// An interface of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Interface index.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// Whether it is the loopback device.
    pub(crate) loopback: bool,
    /// MTU in octets.
    pub(crate) mtu: u32,
    /// The interface that this one is stacked on (macvlan, VLAN), or the veth peer.
    pub(crate) parent: Option<u32>,
    /// Hardware address; `None` if it is not an Ethernet one.
    pub(crate) mac: Option<[u8; 6]>,
    /// Link type, for example `veth`, `bond`; `None` for physical interfaces.
    pub(crate) kind: Option<String>,
    /// Its XDP program, if any.
    pub(crate) xdp: Option<XdpAttachment>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XdpAttachment {
    /// The kernel's program id.
    pub(crate) program_id: u32,
    /// Whether the driver runs it (and not the generic hook).
    pub(crate) native: bool,
}

/// The interface called `name`, `None` if there is none.
pub(crate) fn link_by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    // IFNAMSIZ with the NUL; a longer name cannot exist and the kernel would answer ERANGE.
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Ok(None);
    }
    let mut request = request(0, 0);
    request.string(libc::IFLA_IFNAME, name);
    one(socket, &mut request)
}

/// The interface with this index, `None` if there is none.
pub(crate) fn link_by_index(socket: &mut Socket, index: u32) -> Result<Option<Link>, NetlinkError> {
    one(socket, &mut request(index, 0))
}

/// All interfaces.
pub(crate) fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    socket.query(&mut request(0, libc::NLM_F_DUMP as u16), parse)
}

fn one(socket: &mut Socket, request: &mut Request) -> Result<Option<Link>, NetlinkError> {
    match socket.query(request, parse) {
        Ok(found) => Ok(found.into_iter().next()),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn request(index: u32, flags: u16) -> Request {
    let mut body = [0; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let acknowledged = if flags == 0 {
        libc::NLM_F_ACK as u16
    } else {
        0
    };
    Request::new(
        libc::RTM_GETLINK,
        libc::NLM_F_REQUEST as u16 | flags | acknowledged,
        &body,
    )
}

fn parse(reply: &Reply<'_>) -> Option<Link> {
    if reply.kind != libc::RTM_NEWLINK {
        return None;
    }
    let payload = reply.payload;
    let get = |kind| attribute(payload, IFINFOMSG, kind);
    Some(Link {
        index: u32_at(payload, 4)?,
        name: text(get(libc::IFLA_IFNAME)?),
        loopback: u32_at(payload, 8)? & libc::IFF_LOOPBACK.cast_unsigned() != 0,
        mtu: get(libc::IFLA_MTU).and_then(|value| u32_at(value, 0))?,
        parent: get(libc::IFLA_LINK).and_then(|value| u32_at(value, 0)),
        mac: get(libc::IFLA_ADDRESS).and_then(|value| value.try_into().ok()),
        kind: get(libc::IFLA_LINKINFO)
            .and_then(|info| attribute(info, 0, IFLA_INFO_KIND))
            .map(text),
        xdp: get(IFLA_XDP).and_then(xdp),
    })
}

fn xdp(nested: &[u8]) -> Option<XdpAttachment> {
    let id = |kind| attribute(nested, 0, kind).and_then(|value| u32_at(value, 0));
    let attached = *attribute(nested, 0, IFLA_XDP_ATTACHED)?.first()?;
    if attached == 0 {
        return None;
    }
    let driver = id(IFLA_XDP_DRV_PROG_ID);
    Some(XdpAttachment {
        program_id: driver
            .or_else(|| id(IFLA_XDP_PROG_ID))
            .or_else(|| id(IFLA_XDP_SKB_PROG_ID))?,
        native: driver.is_some(),
    })
}
