//! Route look-ups.

use std::net::IpAddr;

use super::message::{Reply, Request, attribute, family, octets, u32_at};
use super::socket::{NetlinkError, Socket};

const RTMSG: usize = 12;
const RTN_LOCAL: u8 = 2;

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

fn parse(reply: &Reply<'_>) -> Option<Route> {
    if reply.kind != libc::RTM_NEWROUTE {
        return None;
    }
    Some(Route {
        index: attribute(reply.payload, RTMSG, libc::RTA_OIF).and_then(|value| u32_at(value, 0))?,
        local: *reply.payload.get(7)? == RTN_LOCAL,
    })
}
