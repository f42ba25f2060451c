//! A cluster whose views the test decides: members die, come back, are left out and let in again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gateway_common::{slot::Slot, time::Instant};

use super::net::{Net, cookie, id, next_view, opened};
use crate::change::{Change, Child, Cookie, Mirror, Reserved, Sa};
use crate::config::Limits;
use crate::frame::{DeltaSeq, Incarnation};
use crate::output::Output;
use crate::secret::Secret;
use crate::table::TableChange;
use crate::view::{Epoch, View};

/// SplitMix64: the seed decides everything.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What has been promised of an IKE SA: a message that says so is out.
#[derive(Clone, Copy, Debug)]
struct Fact {
    slot: Slot,
    version: u32,
    gone: bool,
}

/// One member's kernel: per inbound SPI where the outbound SA stands, and how far the fence lets it.
#[derive(Default)]
struct Kernel {
    position: BTreeMap<[u8; 4], u64>,
    ceiling: BTreeMap<[u8; 4], u64>,
}

pub(super) struct World {
    pub(super) net: Net,
    pub(super) view: View,
    pub(super) dead: BTreeSet<u8>,
    /// Decided and not installed yet.
    installs: BTreeMap<u8, VecDeque<View>>,
    /// By member and number: what follows when it is released.
    promised: BTreeMap<(u8, DeltaSeq), (Cookie, Fact)>,
    facts: BTreeMap<Cookie, Fact>,
    removed: BTreeSet<Cookie>,
    kernels: BTreeMap<u8, Kernel>,
    /// Numbers that were sent: per SPI, end by start.
    sent: BTreeMap<[u8; 4], BTreeMap<u64, u64>>,
    next: u32,
    pub(super) takeovers: u32,
    pub(super) raises: u32,
    /// Views change more often, and get further before they do.
    pub(super) restless: bool,
    /// Main loops stand still for a while, and kernels go on.
    pub(super) hanging: bool,
}

impl World {
    pub(super) fn new(members: u8, limits: &Limits) -> Self {
        let mut world = Self {
            net: Net::new(members, limits),
            view: View::default(),
            dead: BTreeSet::new(),
            installs: BTreeMap::new(),
            promised: BTreeMap::new(),
            facts: BTreeMap::new(),
            removed: BTreeSet::new(),
            kernels: BTreeMap::new(),
            sent: BTreeMap::new(),
            next: 0,
            takeovers: 0,
            raises: 0,
            restless: false,
            hanging: false,
        };
        world.net.connect_all();
        world.net.deliver_all();
        let all: Vec<u8> = (1..=members).collect();
        world.decide(&all);
        world.install_all();
        world.settle();
        world
    }

    fn alive(&self) -> Vec<u8> {
        (1..=self.net.members)
            .filter(|m| !self.dead.contains(m))
            .collect()
    }

    fn in_view(&self, member: u8) -> bool {
        let run = Incarnation(self.net.nodes[&member].run);
        self.view.admits(id(member), run)
    }

    fn current(&self, member: u8) -> bool {
        self.net.core(member).view().epoch == self.view.epoch
    }

    /// A majority of the view before has agreed.
    pub(super) fn decide(&mut self, members: &[u8]) {
        let runs = members.iter().map(|m| (*m, self.net.nodes[m].run));
        self.view = next_view(&self.view, runs);
        for member in self.alive() {
            let view = self.view.clone();
            self.installs.entry(member).or_default().push_back(view);
        }
    }

    pub(super) fn install(&mut self, member: u8, skip: bool) {
        let Some(queue) = self.installs.get_mut(&member) else {
            return;
        };
        let next = queue.pop_front();
        // A member may hear only of the last of several views.
        let last = if skip {
            queue.drain(..).next_back()
        } else {
            None
        };
        let Some(view) = last.or(next) else {
            return;
        };
        let now = self.net.now;
        let epoch = view.epoch;
        let core = &mut self.net.node(member).core;
        core.handle_view(now, view);
        core.handle_active(now, epoch);
        self.net.drain(member);
        self.after(member);
    }

    pub(super) fn install_all(&mut self) {
        for member in self.alive() {
            while self.installs.get(&member).is_some_and(|q| !q.is_empty()) {
                self.install(member, false);
            }
        }
    }

    pub(super) fn kill(&mut self, member: u8) {
        self.dead.insert(member);
        self.installs.remove(&member);
        self.net.hung.insert(member);
        for other in 1..=self.net.members {
            if other != member {
                self.net.cut(member, other, (false, true));
            }
        }
        self.after_all();
    }

    /// Takes those out of the view that are dead, if a majority of it is left.
    pub(super) fn drop_dead(&mut self) -> bool {
        let members: Vec<u8> = (1..=self.net.members)
            .filter(|m| self.in_view(*m))
            .collect();
        let left: Vec<u8> = members
            .iter()
            .copied()
            .filter(|m| !self.dead.contains(m))
            .collect();
        let fewer = left.len() < self.view.members.len();
        if fewer && 2 * left.len() > self.view.members.len() {
            self.takeovers += 1;
            self.decide(&left);
            return true;
        }
        false
    }

    pub(super) fn restart(&mut self, member: u8) {
        self.dead.remove(&member);
        self.net.restart(member);
        self.kernels.remove(&member);
        self.promised.retain(|(m, _), _| *m != member);
        let view = self.view.clone();
        self.installs.insert(member, VecDeque::from([view]));
    }

    /// Lets in who is outside and in sync, by what all sides report.
    pub(super) fn admit(&mut self) -> bool {
        let members: Vec<u8> = (1..=self.net.members)
            .filter(|m| self.in_view(*m))
            .collect();
        if members.len() < self.view.members.len() {
            return false;
        }
        let level = |m: &u8| self.net.nodes[m].report.levelled == self.view.epoch;
        if !members.iter().all(|m| self.current(*m) && level(m)) {
            return false;
        }
        for joiner in self.alive() {
            let fed = |m: &u8| {
                let report = &self.net.nodes[m].report;
                report.caught_up.contains(&id(joiner))
            };
            let complete = &self.net.nodes[&joiner].report.complete_from;
            let whole = members.iter().all(|m| complete.contains(&id(*m)));
            if !members.contains(&joiner)
                && self.current(joiner)
                && members.iter().all(fed)
                && whole
            {
                let mut members = members.clone();
                members.push(joiner);
                members.sort_unstable();
                self.decide(&members);
                return true;
            }
        }
        false
    }

    /// Takes one out of the view of which another one says that it lags: of the two who was level
    /// last stays.
    pub(super) fn expel(&mut self) -> bool {
        let members: Vec<u8> = (1..=self.net.members)
            .filter(|m| self.in_view(*m) && !self.dead.contains(m))
            .collect();
        let levelled = |m: u8| self.net.nodes[&m].report.levelled;
        let reports = members.iter().filter(|m| self.current(**m));
        let pairs = reports.flat_map(|m| {
            let lagging = self.net.nodes[m].report.lagging.iter();
            lagging.map(|other| (*m, other.get()))
        });
        let loser = pairs
            .filter(|(_, other)| members.contains(other))
            .map(|(m, other)| {
                if levelled(m) < levelled(other) {
                    m
                } else {
                    other
                }
            })
            .next();
        let Some(loser) = loser else {
            return false;
        };
        let left: Vec<u8> = members.into_iter().filter(|m| *m != loser).collect();
        if left.is_empty() || 2 * (left.len() + 1) <= self.view.members.len() {
            return false;
        }
        self.decide(&left);
        true
    }

    fn owned_by(&self, member: u8) -> Vec<Cookie> {
        let core = self.net.core(member);
        let sas = core.ownership().sas();
        sas.filter(|held| core.serves(held.slot))
            .map(|held| held.sa.local_spi)
            .collect()
    }

    /// A member that thinks that it may changes one of its SAs, makes one or removes one.
    pub(super) fn change(&mut self, member: u8, dice: &mut Dice) {
        let core = self.net.core(member);
        let slots: Vec<Slot> = core.owned().iter().filter(|s| core.serves(*s)).collect();
        if slots.is_empty() {
            return;
        }
        if dice.roll(4) == 0 {
            return self.negotiate(member, dice);
        }
        let own = self.owned_by(member);
        let pick = |dice: &mut Dice, n: usize| dice.roll(n as u64) as usize;
        let (spi, slot, gone) = if own.is_empty() || dice.roll(3) == 0 {
            self.next += 1;
            let [a, b, c, d] = self.next.to_be_bytes();
            (
                [member, a, b, c, d, 0, 0, 1],
                slots[pick(dice, slots.len())],
                false,
            )
        } else {
            let spi = own[pick(dice, own.len())];
            let slot = core.ownership().sa(spi).unwrap().slot;
            (spi, slot, dice.roll(4) == 0)
        };
        let version = self.version(member, spi).unwrap_or(0) + 1;
        let change = if gone {
            self.removed.insert(spi);
            Change::SaRemoved { local_spi: spi }
        } else {
            sa(spi, version)
        };
        let now = self.net.now;
        let node = self.net.node(member);
        let Ok(seq) = node.core.publish(now, slot, change, Mirror::Urgent) else {
            return;
        };
        let fact = Fact {
            slot,
            version,
            gone,
        };
        self.promised.insert((member, seq), (spi, fact));
        self.net.drain(member);
        self.after(member);
    }

    /// A peer begins a negotiation, or one is given up.
    fn negotiate(&mut self, member: u8, dice: &mut Dice) {
        let run = self.net.nodes[&member].run;
        let cookie = cookie(member, run, dice.roll(5) as u8);
        let change = if dice.roll(3) == 0 {
            Change::NegotiationClosed {
                local_cookie: cookie,
            }
        } else {
            opened(cookie)
        };
        let slot = Slot(dice.roll(256) as u8);
        let now = self.net.now;
        let core = &mut self.net.node(member).core;
        let published = core.publish(now, slot, change, Mirror::Background);
        assert!(published.is_ok(), "whoever is asked may negotiate");
        self.net.drain(member);
        self.after(member);
    }

    fn version(&self, member: u8, spi: Cookie) -> Option<u32> {
        let held = self.net.core(member).ownership().sa(spi)?;
        let record = held.sa.record.expose().first_chunk()?;
        Some(u32::from_be_bytes(*record))
    }

    /// The owner of the last view sends ESP.
    pub(super) fn send(&mut self, member: u8, dice: &mut Dice) {
        if !self.current(member) {
            return;
        }
        for spi in self.owned_by(member) {
            let spi_in = spi_in(spi);
            let kernel = self.kernels.entry(member).or_default();
            let Some(ceiling) = kernel.ceiling.get(&spi_in).copied() else {
                continue;
            };
            let position = kernel.position.entry(spi_in).or_default();
            let count = [1, 3000, 20_000][dice.roll(3) as usize];
            let (from, to) = (*position + 1, (*position + count).min(ceiling));
            // What the fence drops is used up nevertheless.
            *position += count;
            let used = *position;
            if from <= to {
                let sent = self.sent.entry(spi_in).or_default();
                let last = sent.last_key_value();
                assert!(
                    last.is_none_or(|(_, end)| *end < from),
                    "member {member} sends {from}..={to} of {spi_in:?} after {last:?}"
                );
                sent.insert(from, to);
            }
            if !self.net.hung.contains(&member) {
                let now = self.net.now;
                self.net.node(member).core.handle_sent(now, spi_in, used);
            }
        }
        if !self.net.hung.contains(&member) {
            self.net.drain(member);
            self.after(member);
        }
    }

    /// One more hangs, or the first that hangs goes on; time passes, so that others miss it.
    fn hang_or_wake(&mut self, dice: &mut Dice) {
        let alive = self.alive();
        let hung = |m: &&u8| self.net.hung.contains(*m);
        let awake: Vec<u8> = alive.iter().filter(|m| !hung(m)).copied().collect();
        let left = awake.iter().filter(|m| self.in_view(**m)).count();
        let first = alive.iter().find(hung).copied();
        if let Some(member) = first.filter(|_| dice.roll(3) > 0) {
            self.net.hung.remove(&member);
        } else if 2 * (left - left.min(1)) > self.view.members.len() {
            let member = awake[dice.roll(awake.len() as u64) as usize];
            self.net.hung.insert(member);
        }
        let millis = 50 + dice.roll(150);
        self.net.advance(Duration::from_millis(millis));
        self.after_all();
        if dice.roll(2) == 0 {
            self.expel();
        }
    }

    /// Carries out what the cores told, and looks whether what was promised still holds.
    pub(super) fn after_all(&mut self) {
        for member in self.alive() {
            self.after(member);
        }
    }

    fn after(&mut self, member: u8) {
        let node = self.net.node(member);
        let (released, discarded) = (node.released, node.discarded);
        let effects = std::mem::take(&mut node.effects);
        for effect in effects {
            self.carry_out(member, &effect);
        }
        let done: Vec<_> = self
            .promised
            .range((member, DeltaSeq(0))..=(member, released.max(discarded)))
            .map(|(key, _)| *key)
            .collect();
        for key in done {
            let Some((spi, fact)) = self.promised.remove(&key) else {
                continue;
            };
            if key.1 > discarded {
                let known = self.facts.get(&spi);
                if known.is_none_or(|known| known.version <= fact.version) {
                    self.facts.insert(spi, fact);
                }
            }
        }
        self.check_promises(member);
    }

    fn carry_out(&mut self, member: u8, effect: &Output) {
        match *effect {
            Output::Moved {
                spi_in, standing, ..
            } => {
                let kernel = self.kernels.entry(member).or_default();
                let position = kernel.position.entry(spi_in).or_default();
                *position = standing.sequence_out.max(*position);
            }
            Output::Advance { spi_in, to, .. } => {
                let kernel = self.kernels.entry(member).or_default();
                kernel.position.insert(spi_in, to);
            }
            // Removed; installed again it starts where it has to stand then.
            Output::Table(TableChange::RemoveEspOut(key)) => {
                let kernel = self.kernels.entry(member).or_default();
                kernel.position.remove(&key.spi);
                kernel.ceiling.remove(&key.spi);
            }
            Output::Table(TableChange::PutEspOut { key, ceiling, .. }) => {
                self.raises += 1;
                let ceiling = u64::from(ceiling);
                let standing = self.net.core(member).standing(key.spi);
                let kernel = self.kernels.entry(member).or_default();
                kernel.ceiling.insert(key.spi, ceiling);
                // Installed where it has to stand.
                if let Some(standing) = standing {
                    kernel
                        .position
                        .entry(key.spi)
                        .or_insert(standing.sequence_out);
                }
            }
            _ => {}
        }
    }

    /// Nothing that was released is lost for whoever serves the slot now.
    fn check_promises(&self, member: u8) {
        let core = self.net.core(member);
        if !self.current(member) {
            return;
        }
        for (spi, fact) in &self.facts {
            if !core.serves(fact.slot) {
                continue;
            }
            match self.version(member, *spi) {
                Some(version) => assert!(
                    version >= fact.version && !fact.gone,
                    "member {member} has version {version} of {spi:?}: {fact:?}"
                ),
                None => assert!(
                    self.removed.contains(spi),
                    "member {member} has lost {spi:?}: {fact:?}"
                ),
            }
        }
    }

    pub(super) fn step(&mut self, dice: &mut Dice) {
        if self.hanging && dice.roll(12) == 0 {
            return self.hang_or_wake(dice);
        }
        let alive = self.alive();
        let member = alive[dice.roll(alive.len() as u64) as usize];
        let mut other = alive[dice.roll(alive.len() as u64) as usize];
        if self.net.hung.contains(&member) {
            return self.send(member, dice);
        }
        if self.net.hung.contains(&other) {
            other = member;
        }
        // More changes of views, and quiet moments in which they get far.
        let sides = if self.restless { 68 } else { 64 };
        match dice.roll(sides) {
            0..=17 => self.change(member, dice),
            18..=25 => self.send(member, dice),
            26..=46 if member != other => {
                for _ in 0..dice.roll(8) {
                    self.net.deliver(member, other);
                }
                self.after_all();
            }
            47 if member != other => {
                let noticed = (dice.roll(2) == 0, dice.roll(2) == 0);
                self.net.cut(member, other, noticed);
                self.after_all();
            }
            48..=51 if member != other && !self.net.wires.contains_key(&(member, other)) => {
                self.net.connect(member, other);
                self.after_all();
            }
            52..=55 => self.install(member, dice.roll(4) == 0),
            56 => {
                // At most so many die that a majority of the view goes on.
                let mut left = alive.iter().filter(|m| **m != member);
                let left = left.by_ref().filter(|m| self.in_view(**m)).count();
                if 2 * left > self.view.members.len() {
                    self.kill(member);
                }
            }
            57 | 58 => {
                if !self.drop_dead() {
                    self.expel();
                }
            }
            59 => {
                if let Some(member) = self.dead.first().copied() {
                    let run = self.net.nodes[&member].run;
                    if !self.view.admits(id(member), Incarnation(run)) {
                        self.restart(member);
                    }
                }
            }
            60 | 61 => {
                self.admit();
            }
            62 | 63 if (self.restless || dice.roll(4) == 0) && self.dead.is_empty() => {
                let members = alive.iter().copied().filter(|m| self.in_view(*m));
                let left: Vec<u8> = members.filter(|m| *m != member).collect();
                if self.in_view(member) && 2 * left.len() > self.view.members.len() {
                    self.decide(&left);
                }
            }
            64 | 65 => {
                self.install_all();
                self.net.deliver_all();
                self.after_all();
            }
            _ => {
                self.net.advance(Duration::from_millis(dice.roll(30)));
                self.after_all();
            }
        }
    }

    /// Lets everything arrive, short of any expiry.
    pub(super) fn settle(&mut self) {
        for _ in 0..10 {
            for (a, b) in self.net.pairs() {
                let dead = self.dead.contains(&a) || self.dead.contains(&b);
                if !dead && !self.net.wires.contains_key(&(a, b)) {
                    self.net.connect(a, b);
                }
            }
            self.net.deliver_all();
            self.net.advance(Duration::from_millis(10));
            self.after_all();
        }
    }

    /// Everybody comes back and is let in; then all know the same.
    pub(super) fn heal(&mut self) {
        let alive = self.alive();
        self.net.hung.retain(|m| !alive.contains(m));
        for _ in 0..20 {
            self.install_all();
            self.settle();
            self.drop_dead();
            self.install_all();
            self.settle();
            self.expel();
            self.install_all();
            self.settle();
            for member in self.dead.clone() {
                if !self.in_view(member) {
                    self.restart(member);
                }
            }
            self.install_all();
            self.settle();
            self.admit();
            if self.dead.is_empty() && self.view.members.len() == usize::from(self.net.members) {
                break;
            }
        }
        self.install_all();
        self.settle();
        self.check_converged();
    }

    pub(super) fn check_converged(&self) {
        let all = usize::from(self.net.members);
        if self.view.members.len() != all
            || self
                .net
                .nodes
                .values()
                .any(|n| !n.report.lagging.is_empty())
        {
            self.describe();
        }
        assert_eq!(self.view.members.len(), all, "not everybody was let in");
        for (member, node) in &self.net.nodes {
            assert_eq!(node.report.levelled, self.view.epoch, "member {member}");
            assert!(node.report.lagging.is_empty(), "{:?}", node.report);
            assert_eq!(node.report.complete_from.len(), all - 1, "member {member}");
            let status = node.core.status();
            assert_eq!(status.released, status.published, "member {member}");
            assert_eq!(node.core.settled, self.view.epoch, "member {member}");
            assert!(node.core.ended.is_empty());
        }
        self.net.check_tables();
        self.check_copies();
        for (spi, fact) in &self.facts {
            let version = self.version(1, *spi);
            assert!(fact.gone || version.is_some() || self.removed.contains(spi));
            assert!(!fact.gone || version.is_none(), "{spi:?} is back: {fact:?}");
        }
    }

    /// Every member could go on with every SA above all that was sent.
    fn check_copies(&self) {
        for (member, kernel) in &self.kernels {
            for (spi_in, position) in &kernel.position {
                let sent = self.sent.get(spi_in).and_then(BTreeMap::last_key_value);
                let last = sent.map_or(0, |(_, end)| *end);
                assert!(
                    *position >= last,
                    "the copy of {spi_in:?} on {member} stands at {position}, {last} was sent"
                );
            }
        }
    }

    /// What a failed run looks like.
    fn describe(&self) {
        eprintln!("view {:?} dead {:?}", self.view, self.dead);
        for (member, node) in &self.net.nodes {
            let core = &node.core;
            eprintln!(
                "member {member} run {}: view {} levelled {} settled {} filling {} {:?}",
                node.run,
                core.view().epoch,
                core.levelled,
                core.settled,
                core.filling,
                node.report
            );
            for (peer, state) in &core.peers {
                let stream = state.incoming.stream.as_ref();
                eprintln!(
                    "  {peer}: {:?} complete {} caught {} lagging {} due {:?} refeed {:?} \
                     snapshot {:?} sent {:?} acked {:?} level {} | {:?}",
                    state.link,
                    state.out.complete,
                    state.out.caught,
                    state.out.lagging,
                    state.out.due,
                    state.out.refeed,
                    state.out.snapshot,
                    state.out.sent,
                    state.out.acked,
                    state.out.levelled,
                    stream.map(|s| (
                        s.run,
                        s.seq,
                        s.base,
                        s.fed,
                        s.marker,
                        s.held.len(),
                        s.seen.as_ref().map(|m| m.epoch)
                    ))
                );
            }
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.net.now
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.view.epoch
    }
}

/// The CHILD_SA of an IKE SA: its SPI is drawn by a member and unique.
pub(super) fn spi_in(spi: Cookie) -> [u8; 4] {
    [spi[0], spi[2], spi[3], spi[4]]
}

pub(super) fn sa(local_spi: Cookie, version: u32) -> Change {
    let child = Child {
        spi_in: spi_in(local_spi),
        vip: [203, 0, 113, 10].into(),
        spi_out: spi_in(local_spi),
        peer: [192, 0, 2, local_spi[4]].into(),
        remote_nets: Vec::new(),
        reserved: Reserved::default(),
    };
    let mut record = version.to_be_bytes().to_vec();
    record.resize(100, 7);
    Change::SaUpsert(Sa {
        local_spi,
        children: vec![child],
        record: Secret::new(record),
        ..Sa::default()
    })
}
