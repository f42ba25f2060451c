//! The sync channel: TLS 1.3 over TCP between the members, authenticated both ways by the cluster's
//! own certificates.
//!
//! One connection per pair of members, which the one with the lower id dials, from its sync address
//! to the other's, or over a [`Detour`] while that fails. The channel carries frames (length-prefixed, at most [`MAX_FRAME`] octets) in order
//! or breaks; what was lost then is the business of `gateway_cluster`.
//!
//! A peer is accepted if its certificate comes from the cluster's CA and is valid now, names exactly
//! the member that is configured at the address it speaks from, and this cluster.

mod connection;
mod listener;
mod peer;
mod socket;
mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway_cluster::output::Class;
use gateway_cluster::secret::Secret;
use gateway_common::member::MemberId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use gateway_cluster::frame::MAX_FRAME;
pub use tls::{CredentialError, Credentials};

use self::connection::Queue;
use crate::heartbeat::SessionKeys;

/// Where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Who.
    pub member: MemberId,
    /// Its sync address.
    pub address: IpAddr,
}

/// What the transport has to know.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// This member.
    pub local: MemberId,
    /// Cluster name.
    pub cluster: String,
    /// This member's sync address: connections come from here and are accepted here only.
    pub address: IpAddr,
    /// TCP port, the same on all members.
    pub port: u16,
    /// Sync interface (`SO_BINDTODEVICE`), or `None` to leave it to routing.
    pub device: Option<String>,
    /// The other members.
    pub peers: Vec<PeerAddress>,
    /// Other networks, tried in turn with the sync network while a member is not reached.
    pub detours: Vec<Detour>,
    /// Certificates and key.
    pub credentials: Credentials,
    /// Bounds and times.
    pub limits: TransportLimits,
}

/// A way around the sync network, for when it is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// This member's address on it.
    pub address: IpAddr,
    /// The others' addresses on it.
    pub peers: BTreeMap<MemberId, IpAddr>,
}

/// Bounds and times.
#[derive(Clone, Debug)]
pub struct TransportLimits {
    /// Octets that may wait for a peer. Beyond it a numbered frame breaks the connection, and from a
    /// quarter of it on relayed datagrams are dropped. Default 4 MiB.
    pub queue_bytes: usize,
    /// A TLS handshake has to be complete by then. Default 5 s.
    pub handshake: Duration,
    /// A TCP connection has to be complete by then. Default 1 s.
    pub connect: Duration,
    /// Unacknowledged data breaks the connection after this time (`TCP_USER_TIMEOUT`). Default 3 s.
    pub user_timeout: Duration,
    /// First pause before dialling again; doubles up to `redial_max`. Default 50 ms.
    pub redial_min: Duration,
    /// Longest pause before dialling again. Default 1 s.
    pub redial_max: Duration,
    /// Handshakes at a time per peer address. Default 4.
    pub handshakes_per_peer: usize,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            queue_bytes: 4 << 20,
            handshake: Duration::from_secs(5),
            connect: Duration::from_secs(1),
            user_timeout: Duration::from_secs(3),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(1),
            handshakes_per_peer: 4,
        }
    }
}

/// What happens on the channel. Per member: connected, frames, disconnected, in this order.
#[derive(Debug)]
pub enum TransportEvent {
    /// An authenticated connection stands. (The peer may still refuse our certificate: TLS 1.3 tells
    /// the dialler only afterwards.)
    Connected {
        /// To whom.
        member: MemberId,
        /// Exported from its session, for the heartbeats.
        keys: Arc<SessionKeys>,
        /// This member dialled: the other may not have finished its side yet.
        dialled: bool,
    },
    /// A frame came.
    Frame {
        /// From whom.
        member: MemberId,
        /// The frame, 1..=[`MAX_FRAME`] octets.
        bytes: Secret,
    },
    /// The connection is gone.
    Disconnected {
        /// To whom.
        member: MemberId,
        /// Why, for the log.
        reason: String,
    },
}

/// Why the channel cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The listening socket.
    #[error("cannot listen on {address} (sync interface {device}): {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// On which interface.
        device: String,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates and key do not fit.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection.
    #[error("not connected")]
    NotConnected,
    /// Too much is waiting: the datagram was dropped, or the connection is being closed.
    #[error("queue full")]
    QueueFull,
    /// Longer than [`MAX_FRAME`], or empty.
    #[error("no frame has that length")]
    Length,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct TransportCounters {
    /// Connections from addresses of no peer that dials us.
    pub strangers: AtomicU64,
    /// Connections refused because too many handshakes of that address were under way.
    pub crowded: AtomicU64,
    /// Handshakes that failed, in either role: not TLS, wrong or expired certificate, wrong member.
    pub refused: AtomicU64,
    /// Attempts to connect that failed before TLS.
    pub unreachable: AtomicU64,
    /// Connections broken because a frame was empty or longer than [`MAX_FRAME`].
    pub bad_lengths: AtomicU64,
    /// Connections broken because the peer did not keep up.
    pub overflows: AtomicU64,
    /// Relayed datagrams dropped because the peer did not keep up.
    pub datagrams_dropped: AtomicU64,
    /// Octets of frames handed to TLS.
    pub bytes_out: AtomicU64,
    /// Octets of frames received.
    pub bytes_in: AtomicU64,
}

/// What a connection's task reports.
#[derive(Debug)]
enum Report {
    Connected(MemberId, Arc<Queue>, Session),
    Frame(MemberId, Secret),
    Disconnected(MemberId, String),
}

/// A session, beside its stream.
#[derive(Debug)]
struct Session {
    keys: Arc<SessionKeys>,
    dialled: bool,
}

/// Reports that may wait to be taken.
const EVENTS: usize = 256;

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    config: TransportConfig,
    counters: TransportCounters,
    links: Mutex<BTreeMap<MemberId, Link>>,
}

/// A peer as `send` sees it.
#[derive(Debug, Default)]
struct Link {
    queue: Option<Arc<Queue>>,
    last_error: Option<String>,
    last_logged: Option<Instant>,
    /// The sync network is known not to lead there.
    detour: bool,
}

/// Failures of one peer are logged at most this often, whatever somebody at its address does.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate that expires within this time is worth a warning.
const EXPIRES_SOON: time::Duration = time::Duration::days(30);

impl Shared {
    fn with_link<T>(&self, member: MemberId, action: impl FnOnce(&mut Link) -> T) -> T {
        let mut links = match self.links.lock() {
            Ok(links) => links,
            // Nothing under this lock can panic half-way.
            Err(poisoned) => poisoned.into_inner(),
        };
        action(links.entry(member).or_default())
    }

    /// Notes why there is no connection. `true` if that is news, and worth a line in the log.
    fn note_error(&self, member: MemberId, reason: &str) -> bool {
        self.with_link(member, |link| {
            if link.last_error.as_deref() == Some(reason) {
                return false;
            }
            link.last_error = Some(reason.to_owned());
            let quiet = |last: &Instant| last.elapsed() >= LOG_INTERVAL;
            let log = link.last_logged.as_ref().is_none_or(quiet);
            if log {
                link.last_logged = Some(Instant::now());
            }
            log
        })
    }

    /// A frame came, so nothing is wrong any more. (A connection alone proves little: in TLS 1.3 the
    /// peer may still refuse our certificate.)
    fn forget_error(&self, member: MemberId) {
        self.with_link(member, |link| link.last_error = None);
    }

    /// Ways to `peer`, own address and its, the one to try first first.
    fn ways_to(&self, peer: PeerAddress) -> Vec<(IpAddr, IpAddr)> {
        let config = &self.config;
        let detours = config
            .detours
            .iter()
            .filter_map(|detour| Some((detour.address, *detour.peers.get(&peer.member)?)));
        let direct = (config.address, peer.address);
        if self.with_link(peer.member, |link| link.detour) {
            detours.chain([direct]).collect()
        } else {
            std::iter::once(direct).chain(detours).collect()
        }
    }

    /// Every address of `peer`.
    fn addresses_of(&self, peer: PeerAddress) -> impl Iterator<Item = IpAddr> {
        self.ways_to(peer).into_iter().map(|(_, address)| address)
    }

    fn warn_of_expiry(&self) {
        let expires = self.config.credentials.not_after();
        if expires - time::OffsetDateTime::now_utc() < EXPIRES_SOON {
            tracing::warn!(
                "this member's certificate expires on {}: make a new one with `gatewayctl pki issue`",
                expires.date()
            );
        }
    }
}

/// The channel to all other members. Dropping it closes everything.
#[derive(Debug)]
pub struct Transport {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Transport {
    /// Listens, dials and keeps dialling. What happens has to be taken from the [`TransportEvents`];
    /// while more than a few of them wait, nothing more is read. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if the socket or the certificates cannot be used.
    pub fn start(config: TransportConfig) -> Result<(Self, TransportEvents), TransportError> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let tls = tls::Tls::new(&config)?;
        let listener = listener::bind(&config)?;
        let detours = listener::bind_detours(&config);
        let peers = config.peers.clone();
        let shared = Arc::new(Shared {
            config,
            counters: TransportCounters::default(),
            links: Mutex::default(),
        });
        shared.warn_of_expiry();
        let mut tasks = JoinSet::new();
        let mut diallers = BTreeMap::new();
        for address in peers {
            let task = peer::Task::new(Arc::clone(&shared), tls.clone(), events.clone(), address);
            if address.member < shared.config.local {
                let (streams, accepted) = mpsc::channel(1);
                let dialler = listener::Dialler::new(&shared, address, streams);
                for from in shared.addresses_of(address) {
                    diallers.insert(from, dialler.clone());
                }
                tasks.spawn(task.serve(accepted));
            } else if address.member > shared.config.local {
                tasks.spawn(task.dial());
            }
        }
        for listener in detours.into_iter().chain([listener]) {
            let (shared, diallers) = (Arc::clone(&shared), diallers.clone());
            tasks.spawn(listener::run(shared, tls.clone(), listener, diallers));
        }
        let events = TransportEvents {
            shared: Arc::clone(&shared),
            receiver,
        };
        let transport = Self {
            shared,
            _tasks: tasks,
        };
        Ok((transport, events))
    }

    /// Queues a frame; never waits. When too much is waiting already, a [`Class::Datagram`] is
    /// dropped and a [`Class::Stream`] breaks the connection, so that the peer resumes later.
    ///
    /// # Errors
    ///
    /// [`SendError`] if it was not queued.
    pub fn send(&self, to: MemberId, frame: Arc<Secret>, class: Class) -> Result<(), SendError> {
        if frame.is_empty() || frame.len() > MAX_FRAME {
            return Err(SendError::Length);
        }
        let queue = self.shared.with_link(to, |link| link.queue.clone());
        let queue = queue.ok_or(SendError::NotConnected)?;
        queue.push(frame, class, &self.shared.counters)
    }

    /// Closes the connection to `member`, if there is one; it is dialled again as usual.
    pub fn disconnect(&self, member: MemberId) {
        if let Some(queue) = self.shared.with_link(member, |link| link.queue.clone()) {
            queue.close("closed on request");
        }
    }

    /// Whether the sync network leads to `member` at the moment. With a change the connection is made
    /// anew, over a detour first, or over the sync network again. Only the end that dials can do that.
    pub fn set_detour(&self, member: MemberId, detour: bool) {
        let changed = self.shared.with_link(member, |link| {
            let changed = link.detour != detour;
            link.detour = detour;
            changed
        });
        if changed && !self.shared.config.detours.is_empty() && member > self.shared.config.local {
            self.disconnect(member);
        }
    }

    /// Whether a connection to `member` stands, as far as the events that were taken say.
    pub fn is_connected(&self, member: MemberId) -> bool {
        self.shared.with_link(member, |link| link.queue.is_some())
    }

    /// Why the last attempt to connect to `member`, or the last connection, failed; `None` since a
    /// frame came.
    pub fn last_error(&self, member: MemberId) -> Option<String> {
        self.shared
            .with_link(member, |link| link.last_error.clone())
    }

    /// Counts since the start.
    pub fn counters(&self) -> &TransportCounters {
        &self.shared.counters
    }
}

/// What happens on the channel, in order.
#[derive(Debug)]
pub struct TransportEvents {
    shared: Arc<Shared>,
    receiver: mpsc::Receiver<Report>,
}

impl TransportEvents {
    /// Waits for the next event; `None` after the transport was dropped. Safe to be cancelled.
    ///
    /// [`Transport::send`] uses a connection from the moment on at which its
    /// [`TransportEvent::Connected`] was taken here: nothing that was meant for the connection before
    /// can get into it.
    pub async fn recv(&mut self) -> Option<TransportEvent> {
        Some(match self.receiver.recv().await? {
            Report::Connected(member, queue, Session { keys, dialled }) => {
                self.shared
                    .with_link(member, |link| link.queue = Some(queue));
                TransportEvent::Connected {
                    member,
                    keys,
                    dialled,
                }
            }
            Report::Frame(member, bytes) => TransportEvent::Frame { member, bytes },
            Report::Disconnected(member, reason) => {
                self.shared.with_link(member, |link| link.queue = None);
                TransportEvent::Disconnected { member, reason }
            }
        })
    }
}

#[cfg(test)]
mod tests;
