//! The cluster core on the transport, as the agent drives it.

use gateway_cluster::Cluster;
use gateway_cluster::change::{Change, Mirror, Sa};
use gateway_cluster::config::{Config, Limits};
use gateway_cluster::frame::{DeltaSeq, Incarnation};
use gateway_cluster::output::Output;
use gateway_cluster::slot_map::{Mode, SlotMap, Weighted};
use gateway_cluster::view::{Epoch, Tenures, View};
use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use super::*;

/// A core on a transport, as the agent drives it.
struct Driven {
    node: Node,
    core: Cluster,
    origin: StdInstant,
    released: DeltaSeq,
    upserted: usize,
}

impl Driven {
    fn start(member: u8, port: u16, run: u64, origin: StdInstant) -> Self {
        let members = (1..=3).map(|m| Weighted {
            member: id(m),
            weight: 1,
        });
        let core = Config {
            local: id(member),
            members: members.collect(),
            cluster_id: 1,
            cluster_name: "hq".into(),
            config_hash: [0; 32],
            incarnation: Incarnation(run),
            limits: Limits::default(),
        };
        // Member 1 alone is in the view; the others follow it.
        let owner = Weighted {
            member: id(1),
            weight: 1,
        };
        let view = View {
            epoch: Epoch(1),
            members: [(id(1), Incarnation(1))].into(),
            slots: SlotMap::UNSET.next(&[owner], Mode::LoadSharing),
            tenures: Tenures::default(),
        };
        let mut core = Cluster::new(core, Instant::from_nanos(0));
        core.handle_view(Instant::from_nanos(0), view);
        Self {
            node: Node::start(config(member, 3, port, PKI.credentials(member))),
            core,
            origin,
            released: DeltaSeq(0),
            upserted: 0,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.origin.elapsed().as_nanos() as u64)
    }

    fn publish(&mut self, n: u8) -> DeltaSeq {
        let sa = Sa {
            local_spi: [n; 8],
            children: Vec::new(),
            record: Secret::new(vec![n; 20_000]),
            ..Sa::default()
        };
        let now = self.now();
        let change = Change::SaUpsert(sa);
        let seq = self.core.publish(now, Slot(3 * n), change, Mirror::Urgent);
        self.drain();
        seq.unwrap()
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send { to, frame, class } => {
                    let _ = self.node.transport.send(to, frame, class);
                }
                Output::Disconnect(member) => self.node.transport.disconnect(member),
                Output::Released(seq) => self.released = seq,
                Output::RecordUpserted { .. } => self.upserted += 1,
                _ => {}
            }
        }
    }

    async fn step(&mut self) {
        let event = timeout(Duration::from_millis(2), self.node.events.recv()).await;
        let now = self.now();
        match event {
            Ok(Some(TransportEvent::Connected { member, .. })) => {
                self.core.handle_connected(now, member);
            }
            Ok(Some(TransportEvent::Frame { member, bytes })) => {
                self.core.handle_frame(now, member, bytes.expose());
            }
            Ok(Some(TransportEvent::Disconnected { member, .. })) => {
                self.core.handle_disconnected(now, member);
            }
            Ok(None) | Err(_) => {}
        }
        self.core.handle_timeout(now);
        self.drain();
    }

    fn in_sync(&self) -> bool {
        self.core.status().peers.iter().all(|peer| peer.in_sync)
    }
}

async fn drive(nodes: &mut BTreeMap<u8, Driven>, done: impl Fn(&BTreeMap<u8, Driven>) -> bool) {
    let start = StdInstant::now();
    while !done(nodes) {
        assert!(start.elapsed() < PATIENCE, "does not converge");
        for node in nodes.values_mut() {
            node.step().await;
        }
    }
}

#[tokio::test]
async fn three_cores_converge_over_tls() {
    let (port, origin) = (free_port(), StdInstant::now());
    let mut nodes: BTreeMap<u8, Driven> = (1..=3)
        .map(|member| (member, Driven::start(member, port, 1, origin)))
        .collect();
    for n in 0..60 {
        nodes.get_mut(&1).unwrap().publish(n);
    }
    drive(&mut nodes, |nodes| nodes.values().all(Driven::in_sync)).await;
    let seq = nodes.get_mut(&1).unwrap().publish(60);
    assert!(nodes[&1].released < seq, "not before they have it");
    drive(&mut nodes, |nodes| nodes[&1].released == seq).await;
    let everywhere = |nodes: &BTreeMap<u8, Driven>| {
        nodes
            .values()
            .all(|node| node.core.ownership().sas().count() == 61)
    };
    assert!(everywhere(&nodes));
    assert_eq!((nodes[&2].upserted, nodes[&3].upserted), (61, 61));
    // Member 3 is restarted and catches up.
    nodes.remove(&3);
    drive(&mut nodes, |nodes| !nodes[&1].core.is_up(id(3))).await;
    nodes.insert(3, Driven::start(3, port, 2, origin));
    drive(&mut nodes, |nodes| {
        everywhere(nodes) && nodes.values().all(Driven::in_sync)
    })
    .await;
}
