//! Hosts, clocks and a network that misbehaves, in simulated time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use super::super::witness::{Witness, WitnessOutput};
use super::super::*;
use crate::frame::Incarnation;
use crate::slot_map::SlotMap;
use crate::view::Epoch;

pub(super) const MS: u64 = 1_000_000;

pub(super) fn id(id: u8) -> MemberId {
    MemberId::new(id).unwrap()
}

/// SplitMix64.
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A host: what stays when its agent dies (disk, the fence's maps, the clock), and the agent.
pub(super) struct Host {
    pub(super) agent: Option<Membership>,
    config: Config,
    runs: u64,
    disk: Persisted,
    slots: SlotMap,
    /// The own ones of them as bits.
    owned: [u64; 4],
    lease: Instant,
    pub(super) addresses: bool,
    /// Parts per million off true time.
    drift: i64,
    leapt: u64,
    pub(super) paused_until: u64,
    pub(super) installed: Epoch,
    pub(super) unsafe_takeovers: u32,
    pub(super) stopped: bool,
    /// Since when a peer is reached, and when it was last.
    synced: BTreeMap<MemberId, (u64, u64)>,
    report: Option<SyncReport>,
    probes: Vec<MemberId>,
}

impl Host {
    fn local(&self, at: u64) -> Instant {
        let drifted = i128::from(at) * (1_000_000 + i128::from(self.drift)) / 1_000_000;
        Instant::from_nanos(1_000_000_000 + drifted as u64 + self.leapt)
    }

    /// Earliest true time at which the host's clock shows `instant`.
    fn truly(&self, instant: Instant) -> u64 {
        let drifted = instant
            .as_nanos()
            .saturating_sub(1_000_000_000 + self.leapt);
        (i128::from(drifted) * 1_000_000 / (1_000_000 + i128::from(self.drift))) as u64 + 1
    }

    /// What the fence of this host lets through now.
    pub(super) fn serves(&self, member: MemberId, slot: Slot, at: u64) -> bool {
        self.slots.owner(slot) == Some(member) && self.local(at) < self.lease
    }
}

enum Party {
    Host(MemberId),
    Witness,
}

struct Flight {
    from: Option<MemberId>,
    to: Party,
    link: LinkId,
    octets: Vec<u8>,
}

/// How the network treats datagrams.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss: u64,
    pub(super) duplicates: u64,
    /// Delay up to this, microseconds.
    pub(super) delay: u64,
    /// Percent of datagrams that take up to `slow` microseconds.
    pub(super) stragglers: u64,
    pub(super) slow: u64,
}

impl Weather {
    pub(super) const FAIR: Self = Self {
        loss: 0,
        duplicates: 0,
        delay: 300,
        stragglers: 0,
        slow: 0,
    };
}

pub(super) struct Net {
    pub(super) now: u64,
    pub(super) random: Random,
    pub(super) hosts: BTreeMap<MemberId, Host>,
    pub(super) weather: Weather,
    /// Directions in which nothing gets through; `None` is the witness.
    pub(super) cut: BTreeSet<(Option<MemberId>, Option<MemberId>)>,
    /// Pairs without sync although heartbeats pass.
    pub(super) unsynced: BTreeSet<(MemberId, MemberId)>,
    /// Hosts that answer ARP: all whose network is there.
    pub(super) links: u8,
    witness: Option<Witness>,
    witness_disk: Vec<u8>,
    flights: BTreeMap<(u64, u64), Flight>,
    count: u64,
    views: BTreeMap<Epoch, View>,
    next_sync: u64,
    pub(super) violation: Option<String>,
    pub(super) events: Vec<(u64, MemberId, Event)>,
    pub(super) keep_events: bool,
}

impl Net {
    pub(super) fn new(seed: u64, configs: Vec<Config>, drift: i64) -> Self {
        let mut random = Random(seed);
        let witness = configs[0].witness;
        let timing = configs[0].timing;
        let members: Vec<MemberId> = configs.iter().map(|c| c.local).collect();
        let mut net = Self {
            now: 0,
            weather: Weather::FAIR,
            cut: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            links: 2,
            witness: None,
            witness_disk: Vec::new(),
            flights: BTreeMap::new(),
            count: 0,
            views: BTreeMap::new(),
            next_sync: 0,
            violation: None,
            events: Vec::new(),
            keep_events: false,
            hosts: BTreeMap::new(),
            random: random.clone(),
        };
        if witness {
            let now = Instant::from_nanos(1_000_000_000);
            net.witness = Some(Witness::new(timing, Incarnation(1), &members, now, &[]));
        }
        for config in configs {
            let spread = u64::try_from(2 * drift + 1).unwrap();
            let host = Host {
                agent: None,
                runs: 0,
                disk: Persisted::default(),
                slots: SlotMap::UNSET,
                owned: [0; 4],
                lease: Instant::default(),
                addresses: false,
                drift: random.below(spread) as i64 - drift,
                leapt: 0,
                paused_until: 0,
                installed: Epoch::default(),
                unsafe_takeovers: 0,
                stopped: false,
                synced: BTreeMap::new(),
                report: None,
                probes: Vec::new(),
                config,
            };
            net.hosts.insert(host.config.local, host);
        }
        net
    }

    pub(super) fn members(&self) -> Vec<MemberId> {
        self.hosts.keys().copied().collect()
    }

    pub(super) fn start(&mut self, member: MemberId) {
        let now = self.now;
        let host = self.hosts.get_mut(&member).unwrap();
        host.runs += 1;
        host.stopped = false;
        host.report = None;
        host.synced.clear();
        host.paused_until = 0;
        host.installed = Epoch::default();
        host.config.incarnation = Incarnation(host.runs);
        let agent = Membership::new(host.config.clone(), host.local(now), host.disk);
        host.agent = Some(agent);
        self.act(member, Membership::handle_timeout);
    }

    pub(super) fn start_all(&mut self) {
        for member in self.members() {
            self.start(member);
        }
    }

    /// SIGKILL: the kernel's maps stay.
    pub(super) fn kill(&mut self, member: MemberId) {
        let host = self.hosts.get_mut(&member).unwrap();
        host.agent = None;
        host.addresses = false;
    }

    pub(super) fn restart_witness(&mut self) {
        let members = self.members();
        let timing = self.hosts[&members[0]].config.timing;
        if self.witness.is_some() {
            let now = Instant::from_nanos(1_000_000_000 + self.now);
            let run = Incarnation(2 + self.now);
            let disk = &self.witness_disk;
            self.witness = Some(Witness::new(timing, run, &members, now, disk));
        }
    }

    /// What is under way between two hosts never arrives.
    pub(super) fn lose_flights(&mut self) {
        self.flights.clear();
    }

    pub(super) fn pause(&mut self, member: MemberId, ms: u64) {
        self.hosts.get_mut(&member).unwrap().paused_until = self.now + ms * MS;
    }

    pub(super) fn leap(&mut self, member: MemberId, ms: u64) {
        self.hosts.get_mut(&member).unwrap().leapt += ms * MS;
    }

    pub(super) fn cut_both(&mut self, a: Option<MemberId>, b: Option<MemberId>) {
        self.cut.insert((a, b));
        self.cut.insert((b, a));
    }

    pub(super) fn isolate(&mut self, member: MemberId) {
        for other in self.members() {
            if other != member {
                self.cut_both(Some(member), Some(other));
            }
        }
        self.cut_both(Some(member), None);
    }

    pub(super) fn act(&mut self, member: MemberId, f: impl FnOnce(&mut Membership, Instant)) {
        let now = self.now;
        let host = self.hosts.get_mut(&member).unwrap();
        let local = host.local(now);
        let Some(agent) = &mut host.agent else {
            return;
        };
        f(agent, local);
        while let Some(output) = self
            .hosts
            .get_mut(&member)
            .unwrap()
            .agent
            .as_mut()
            .unwrap()
            .poll_output()
        {
            self.carry_out(member, output);
        }
        self.check();
    }

    fn carry_out(&mut self, member: MemberId, output: Output) {
        let host = self.hosts.get_mut(&member).unwrap();
        match output {
            Output::Send { to, via, datagram } => {
                let to = match to {
                    Sender::Member(to) => Some(to),
                    Sender::Witness => None,
                };
                self.transmit(Some(member), to, via, &datagram);
            }
            Output::Persist(persisted) => {
                let back = persisted.epoch < host.disk.epoch;
                host.disk = persisted;
                self.expect(!back, || format!("{member:?} persisted an earlier epoch"));
            }
            Output::Install {
                view,
                unsafe_takeover,
            } => {
                host.unsafe_takeovers += u32::from(unsafe_takeover);
                let grows = view.epoch > host.installed;
                host.installed = view.epoch;
                self.expect(grows, || format!("{member:?} installed an earlier epoch"));
                let known = self.views.entry(view.epoch).or_insert_with(|| view.clone());
                let same = *known == view;
                self.expect(same, || format!("two views of epoch {}", view.epoch));
            }
            Output::Slots(slots) => {
                host.owned = [0; 4];
                for (slot, _) in slots.iter().filter(|(_, owner)| *owner == Some(member)) {
                    host.owned[usize::from(slot.0) / 64] |= 1 << (slot.0 % 64);
                }
                host.slots = slots;
            }
            Output::Lease(until) => host.lease = until,
            Output::Addresses(hold) => host.addresses = hold,
            Output::Probe(whom) => host.probes.push(whom),
            Output::Stopped => host.stopped = true,
            Output::Event(event) if self.keep_events => self.events.push((self.now, member, event)),
            Output::Event(_) | Output::Activate(_) | Output::Alive(_) => {}
        }
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(format!("{} at {} µs", what(), self.now / 1000));
        }
    }

    /// At most one fence lets the packets of a slot through.
    fn check(&mut self) {
        let now = self.now;
        let running = |host: &&Host| host.local(now) < host.lease;
        let mut served = [0u64; 4];
        let mut twice = false;
        for host in self.hosts.values().filter(running) {
            for (all, own) in served.iter_mut().zip(host.owned) {
                twice |= *all & own != 0;
                *all |= own;
            }
        }
        self.expect(!twice, || "two members serve a slot".to_owned());
    }

    fn transmit(&mut self, from: Option<MemberId>, to: Option<MemberId>, via: Via, octets: &[u8]) {
        let links: Vec<LinkId> = match via {
            Via::All => (0..self.links).map(LinkId).collect(),
            Via::One(link) => vec![link],
        };
        for link in links {
            let copies = 1 + u64::from(self.random.chance(self.weather.duplicates));
            for _ in 0..copies {
                if self.cut.contains(&(from, to)) || self.random.chance(self.weather.loss) {
                    continue;
                }
                let straggles = self.random.chance(self.weather.stragglers);
                let most = if straggles {
                    self.weather.slow
                } else {
                    self.weather.delay
                };
                let at = self.now + 20_000 + self.random.below(most * 1000);
                self.count += 1;
                let flight = Flight {
                    from,
                    to: to.map_or(Party::Witness, Party::Host),
                    link,
                    octets: octets.to_vec(),
                };
                self.flights.insert((at, self.count), flight);
            }
        }
    }

    fn deliver(&mut self, flight: &Flight) {
        match flight.to {
            Party::Host(to) => {
                let from = flight.from.map_or(Sender::Witness, Sender::Member);
                self.act(to, |agent, now| {
                    agent.handle_datagram(now, from, flight.link, &flight.octets);
                });
            }
            Party::Witness => {
                let (Some(witness), Some(from)) = (&mut self.witness, flight.from) else {
                    return;
                };
                let now = Instant::from_nanos(1_000_000_000 + self.now);
                witness.handle_datagram(now, from, flight.link, &flight.octets);
                let outputs: Vec<_> = std::iter::from_fn(|| witness.poll_output()).collect();
                for output in outputs {
                    match output {
                        WitnessOutput::Send { to, via, datagram } => {
                            self.transmit(None, Some(to), via, &datagram);
                        }
                        WitnessOutput::Persist(disk) => self.witness_disk = disk,
                    }
                }
            }
        }
    }

    /// Next true time at which the host's agent runs.
    fn wakes(&self, host: &Host) -> Option<u64> {
        let due = host.agent.as_ref()?.poll_timeout()?;
        Some(host.truly(due).max(host.paused_until).max(self.now))
    }

    pub(super) fn run_for(&mut self, ms: u64) {
        self.run_until(self.now + ms * MS);
    }

    pub(super) fn run_until(&mut self, end: u64) {
        while self.violation.is_none() {
            let timer = self
                .hosts
                .iter()
                .filter_map(|(m, host)| Some((self.wakes(host)?, *m)))
                .min();
            let flight = self.flights.first_key_value().map(|(key, _)| *key);
            let at = timer.map_or(u64::MAX, |(at, _)| at);
            let at = at
                .min(flight.map_or(u64::MAX, |(at, _)| at))
                .min(self.next_sync);
            if at > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(at);
            if at == self.next_sync {
                self.next_sync += 10 * MS;
                self.synchronise();
            } else if let Some(key) = flight.filter(|(time, _)| *time == at) {
                let flight = self.flights.remove(&key).unwrap();
                self.arrive(flight);
            } else if let Some((_, member)) = timer {
                self.act(member, Membership::handle_timeout);
            }
        }
    }

    /// Datagrams for a paused agent wait in its socket.
    fn arrive(&mut self, flight: Flight) {
        if let Party::Host(to) = flight.to {
            let until = self.hosts[&to].paused_until;
            if until > self.now {
                self.count += 1;
                self.flights.insert((until, self.count), flight);
                return;
            }
        }
        self.deliver(&flight);
    }

    /// The sync channel: a pair that reaches each other is in sync after 60 ms, and lags otherwise.
    fn synchronise(&mut self) {
        for member in self.members() {
            let reached: Vec<MemberId> = self
                .members()
                .into_iter()
                .filter(|o| self.reaches(member, *o))
                .collect();
            let host = self.hosts.get_mut(&member).unwrap();
            let now = self.now;
            host.synced.retain(|_, (_, last)| *last + 200 * MS > now);
            for other in reached {
                host.synced.entry(other).or_insert((now, now)).1 = now;
            }
            if host.agent.is_none() || host.paused_until > self.now {
                continue;
            }
            let local = host.agent.as_ref().unwrap().status(host.local(self.now));
            let ready = |m: &MemberId| host.synced.get(m).is_some_and(|s| s.0 + 60 * MS <= now);
            let others = host
                .config
                .members
                .iter()
                .map(|w| w.member)
                .filter(|m| *m != member);
            let (good, bad): (BTreeSet<_>, BTreeSet<_>) = others.partition(ready);
            let inside = |m: &MemberId| local.view.members.contains_key(m);
            let report = SyncReport {
                complete_from: good.clone(),
                lagging: bad.iter().copied().filter(inside).collect(),
                caught_up: good
                    .into_iter()
                    .filter(|m| !local.admitted || !inside(m))
                    .collect(),
                levelled: if local.admitted {
                    local.view.epoch
                } else {
                    Epoch::default()
                },
            };
            let probes = std::mem::take(&mut host.probes);
            if host.report.as_ref() != Some(&report) {
                host.report = Some(report.clone());
                self.act(member, |agent, now| agent.handle_report(now, report));
            }
            for whom in probes {
                self.probe(member, whom);
            }
        }
    }

    fn probe(&mut self, member: MemberId, whom: MemberId) {
        let answered =
            !self.cut.contains(&(Some(member), Some(whom))) && self.hosts[&whom].agent.is_some();
        let result = ProbeResult {
            member: whom,
            own_good: true,
            answered,
        };
        self.act(member, |agent, now| agent.handle_probe(now, result));
    }

    fn reaches(&self, a: MemberId, b: MemberId) -> bool {
        let (from, to) = (&self.hosts[&a], &self.hosts[&b]);
        a != b
            && from.agent.is_some()
            && to.agent.is_some()
            && !to.stopped
            && to.paused_until <= self.now
            && !self.cut.contains(&(Some(a), Some(b)))
            && !self.cut.contains(&(Some(b), Some(a)))
            && !self.unsynced.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn status(&self, member: MemberId) -> Status {
        let host = &self.hosts[&member];
        host.agent.as_ref().unwrap().status(host.local(self.now))
    }

    pub(super) fn owners(&self) -> BTreeMap<MemberId, usize> {
        let count = |(m, host): (&MemberId, &Host)| {
            let slots = (0..=u8::MAX).map(Slot);
            (
                *m,
                slots
                    .filter(|slot| host.serves(*m, *slot, self.now))
                    .count(),
            )
        };
        self.hosts.iter().map(count).collect()
    }

    /// Everybody is in one view, and every slot is served.
    pub(super) fn converged(&self) -> bool {
        let first = self.members()[0];
        let view = self.status(first).view;
        let same = |m: &MemberId| {
            let status = self.status(*m);
            status.admitted && status.view == view
        };
        view.members.len() == self.hosts.len()
            && self.members().iter().all(same)
            && self.owners().values().sum::<usize>() == Slot::COUNT
    }

    /// Milliseconds until `holds`, checked every millisecond.
    pub(super) fn wait(&mut self, most: u64, holds: impl Fn(&Self) -> bool) -> Option<u64> {
        for ms in 0..=most {
            if holds(self) || self.violation.is_some() {
                return self.violation.is_none().then_some(ms);
            }
            self.run_for(1);
        }
        None
    }
}

pub(super) fn configs(count: u8, change: impl Fn(&mut Config)) -> Vec<Config> {
    let members: Vec<crate::slot_map::Weighted> = (1..=count)
        .map(|m| crate::slot_map::Weighted {
            member: id(m),
            weight: 1,
        })
        .collect();
    let build = |m| {
        let mut config = Config::new(id(m), Incarnation(1), members.clone());
        config.timing.cold_start = Duration::from_secs(2);
        change(&mut config);
        config.validate().unwrap();
        config
    };
    (1..=count).map(build).collect()
}

/// A cluster in fair weather that has started.
pub(super) fn started(count: u8, change: impl Fn(&mut Config)) -> Net {
    let mut net = Net::new(u64::from(count), configs(count, change), 0);
    net.start_all();
    let waited = net.wait(3000, Net::converged);
    assert!(waited.is_some(), "{:?} {:?}", net.violation, net.dump());
    net
}

impl Net {
    pub(super) fn dump(&self) -> Vec<String> {
        let hosts = self.hosts.iter().filter(|(_, h)| h.agent.is_some());
        let line = |(m, _): (&MemberId, &Host)| {
            let s = self.status(*m);
            let states: Vec<String> = s.members.iter().map(|r| r.shown.to_string()).collect();
            format!(
                "{m:?}: epoch {} {:?} admitted {} active {} lease {:?} states {states:?} {}",
                s.view.epoch,
                s.view.members,
                s.admitted,
                s.active,
                s.lease_left,
                s.members.iter().find(|r| r.member == *m).unwrap().reason,
            )
        };
        hosts.map(line).collect()
    }
}
