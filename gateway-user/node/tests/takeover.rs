//! What a takeover does at once, and what it leaves for later.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gateway_cluster::Cluster;
use gateway_cluster::change::{Change, Child, Mirror, Reserved, Sa};
use gateway_cluster::frame::Incarnation;
use gateway_cluster::network::Network;
use gateway_cluster::output::Output;
use gateway_cluster::secret::Secret;
use gateway_cluster::slot_map::{SlotMap, Weighted};
use gateway_cluster::view::{Epoch, Tenure, Tenures, View};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use gateway_ike::crypto::Encryption;
use gateway_ike::identity::Identity;
use gateway_ike::keys::{IkeKeys, SkD, SkE, SkP};
use gateway_ike::output::Path;
use gateway_ike::proposal::IkeProposal;
use gateway_ike::record::{Contact, IkeSaRecord, Role};
use gateway_ike::secret::SecretBytes;
use gateway_ike::testing::{FreshSa, Toy, fresh_child};
use gateway_node::effect::{Effect, KernelOp};
use gateway_node::{Config, Node, Status, WalkLimits};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
const FAR: Duration = Duration::from_secs(100_000);

fn id(member: u8) -> MemberId {
    MemberId::new(member).unwrap()
}

fn cluster_config(local: MemberId) -> gateway_cluster::config::Config {
    gateway_cluster::config::Config {
        local,
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
    }
}

fn view(epoch: u64, members: &[u8], owner: u8) -> View {
    View {
        epoch: Epoch(epoch),
        members: members.iter().map(|m| (id(*m), Incarnation(1))).collect(),
        slots: SlotMap::from_owners([Some(id(owner)); Slot::COUNT]),
        // In these tests every view has another owner.
        tenures: Tenures::all(Tenure(epoch)),
    }
}

/// Number `n`, established by member 2.
fn record(n: u32) -> IkeSaRecord {
    let secret = |octet: u8, len: usize| SecretBytes::from(&vec![octet; len][..]);
    let slot = Slot(n as u8);
    let peer = IpAddr::from(0x0b00_0000u32.wrapping_add(n).to_be_bytes());
    let mut spi = [0; 8];
    spi[..4].copy_from_slice(&n.to_be_bytes());
    spi[7] = 2;
    let mut sa = fresh_child(
        "site",
        (
            (0x0100_0000 + n).to_be_bytes(),
            (0x0200_0000 + n).to_be_bytes(),
        ),
        (VIP, peer),
        (Encryption::AesGcm16Key128, true),
        (secret(1, 20), secret(2, 20)),
    );
    sa.slot = slot;
    let proposals = IkeProposal::parse("aes128gcm16-prfsha256-x25519").unwrap();
    FreshSa {
        spis: (spi, spi.map(|octet| !octet)),
        role: Role::Responder,
        ids: (
            Identity::Fqdn("gw.example.org".into()),
            Identity::Fqdn(format!("peer{n}.example.org")),
        ),
        path: Path::new(SocketAddr::new(VIP, 500), SocketAddr::new(peer, 500)),
        proposal: *proposals.first().unwrap(),
        keys: IkeKeys {
            d: SkD::from_secret(secret(3, 32)),
            ei: SkE::from_secret(secret(4, 20)),
            er: SkE::from_secret(secret(5, 20)),
            pi: SkP::from_secret(secret(6, 32)),
            pr: SkP::from_secret(secret(7, 32)),
        },
        child: sa,
    }
    .record()
}

fn published(record: &IkeSaRecord) -> Change {
    let sa = &record.children[0].sa;
    Change::SaUpsert(Sa {
        local_spi: record.local_spi,
        children: vec![Child {
            spi_in: sa.spi_in,
            vip: sa.local,
            spi_out: sa.spi_out,
            peer: sa.remote,
            remote_nets: Network::new(0, sa.remote, 32).into_iter().collect(),
            reserved: Reserved::default(),
        }],
        record: Secret::new(record.encode().expose().to_vec()),
        ..Sa::default()
    })
}

/// Member 1, and the core of member 2, which feeds it.
struct Pair {
    now: Instant,
    node: Node,
    feeder: Cluster,
    copies: usize,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let ike = gateway_ike::config::Config {
            member: id(1),
            incarnation: 1,
            connections: Vec::new(),
            secrets: Vec::new(),
            ppks: Vec::new(),
            limits: gateway_ike::config::Limits::default(),
        };
        let config = Config {
            ike: Arc::new(ike),
            cluster: cluster_config(id(1)),
            walk: WalkLimits::default(),
        };
        let mut pair = Self {
            now,
            node: Node::new(config, Arc::new(Toy::new(1)), now),
            feeder: Cluster::new(cluster_config(id(2)), now),
            copies: 0,
        };
        pair.node.set_lease(now + FAR);
        pair.node.handle_connected(now, id(2));
        pair.feeder.handle_connected(now, id(1));
        pair.settle();
        pair.node.handle_view(now, view(1, &[1, 2], 2));
        pair.feeder.handle_view(now, view(1, &[1, 2], 2));
        pair.settle();
        pair.node.handle_active(pair.now, Epoch(1));
        pair.feeder.handle_active(pair.now, Epoch(1));
        pair.settle();
        pair
    }

    fn publish(&mut self, slot: Slot, change: Change) {
        self.feeder
            .publish(self.now, slot, change, Mirror::Urgent)
            .unwrap();
    }

    /// Member 2 dies, and member 1 has everything.
    fn take_over(&mut self) {
        let now = self.now;
        self.node.handle_disconnected(now, id(2));
        self.node.handle_view(now, view(2, &[1], 1));
        self.node.handle_active(now, Epoch(2));
    }

    /// Exchanges frames until both are quiet, and then for some time.
    fn settle(&mut self) {
        for _ in 0..3 {
            while self.exchange() {}
            self.now = self.now + Duration::from_millis(10);
            self.node.handle_timeout(self.now);
            self.feeder.handle_timeout(self.now);
        }
        while self.exchange() {}
    }

    fn exchange(&mut self) -> bool {
        let mut busy = false;
        while let Some(output) = self.feeder.poll_output() {
            if let Output::Send { frame, .. } = output {
                busy = true;
                self.node.handle_frame(self.now, id(2), frame.expose());
            }
        }
        while let Some(effect) = self.node.poll_effect() {
            match effect {
                Effect::Frame { frame, .. } => {
                    busy = true;
                    self.feeder.handle_frame(self.now, id(1), frame.expose());
                }
                Effect::Kernel(KernelOp::Copy { .. }) => self.copies += 1,
                _ => {}
            }
        }
        busy
    }
}

/// Writes to maps and to the kernel when member 2 dies with so many SAs.
fn writes_at_takeover(sas: u32) -> BTreeMap<&'static str, usize> {
    let mut pair = Pair::new();
    for n in 0..sas {
        let record = record(n);
        let change = published(&record);
        pair.publish(record.slot, change);
        if n % 500 == 499 {
            pair.settle();
        }
    }
    pair.settle();
    let expected = usize::try_from(sas).unwrap();
    assert_eq!(pair.node.status().ike_sas, expected);
    assert_eq!(pair.copies, expected);

    let now = pair.now;
    pair.take_over();
    let mut writes = BTreeMap::from([("table", 0), ("kernel", 0)]);
    while let Some(effect) = pair.node.poll_effect() {
        match effect {
            Effect::Table(_) => *writes.entry("table").or_default() += 1,
            Effect::Kernel(_) => *writes.entry("kernel").or_default() += 1,
            Effect::Transmit(transmit) => panic!("{:?} too early", transmit.path),
            _ => {}
        }
    }
    assert_eq!(pair.node.status().counters.woken, 0);
    // The SAs are this member's by now: each has its turn, later.
    let later = now + WalkLimits::default().delay;
    pair.node.handle_timeout(later);
    assert!(pair.node.status().counters.woken > 0);
    writes
}

#[test]
fn a_takeover_writes_the_same_for_any_number_of_sas() {
    assert_eq!(writes_at_takeover(100), writes_at_takeover(100_000));
}

/// Or what is established within the pause before the first check would be asked for a sign of life.
#[test]
fn slots_without_an_sa_are_not_looked_after() {
    let mut pair = Pair::new();
    let records = [record(1), record(2)];
    let slots: BTreeSet<Slot> = records.iter().map(|record| record.slot).collect();
    for record in &records {
        pair.publish(record.slot, published(record));
    }
    pair.settle();
    pair.take_over();
    assert_eq!(pair.node.status().walk_left, slots.len());
}

/// The octets of a request about an IKE SA that anybody can make up.
fn forged(record: &IkeSaRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(record.remote_spi);
    bytes.extend(record.local_spi);
    // SK comes next, version 2.0, INFORMATIONAL, from the initiator, Message ID 2, 68 octets.
    bytes.extend([46, 0x20, 37, 0x08, 0, 0, 0, 2, 0, 0, 0, 68]);
    bytes.extend([0, 0, 0, 40]);
    bytes.extend([7; 36]);
    bytes
}

/// RFC 7296 §2.4: the peer said in IKE_AUTH that it has no other IKE SA, and who heard it died before
/// it had acted on that.
#[test]
fn a_strangers_datagram_does_not_bring_on_what_is_left_to_decide() {
    let mut pair = Pair::new();
    let old = record(1);
    let mut new = record(257);
    assert_eq!(old.slot, new.slot);
    new.remote_id = old.remote_id.clone();
    new.contact = Some(Contact::Initial);
    for record in [&old, &new] {
        let Change::SaUpsert(mut sa) = published(record) else {
            panic!("an IKE SA");
        };
        sa.identities = Some([1; 16]);
        pair.publish(record.slot, Change::SaUpsert(sa));
    }
    pair.settle();
    pair.take_over();
    let before = pair.node.status();
    assert_eq!(before.ike_sas, 2);

    let stranger = SocketAddr::new([192, 0, 2, 66].into(), 500);
    let path = Path::new(SocketAddr::new(VIP, 500), stranger);
    pair.node.handle_datagram(pair.now, path, &forged(&new));
    let after = pair.node.status();
    assert_eq!(after.counters.woken, 2);
    let told = |status: &Status| (status.ike_sas, status.record_octets);
    assert_eq!(told(&after), told(&before));

    // Each has its turn, later.
    for _ in 0..2 {
        pair.now = pair.node.poll_timeout().unwrap();
        pair.now = pair.now + WalkLimits::default().delay;
        pair.node.handle_timeout(pair.now);
    }
    assert_eq!(pair.node.status().ike_sas, 1);
}
