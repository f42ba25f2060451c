//! The network: per pair of members a connection that delivers in order or breaks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{
    Change, Child, Cookie, Mirror, NEGOTIATION_LIFETIME, Negotiation, Reserved, Sa,
};
use crate::config::{Config, Limits};
use crate::frame::{DeltaSeq, Incarnation};
use crate::network::Network;
use crate::output::{Class, Event, Output};
use crate::secret::Secret;
use crate::slot_map::{Mode, Weighted};
use crate::status::PeerStatus;
use crate::table::TableChange;
use crate::view::{SyncReport, Tenures, View};
use crate::{Cluster, PublishError};

pub(super) fn id(id: u8) -> MemberId {
    MemberId::new(id).unwrap()
}

pub(super) fn config(local: u8, members: u8, incarnation: u64, limits: &Limits) -> Config {
    Config {
        local: id(local),
        members: (1..=members)
            .map(|member| Weighted {
                member: id(member),
                weight: 1,
            })
            .collect(),
        cluster_id: 1,
        cluster_name: "hq".into(),
        config_hash: [7; 32],
        incarnation: Incarnation(incarnation),
        limits: limits.clone(),
    }
}

/// Our cookie number `n` of a member; a restarted member draws others.
pub(super) fn cookie(member: u8, run: u64, n: u8) -> Cookie {
    [member, n, run as u8, 0, 0, 0, 0, 1]
}

pub(super) fn opened(local_cookie: Cookie) -> Change {
    let mut peer_cookie = local_cookie;
    peer_cookie[7] = 2;
    Change::NegotiationOpened {
        negotiation: Negotiation {
            local_cookie,
            peer_cookie,
            peer: [192, 0, 2, local_cookie[1]].into(),
        },
        lifetime: NEGOTIATION_LIFETIME,
    }
}

pub(super) fn established(local_spi: Cookie, version: u8) -> Change {
    let child = Child {
        spi_in: [local_spi[1], version, local_spi[2], local_spi[0]],
        vip: [203, 0, 113, 10].into(),
        spi_out: [9, version, local_spi[1], local_spi[0]],
        peer: [192, 0, 2, local_spi[1]].into(),
        remote_nets: vec![Network::new(0, [10, local_spi[1], 0, 0].into(), 16).unwrap()],
        reserved: Reserved::default(),
    };
    Change::SaUpsert(Sa {
        local_spi,
        children: vec![child],
        record: Secret::new(vec![version; 300]),
        ..Sa::default()
    })
}

/// The slot of a cookie: where its SA is, or one of the member's, so that each member knows it.
pub(super) fn slot_of(core: &Cluster, cookie: Cookie) -> Slot {
    let known = core.ownership().sa(cookie).map(|held| held.slot);
    let owned = core.owned();
    let nth = usize::from(cookie[1]) % owned.len().max(1);
    known.or(owned.iter().nth(nth)).unwrap_or(Slot(0))
}

/// The view after `before`, of these members and their runs, which share the slots.
pub(super) fn next_view(before: &View, members: impl Iterator<Item = (u8, u64)> + Clone) -> View {
    let weighted: Vec<Weighted> = members
        .clone()
        .map(|(member, _)| Weighted {
            member: id(member),
            weight: 1,
        })
        .collect();
    let next = View {
        epoch: before.epoch.next(),
        members: members
            .map(|(member, run)| (id(member), Incarnation(run)))
            .collect(),
        slots: before.slots.next(&weighted, Mode::LoadSharing),
        tenures: Tenures::default(),
    };
    next.following(before)
}

/// One member: its core, and what a driver would have done with its outputs.
pub(super) struct Node {
    pub(super) core: Cluster,
    pub(super) run: u64,
    /// The steering maps.
    pub(super) maps: BTreeMap<String, TableChange>,
    /// Copies of the other members' SAs.
    pub(super) copies: BTreeMap<Cookie, Sa>,
    pub(super) released: DeltaSeq,
    pub(super) up: BTreeSet<MemberId>,
    pub(super) relayed: Vec<(MemberId, Vec<u8>)>,
    pub(super) events: Vec<Event>,
    pub(super) report: SyncReport,
    pub(super) discarded: DeltaSeq,
    pub(super) effects: Vec<Output>,
}

/// A frame under way.
pub(super) type Packet = Arc<Secret>;

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) nodes: BTreeMap<u8, Node>,
    /// Connections by direction; absent = not connected.
    pub(super) wires: BTreeMap<(u8, u8), VecDeque<Packet>>,
    /// Members that neither receive nor see timers.
    pub(super) hung: BTreeSet<u8>,
    pub(super) limits: Limits,
    pub(super) members: u8,
    pub(super) delivered: u64,
    pub(super) bytes: usize,
    /// The last view that [`Net::install`] made.
    view: View,
}

impl Net {
    /// Members that are not connected and know no view.
    pub(super) fn new(members: u8, limits: &Limits) -> Self {
        let mut net = Self::empty(members, limits);
        for member in 1..=members {
            net.boot(member, 1);
        }
        net
    }

    fn empty(members: u8, limits: &Limits) -> Self {
        Self {
            now: Instant::from_nanos(1_000_000_000),
            nodes: BTreeMap::new(),
            wires: BTreeMap::new(),
            hung: BTreeSet::new(),
            limits: limits.clone(),
            members,
            delivered: 0,
            bytes: 0,
            view: View::default(),
        }
    }

    /// All connected, in sync and in a view.
    pub(super) fn connected(members: u8, limits: &Limits) -> Self {
        let mut net = Self::new(members, limits);
        net.connect_all();
        net.settle();
        let all: Vec<u8> = (1..=members).collect();
        net.install(&all);
        net.settle();
        net
    }

    /// All members install the next view, of these.
    pub(super) fn install(&mut self, members: &[u8]) {
        let runs = members.iter().map(|m| (*m, self.nodes[m].run));
        self.view = next_view(&self.view, runs);
        for member in 1..=self.members {
            let (now, view) = (self.now, self.view.clone());
            let core = &mut self.node(member).core;
            let epoch = view.epoch;
            core.handle_view(now, view);
            core.handle_active(now, epoch);
            self.drain(member);
        }
    }

    fn boot(&mut self, member: u8, run: u64) {
        let config = config(member, self.members, run, &self.limits);
        let node = Node {
            core: Cluster::new(config, self.now),
            run,
            maps: BTreeMap::new(),
            copies: BTreeMap::new(),
            released: DeltaSeq(0),
            up: BTreeSet::new(),
            relayed: Vec::new(),
            events: Vec::new(),
            report: SyncReport::default(),
            discarded: DeltaSeq(0),
            effects: Vec::new(),
        };
        self.nodes.insert(member, node);
        self.drain(member);
    }

    pub(super) fn node(&mut self, member: u8) -> &mut Node {
        self.nodes.get_mut(&member).unwrap()
    }

    pub(super) fn core(&self, member: u8) -> &Cluster {
        &self.nodes[&member].core
    }

    pub(super) fn peer(&self, member: u8, peer: u8) -> PeerStatus {
        let status = self.core(member).status();
        let found = status.peers.into_iter().find(|p| p.member == id(peer));
        found.unwrap()
    }

    pub(super) fn pairs(&self) -> Vec<(u8, u8)> {
        (1..=self.members)
            .flat_map(|a| (a + 1..=self.members).map(move |b| (a, b)))
            .collect()
    }

    pub(super) fn connect_all(&mut self) {
        for (a, b) in self.pairs() {
            if !self.wires.contains_key(&(a, b)) {
                self.connect(a, b);
            }
        }
    }

    pub(super) fn connect(&mut self, a: u8, b: u8) {
        self.wires.insert((a, b), VecDeque::new());
        self.wires.insert((b, a), VecDeque::new());
        for (from, to) in [(a, b), (b, a)] {
            let now = self.now;
            self.node(from).core.handle_connected(now, id(to));
            self.drain(from);
        }
    }

    /// Breaks a connection; what is under way is lost. `noticed`: which ends see it before the next
    /// connection comes up.
    pub(super) fn cut(&mut self, a: u8, b: u8, noticed: (bool, bool)) {
        if self.wires.remove(&(a, b)).is_none() {
            return;
        }
        self.wires.remove(&(b, a));
        let now = self.now;
        for (end, other, notices) in [(a, b, noticed.0), (b, a, noticed.1)] {
            if notices {
                self.node(end).core.handle_disconnected(now, id(other));
                self.drain(end);
            }
        }
    }

    /// A member loses all its state and comes back as a new run.
    pub(super) fn restart(&mut self, member: u8) {
        for other in 1..=self.members {
            if other != member {
                self.cut(member, other, (false, true));
            }
        }
        let run = self.nodes[&member].run + 1;
        self.hung.remove(&member);
        self.boot(member, run);
    }

    pub(super) fn publish(
        &mut self,
        member: u8,
        change: Change,
        mirror: Mirror,
    ) -> Result<DeltaSeq, PublishError> {
        let now = self.now;
        let core = self.core(member);
        let n = match &change {
            Change::NegotiationOpened { negotiation, .. } => negotiation.local_cookie,
            Change::NegotiationClosed { local_cookie } => *local_cookie,
            Change::SaUpsert(sa) => sa.local_spi,
            Change::SaRemoved { local_spi } => *local_spi,
            _ => [0; 8],
        };
        let slot = slot_of(core, n);
        let node = self.node(member);
        let published = node.core.publish(now, slot, change, mirror);
        self.drain(member);
        published
    }

    /// Delivers one frame from `from` to `to`. `false` if there is none or the receiver hangs.
    pub(super) fn deliver(&mut self, from: u8, to: u8) -> bool {
        if self.hung.contains(&to) {
            return false;
        }
        let Some(frame) = self
            .wires
            .get_mut(&(from, to))
            .and_then(VecDeque::pop_front)
        else {
            return false;
        };
        let now = self.now;
        self.delivered += 1;
        self.node(to)
            .core
            .handle_frame(now, id(from), frame.expose());
        self.drain(to);
        true
    }

    /// Delivers everything that is under way and what follows from it, without time passing.
    pub(super) fn deliver_all(&mut self) {
        loop {
            let wires: Vec<(u8, u8)> = self.wires.keys().copied().collect();
            let mut progress = false;
            for (from, to) in wires {
                progress |= self.deliver(from, to);
            }
            if !progress {
                return;
            }
        }
    }

    /// Lets time pass; members that do not hang see their timers.
    pub(super) fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let awake = |node: &&u8| !self.hung.contains(*node);
            let due = self
                .nodes
                .keys()
                .filter(awake)
                .filter_map(|n| self.nodes[n].core.poll_timeout())
                .min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            self.timers();
        }
        self.now = end;
        self.timers();
    }

    fn timers(&mut self) {
        let now = self.now;
        for member in 1..=self.members {
            if !self.hung.contains(&member) {
                self.node(member).core.handle_timeout(now);
                self.drain(member);
                let next = self.core(member).poll_timeout();
                assert!(next.is_none_or(|at| at > now), "timer of {member} is stuck");
            }
        }
    }

    /// Wakes and connects everybody and lets the dust settle, short of any expiry.
    pub(super) fn settle(&mut self) {
        self.hung.clear();
        for _ in 0..30 {
            self.connect_all();
            self.deliver_all();
            self.advance(Duration::from_millis(10));
        }
        self.deliver_all();
    }

    /// Carries out what a core wants, and checks what it must not want.
    pub(super) fn drain(&mut self, member: u8) {
        let mut disconnect = Vec::new();
        while let Some(output) = self.node(member).core.poll_output() {
            match output {
                Output::Send { to, frame, class } => self.transmit(member, to, frame, class),
                Output::Disconnect(peer) => disconnect.push(peer),
                Output::Released(seq) => self.check_release(member, seq),
                other => self.node(member).carry_out(other),
            }
        }
        for peer in disconnect {
            self.cut(member, peer.get(), (true, true));
        }
    }

    fn transmit(&mut self, from: u8, to: MemberId, frame: Packet, class: Class) {
        assert!(frame.len() <= crate::frame::MAX_FRAME);
        self.bytes += frame.len();
        // On a broken connection frames vanish.
        if let Some(wire) = self.wires.get_mut(&(from, to.get())) {
            wire.push_back(frame);
            let queued: usize = wire.iter().map(|frame| frame.len()).sum();
            let bound = self.limits.window_bytes + self.limits.snapshot_window_bytes + 16_384;
            assert!(class == Class::Datagram || queued <= bound, "{queued}");
        }
    }

    /// Flush and ack: what is released is on every other member of the sender's view, in fact and not
    /// only by what the sender believes.
    fn check_release(&mut self, member: u8, seq: DeltaSeq) {
        assert!(self.nodes[&member].released < seq, "released twice");
        self.node(member).released = seq;
        if !self.limits.mutations.no_flush_and_ack {
            self.check_replicas(member);
        }
    }

    fn check_replicas(&self, member: u8) {
        let node = &self.nodes[&member];
        for (other, run) in &node.core.view().members {
            let there = &self.nodes[&other.get()];
            // One that is gone cannot have anything any more.
            if other.get() == member || Incarnation(there.run) != *run {
                continue;
            }
            let position = self.peer(other.get(), member).received;
            let has = position
                .filter(|p| p.incarnation == Incarnation(node.run))
                .map_or(DeltaSeq(0), |p| p.seq);
            assert!(has >= node.released, "{other:?} has {has:?}");
        }
    }

    pub(super) fn check_tables(&self) {
        let reference = tables(self.core(1));
        for (member, node) in &self.nodes {
            let here = tables(&node.core);
            if here != reference {
                let only = |a: &[TableChange], b: &[TableChange]| {
                    let only = a.iter().filter(|change| !b.contains(change));
                    only.copied().collect::<Vec<_>>()
                };
                let (here, there) = (only(&here, &reference), only(&reference, &here));
                panic!("tables of {member}: {here:?} instead of {there:?}");
            }
            let expected: BTreeMap<String, TableChange> = node
                .core
                .ownership()
                .tables()
                .map(|put| (key_of(&put).0, put))
                .collect();
            if node.maps != expected {
                let only = |a: &BTreeMap<String, TableChange>, b: &BTreeMap<_, _>| {
                    let only = a.iter().filter(|(key, put)| b.get(*key) != Some(*put));
                    only.map(|(_, put)| *put).collect::<Vec<_>>()
                };
                let (here, there) = (only(&node.maps, &expected), only(&expected, &node.maps));
                panic!("maps of {member}: {here:?} instead of {there:?}");
            }
        }
    }

    /// Invariant 7: equal tables everywhere, which are what the maps and the copies hold; everybody
    /// in sync and everything released.
    pub(super) fn check_converged(&self) {
        self.check_tables();
        for (member, node) in &self.nodes {
            let status = node.core.status();
            assert_eq!(status.released, status.published);
            for peer in &status.peers {
                assert!(peer.connected && peer.in_sync, "{member}: {peer:?}");
                assert_eq!(peer.acknowledged, status.published);
                assert!(node.up.contains(&peer.member));
            }
            assert_eq!(status.retained.0, 0, "nothing is kept that all have");
        }
    }
}

impl Node {
    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Table(change) => {
                self.effects.push(Output::Table(change));
                let (key, put) = key_of(&change);
                if put {
                    self.maps.insert(key, change);
                } else {
                    assert!(self.maps.remove(&key).is_some(), "{change:?} was not there");
                }
            }
            Output::RecordUpserted { sa, .. } => {
                assert!(!sa.record.is_empty());
                self.copies.insert(sa.local_spi, sa);
            }
            Output::RecordRemoved { local_spi, .. } => {
                self.copies.remove(&local_spi);
            }
            Output::Report(report) => self.report = report,
            Output::Discarded(seq) => self.discarded = seq,
            Output::Advance { .. }
            | Output::Moved { .. }
            | Output::MoveEnded { .. }
            | Output::Order { .. }
            | Output::CookieSecret(_) => self.effects.push(output),
            Output::PeerUp(peer) => assert!(self.up.insert(peer)),
            Output::PeerDown(peer) => assert!(self.up.remove(&peer)),
            Output::Relayed { from, datagram, .. } => self.relayed.push((from, datagram)),
            Output::Event(event) => {
                assert!(!event.to_string().is_empty());
                self.events.push(event);
            }
            Output::Send { .. } | Output::Disconnect(_) | Output::Released(_) => {}
        }
    }

    pub(super) fn saw(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(wanted)
    }
}

/// The tables without times, which are local.
pub(super) fn tables(core: &Cluster) -> Vec<TableChange> {
    let timeless = |change| match change {
        TableChange::PutNegotiation { key, mut value } => {
            value.created_ns = 0;
            value.expires_ns = 0;
            TableChange::PutNegotiation { key, value }
        }
        // Each member has its own block.
        TableChange::PutEspOut { key, slot, .. } => TableChange::PutEspOut {
            key,
            slot,
            ceiling: 0,
        },
        other => other,
    };
    core.ownership().tables().map(timeless).collect()
}

fn key_of(change: &TableChange) -> (String, bool) {
    match change {
        TableChange::PutNegotiation { key, .. } => (format!("{key:?}"), true),
        TableChange::RemoveNegotiation(key) => (format!("{key:?}"), false),
        TableChange::PutIkeSa { key, .. } => (format!("{key:?}"), true),
        TableChange::RemoveIkeSa(key) => (format!("{key:?}"), false),
        TableChange::PutEspSa { key, .. } => (format!("{key:?}"), true),
        TableChange::RemoveEspSa(key) => (format!("{key:?}"), false),
        TableChange::PutEspOut { key, .. } => (format!("{key:?}"), true),
        TableChange::RemoveEspOut(key) => (format!("{key:?}"), false),
        TableChange::PutRemoteNet {
            prefix_len, net, ..
        } => (format!("{prefix_len} {net:?}"), true),
        TableChange::RemoveRemoteNet { prefix_len, net } => {
            (format!("{prefix_len} {net:?}"), false)
        }
    }
}
