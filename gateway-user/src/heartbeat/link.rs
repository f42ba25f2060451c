//! One cluster interface: its socket and its health.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use gateway_cluster::membership::LinkId;
use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use socket2::{Domain, Protocol, Socket, Type};

use super::{LinkConfig, state};
use crate::rtnl;
use crate::xfrm::bypass;

/// DSCP CS6, network control.
const TOS: u32 = 0xc0;
/// Silence of so many others on one interface, while they are heard on another, is the fault of our
/// side of it.
const WITNESSES_OF_SILENCE: usize = 2;

#[derive(Debug)]
pub(super) struct Link {
    config: LinkConfig,
    port: u16,
    open: Option<Open>,
    heard: BTreeMap<MemberId, Instant>,
}

#[derive(Debug)]
struct Open {
    socket: UdpSocket,
    /// The socket is bound to this interface; another one of the same name needs another socket.
    index: u32,
    name: String,
}

impl Link {
    pub(super) const fn new(config: LinkConfig, port: u16) -> Self {
        Self {
            config,
            port,
            open: None,
            heard: BTreeMap::new(),
        }
    }

    /// Asks netlink, which may have to wait for others: not to be called while the interface works.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let mut netlink = rtnl::Socket::open()?;
        let Some(link) = find(&mut netlink, &self.config)? else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no interface has the address {}", self.config.local),
            ));
        };
        self.open_on(&link)
    }

    fn open_on(&mut self, link: &rtnl::Link) -> io::Result<()> {
        let local = SocketAddr::new(self.config.local, self.port);
        let socket = bind(local, &link.name).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("heartbeats: UDP {local} on {}: {error}", link.name),
            )
        })?;
        self.open = Some(Open {
            socket,
            index: link.index,
            name: link.name.clone(),
        });
        Ok(())
    }

    pub(super) fn address_of(&self, member: MemberId) -> Option<IpAddr> {
        self.config.peers.get(&member).copied()
    }

    pub(super) fn send(&self, member: MemberId, datagram: &[u8]) -> io::Result<()> {
        let address = self.address_of(member).ok_or(io::ErrorKind::NotFound)?;
        let open = self.open.as_ref().ok_or(io::ErrorKind::NetworkDown)?;
        let to = SocketAddr::new(address, self.port);
        open.socket.send_to(datagram, to).map(drop)
    }

    /// The next datagram; `None` if there is none. Errors are those of earlier sends (ICMP).
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Option<(usize, IpAddr)> {
        let socket = &self.open.as_ref()?.socket;
        loop {
            match socket.recv_from(buffer) {
                Ok((length, from)) => return Some((length, from.ip().to_canonical())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if is_about_an_earlier_send(&error) => {}
                Err(_) => return None,
            }
        }
    }

    pub(super) fn heard(&mut self, now: Instant, member: MemberId) {
        self.heard.insert(member, now);
    }

    fn hears(&self, member: MemberId, now: Instant, silence: Duration) -> bool {
        self.heard
            .get(&member)
            .is_some_and(|at| now - *at < silence)
    }

    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.open.as_ref().map(|open| open.socket.as_fd())
    }

    pub(super) fn name(&self) -> String {
        let open = self.open.as_ref().map(|open| open.name.clone());
        open.or_else(|| self.config.device.clone())
            .unwrap_or_else(|| self.config.local.to_string())
    }

    /// Whether the interface is there, up and with carrier; opens its socket if it has just come.
    fn works(&mut self) -> bool {
        if let Some(open) = &self.open {
            match state::of(&open.socket, &open.name) {
                Some(state) if state.index == open.index => return state.running,
                _ => self.open = None,
            }
        }
        self.open().is_ok()
    }
}

/// ICMP errors come back as errors of the socket.
fn is_about_an_earlier_send(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Interrupted
    )
}

/// The configured interface, or the one that has our address.
fn find(netlink: &mut rtnl::Socket, config: &LinkConfig) -> io::Result<Option<rtnl::Link>> {
    if let Some(device) = &config.device {
        return Ok(rtnl::link_by_name(netlink, device)?);
    }
    let addresses = rtnl::addresses(netlink)?;
    let own = addresses.iter().find(|found| found.address == config.local);
    match own {
        Some(own) => Ok(rtnl::link_by_index(netlink, own.index)?),
        None => Ok(None),
    }
}

fn bind(local: SocketAddr, device: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    match local {
        SocketAddr::V4(_) => {
            socket.set_freebind_v4(true)?;
            socket.set_tos_v4(TOS)?;
        }
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
            socket.set_tclass_v6(TOS)?;
        }
    }
    exempt(&socket, local.ip());
    socket.bind(&local.into())?;
    Ok(socket.into())
}

/// The members' own addresses may lie within a protected network.
fn exempt(socket: &Socket, local: IpAddr) {
    if let Err(error) = bypass::exempt_from_policies(socket, local) {
        tracing::debug!("heartbeats are not exempt from IPsec policies: {error}");
    }
}

/// The state of every interface, in the order of their numbers.
pub(super) fn check(links: &mut [Link], now: Instant, silence: Duration) -> Vec<(LinkId, bool)> {
    let carrier: Vec<bool> = links.iter_mut().map(Link::works).collect();
    (0..)
        .map(LinkId)
        .zip(carrier)
        .map(|(id, works)| (id, works && !is_deaf(links, id, now, silence)))
        .collect()
}

/// Nobody is heard on this interface, although several others are heard elsewhere.
fn is_deaf(links: &[Link], id: LinkId, now: Instant, silence: Duration) -> bool {
    let Some(own) = links.get(usize::from(id.0)) else {
        return false;
    };
    let elsewhere = |member: &&MemberId| {
        let mut others = links.iter().filter(|link| !std::ptr::eq(*link, own));
        others.any(|link| link.hears(**member, now, silence))
    };
    let hears_any = own
        .config
        .peers
        .keys()
        .any(|member| own.hears(*member, now, silence));
    !hears_any && own.config.peers.keys().filter(elsewhere).count() >= WITNESSES_OF_SILENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn silence_of_all_that_are_heard_elsewhere_is_our_own_fault() {
        let member = |id| MemberId::new(id).unwrap();
        let silence = Duration::from_millis(300);
        let link = |last: u8| {
            let address = |id: u8| (member(id), IpAddr::from([10, 99, last, id]));
            let config = LinkConfig {
                device: None,
                local: [10, 99, last, 1].into(),
                peers: [2, 3].map(address).into(),
            };
            Link::new(config, 4515)
        };
        let mut links = [link(0), link(1)];
        // Nobody is heard anywhere: they may all be dead.
        assert!(!is_deaf(&links, LinkId(0), at(1000), silence));
        links[1].heard(at(1000), member(2));
        assert!(!is_deaf(&links, LinkId(0), at(1000), silence));
        links[1].heard(at(1000), member(3));
        assert!(is_deaf(&links, LinkId(0), at(1000), silence));
        assert!(!is_deaf(&links, LinkId(1), at(1000), silence));
        // One that is heard here speaks for the interface.
        links[0].heard(at(900), member(3));
        assert!(!is_deaf(&links, LinkId(0), at(1000), silence));
        assert!(is_deaf(&links, LinkId(0), at(1200), silence));
        assert!(!is_deaf(&links, LinkId(0), at(1300), silence));
    }
}
