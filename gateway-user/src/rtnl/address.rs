//! Interface addresses.

use std::net::IpAddr;

use super::message::{Reply, Request, attribute, family, ip, octets, u32_at};
use super::socket::{NetlinkError, Socket};

const IFADDRMSG: usize = 8;
const IFA_F_NODAD: u32 = 0x02;

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Interface index.
    pub(crate) index: u32,
    /// The address.
    pub(crate) address: IpAddr,
    /// Length of its prefix in bits.
    pub(crate) prefix: u8,
}

/// All addresses of this network namespace.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    let mut request = Request::new(
        libc::RTM_GETADDR,
        (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16,
        &[0; IFADDRMSG],
    );
    socket.query(&mut request, parse)
}

/// Adds `address` as a host address (/32, /128) to interface `index`, without duplicate address
/// detection. `EEXIST` if it is there already.
pub(crate) fn add_address(
    socket: &mut Socket,
    index: u32,
    address: IpAddr,
) -> Result<(), NetlinkError> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request = request(libc::RTM_NEWADDR, flags as u16, index, (address, bits));
    request.attribute(libc::IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
    socket.execute(&mut request)
}

/// Adds `address`/`prefix` to interface `index`, or starts its lifetime anew: after `seconds` the
/// kernel removes it by itself. Without duplicate address detection.
pub(crate) fn hold_address(
    socket: &mut Socket,
    index: u32,
    (address, prefix): (IpAddr, u8),
    seconds: u32,
) -> Result<(), NetlinkError> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut request = request(libc::RTM_NEWADDR, flags as u16, index, (address, prefix));
    // struct ifa_cacheinfo: preferred, valid, and two time stamps of the kernel's.
    let mut lifetime = [0; 16];
    lifetime[..4].copy_from_slice(&seconds.to_ne_bytes());
    lifetime[4..8].copy_from_slice(&seconds.to_ne_bytes());
    request
        .attribute(libc::IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes())
        .attribute(libc::IFA_CACHEINFO, &lifetime);
    socket.execute(&mut request)
}

/// Removes `address`/`prefix` from interface `index`; one that is not there is no error.
pub(crate) fn drop_address(
    socket: &mut Socket,
    index: u32,
    address: (IpAddr, u8),
) -> Result<(), NetlinkError> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let mut request = request(libc::RTM_DELADDR, flags as u16, index, address);
    match socket.execute(&mut request) {
        Err(error) if error.errno() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        result => result,
    }
}

fn request(kind: u16, flags: u16, index: u32, (address, prefix): (IpAddr, u8)) -> Request {
    let value = octets(address);
    let mut body = [0; IFADDRMSG];
    body[0] = family(address);
    body[1] = prefix;
    body[2] = IFA_F_NODAD as u8;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::new(kind, flags, &body);
    request
        .attribute(libc::IFA_LOCAL, &value)
        .attribute(libc::IFA_ADDRESS, &value);
    request
}

fn parse(reply: &Reply<'_>) -> Option<Address> {
    if reply.kind != libc::RTM_NEWADDR {
        return None;
    }
    let get = |kind| attribute(reply.payload, IFADDRMSG, kind).and_then(ip);
    Some(Address {
        index: u32_at(reply.payload, 4)?,
        // On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is ours.
        address: get(libc::IFA_LOCAL).or_else(|| get(libc::IFA_ADDRESS))?,
        prefix: *reply.payload.get(1)?,
    })
}
