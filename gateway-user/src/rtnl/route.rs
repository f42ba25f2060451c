//! Route look-ups.

use std::net::IpAddr;

use super::message::{Reply, Request, attribute, family, octets, u32_at};
use super::socket::{NetlinkError, Socket};

const RTMSG: usize = 12;
const RTN_LOCAL: u8 = 2;
/// Not one of those that iproute2 names; daemons learn routes of any.
const RTPROT_GATEWAY: u8 = 145;

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Output interface index; the loopback's for a local address.
    pub(crate) index: u32,
    /// The destination is this host.
    pub(crate) local: bool,
}

/// Asks the kernel for its route to `destination`; `None` if there is none.
pub(crate) fn route_to(
    socket: &mut Socket,
    destination: IpAddr,
) -> Result<Option<Route>, NetlinkError> {
    let value = octets(destination);
    let mut body = [0; RTMSG];
    body[0] = family(destination);
    body[1] = u8::try_from(value.len() * 8).unwrap_or(u8::MAX);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let mut request = Request::new(libc::RTM_GETROUTE, flags as u16, &body);
    request.attribute(libc::RTA_DST, &value);
    match socket.query(&mut request, parse) {
        Ok(found) => Ok(found.into_iter().next()),
        Err(error) if matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Sets or removes a blackhole route for `address` alone in routing table `table` (1..=255): a mark
/// for routing daemons, which no packet ever takes. Repeating either is no error.
pub(crate) fn mark_route(
    socket: &mut Socket,
    table: u8,
    address: IpAddr,
    there: bool,
) -> Result<(), NetlinkError> {
    let value = octets(address);
    let mut body = [0; RTMSG];
    body[0] = family(address);
    body[1] = u8::try_from(value.len() * 8).unwrap_or(u8::MAX);
    body[4] = table;
    body[5] = RTPROT_GATEWAY;
    body[7] = libc::RTN_BLACKHOLE;
    let request = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let (kind, flags) = if there {
        let create = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        (libc::RTM_NEWROUTE, request | create)
    } else {
        (libc::RTM_DELROUTE, request)
    };
    let mut request = Request::new(kind, flags as u16, &body);
    request.attribute(libc::RTA_DST, &value);
    match socket.execute(&mut request) {
        Err(error) if !there && error.errno() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

fn parse(reply: &Reply<'_>) -> Option<Route> {
    if reply.kind != libc::RTM_NEWROUTE {
        return None;
    }
    Some(Route {
        index: attribute(reply.payload, RTMSG, libc::RTA_OIF).and_then(|value| u32_at(value, 0))?,
        local: *reply.payload.get(7)? == RTN_LOCAL,
    })
}
