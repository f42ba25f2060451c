//! Heartbeats: authenticated UDP datagrams between the members, over every cluster interface, and
//! between a member and the witness.
//!
//! Each interface has a socket of its own, bound to the member's address there and to the device, so
//! that a heartbeat tells something about that interface. A datagram is authenticated with keys that
//! the TLS session of the sync channel exported ([`SessionKeys`]); they serve until the next session,
//! whether the connection still stands or not. What does not fit is counted and forgotten. Replays
//! are the membership's business: they are authentic.

mod keys;
mod link;
mod state;
mod wire;
mod witness;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use gateway_cluster::membership::{LinkId, Sender, Via};
use gateway_common::member::MemberId;
use gateway_common::time::Instant;

pub use keys::{EXPORTER_LABEL, SessionKeys};
pub use witness::serve as serve_witness;

use self::keys::{KeyRing, Verdict};
use self::link::Link;
use self::wire::{Envelope, Header, MAX_DATAGRAM, WITNESS};

/// The number under which the witness's answers come: it is on no cluster interface.
pub const WITNESS_LINK: LinkId = LinkId(31);

/// What the heartbeats have to know.
#[derive(Debug)]
pub struct HeartbeatConfig {
    /// Cluster id, so that two clusters on one network do not bother each other's logs.
    pub cluster: u8,
    /// This member.
    pub local: MemberId,
    /// UDP port, the same on all members.
    pub port: u16,
    /// The cluster interfaces, in the same order on all members; the first is the sync interface.
    pub links: Vec<LinkConfig>,
    /// The witness, with the keys that it was given.
    pub witness: Option<(SocketAddr, Arc<SessionKeys>)>,
}

/// One cluster interface.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Its name; `None`: whichever has the address.
    pub device: Option<String>,
    /// This member's address on it.
    pub local: IpAddr,
    /// The others' addresses on it.
    pub peers: BTreeMap<MemberId, IpAddr>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatCounters {
    /// Authentic datagrams.
    pub received: u64,
    /// No heartbeats, of another cluster, not for us, or from an address of nobody.
    pub foreign: u64,
    /// Under keys that are not (or no longer) known here.
    pub unknown_key: u64,
    /// Not made by the member that they name.
    pub forged: u64,
    /// Sent.
    pub sent: u64,
    /// The system refused to send: interface down, no route, buffer full.
    pub send_errors: u64,
    /// Not sent because there was no session with the peer yet.
    pub no_key: u64,
}

/// The sockets and keys.
#[derive(Debug)]
pub struct Heartbeats {
    cluster: u8,
    local: MemberId,
    links: Vec<Link>,
    keys: BTreeMap<MemberId, KeyRing>,
    witness: Option<WitnessPeer>,
    counters: HeartbeatCounters,
    buffer: [u8; MAX_DATAGRAM],
}

#[derive(Debug)]
struct WitnessPeer {
    socket: UdpSocket,
    address: SocketAddr,
    keys: KeyRing,
}

/// An authentic datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub from: Sender,
    /// Over which interface it came.
    pub via: LinkId,
    /// What is in it.
    pub body: Vec<u8>,
}

impl Heartbeats {
    /// Opens the sockets. Interfaces that are not there yet are tried again by
    /// [`Heartbeats::check_links`].
    ///
    /// # Errors
    /// The sync interface, or the socket for the witness, cannot be used.
    pub fn open(config: HeartbeatConfig) -> io::Result<Self> {
        let mut links: Vec<Link> = config
            .links
            .into_iter()
            .map(|link| Link::new(link, config.port))
            .collect();
        if let Some(sync) = links.first_mut() {
            sync.open()?;
        }
        let witness = config
            .witness
            .map(|(address, keys)| WitnessPeer::new(address, keys))
            .transpose()?;
        Ok(Self {
            cluster: config.cluster,
            local: config.local,
            links,
            keys: BTreeMap::new(),
            witness,
            counters: HeartbeatCounters::default(),
            buffer: [0; MAX_DATAGRAM],
        })
    }

    /// A new session with `member`; `shared`: it has the keys for certain (it dialled).
    pub fn install_keys(&mut self, member: MemberId, keys: Arc<SessionKeys>, shared: bool) {
        self.keys.entry(member).or_default().install(keys, shared);
    }

    /// Sends `body`. A datagram that cannot be sent is like a lost one; it is counted.
    pub fn send(&mut self, to: Sender, via: Via, body: &[u8]) {
        let sent = match to {
            Sender::Member(member) => self.send_to_member(member, via, body),
            Sender::Witness => self.send_to_witness(body),
        };
        if sent.is_none() {
            self.counters.no_key += 1;
        }
    }

    fn header(&self, to: u8, keys: &SessionKeys) -> Header {
        Header {
            cluster: self.cluster,
            from: self.local.get(),
            to,
            key: keys.id(),
        }
    }

    fn send_to_member(&mut self, member: MemberId, via: Via, body: &[u8]) -> Option<()> {
        let keys = self.keys.get(&member)?.current()?;
        let header = self.header(member.get(), keys);
        let datagram = wire::seal(header, body, |octets| keys.sign(octets))?;
        for (id, link) in (0..).map(LinkId).zip(&self.links) {
            if matches!(via, Via::One(one) if one != id) {
                continue;
            }
            match link.send(member, &datagram) {
                Ok(()) => self.counters.sent += 1,
                Err(_) => self.counters.send_errors += 1,
            }
        }
        Some(())
    }

    fn send_to_witness(&mut self, body: &[u8]) -> Option<()> {
        let witness = self.witness.as_ref()?;
        let keys = witness.keys.current()?;
        let header = self.header(WITNESS, keys);
        let datagram = wire::seal(header, body, |octets| keys.sign(octets))?;
        match witness.socket.send_to(&datagram, witness.address) {
            Ok(_) => self.counters.sent += 1,
            Err(_) => self.counters.send_errors += 1,
        }
        Some(())
    }

    /// The next authentic datagram; `None` when no socket has one.
    pub fn receive(&mut self, now: Instant) -> Option<Received> {
        let mut buffer = self.buffer;
        for index in 0..self.links.len() {
            let id = LinkId(u8::try_from(index).unwrap_or(u8::MAX));
            while let Some((length, from)) = self.links[index].receive(&mut buffer) {
                let Some(body) = self.authenticate(index, from, &buffer[..length]) else {
                    continue;
                };
                self.links[index].heard(now, body.0);
                return Some(Received {
                    from: Sender::Member(body.0),
                    via: id,
                    body: body.1,
                });
            }
        }
        self.receive_from_witness(&mut buffer)
    }

    fn authenticate(
        &mut self,
        link: usize,
        from: IpAddr,
        datagram: &[u8],
    ) -> Option<(MemberId, Vec<u8>)> {
        let foreign = &mut self.counters.foreign;
        let envelope = Envelope::parse(datagram).filter(|envelope| {
            envelope.header.cluster == self.cluster && envelope.header.to == self.local.get()
        });
        let known = envelope.and_then(|envelope| {
            let member = MemberId::new(envelope.header.from)?;
            let configured = self.links[link].address_of(member)? == from;
            configured.then_some((envelope, member))
        });
        let Some((envelope, member)) = known else {
            *foreign += 1;
            return None;
        };
        let ring = self.keys.entry(member).or_default();
        let verdict = ring.verify(envelope.header.key, envelope.signed, envelope.tag);
        self.counters
            .note(verdict)
            .then(|| (member, envelope.body.to_vec()))
    }

    fn receive_from_witness(&mut self, buffer: &mut [u8]) -> Option<Received> {
        let witness = self.witness.as_mut()?;
        loop {
            let (length, from) = witness.socket.recv_from(buffer).ok()?;
            let fits = |envelope: &Envelope<'_>| {
                let header = envelope.header;
                from == witness.address
                    && header.cluster == self.cluster
                    && (header.from, header.to) == (WITNESS, self.local.get())
            };
            let Some(envelope) = Envelope::parse(&buffer[..length]).filter(fits) else {
                self.counters.foreign += 1;
                continue;
            };
            let verdict = witness
                .keys
                .verify(envelope.header.key, envelope.signed, envelope.tag);
            if self.counters.note(verdict) {
                return Some(Received {
                    from: Sender::Witness,
                    via: WITNESS_LINK,
                    body: envelope.body.to_vec(),
                });
            }
        }
    }

    /// Looks at the interfaces: reopens what came back, and answers the state of each. To be called
    /// about ten times a second.
    pub fn check_links(
        &mut self,
        now: Instant,
        silence: std::time::Duration,
    ) -> Vec<(LinkId, bool)> {
        link::check(&mut self.links, now, silence)
    }

    /// Everything to be polled for input.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let witness = self.witness.iter().map(|witness| witness.socket.as_fd());
        self.links.iter().filter_map(Link::socket).chain(witness)
    }

    /// Names of the interfaces, in the order of their numbers.
    pub fn link_names(&self) -> Vec<String> {
        self.links.iter().map(Link::name).collect()
    }

    /// What was counted.
    pub const fn counters(&self) -> HeartbeatCounters {
        self.counters
    }
}

impl WitnessPeer {
    fn new(address: SocketAddr, keys: Arc<SessionKeys>) -> io::Result<Self> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_nonblocking(true)?;
        let mut ring = KeyRing::default();
        ring.install(keys, true);
        Ok(Self {
            socket,
            address,
            keys: ring,
        })
    }
}

impl HeartbeatCounters {
    fn note(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Authentic => self.received += 1,
            Verdict::UnknownKey => self.unknown_key += 1,
            Verdict::Forged => self.forged += 1,
        }
        verdict == Verdict::Authentic
    }
}

#[cfg(test)]
mod tests;
