//! Two members and a peer, everything by hand.

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
use gateway_ike::endpoint::{Command, Endpoint, InitiateOrder};
use gateway_ike::output::{Change, KernelRequest, KernelResult, Output, Path, Transmit};
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_ike::record::Contact;
use gateway_ike::secret::SecretBytes;
use gateway_ike::testing::Toy;
use gateway_node::effect::{Effect, Event, KernelOp};
use gateway_node::{Config, Node, Order, Refused, WalkLimits, What};

pub(crate) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
pub(crate) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10));
pub(crate) const FAR: Duration = Duration::from_secs(100_000);

pub(crate) fn id(member: u8) -> MemberId {
    MemberId::new(member).unwrap()
}

/// The connection as one side has it.
pub(crate) fn connection(gateway: bool, start: StartAction) -> Connection {
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
        marks: gateway_ike::mark::Marks::default(),
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

pub(crate) fn ike_config(
    member: u8,
    gateway: bool,
    start: StartAction,
) -> gateway_ike::config::Config {
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

pub(crate) fn member(local: u8, start: StartAction, now: Instant) -> Node {
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
pub(crate) struct World {
    pub(crate) now: Instant,
    /// Member n is the one before n; `None` is dead.
    pub(crate) nodes: [Option<Node>; 2],
    pub(crate) peer: Endpoint,
    /// What the members sent, and who.
    pub(crate) sent: Vec<(u8, Transmit)>,
    pub(crate) to_peer: VecDeque<(Path, Vec<u8>)>,
    /// Answers of the peer reach this member, whoever asked.
    pub(crate) heard_by: usize,
    /// What the peer was told of other IKE SAs in each IKE_AUTH.
    pub(crate) contacts: Vec<Contact>,
    /// Orders that were given up, and by whom.
    pub(crate) lapsed: Vec<(u8, Order)>,
}

impl World {
    pub(crate) fn new(start: StartAction, owner: u8) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let peer = ike_config(40, false, StartAction::None);
        let mut world = Self {
            now,
            nodes: [1, 2].map(|local| Some(member(local, start, now))),
            peer: Endpoint::new(Arc::new(peer), Arc::new(Toy::new(77)), now),
            sent: Vec::new(),
            to_peer: VecDeque::new(),
            heard_by: 0,
            contacts: Vec::new(),
            lapsed: Vec::new(),
        };
        for (node, other) in world.nodes.iter_mut().flatten().zip([2, 1]) {
            node.handle_connected(now, id(other));
        }
        world.frames();
        world.view(1, &[1, 2], owner);
        world
    }

    pub(crate) fn view(&mut self, epoch: u64, members: &[u8], owner: u8) {
        self.install(epoch, members, [Some(id(owner)); Slot::COUNT]);
        self.activate(epoch);
    }

    pub(crate) fn install(
        &mut self,
        epoch: u64,
        members: &[u8],
        owners: [Option<MemberId>; Slot::COUNT],
    ) {
        let view = || View {
            epoch: Epoch(epoch),
            members: members.iter().map(|m| (id(*m), Incarnation(1))).collect(),
            slots: SlotMap::from_owners(owners),
            tenures: Tenures::default(),
        };
        for node in self.nodes.iter_mut().flatten() {
            node.handle_view(self.now, view());
        }
        self.frames();
    }

    pub(crate) fn activate(&mut self, epoch: u64) {
        for node in self.nodes.iter_mut().flatten() {
            node.handle_active(self.now, Epoch(epoch));
        }
    }

    pub(crate) fn dies(&mut self, member: u8) {
        self.nodes[usize::from(member) - 1] = None;
        let other = 3 - member;
        if let Some(node) = &mut self.nodes[usize::from(other) - 1] {
            node.handle_disconnected(self.now, id(member));
        }
        self.heard_by = usize::from(other) - 1;
    }

    /// Carries out effects of the members until they have none; frames arrive at once.
    pub(crate) fn frames(&mut self) {
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

    pub(crate) fn carry_out(&mut self, at: usize, effect: Effect) {
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
            Effect::Event(Event::OrderLapsed { order, .. }) => self.lapsed.push((local, order)),
            _ => {}
        }
    }

    /// What the peer sends now, by the path that its hearer sees; its kernel does what it is told.
    pub(crate) fn peer_says(&mut self) -> Vec<(Path, Vec<u8>)> {
        let mut said = Vec::new();
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Kernel(KernelRequest::Install { child, .. }) => {
                    let result = KernelResult::Installed(child.id());
                    self.peer.handle_kernel(self.now, result);
                }
                Output::Transmit(transmit) => {
                    let path = Path::new(transmit.path.remote, transmit.path.local);
                    said.push((path, transmit.bytes));
                }
                Output::Delta(delta) => {
                    if let Change::Upsert(record) = delta.change {
                        self.contacts.extend(record.contact);
                    }
                }
                _ => {}
            }
        }
        said
    }

    /// The peer takes what it was sent, and answers.
    pub(crate) fn run(&mut self) {
        self.frames();
        while let Some((path, bytes)) = self.to_peer.pop_front() {
            self.peer.handle_datagram(self.now, path, &bytes);
            for (path, bytes) in self.peer_says() {
                if let Some(node) = &mut self.nodes[self.heard_by] {
                    node.handle_datagram(self.now, path, &bytes);
                }
            }
            self.frames();
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for node in self.nodes.iter_mut().flatten() {
            node.handle_timeout(self.now);
        }
        self.run();
    }

    /// The peer begins; member 1 hears it.
    pub(crate) fn peer_begins(&mut self, connection: &str) {
        let order = InitiateOrder {
            connection: connection.into(),
            ..InitiateOrder::default()
        };
        self.peer.handle_command(self.now, Command::Initiate(order));
        for (path, bytes) in self.peer_says() {
            let node = self.nodes[0].as_mut().unwrap();
            node.handle_datagram(self.now, path, &bytes);
        }
    }

    /// The peer has waited long enough for an answer, and says it again.
    pub(crate) fn peer_repeats(&mut self) {
        self.now = self.peer.poll_timeout().unwrap();
        self.peer.handle_timeout(self.now);
        for (path, bytes) in self.peer_says() {
            if let Some(node) = &mut self.nodes[self.heard_by] {
                node.handle_datagram(self.now, path, &bytes);
            }
        }
    }

    pub(crate) fn senders(&self) -> BTreeSet<u8> {
        self.sent.iter().map(|(member, _)| *member).collect()
    }

    pub(crate) fn order(
        &mut self,
        member: u8,
        what: What,
    ) -> Result<gateway_node::Outcome, Refused> {
        let order = Order {
            what,
            connection: "out".into(),
            child: None,
            only: None,
        };
        let node = self.nodes[usize::from(member) - 1].as_mut().unwrap();
        node.handle_order(self.now, &order)
    }

    /// Tunnels of the cluster, as a member knows them.
    pub(crate) fn tunnels(&self, member: u8) -> usize {
        let node = self.nodes[usize::from(member) - 1].as_ref().unwrap();
        let spis = node.spis_after(None);
        let sas = spis.filter_map(|(spi, ..)| node.shown_sa(self.now, spi));
        sas.map(|(_, sa)| sa.children.len()).sum()
    }
}
