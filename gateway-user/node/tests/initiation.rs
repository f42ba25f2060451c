//! Which member initiates, and who goes on.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use gateway_cluster::frame::Incarnation;
use gateway_cluster::slot_map::{SlotMap, Weighted};
use gateway_cluster::view::{Epoch, Tenures, View};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use gateway_ike::config::{
    Actions, Authentication, ChildConfig, Connection, Initiation, Limits, RemoteAddress, Secret,
    StartAction, Transport, Uniqueness, Volume,
};
use gateway_ike::endpoint::Endpoint;
use gateway_ike::output::{KernelRequest, KernelResult, Output, Path, Transmit};
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;
use gateway_ike::testing::Toy;
use gateway_node::effect::{Effect, KernelOp};
use gateway_node::{Config, Node, Order, Refused, WalkLimits, What};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10));
const FAR: Duration = Duration::from_secs(100_000);

fn id(member: u8) -> MemberId {
    MemberId::new(member).unwrap()
}

/// The connection as one side has it.
fn connection(gateway: bool, start: StartAction) -> Connection {
    let mut ids = ["gw.example.org", "site-a.example.org"];
    let mut nets = ["10.1.0.0/16", "10.2.0.0/16"];
    let mut addresses = [VIP, PEER];
    if !gateway {
        ids.reverse();
        nets.reverse();
        addresses.reverse();
    }
    let child = ChildConfig {
        name: "net".into(),
        local_ts: vec![nets[0].parse().unwrap()],
        remote_ts: vec![nets[1].parse().unwrap()],
        esp_proposals: EspProposal::defaults(),
        replay_window: 32,
        life_time: FAR,
        rekey_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        if_id_in: 0,
        if_id_out: 0,
        actions: Actions {
            start,
            ..Actions::default()
        },
        volume: Volume::default(),
    };
    Connection {
        name: "out".into(),
        local_addrs: Vec::new(),
        remote_addrs: vec![RemoteAddress::Network {
            address: addresses[1],
            prefix_len: 32,
        }],
        proposals: IkeProposal::defaults(),
        local_id: ids[0].parse().unwrap(),
        remote_id: ids[1].parse().unwrap(),
        children: vec![Arc::new(child)],
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        dpd_delay: Duration::ZERO,
        unique: Uniqueness::No,
        transport: Transport::default(),
        auth: Authentication::default(),
        initiation: Initiation {
            source_addrs: vec![addresses[0]],
            ..Initiation::default()
        },
    }
}

fn ike_config(member: u8, gateway: bool, start: StartAction) -> gateway_ike::config::Config {
    gateway_ike::config::Config {
        member: id(member),
        incarnation: 1,
        connections: vec![Arc::new(connection(gateway, start))],
        secrets: vec![Secret {
            ids: Vec::new(),
            secret: SecretBytes::from(&b"secret"[..]),
        }],
        ppks: Vec::new(),
        limits: Limits::default(),
    }
}

fn member(local: u8, start: StartAction, now: Instant) -> Node {
    let cluster = gateway_cluster::config::Config {
        local: id(local),
        members: [1, 2]
            .map(|m| Weighted {
                member: id(m),
                weight: 1,
            })
            .into(),
        cluster_id: 1,
        cluster_name: "test".into(),
        config_hash: [0; 32],
        incarnation: Incarnation(1),
        limits: gateway_cluster::config::Limits::default(),
    };
    let config = Config {
        ike: Arc::new(ike_config(local, true, start)),
        cluster,
        walk: WalkLimits::default(),
    };
    let mut node = Node::new(config, Arc::new(Toy::new(local.into())), now);
    node.set_lease(now + FAR);
    node
}

/// Two members and a peer that answers.
struct World {
    now: Instant,
    /// Member n is the one before n; `None` is dead.
    nodes: [Option<Node>; 2],
    peer: Endpoint,
    /// What the members sent, and who.
    sent: Vec<(u8, Transmit)>,
    to_peer: VecDeque<(Path, Vec<u8>)>,
    /// Answers of the peer reach this member, whoever asked.
    heard_by: usize,
}

impl World {
    fn new(start: StartAction, owner: u8) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let peer = ike_config(40, false, StartAction::None);
        let mut world = Self {
            now,
            nodes: [1, 2].map(|local| Some(member(local, start, now))),
            peer: Endpoint::new(Arc::new(peer), Arc::new(Toy::new(77)), now),
            sent: Vec::new(),
            to_peer: VecDeque::new(),
            heard_by: 0,
        };
        for (node, other) in world.nodes.iter_mut().flatten().zip([2, 1]) {
            node.handle_connected(now, id(other));
        }
        world.frames();
        world.view(1, &[1, 2], owner);
        world
    }

    fn view(&mut self, epoch: u64, members: &[u8], owner: u8) {
        let view = || View {
            epoch: Epoch(epoch),
            members: members.iter().map(|m| (id(*m), Incarnation(1))).collect(),
            slots: SlotMap::from_owners([Some(id(owner)); Slot::COUNT]),
            tenures: Tenures::default(),
        };
        for node in self.nodes.iter_mut().flatten() {
            node.handle_view(self.now, view());
        }
        self.frames();
        for node in self.nodes.iter_mut().flatten() {
            node.handle_active(self.now, Epoch(epoch));
        }
    }

    fn dies(&mut self, member: u8) {
        self.nodes[usize::from(member) - 1] = None;
        let other = 3 - member;
        if let Some(node) = &mut self.nodes[usize::from(other) - 1] {
            node.handle_disconnected(self.now, id(member));
        }
        self.heard_by = usize::from(other) - 1;
    }

    /// Carries out effects of the members until they have none; frames arrive at once.
    fn frames(&mut self) {
        loop {
            let mut busy = false;
            for at in 0..2 {
                while let Some(effect) = self.nodes[at].as_mut().and_then(Node::poll_effect) {
                    busy = true;
                    self.carry_out(at, effect);
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        let local = u8::try_from(at + 1).unwrap();
        match effect {
            Effect::Frame { frame, .. } => {
                if let Some(other) = &mut self.nodes[1 - at] {
                    other.handle_frame(self.now, id(local), frame.expose());
                }
            }
            Effect::Kernel(KernelOp::Own {
                request: KernelRequest::Install { child, .. },
                ..
            }) => {
                let node = self.nodes[at].as_mut().unwrap();
                node.handle_kernel(self.now, KernelResult::Installed(child.id()));
            }
            Effect::Transmit(transmit) => {
                let path = Path::new(transmit.path.remote, transmit.path.local);
                self.to_peer.push_back((path, transmit.bytes.clone()));
                self.sent.push((local, transmit));
            }
            _ => {}
        }
    }

    /// The peer takes what it was sent, and answers.
    fn run(&mut self) {
        self.frames();
        while let Some((path, bytes)) = self.to_peer.pop_front() {
            self.peer.handle_datagram(self.now, path, &bytes);
            while let Some(output) = self.peer.poll_output() {
                match output {
                    Output::Kernel(KernelRequest::Install { child, .. }) => {
                        let result = KernelResult::Installed(child.id());
                        self.peer.handle_kernel(self.now, result);
                    }
                    Output::Transmit(transmit) => {
                        let path = Path::new(transmit.path.remote, transmit.path.local);
                        if let Some(node) = &mut self.nodes[self.heard_by] {
                            node.handle_datagram(self.now, path, &transmit.bytes);
                        }
                    }
                    _ => {}
                }
            }
            self.frames();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for node in self.nodes.iter_mut().flatten() {
            node.handle_timeout(self.now);
        }
        self.run();
    }

    fn senders(&self) -> BTreeSet<u8> {
        self.sent.iter().map(|(member, _)| *member).collect()
    }

    fn order(&mut self, member: u8, what: What) -> Result<gateway_node::Outcome, Refused> {
        let order = Order {
            what,
            connection: "out".into(),
            child: None,
        };
        let node = self.nodes[usize::from(member) - 1].as_mut().unwrap();
        node.handle_order(self.now, &order)
    }

    /// Tunnels of the cluster, as a member knows them.
    fn tunnels(&self, member: u8) -> usize {
        let node = self.nodes[usize::from(member) - 1].as_ref().unwrap();
        let sas = node.sas(self.now);
        sas.map(|(_, sa)| sa.children.len()).sum()
    }
}

#[test]
fn the_owner_of_the_slot_starts_and_nobody_else() {
    for owner in [1, 2] {
        let mut world = World::new(StartAction::Start, owner);
        // The answers reach the member that did not ask.
        world.heard_by = usize::from(2 - owner);
        world.run();
        assert_eq!(world.senders(), BTreeSet::from([owner]));
        assert_eq!((world.tunnels(1), world.tunnels(2)), (1, 1));
        assert_eq!(world.peer.sas().count(), 1);
    }
}

/// The answer may reach any member: nothing leaves before the others know our SPI.
#[test]
fn the_first_message_waits_for_the_others() {
    let mut world = World::new(StartAction::Start, 1);
    let mut frames = 0;
    let node = world.nodes[0].as_mut().unwrap();
    while let Some(effect) = node.poll_effect() {
        match effect {
            Effect::Frame { .. } => frames += 1,
            Effect::Transmit(_) => panic!("too early"),
            _ => {}
        }
    }
    assert!(frames > 0);
}

#[test]
fn whoever_takes_over_starts_what_is_not_up_and_only_that() {
    // It dies when nothing but the first message is out.
    let mut world = World::new(StartAction::Start, 2);
    world.frames();
    world.to_peer.clear();
    world.dies(2);
    world.view(2, &[1], 1);
    world.run();
    assert_eq!(world.senders(), BTreeSet::from([1, 2]));
    assert_eq!((world.tunnels(1), world.peer.sas().count()), (1, 1));

    // It dies when the tunnel is up.
    let mut world = World::new(StartAction::Start, 2);
    world.run();
    let negotiations = world.peer.counters().init_requests;
    world.dies(2);
    world.view(2, &[1], 1);
    for _ in 0..20 {
        world.pass(Duration::from_secs(1));
    }
    assert_eq!((world.tunnels(1), world.peer.sas().count()), (1, 1));
    assert_eq!(world.peer.counters().init_requests, negotiations);
}

#[test]
fn orders_are_passed_on_to_the_owner() {
    let mut world = World::new(StartAction::None, 2);
    world.run();
    assert!(world.sent.is_empty());
    assert_eq!(
        world.order(1, What::Rekey),
        Err(Refused::NothingThere("out".into()))
    );
    let outcome = world.order(1, What::Initiate).unwrap();
    assert_eq!(
        (outcome.here, outcome.passed_on),
        (0, BTreeSet::from([id(2)]))
    );
    world.run();
    assert_eq!(world.senders(), BTreeSet::from([2]));
    assert_eq!((world.tunnels(1), world.peer.sas().count()), (1, 1));
    // Once more changes nothing.
    world.order(1, What::Initiate).unwrap();
    world.order(2, What::Initiate).unwrap();
    world.run();
    assert_eq!((world.tunnels(1), world.peer.sas().count()), (1, 1));
    world.order(1, What::Terminate).unwrap();
    world.run();
    assert_eq!((world.tunnels(1), world.peer.sas().count()), (0, 0));
}
