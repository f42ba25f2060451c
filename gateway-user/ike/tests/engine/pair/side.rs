//! One side: a member, its kernel, and the replica that goes on when it dies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use gateway_ike::config::{ChildConfig, Config, Connection, Secret};
use gateway_ike::endpoint::{Command, Endpoint, InitiateOrder, SaStatus};
use gateway_ike::output::{
    Change, ChildId, ChildSa, DecisionHandle, Delta, DeltaId, EventKind, KernelRequest,
    KernelResult, Output, Path, Transmit,
};
use gateway_ike::record::{IkeSaRecord, Role};
use gateway_ike::secret::SecretBytes;

use crate::config::{PSK, child, config, id};
use crate::gateway::{Gateway, crypto};
use crate::initiator::Initiator;
use crate::opening::link::configs;

/// What an operator or a node may order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Liveness,
    RekeyChild,
    RekeyIke,
    Sync,
    Initiate { persistent: bool },
    Terminate,
    TerminateChild,
    Die,
}

/// What a side wants of the world.
pub(super) enum Effect {
    Delta,
    Kernel(KernelResult),
    Decide(DecisionHandle),
    Transmit(Transmit),
}

/// Records as octets, and when they came.
type Replica = BTreeMap<[u8; 8], (Vec<u8>, Instant)>;

pub(crate) struct Side {
    pub(crate) endpoint: Endpoint,
    connection: Arc<Connection>,
    /// The two members of this side; they take turns.
    members: [u8; 2],
    /// Counts take-overs.
    pub(crate) life: u32,
    seed: u64,
    /// What the replica has, as octets.
    replica: Replica,
    on_the_way: VecDeque<(DeltaId, Change)>,
    acknowledged: Option<DeltaId>,
    held: VecDeque<(DeltaId, Transmit)>,
    pub(crate) kernel: BTreeMap<ChildId, ChildSa>,
    pub(crate) log: Vec<String>,
    /// Whoever takes over initiates what is not there.
    pub(crate) starts: bool,
}

/// Both sides' configuration, and that they retransmit often enough for any weather.
fn side_config(connection: &Arc<Connection>, member: u8, incarnation: u16) -> Config {
    let mut config = config();
    config.member = MemberId::new(member).unwrap();
    config.incarnation = incarnation;
    config.connections = vec![Arc::clone(connection)];
    config.secrets = vec![Secret {
        ids: Vec::new(),
        secret: SecretBytes::from(PSK),
    }];
    config.limits.retransmit_timeout = Duration::from_millis(500);
    config.limits.retransmit_tries = 8;
    config.limits.retry_delay = Duration::from_secs(3);
    config
}

/// An IKE SA that the test initiator made; then an endpoint goes on in its place.
pub(super) fn established(
    seed: u64,
    peer: Initiator,
    tweak: impl Fn(usize, &mut Connection, &mut ChildConfig),
) -> ([Side; 2], Instant) {
    let mut gateway = Gateway::seeded(config(), 2 * seed + 1);
    let mut peer = peer;
    peer.connect(&mut gateway).unwrap();
    let (_, record) = gateway.last_record();
    let ours = (*config().connections[0]).clone();
    let theirs = Connection {
        local_id: id("peer.example.org"),
        remote_id: "gw.example.org".parse().unwrap(),
        ..ours.clone()
    };
    let nets = [
        ["10.1.0.0/16", "10.2.0.0/16"],
        ["10.2.0.0/16", "10.1.0.0/16"],
    ];
    let mut side = 0;
    let [ours, theirs] = [ours, theirs].map(|mut connection| {
        let mut child = child("net", nets[side][0], nets[side][1]);
        tweak(side, &mut connection, &mut child);
        connection.children = vec![Arc::new(child)];
        side += 1;
        Arc::new(connection)
    });
    let mirrored = mirror(record, peer.next_id);
    let now = gateway.now;
    (
        [
            Side::new(ours, [5, 6], seed, record.clone(), now),
            Side::new(theirs, [25, 26], seed + 0x5000_0000, mirrored, now),
        ],
        now,
    )
}

/// Two sides that know each other's addresses and have nothing yet.
pub(super) fn unconnected(
    seed: u64,
    tweak: impl Fn(usize, &mut Connection, &mut ChildConfig),
) -> ([Side; 2], Instant) {
    let now = Instant::from_nanos(1_000_000_000);
    let [a, b] = configs(tweak).map(|config| Arc::clone(&config.connections[0]));
    let seeds = [seed, seed + 0x5000_0000];
    (
        [
            Side::blank(a, [5, 6], seeds[0], now),
            Side::blank(b, [25, 26], seeds[1], now),
        ],
        now,
    )
}

/// The same IKE SA as the peer sees it.
fn mirror(record: &IkeSaRecord, next_request: u32) -> IkeSaRecord {
    let mut mirrored = record.clone();
    mirrored.role = Role::Initiator;
    mirrored.path = Path::new(record.path.remote, record.path.local);
    (mirrored.local_spi, mirrored.remote_spi) = (record.remote_spi, record.local_spi);
    (mirrored.local_id, mirrored.remote_id) = (record.remote_id.clone(), record.local_id.clone());
    mirrored.next_request = next_request;
    mirrored.expected_request = 0;
    mirrored.last_response = None;
    mirrored.peer_syncs = true;
    for child in &mut mirrored.children {
        let sa = &mut child.sa;
        std::mem::swap(&mut sa.spi_in, &mut sa.spi_out);
        std::mem::swap(&mut sa.local, &mut sa.remote);
        std::mem::swap(&mut sa.key_in, &mut sa.key_out);
        std::mem::swap(&mut sa.local_ts, &mut sa.remote_ts);
    }
    mirrored
}

impl Side {
    fn new(
        connection: Arc<Connection>,
        members: [u8; 2],
        seed: u64,
        mut record: IkeSaRecord,
        now: Instant,
    ) -> Self {
        record.peer_syncs = true;
        record.transport.fragments = true;
        let mut side = Self::blank(connection, members, seed, now);
        let octets = record.encode().expose().to_vec();
        side.replica.insert(record.local_spi, (octets, now));
        side.import(now);
        side
    }

    fn blank(connection: Arc<Connection>, members: [u8; 2], seed: u64, now: Instant) -> Self {
        let config = Arc::new(side_config(&connection, members[0], 1));
        Self {
            endpoint: Endpoint::new(config, crypto(seed), now),
            connection,
            members,
            life: 0,
            seed,
            replica: BTreeMap::new(),
            on_the_way: VecDeque::new(),
            acknowledged: None,
            held: VecDeque::new(),
            kernel: BTreeMap::new(),
            log: Vec::new(),
            starts: false,
        }
    }

    /// Orders a tunnel.
    pub(crate) fn initiate(&mut self, now: Instant, persistent: bool) {
        let order = InitiateOrder {
            connection: self.connection.name.clone(),
            persistent,
            initial_contact: true,
            ..InitiateOrder::default()
        };
        self.endpoint.handle_command(now, Command::Initiate(order));
    }

    /// Imports what the replica has, whose kernel has copies of the children.
    fn import(&mut self, now: Instant) {
        self.kernel.clear();
        for (octets, received) in self.replica.values() {
            let mut record = IkeSaRecord::decode(octets).unwrap();
            record.grow_older(now.saturating_since(*received));
            for child in &record.children {
                self.kernel.insert(child.sa.id(), child.sa.clone());
            }
            let import = Command::Import(Box::new(record));
            self.endpoint.handle_command(now, import);
        }
    }

    pub(crate) fn take_over(&mut self, now: Instant) {
        self.life += 1;
        let member = self.members[self.life as usize % 2];
        let incarnation = 1 + u16::try_from(self.life).unwrap();
        let config = Arc::new(side_config(&self.connection, member, incarnation));
        let seed = self.seed + 7919 * u64::from(self.life);
        self.endpoint = Endpoint::new(config, crypto(seed), now);
        self.on_the_way.clear();
        self.held.clear();
        self.acknowledged = None;
        self.log.push(format!("{now:?} member {member} takes over"));
        self.import(now);
    }

    /// The oldest delta reaches the replica.
    pub(super) fn replicate(&mut self, now: Instant) {
        let Some((id, change)) = self.on_the_way.pop_front() else {
            return;
        };
        match change {
            Change::Upsert(record) => {
                let octets = record.encode().expose().to_vec();
                self.replica.insert(record.local_spi, (octets, now));
            }
            Change::Removed { local_spi } => {
                self.replica.remove(&local_spi);
            }
            Change::NegotiationOpened { .. } | Change::NegotiationClosed { .. } => {}
        }
        self.acknowledged = Some(id);
    }

    /// What may leave now.
    pub(super) fn release(&mut self) -> Vec<Transmit> {
        let mut free = Vec::new();
        while let Some((id, _)) = self.held.front()
            && Some(*id) <= self.acknowledged
        {
            free.extend(self.held.pop_front().map(|(_, transmit)| transmit));
        }
        free
    }

    /// The next thing that needs the world.
    pub(super) fn poll(&mut self) -> Option<Effect> {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => match transmit.after {
                    Some(id) if Some(id) > self.acknowledged => {
                        self.held.push_back((id, transmit));
                    }
                    _ => return Some(Effect::Transmit(transmit)),
                },
                Output::Delta(Delta { id, change, .. }) => {
                    self.on_the_way.push_back((id, change));
                    return Some(Effect::Delta);
                }
                Output::Kernel(request) => {
                    if let Some(result) = self.ask_kernel(request) {
                        return Some(Effect::Kernel(result));
                    }
                }
                Output::Decide(question) => return Some(Effect::Decide(question.handle)),
                Output::Event(event) => match event.kind {
                    EventKind::DatagramDropped { .. } => {}
                    kind => self.log.push(format!("{kind:?}")),
                },
            }
        }
        None
    }

    fn ask_kernel(&mut self, request: KernelRequest) -> Option<KernelResult> {
        match request {
            KernelRequest::Install { child, replaces } => {
                let id = child.id();
                assert!(
                    replaces.is_none_or(|old| self.kernel.contains_key(&old)),
                    "replaces what is not there"
                );
                assert!(self.kernel.insert(id, *child).is_none(), "installed twice");
                Some(KernelResult::Installed(id))
            }
            KernelRequest::Remove { child } => {
                assert!(self.kernel.remove(&child).is_some(), "removed twice");
                None
            }
            KernelRequest::Promote { child } => {
                assert!(self.kernel.contains_key(&child));
                None
            }
            KernelRequest::Update { child } => {
                assert!(self.kernel.insert(child.id(), *child).is_some());
                None
            }
        }
    }

    /// The IKE SA that is in use: the youngest.
    pub(crate) fn current(&self) -> Option<SaStatus> {
        self.endpoint
            .sas()
            .max_by_key(|sa| (sa.children.len(), sa.established_at))
    }

    pub(crate) fn spis(&self) -> Vec<[u8; 8]> {
        self.endpoint.sas().map(|sa| sa.local_spi).collect()
    }

    /// What the replica has now.
    pub(crate) fn snapshot(&self) -> Replica {
        self.replica.clone()
    }

    /// The replica has missed everything since.
    pub(crate) fn restore(&mut self, snapshot: Replica) {
        self.replica = snapshot;
    }

    /// The records of the member that serves.
    pub(crate) fn records(&self, now: Instant) -> Vec<IkeSaRecord> {
        self.endpoint.export(now).collect()
    }

    /// What the replica would go on from.
    pub(crate) fn replica(&self) -> Vec<IkeSaRecord> {
        let decode = |(octets, _): &(Vec<u8>, Instant)| IkeSaRecord::decode(octets).unwrap();
        let live = |record: &IkeSaRecord| record.closed.is_none();
        self.replica.values().map(decode).filter(live).collect()
    }
}
