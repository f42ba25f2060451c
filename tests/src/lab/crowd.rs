//! Tens of thousands of peers on one host: real handshakes, real cryptography, one process.
//!
//! They share a few hundred addresses and have an identity, an IKE SA and a CHILD_SA each. They
//! answer what the gateway asks them. Of what stock peers do beyond that they do nothing: those are
//! what the other scenarios are for.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gateway_ike::identity::Identity;
use gateway_ike::output::{Path, TrafficSelector};
use gateway_ike::secret::SecretBytes;
use gateway_ike::wire::ExchangeType;
use gateway_user::crypto::AwsLc;

use super::network::{Network, Plan, VIP, site_address};
use super::tap::Moment;
use super::wait::patience;
use crate::fuzz::endpoint::draft::Draft;
use crate::fuzz::endpoint::peer::Peer;
use crate::fuzz::endpoint::setup::{ESP_SUITES, IKE_SUITES};

/// What all of them have as pre-shared key.
pub const CROWD_SECRET: &str = "lab secret of the crowd";
/// The networks behind them: a /32 each.
pub const CROWD_NETWORK: &str = "10.128.0.0/9";
/// Handshakes at a time: fewer than the gateway's threshold for cookies.
const BATCH: usize = 16;
/// When a request that is not answered is sent again, and how often.
const RESEND: Duration = Duration::from_millis(500);
const TRIES: u32 = 20;
/// How often before a negotiation is begun anew.
const PATIENT: u32 = 6;
/// How long the last answers may take.
const GRACE: Duration = Duration::from_millis(500);

/// The peers.
pub struct Crowd {
    players: Vec<Player>,
    count: usize,
    /// The next IKE SA to be asked something.
    turn: usize,
    /// How far the one after it is away.
    step: usize,
    begun_anew: usize,
}

/// Those that share an address.
struct Player {
    peer: Peer,
    socket: UdpSocket,
    /// What is sent again until it is answered.
    request: Vec<u8>,
    /// Sessions whose last request was not answered.
    waiting: BTreeSet<usize>,
}

/// A request and when it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// When it was sent.
    pub sent: Moment,
    /// When the answer was read, if it came.
    pub answered: Option<Moment>,
    place: usize,
    session: usize,
}

impl Crowd {
    /// Peers on every address that the network's peer has.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub fn new(network: &Network) -> Result<Self> {
        let plan = network.plan;
        let sites = 0..plan.sites;
        let players = network
            .peer
            .inside(|| sites.map(|site| Player::new(&plan, site)).collect())?;
        Ok(Self {
            players,
            count: 0,
            turn: 0,
            step: 1,
            begun_anew: 0,
        })
    }

    /// How many IKE SAs are up.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Establishes IKE SAs with one CHILD_SA each until there are `total`.
    ///
    /// # Errors
    /// A handshake is not answered.
    pub fn grow_to(&mut self, total: usize) -> Result<()> {
        while self.count < total {
            let batch = BATCH.min(total - self.count).min(self.players.len());
            let numbers = self.count..self.count + batch;
            let places: Vec<usize> = numbers.map(|one| one % self.players.len()).collect();
            self.settle(
                &places,
                Player::init,
                |one| one.peer.can_authenticate(),
                TRIES,
            )
            .with_context(|| format!("IKE_SA_INIT of peer {} or later", self.count))?;
            for (number, place) in (self.count..).zip(&places) {
                self.players[*place].authenticate(number, false)?;
            }
            self.authenticated(&places)
                .with_context(|| format!("IKE_AUTH of peer {} or later", self.count))?;
            self.count += batch;
        }
        Ok(())
    }

    /// Waits for the answers to IKE_AUTH. What a member was negotiating when another took its slots
    /// is lost, so who gets none begins anew.
    fn authenticated(&mut self, places: &[usize]) -> Result<()> {
        let request = |one: &mut Player| one.request.clone();
        let done = |one: &Player| one.last_id() == Some(2);
        let numbers: Vec<usize> = (self.count..self.count + places.len()).collect();
        let mut open = places.to_vec();
        while self.settle(&open, request, done, PATIENT).is_err() {
            open.retain(|place| !done(&self.players[*place]));
            self.begun_anew += open.len();
            ensure!(self.begun_anew < TRIES as usize * BATCH, "not answered");
            for place in &open {
                self.players[*place].peer.sessions.pop();
            }
            self.settle(
                &open,
                Player::init,
                |one| one.peer.can_authenticate(),
                TRIES,
            )?;
            for (number, place) in numbers.iter().zip(places) {
                if open.contains(place) {
                    self.players[*place].authenticate(*number, true)?;
                }
            }
        }
        Ok(())
    }

    /// How many handshakes had to be begun a second time.
    pub fn begun_anew(&self) -> usize {
        self.begun_anew
    }

    /// Sends requests, again and again, until all are `done`.
    fn settle(
        &mut self,
        places: &[usize],
        request: fn(&mut Player) -> Vec<u8>,
        done: fn(&Player) -> bool,
        tries: u32,
    ) -> Result<()> {
        let waiting = |crowd: &Self| places.iter().any(|place| !done(&crowd.players[*place]));
        for _ in 0..tries {
            for place in places {
                let player = &mut self.players[*place];
                if !done(player) {
                    let bytes = request(player);
                    player.send(&bytes);
                }
            }
            let end = Instant::now() + RESEND;
            while waiting(self) && Instant::now() < end {
                self.receive(end - Instant::now(), &mut [])?;
            }
            if !waiting(self) {
                return Ok(());
            }
        }
        bail!("no answer to {tries} requests")
    }

    /// Lets every `step`-th IKE SA be asked instead of each.
    pub fn spread(&mut self, step: usize) {
        self.step = step.max(1);
    }

    /// Asks one IKE SA after the other, every `interval`, whether the gateway is there, until
    /// `stop`; answers what the gateway asks meanwhile. Nothing is sent twice: a request that gets
    /// lost stays unanswered.
    ///
    /// # Errors
    /// The sockets cannot be polled.
    pub fn ask(&mut self, interval: Duration, stop: &AtomicBool) -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now < due {
                self.receive(due - now, &mut asked)?;
            } else {
                asked.extend(self.ask_next());
                due = (due + interval).max(now);
            }
        }
        let end = Instant::now() + GRACE * patience();
        while Instant::now() < end && asked.iter().any(|one| one.answered.is_none()) {
            self.receive(end - Instant::now(), &mut asked)?;
        }
        Ok(asked)
    }

    /// `None` if everybody has been asked and some have not been answered: a second request would
    /// break the window of one (RFC 7296 §2.3).
    fn ask_next(&mut self) -> Option<Asked> {
        for _ in 0..self.count {
            let number = self.turn % self.count;
            self.turn = number + self.step;
            let (place, session) = (number % self.players.len(), number / self.players.len());
            let player = &mut self.players[place];
            if player.waiting.insert(session) {
                let header = player.peer.sessions[session].header(ExchangeType::INFORMATIONAL);
                let request = player.peer.seal(session, &Draft::new(header, &[]));
                player.send(&request);
                return Some(Asked {
                    sent: Moment::now(),
                    answered: None,
                    place,
                    session,
                });
            }
        }
        None
    }

    /// Waits for datagrams and takes all that are there.
    fn receive(&mut self, limit: Duration, asked: &mut [Asked]) -> Result<()> {
        let poll = |player: &Player| libc::pollfd {
            fd: player.socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut polls: Vec<libc::pollfd> = self.players.iter().map(poll).collect();
        let limit = libc::timespec {
            tv_sec: limit.as_secs() as libc::time_t,
            tv_nsec: limit.subsec_nanos().into(),
        };
        // SAFETY: live pollfds, as many as said, and a live timespec; no signal mask.
        let ready = unsafe {
            libc::ppoll(
                polls.as_mut_ptr(),
                polls.len() as libc::nfds_t,
                &raw const limit,
                std::ptr::null(),
            )
        };
        ensure!(ready >= 0, "ppoll: {}", std::io::Error::last_os_error());
        let mut buffer = [0; 4096];
        for (place, player) in self.players.iter_mut().enumerate() {
            if polls[place].revents == 0 {
                continue;
            }
            // An error is one about an earlier datagram: it was lost.
            while let Ok(length) = player.socket.recv(&mut buffer) {
                if let Some(session) = player.take(&buffer[..length]) {
                    let mut open = asked.iter_mut().rev();
                    let of = |one: &&mut Asked| (one.place, one.session) == (place, session);
                    if let Some(one) = open.find(of) {
                        one.answered = Some(Moment::now());
                    }
                }
            }
        }
        Ok(())
    }
}

impl Player {
    fn new(plan: &Plan, site: u16) -> Result<Self> {
        let address = site_address(plan, site);
        let socket = UdpSocket::bind((address, 500)).with_context(|| address.to_string())?;
        socket.set_nonblocking(true)?;
        let path = Path::new((VIP, 500).into(), (address, 500).into());
        let number = u8::try_from(site).context("too many addresses")?;
        Ok(Self {
            peer: Peer::real(number, path, Arc::new(AwsLc)),
            socket,
            request: Vec::new(),
            waiting: BTreeSet::new(),
        })
    }

    fn send(&self, bytes: &[u8]) {
        // What is not sent is lost like anything else.
        let _ = self.socket.send_to(bytes, (VIP, 500));
    }

    /// An IKE_SA_INIT request: a new one, or the last one again, with the cookie if one was asked
    /// for.
    fn init(&mut self) -> Vec<u8> {
        let request = self.peer.init(IKE_SUITES[0], true).in_clear();
        self.peer.init_sent(Some(&request));
        request
    }

    /// The IKE_AUTH request of the `number`-th peer, which has forgotten any earlier SA if it comes
    /// `again`.
    fn authenticate(&mut self, number: usize, again: bool) -> Result<()> {
        self.peer.identity = Identity::Fqdn(format!("p{number}.crowd.example.org"));
        let behind = u32::from(Ipv4Addr::new(10, 128, 0, 0)) + u32::try_from(number)?;
        let theirs = TrafficSelector::prefix(Ipv4Addr::from(behind).into(), 32);
        let ours = TrafficSelector::prefix(Ipv4Addr::new(10, 1, 0, 0).into(), 16);
        let secret = SecretBytes::from(CROWD_SECRET.as_bytes());
        let draft = self
            .peer
            .auth(&secret, (true, again), ESP_SUITES[0], (theirs, ours));
        let last = self.peer.sessions.len().checked_sub(1);
        let (draft, last) = draft.zip(last).context("no keys came out of IKE_SA_INIT")?;
        self.request = self.peer.seal(last, &draft);
        Ok(())
    }

    /// Message ID of the last IKE SA's next request.
    fn last_id(&self) -> Option<u32> {
        self.peer.sessions.last().map(|session| session.next_id)
    }

    /// Takes a datagram. Returns the session whose INFORMATIONAL request it answers.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let answered = self.peer.receive(bytes);
        if let Some((session, mut header)) = self.peer.asked.take()
            && header.exchange == ExchangeType::INFORMATIONAL
        {
            header.from_initiator = true;
            header.response = true;
            let answer = self.peer.seal(session, &Draft::new(header, &[]));
            self.send(&answer);
        }
        let (spi, _) = answered.filter(|(_, message_id)| *message_id > 1)?;
        let mut sessions = self.peer.sessions.iter();
        let session = sessions.position(|session| session.spi_r == spi)?;
        self.waiting.remove(&session).then_some(session)
    }
}
