//! Strangers on the sync network and on the public network: what they send changes counters and
//! nothing else.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{
    Cable, HEARTBEATS, Node, Plan, SYNC, VIP, WITNESS, WITNESS_PORT, Wire, flood, patience,
    public_address, reasons, sync_address, udp_frame, udp_ports,
};

/// Where the stranger sits on the sync network.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 66);
/// Connections that say nothing.
const IDLE: u8 = 60;
/// Tunnels that are up meanwhile.
const SITES: u16 = 4;

/// Forged and replayed heartbeats, frames with members' marked addresses, connections to the sync
/// channel, floods of IKE_SA_INIT, and garbage on every port.
pub(super) fn sync(context: &Context) -> Result<String> {
    let wishes = Wishes {
        plan: Plan {
            sites: SITES,
            ..Plan::default()
        },
        witness: true,
        ..Wishes::default()
    };
    let mut lab = Lab::sprayed(context, "hostile-sync", &wishes)?;
    lab.wait_serving(&lab.member_ids())?;
    for site in 0..SITES {
        lab.bring_up(site)?;
    }
    lab.wait_tables(SITES.into(), SITES.into())?;
    let stranger = lab.network.stranger(&lab.run, Cable::Sync, STRANGER)?;
    let before = Picture::of(&lab)?;
    let idle = idle_connections(&stranger)?;
    let replayed = heartbeats(&lab, &stranger)?;
    let asked = witness_traffic(&lab)?;
    let marked = marked_frames(&lab, &stranger)?;
    let garbage = garbage(&lab, &stranger)?;
    let sent = flood(&lab.network.peer, 600, Duration::from_secs(1))?;
    // Several times the silence after which a member is lost: an effect would show by now.
    std::thread::sleep(3 * lab.cluster.timing.lost);
    let after = Picture::of(&lab)?;
    before.must_equal(&after)?;
    drop(idle);
    lab.witness.as_mut().context("no witness")?.check_alive()?;
    heard_the_witness(&lab)?;
    for site in 1..=SITES {
        let name = format!("site-{site}");
        lab.peer
            .swanctl(&["--rekey", "--child", "net", "--ike", &name])
            .with_context(|| format!("{name} after the attacks"))?;
    }
    Ok(format!(
        "{replayed} heartbeats and {asked} votes replayed and as many forged, {marked} frames with marked addresses, \
         {garbage} octets of garbage, {sent} forged IKE_SA_INITs: views, owners and SAs unchanged"
    ))
}

/// What must not change.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    /// Member → member → slots.
    slots: BTreeMap<u8, BTreeMap<u8, u64>>,
    /// Member → epoch of its view.
    epochs: BTreeMap<u8, Value>,
    /// Member → states of all members as it sees them.
    states: BTreeMap<u8, Vec<Value>>,
    /// Our cookies of established IKE SAs, by member.
    tables: BTreeMap<u8, Vec<Value>>,
    owners: BTreeMap<String, u8>,
}

impl Picture {
    fn of(lab: &Lab) -> Result<Self> {
        let mut picture = Self {
            slots: BTreeMap::new(),
            epochs: BTreeMap::new(),
            states: BTreeMap::new(),
            tables: BTreeMap::new(),
            owners: lab.owners()?,
        };
        for member in &lab.cluster.members {
            let id = member.id;
            picture.slots.insert(id, lab.slots_seen_by(id)?);
            picture
                .epochs
                .insert(id, member.ask("status")?["epoch"].take());
            let members = member.ask("members")?;
            let rows = members["members"].as_array().cloned().unwrap_or_default();
            picture.states.insert(
                id,
                rows.into_iter()
                    .map(|mut row| row["state"].take())
                    .collect(),
            );
            let mut rows = member.ask("table")?["ike_sas"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            rows.sort_by_key(|row| row["cookie"].as_str().map(str::to_owned));
            picture.tables.insert(id, rows);
        }
        Ok(picture)
    }

    fn must_equal(&self, after: &Self) -> Result<()> {
        ensure!(
            self.epochs.values().all(|epoch| epoch.as_u64().is_some()),
            "a member tells no epoch: {:?}",
            self.epochs
        );
        ensure!(self == after, "before: {self:#?}\nafter: {after:#?}");
        Ok(())
    }
}

/// Takes genuine heartbeats off the wire and sends them again, as they were and changed.
fn heartbeats(lab: &Lab, stranger: &Node) -> Result<usize> {
    let tapped = Wire::open(&lab.network.switch, "s-m1")?;
    let is_heartbeat = |frame: &[u8]| {
        udp_ports(frame).is_some_and(|(from, to)| from == HEARTBEATS || to == HEARTBEATS)
    };
    let genuine = tapped.collect(60, Duration::from_secs(5), is_heartbeat)?;
    ensure!(
        genuine.len() == 60,
        "only {} heartbeats in 5 s",
        genuine.len()
    );
    let wire = Wire::open(stranger, "eth0")?;
    for (number, frame) in genuine.iter().enumerate() {
        wire.send(frame)?;
        let mut forged = frame.clone();
        let place = 42 + number % (forged.len() - 42);
        forged[place] ^= 1 << (number % 8);
        wire.send(&forged)?;
    }
    Ok(genuine.len())
}

/// Does the same to what members and witness tell each other, and sends the witness garbage, from a
/// host on the network that it is on.
fn witness_traffic(lab: &Lab) -> Result<usize> {
    let near = lab
        .network
        .host_on(&lab.run, "y", Cable::Inside, Ipv4Addr::new(10, 1, 0, 66))?;
    let is_vote = |frame: &[u8]| {
        udp_ports(frame).is_some_and(|(from, to)| from == WITNESS_PORT || to == WITNESS_PORT)
    };
    let tapped = Wire::open(&lab.network.switch, "w")?;
    let genuine = tapped.collect(20, Duration::from_secs(5), is_vote)?;
    ensure!(
        genuine.len() == 20,
        "only {} datagrams of the witness's in 5 s",
        genuine.len()
    );
    let wire = Wire::open(&near, "eth0")?;
    for (number, frame) in genuine.iter().enumerate() {
        wire.send(frame)?;
        let mut forged = frame.clone();
        let place = 42 + number % (forged.len() - 42);
        forged[place] ^= 1 << (number % 8);
        wire.send(&forged)?;
    }
    near.inside(|| shout(&[WITNESS], &[WITNESS_PORT, HEARTBEATS, SYNC]))?;
    Ok(genuine.len())
}

/// Every member has an answer of the witness that is not old.
fn heard_the_witness(lab: &Lab) -> Result<()> {
    for member in &lab.cluster.members {
        let age = member.ask("view")?["witness_heard_seconds"].as_f64();
        ensure!(
            age.is_some_and(|age| age < 3.0 * lab.cluster.timing.lost.as_secs_f64()),
            "member {} last heard the witness {age:?} s ago",
            member.id
        );
    }
    Ok(())
}

/// Connections to the members' sync channels on which nothing is said.
fn idle_connections(stranger: &Node) -> Result<Vec<TcpStream>> {
    stranger.inside(|| {
        let targets = (0..IDLE).map(|number| sync_address(number % 3 + 1));
        let wait = Duration::from_millis(300) * patience();
        let open = |target| TcpStream::connect_timeout(&SocketAddr::from((target, SYNC)), wait);
        // Who is not let in has been refused: that is an answer, too.
        Ok(targets.filter_map(|target| open(target).ok()).collect())
    })
}

/// Frames that seem to have been forwarded by members.
fn marked_frames(lab: &Lab, stranger: &Node) -> Result<usize> {
    let wire = Wire::open(stranger, "eth0")?;
    let refused = [
        "sync_unknown_member",
        "sync_wrong_destination",
        "sync_foreign_cluster",
    ];
    let count = |lab: &Lab| -> Result<u64> {
        let mut sum = 0;
        for node in &lab.network.members {
            let all = reasons(node)?;
            sum += refused
                .iter()
                .filter_map(|reason| all.get(reason))
                .sum::<u64>();
        }
        Ok(sum)
    };
    let before = count(lab)?;
    let mut sent = 0;
    for (id, node) in (1u8..).zip(&lab.network.members) {
        let mac = node.mac("eth1")?;
        // A cluster that is not ours, a member that does not exist, the receiver itself; and a
        // known member, but to an address that nobody forwards to.
        for (cluster, member, to) in [
            (9, 1, VIP),
            (1, 63, VIP),
            (1, id, VIP),
            (1, id % 3 + 1, Ipv4Addr::new(10, 99, 0, 77)),
        ] {
            let source = [0x02, 0x47, 0x57, 0x46, cluster, member];
            for port in [500, 4500, HEARTBEATS] {
                let frame = udp_frame((source, mac), (STRANGER, 500), (to, port), &[0x55; 64]);
                wire.send(&frame)?;
                sent += 1;
            }
        }
    }
    let dropped = count(lab)? - before;
    ensure!(
        dropped == sent as u64,
        "{dropped} of {sent} frames with marked addresses were dropped"
    );
    Ok(sent)
}

/// Garbage to every port that members listen on, on both networks, and to SPIs nobody has.
fn garbage(lab: &Lab, stranger: &Node) -> Result<usize> {
    let ids = lab.member_ids();
    let near: Vec<Ipv4Addr> = ids.iter().map(|id| sync_address(*id)).collect();
    let mut far: Vec<Ipv4Addr> = ids.iter().map(|id| public_address(*id)).collect();
    far.push(VIP);
    let ports = [500, 4500, HEARTBEATS, SYNC, WITNESS_PORT];
    let mut octets = stranger.inside(|| shout(&near, &ports))?;
    octets += lab.network.peer.inside(|| shout(&far, &ports))?;
    Ok(octets)
}

fn shout(targets: &[Ipv4Addr], ports: &[u16]) -> Result<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut octets = 0;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for target in targets {
        for port in ports {
            for length in [1, 12, 28, 64, 200, 1200] {
                let mut datagram = vec![0; length];
                for octet in &mut datagram {
                    // xorshift: any octets, the same in every run.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    *octet = (state >> 32) as u8;
                }
                // Refused by ICMP where nobody listens: then it was not received either.
                if socket.send_to(&datagram, (*target, *port)).is_ok() {
                    octets += length;
                }
            }
        }
        octets += dial(*target);
    }
    Ok(octets)
}

/// Garbage instead of a TLS handshake, if anybody accepts the connection.
fn dial(target: Ipv4Addr) -> usize {
    let address = SocketAddr::from((target, SYNC));
    let wait = Duration::from_millis(300) * patience();
    let Ok(mut stream) = TcpStream::connect_timeout(&address, wait) else {
        return 0;
    };
    let noise = [0x16, 0x03, 0x01, 0xff, 0xff, 0x42, 0x42, 0x42];
    noise.len() * usize::from(stream.write_all(&noise).is_ok())
}
