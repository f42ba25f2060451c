//! The neighbour table (ARP and ND alike).

use std::net::IpAddr;

use super::message::{Reply, Request, attribute, ip, u16_at, u32_at};
use super::socket::{NetlinkError, Socket};

const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;
/// `NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_NOARP | NUD_PERMANENT`.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;

/// A resolved neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// Its address.
    pub(crate) address: IpAddr,
    /// Its hardware address.
    pub(crate) mac: [u8; 6],
}

/// The neighbours on interface `index` whose hardware address is known.
pub(crate) fn neighbours(socket: &mut Socket, index: u32) -> Result<Vec<Neighbour>, NetlinkError> {
    let mut request = Request::new(
        libc::RTM_GETNEIGH,
        (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16,
        &[0; NDMSG],
    );
    request.attribute(NDA_IFINDEX, &index.to_ne_bytes());
    socket.query(&mut request, |reply| parse(reply, index))
}

fn parse(reply: &Reply<'_>, index: u32) -> Option<Neighbour> {
    let payload = reply.payload;
    let usable = u16_at(payload, 8)? & USABLE != 0;
    if reply.kind != libc::RTM_NEWNEIGH || !usable || u32_at(payload, 4)? != index {
        return None;
    }
    Some(Neighbour {
        address: ip(attribute(payload, NDMSG, NDA_DST)?)?,
        mac: attribute(payload, NDMSG, NDA_LLADDR)?.try_into().ok()?,
    })
}
