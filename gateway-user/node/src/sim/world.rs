//! The world: time, members, peers and what is under way between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use gateway_common::{member::MemberId, time::Instant};
use gateway_ike::output::{Path, TrafficSelector};
use gateway_ike::secret::SecretBytes;

use super::Options;
use super::check::Check;
use super::event::{CutKind, Event, Fault};
use super::handshake::Party;
use super::host::Host;
use super::mechanism::Mechanism;
use super::net::Net;
use super::peer::Peer;
use super::plan::Plan;
use super::rng::Rng;
use super::witness::Third;

/// The address that the peers talk to.
pub(super) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// What every pre-shared key is.
pub(super) const PSK: &[u8] = b"correct horse battery staple";

/// Everything.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) without: Option<Mechanism>,
    pub(super) heavy: bool,
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    queue: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    pub(super) hosts: BTreeMap<MemberId, Host>,
    pub(super) peers: Vec<Peer>,
    pub(super) third: Third,
    pub(super) net: Net,
    pub(super) check: Check,
    pub(super) tracing: bool,
    /// The time for faults is over.
    pub(super) calm: bool,
    /// IKE messages of peers and members that somebody has captured.
    pub(super) captured: Vec<Vec<u8>>,
    /// All members of the only view failed at once: SAs may be gone.
    pub(super) excused: bool,
    pub(super) events: u64,
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        let seed = options.seed;
        let mut rng = Rng::new(seed);
        let mut plan = Plan::draw(&mut rng);
        if options.quiet {
            plan.faults = 0;
        }
        if options.sides || options.rekeys {
            plan = plan.of_three();
        }
        if options.halves {
            plan = plan.of_halves();
        }
        let mut world = Self::planned(options, plan, rng);
        world.populate();
        world.occupy();
        if options.halves {
            world.split_twice();
        }
        if options.rekeys {
            world.after(Duration::from_millis(3500), Event::Fault(Fault::Rekeying));
        }
        if options.sides {
            world.after(Duration::from_millis(3500), Event::Fault(Fault::Sides));
        }
        world
    }

    /// A world with this plan, in which nobody is yet.
    pub(super) fn planned(options: Options, plan: Plan, rng: Rng) -> Self {
        let seed = options.seed;
        let start = Instant::from_nanos(1_000_000_000);
        Self {
            seed,
            without: options.without,
            heavy: options.heavy,
            now: start,
            queue: BTreeMap::new(),
            scheduled: 0,
            hosts: BTreeMap::new(),
            peers: Vec::new(),
            third: Third::default(),
            net: Net::default(),
            check: Check::default(),
            tracing: options.trace,
            calm: false,
            captured: Vec::new(),
            excused: false,
            events: 0,
            rng,
            plan,
        }
    }

    /// Members that start, and peers.
    pub(super) fn populate(&mut self) {
        for id in (1..=self.plan.members).filter_map(MemberId::new) {
            let offset = self.rng.millis(0, 100_000);
            self.hosts.insert(id, Host::new(id, offset));
            let delay = self.rng.millis(0, 300);
            self.after(delay, Event::Start { member: id });
        }
        if self.plan.witness {
            self.start_witness();
        }
        for index in 0..self.plan.peers {
            let peer = Peer::new(index, self.seed, party(index), self.now);
            self.peers.push(peer);
        }
    }

    /// What all of them do, and what befalls them.
    fn occupy(&mut self) {
        for peer in 0..self.peers.len() {
            let delay = self.rng.millis(1500, 3500);
            self.after(delay, Event::PeerActs { peer });
            let delay = self.rng.millis(2500, 3500);
            self.after(delay, Event::Traffic { peer });
        }
        self.after(Duration::from_secs(3), Event::Junk);
        let begin = Duration::from_millis(1000);
        for _ in 0..self.plan.faults {
            let fault = Fault::draw(&mut self.rng);
            let trouble = u64::try_from(self.plan.trouble.as_millis()).unwrap_or(0);
            let at = begin + self.rng.millis(0, trouble);
            self.after(at, Event::Fault(fault));
        }
    }

    /// Two members lose each other, and find each other again before the second time.
    fn split_twice(&mut self) {
        for begin in [3600, 6000] {
            let delay = Duration::from_millis(begin) + self.rng.millis(0, 600);
            let length = self.rng.millis(600, 1700);
            let fault = Fault::Cut(CutKind::Isolate, length);
            self.after(delay, Event::Fault(fault));
        }
    }

    /// Schedules an event.
    pub(super) fn at(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        let at = at.max(self.now);
        self.queue.insert((at, self.scheduled), event);
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The next event up to `end`, or none.
    pub(super) fn next(&mut self, end: Instant) -> Option<Event> {
        let ((at, _), _) = self.queue.first_key_value()?;
        if *at > end {
            return None;
        }
        let ((at, _), event) = self.queue.pop_first()?;
        self.now = self.now.max(at);
        self.events += 1;
        Some(event)
    }

    /// Lets time pass until `end` or a violation.
    pub(super) fn run_until(&mut self, end: Instant) {
        while self.check.violation.is_none() {
            let Some(event) = self.next(end) else {
                self.now = self.now.max(end);
                return;
            };
            self.handle(event);
        }
    }

    pub(super) fn trace(&self, text: impl FnOnce() -> String) {
        if self.tracing {
            let millis = self.now.as_nanos() as f64 / 1e6;
            println!("{millis:12.3}  {}", text());
        }
    }

    /// One way over a network of the site.
    pub(super) fn hop(&mut self) -> Duration {
        Duration::from_micros(self.rng.between(50, 400))
    }

    /// One way between a peer and a member; `None`: it is lost.
    pub(super) fn public_hop(&mut self) -> Option<Duration> {
        if !self.calm && self.rng.percent(self.plan.loss) {
            return None;
        }
        let most = u64::try_from(self.plan.delay.as_micros()).unwrap_or(0);
        Some(Duration::from_micros(self.rng.between(100, 100 + most)))
    }

    /// Members whose interfaces are there, where the upstream routers may send packets.
    pub(super) fn reachable(&self) -> Vec<MemberId> {
        self.hosts
            .values()
            .filter(|host| host.powered && self.net.public_passes(host.id))
            .map(|host| host.id)
            .collect()
    }
}

pub(super) fn party(index: u8) -> Party {
    let selector = |third: u8, fourth: u8| TrafficSelector {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
        start: Ipv4Addr::new(10, third, fourth, 0).into(),
        end: Ipv4Addr::new(10, third, fourth, 255).into(),
    };
    let local = SocketAddr::new(peer_address(index), 500);
    Party {
        path: Path::new(local, SocketAddr::new(VIP, 500)),
        local_id: gateway_ike::identity::Identity::Fqdn(format!("peer{index}.example.org")),
        remote_id: gateway_ike::identity::Identity::Fqdn("gw.example.org".into()),
        psk: SecretBytes::from(PSK),
        local_ts: selector(2, index),
        remote_ts: selector(1, 0),
        initial_contact: true,
    }
}

pub(super) fn peer_address(index: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, 1 + index).into()
}
