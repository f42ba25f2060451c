//! The load: peers that are engines of ours, over UDP sockets.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context, Result, bail, ensure};
use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use gateway_ike::config::{
    Authentication, Childless, Config, Connection, Initiation, Limits, RemoteAddress, Secret,
    Transport, Uniqueness,
};
use gateway_ike::endpoint::{Command, Endpoint, InitiateOrder};
use gateway_ike::identity::{Identity, IdentityPattern};
use gateway_ike::output::{EventKind, Output, Path};
use gateway_ike::proposal::IkeProposal;
use gateway_ike::secret::SecretBytes;
use gateway_user::crypto::AwsLc;

use crate::lab::{GATEWAY_ID, Network, VIP, site_address};

/// Handshakes under way at a time: fewer than the gateway's threshold for cookies.
const WINDOW: usize = 16;
/// A peer is no cluster.
const MEMBER: MemberId = MemberId::new(1).expect("1 to 63");
/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long nothing has to come before all is quiet.
const QUIET: Duration = Duration::from_secs(2);
/// Where a peer's only connection leads.
const NAME: &str = "bench";

/// Who the peers are: the `number`-th one's identity and how it authenticates.
pub(super) trait Peers {
    /// Of the `number`-th peer.
    fn authentication(&self, number: usize) -> Authentication;
    /// The pre-shared key, if there is one.
    fn secret(&self) -> Option<SecretBytes>;
}

/// Identity of a peer.
pub(super) fn peer_name(number: usize) -> String {
    format!("p{number}.bench.example.org")
}

/// The addresses that handshakes are made from, each by another peer.
pub(super) struct Driver {
    sites: Vec<Site>,
    begin: Clock,
    /// Peers that have been used.
    used: usize,
    /// Requests that were sent again.
    resent: u64,
}

struct Site {
    socket: UdpSocket,
    path: Path,
    /// Those under way, by their SPIs.
    peers: BTreeMap<[u8; 8], Endpoint>,
    /// Those that are up: they answer what they are asked.
    up: BTreeMap<[u8; 8], Endpoint>,
}

/// How many handshakes there were and what they took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) time: Duration,
    /// Requests that had to be sent again.
    pub(super) repeated: u64,
}

impl Driver {
    /// Sockets on the peer's addresses.
    pub(super) fn new(network: &Network) -> Result<Self> {
        let plan = network.plan;
        let open = |site| {
            let address = site_address(&plan, site);
            let socket = UdpSocket::bind((address, 500)).with_context(|| address.to_string())?;
            socket.set_nonblocking(true)?;
            Ok(Site {
                socket,
                path: Path::new((address, 500).into(), (VIP, 500).into()),
                peers: BTreeMap::new(),
                up: BTreeMap::new(),
            })
        };
        let sites = network
            .peer
            .inside(|| (0..plan.sites).map(open).collect::<Result<_>>())?;
        Ok(Self {
            sites,
            begin: Clock::now(),
            used: 0,
            resent: 0,
        })
    }

    fn now(&self) -> Instant {
        let passed = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(passed.saturating_add(1))
    }

    /// Establishes `count` IKE SAs of peers that have none yet.
    ///
    /// # Errors
    /// A handshake fails, or the responder says what no handshake contains: then the figures would
    /// be about something else.
    pub(super) fn establish(
        &mut self,
        count: usize,
        proposal: &str,
        peers: &dyn Peers,
    ) -> Result<Pace> {
        let proposals = IkeProposal::parse(proposal).map_err(|why| anyhow::anyhow!("{why}"))?;
        let start = Clock::now();
        let mut heard = start;
        let resent = self.resent;
        let (mut begun, mut done) = (0, 0);
        while done < count {
            while begun < count && begun - done < WINDOW {
                let place = begun % self.sites.len();
                let config = config(self.used, &self.sites[place].path, &proposals, peers);
                self.begin(place, config)?;
                self.used += 1;
                begun += 1;
            }
            let before = done;
            for place in self.readable()? {
                done += self.receive(place)?;
            }
            if done > before {
                heard = Clock::now();
            } else {
                self.overdue()?;
            }
            ensure!(
                heard.elapsed() < PATIENCE,
                "{done} of {count} handshakes, then none for {PATIENCE:?}"
            );
        }
        Ok(Pace {
            time: start.elapsed(),
            repeated: self.resent - resent,
        })
    }

    /// Answers what the responder asks until it has asked nothing for a while: a gateway looks after
    /// what it has when it has just begun to serve.
    ///
    /// # Errors
    /// The sockets cannot be polled.
    pub(super) fn settle(&mut self) -> Result<()> {
        let mut heard = Clock::now();
        while heard.elapsed() < QUIET {
            for place in self.readable()? {
                self.receive(place)?;
                heard = Clock::now();
            }
        }
        Ok(())
    }

    fn begin(&mut self, place: usize, config: Config) -> Result<()> {
        let now = self.now();
        let mut peer = Endpoint::new(Arc::new(config), Arc::new(AwsLc), now);
        let unix_seconds = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs();
        peer.handle_command(now, Command::SetWallClock { unix_seconds });
        let order = InitiateOrder {
            connection: NAME.to_owned(),
            ..InitiateOrder::default()
        };
        peer.handle_command(now, Command::Initiate(order));
        let site = &mut self.sites[place];
        let first = drain(&mut peer, site)?.sent.context("nothing was sent")?;
        site.peers.insert(first, peer);
        Ok(())
    }

    /// Takes what has come to an address; returns how many handshakes that completed.
    fn receive(&mut self, place: usize) -> Result<usize> {
        let now = self.now();
        let site = &mut self.sites[place];
        let mut buffer = [0; 8192];
        let mut done = 0;
        // An error is one about an earlier datagram: it was lost.
        while let Ok(length) = site.socket.recv(&mut buffer) {
            let datagram = &buffer[..length];
            let spi = datagram.first_chunk().context("less than an SPI")?;
            let known = site.peers.remove(spi).or_else(|| site.up.remove(spi));
            let mut peer = known.context("a message for nobody")?;
            peer.handle_datagram(now, site.path, datagram);
            let outcome = drain(&mut peer, site)?;
            if let Some(reason) = outcome.failed {
                bail!("a handshake failed: {reason}");
            }
            done += usize::from(outcome.established);
            let up = outcome.established || peer.sas().next().is_some();
            let place = if up { &mut site.up } else { &mut site.peers };
            place.insert(*spi, peer);
        }
        Ok(done)
    }

    /// Lets those that wait send again what is due.
    fn overdue(&mut self) -> Result<()> {
        let now = self.now();
        for site in &mut self.sites {
            for (spi, mut peer) in std::mem::take(&mut site.peers) {
                if peer.poll_timeout().is_some_and(|due| due <= now) {
                    let before = peer.counters().requests_resent;
                    peer.handle_timeout(now);
                    self.resent += peer.counters().requests_resent - before;
                    if let Some(reason) = drain(&mut peer, site)?.failed {
                        bail!("a handshake failed: {reason}");
                    }
                }
                site.peers.insert(spi, peer);
            }
        }
        Ok(())
    }

    /// Waits for datagrams, not for long; returns where there are some.
    fn readable(&self) -> Result<Vec<usize>> {
        let poll = |site: &Site| libc::pollfd {
            fd: site.socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut polls: Vec<libc::pollfd> = self.sites.iter().map(poll).collect();
        // SAFETY: live pollfds, as many as said.
        let ready = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, 100) };
        ensure!(ready >= 0, "poll: {}", std::io::Error::last_os_error());
        let with = polls
            .iter()
            .enumerate()
            .filter(|(_, poll)| poll.revents != 0);
        Ok(with.map(|(place, _)| place).collect())
    }
}

/// What an engine did.
#[derive(Default)]
struct Outcome {
    /// The initiator's SPI in the last message that it sent.
    sent: Option<[u8; 8]>,
    established: bool,
    failed: Option<String>,
}

/// Carries out what an engine wants. It is nobody's replica: nothing waits for a delta.
fn drain(peer: &mut Endpoint, site: &Site) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    while let Some(output) = peer.poll_output() {
        match output {
            Output::Transmit(transmit) => {
                outcome.sent = transmit.bytes.first_chunk().copied();
                // What is not sent is lost like anything else.
                let _ = site.socket.send_to(&transmit.bytes, transmit.path.remote);
            }
            Output::Event(event) => match event.kind {
                EventKind::IkeSaEstablished { .. } => outcome.established = true,
                EventKind::ExchangeFailed { reason } | EventKind::IkeSaClosed { reason } => {
                    outcome.failed = Some(reason);
                }
                _ => {}
            },
            Output::Kernel(_) => bail!("a childless IKE SA asks the kernel for something"),
            Output::Delta(_) | Output::Decide(_) => {}
        }
    }
    Ok(outcome)
}

fn config(number: usize, path: &Path, proposals: &[IkeProposal], peers: &dyn Peers) -> Config {
    let connection = Connection {
        name: NAME.to_owned(),
        local_addrs: Vec::new(),
        remote_addrs: vec![RemoteAddress::Network {
            address: VIP.into(),
            prefix_len: 32,
        }],
        proposals: proposals.to_vec(),
        local_id: Identity::Fqdn(peer_name(number)),
        remote_id: IdentityPattern::Exactly(Identity::Fqdn(GATEWAY_ID.to_owned())),
        auth: peers.authentication(number),
        children: Vec::new(),
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        dpd_delay: Duration::ZERO,
        unique: Uniqueness::Never,
        transport: Transport {
            mobike: false,
            childless: Childless::Force,
            ..Transport::default()
        },
        initiation: Initiation {
            source_addrs: vec![path.local.ip()],
            ..Initiation::default()
        },
    };
    let secrets = peers.secret().into_iter().map(|secret| Secret {
        ids: Vec::new(),
        secret,
    });
    Config {
        member: MEMBER,
        incarnation: 1,
        connections: vec![Arc::new(connection)],
        secrets: secrets.collect(),
        ppks: Vec::new(),
        limits: Limits::default(),
    }
}
