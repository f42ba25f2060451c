//! Single scenes in small worlds, staged by hand: what must happen, where seeds only show what must
//! not.

use std::time::Duration;

use gateway_cluster::membership::Timing;
use gateway_common::member::MemberId;
use gateway_ike::endpoint::{Command, Target};
use gateway_ike::output::{ChildId, Path};

use super::Options;
use super::event::Event;
use super::host::{Input, NodeInput};
use super::net::Blocked;
use super::peer::Peer;
use super::plan::Plan;
use super::rng::Rng;
use super::world::{World, party};
use crate::effect::KernelEvent;

/// Fair weather, and nobody does anything.
fn world(seed: u64, members: u8, peers: u8) -> World {
    staged(seed, members, peers, false)
}

/// The same; with `availability` two members go on alone when they do not find each other.
fn staged(seed: u64, members: u8, peers: u8, availability: bool) -> World {
    let plan = Plan {
        members,
        peers,
        trouble: Duration::ZERO,
        faults: 0,
        patience: Duration::from_secs(20),
        timing: Timing {
            cold_start: Duration::from_millis(700),
            ..Timing::DEFAULT
        },
        witness: false,
        availability,
        loss: 0,
        duplication: 0,
        heartbeat_loss: 0,
        delay: Duration::from_millis(1),
    };
    let options = Options {
        seed,
        ..Options::default()
    };
    let mut world = World::planned(options, plan, Rng::new(seed));
    world.populate();
    world.pass(3000);
    world
}

impl World {
    fn pass(&mut self, millis: u64) {
        self.run_until(self.now + Duration::from_millis(millis));
        assert_eq!(self.check.violation, None, "seed {}", self.seed);
    }

    fn connect(&mut self, peer: usize) {
        let now = self.now;
        self.peers[peer].connect(now);
        self.after_peer(peer);
        self.pass(500);
        assert_eq!(self.peers[peer].established(), 1);
    }

    fn command(&mut self, peer: usize, command: Command) {
        let now = self.now;
        self.peers[peer].command(now, command);
        self.after_peer(peer);
    }

    /// The peer's power fails, and comes back: it has forgotten everything.
    fn reboot(&mut self, peer: usize) {
        let index = u8::try_from(peer).unwrap();
        let reborn = Peer::new(index, self.seed ^ 0xfeed, party(index), self.now);
        self.peers[peer] = reborn;
    }

    /// The soft lifetime of a CHILD_SA runs out: its owner rekeys it.
    fn expire(&mut self, owner: MemberId, child: ChildId) {
        let event = KernelEvent::Expired { child, hard: false };
        self.input(owner, Input::Node(NodeInput::Kernel(event)));
    }

    fn owner(&self, spi: [u8; 8]) -> MemberId {
        let host = self.hosts.values().find(|host| host.agent.is_some());
        let node = &host.unwrap().agent.as_ref().unwrap().node;
        let held = node.cluster().ownership().sa(spi).unwrap();
        node.view().slots.owner(held.slot).unwrap()
    }

    /// For each member that runs: the live IKE SAs, the tombstones, and those that have moved.
    fn census(&self) -> Vec<(usize, usize, usize)> {
        let agents = self.hosts.values().filter_map(|host| host.agent.as_ref());
        agents
            .map(|agent| {
                let status = agent.node.status();
                let sas = agent.node.cluster().ownership().sas();
                let moved = sas.filter(|held| held.sa.moves > 0).count();
                (status.ike_sas, status.tombstones, moved)
            })
            .collect()
    }

    /// A member's host is gone for good.
    fn lose(&mut self, member: MemberId) {
        let others: Vec<MemberId> = self
            .hosts
            .keys()
            .copied()
            .filter(|m| *m != member)
            .collect();
        if let Some(host) = self.hosts.get_mut(&member) {
            host.kill_agent();
            host.powered = false;
        }
        for other in others {
            self.net.disconnect(member, other);
        }
    }
}

/// The answer to a DELETE of the IKE SA is as lasting as every other answer: whoever has taken over
/// gives the same octets again, for as long as the first one would have.
#[test]
fn a_delete_is_answered_again_after_a_takeover() {
    let mut world = world(1, 3, 1);
    world.connect(0);
    let (own, _) = world.peers[0].own_spis()[0];
    let spi = world.peers[0].gateway_spi().unwrap();
    let owner = world.owner(spi);
    world.command(0, Command::Terminate(Target::Ike(own)));
    let delete = world.captured.last().unwrap().clone();
    world.pass(200);
    assert_eq!(world.peers[0].established(), 0);
    assert_eq!(world.census(), [(0, 1, 0); 3]);

    world.lose(owner);
    world.pass(1000);
    let heir = world.owner(spi);
    assert_ne!(heir, owner);
    let sent = world.check.ike_sent;
    let path = party(0).path;
    let event = Event::IkeAtMember {
        member: heir,
        path: Path::new(path.remote, path.local),
        bytes: delete.clone(),
        hops: 0,
    };
    world.at(world.now, event);
    // That it is the same answer the rules see to: one message, one content.
    world.pass(100);
    assert_eq!(world.check.ike_sent, sent + 1);
    // In the end nobody remembers it.
    world.pass(6000);
    assert_eq!(world.census(), [(0, 0, 0); 2]);
}

/// A peer that has lost everything comes back, to another slot: INITIAL_CONTACT ends its old IKE SA,
/// wherever that is; without it both stay (uniqueness is off).
#[test]
fn initial_contact_reaches_the_slot_of_the_old_ike_sa() {
    let mut moved = 0;
    for seed in 0..12 {
        for initial in [true, false] {
            let mut world = world(seed, 3, 1);
            world.connect(0);
            let old = world.peers[0].gateway_spi().unwrap();
            if initial {
                world.reboot(0);
                world.connect(0);
            } else {
                let now = world.now;
                world.peers[0].connect(now);
                world.after_peer(0);
            }
            world.pass(1000);
            let new = world.peers[0].gateway_spi().unwrap();
            assert_ne!(old, new, "seed {seed}");
            let census = world.census();
            let expected = if initial { 1 } else { 2 };
            assert!(
                census.iter().all(|(live, _, _)| *live == expected),
                "seed {seed}, initial contact {initial}: {census:?}"
            );
            moved += usize::from(initial && census[0].2 > 0);
            // The new one is alive, wherever it is.
            let (own, _) = *world.peers[0].own_spis().last().unwrap();
            world.command(0, Command::Liveness { local_spi: own });
            world.pass(300);
        }
    }
    assert!(moved >= 3, "{moved} moves");
}

/// As above, but the old IKE SA sleeps on a member that has just taken it over, in whose own slot the
/// new one is.
#[test]
fn initial_contact_wakes_what_a_takeover_has_left_asleep() {
    for seed in 0..12 {
        let mut world = world(seed, 3, 1);
        world.connect(0);
        let owner = world.owner(world.peers[0].gateway_spi().unwrap());
        world.lose(owner);
        world.pass(600);
        world.reboot(0);
        world.connect(0);
        world.pass(1000);
        let census = world.census();
        assert!(
            census.iter().all(|(live, _, _)| *live == 1),
            "seed {seed}: {census:?}"
        );
    }
}

/// What a cut holds up arrives after it in the order in which it was sent, as over TCP: a member that
/// acknowledged less than before would not be believed to have caught up.
#[test]
fn what_a_cut_holds_up_arrives_in_order() {
    let mut world = world(1, 2, 1);
    world.connect(0);
    let [a, b] = [1, 2].map(|id| MemberId::new(id).unwrap());
    let mut blocked = Blocked::default();
    blocked.sync.extend([(a, b), (b, a)]);
    let cut = world.net.cut(blocked);
    let (own, _) = world.peers[0].own_spis()[0];
    for _ in 0..9 {
        world.command(0, Command::Liveness { local_spi: own });
        world.pass(7);
    }
    world.net.heal(cut);
    world.pass(1000);
    for host in world.hosts.values() {
        let status = host.agent.as_ref().unwrap().node.cluster().status();
        let errors = status.peers.iter().map(|p| p.counters.protocol_errors);
        assert_eq!(errors.sum::<u64>(), 0);
    }
}

/// Two members that do not find each other both go on with the same SAs, whose keys the peer cannot
/// change; then they are one again, and slots go back. No number goes out twice.
#[test]
fn halves_of_a_view_use_different_numbers() {
    for seed in 0..4 {
        let mut world = staged(seed, 2, 1, true);
        world.connect(0);
        let ids: Vec<MemberId> = world.hosts.keys().copied().collect();
        let mut blocked = Blocked::default();
        blocked.both(ids[0], ids[1]);
        blocked.public.extend(ids.iter().copied());
        let cut = world.net.cut(blocked);
        for round in 0..300 {
            if round == 100 {
                world.net.heal(cut);
            }
            for member in &ids {
                world.encrypt(*member, 0, 3000);
            }
            world.pass(20);
        }
        assert!(world.check.halves);
        for host in world.hosts.values() {
            let node = &host.agent.as_ref().unwrap().node;
            assert_eq!(node.view().members.len(), 2, "seed {seed}");
        }
    }
}

/// Two members that do not find each other both serve the same IKE SAs, and the peers hear both: whoever
/// took slots over rekeys, or a peer does, and its answers reach either. When the halves are one again
/// every peer has the IKE SA that it had, and CHILD_SAs that both sides have.
#[test]
fn halves_that_both_serve_lose_no_ike_sa() {
    for seed in 0..12 {
        let mut world = staged(seed, 2, 3, true);
        (0..3).for_each(|peer| world.connect(peer));
        let before: Vec<_> = world.peers.iter().map(Peer::gateway_spi).collect();
        let ids: Vec<MemberId> = world.hosts.keys().copied().collect();
        let mut blocked = Blocked::default();
        blocked.both(ids[0], ids[1]);
        let cut = world.net.cut(blocked);
        world.pass(1500);
        // One of the peers asks for something, too.
        if seed % 2 == 1 {
            let (_, children) = world.peers[0].own_spis()[0].clone();
            world.command(0, Command::Rekey(Target::Child(children[0])));
        }
        world.pass(3500);
        assert!(world.check.halves);
        world.net.heal(cut);
        world.pass(12_000);
        let after: Vec<_> = world.peers.iter().map(Peer::gateway_spi).collect();
        assert_eq!(before, after, "seed {seed}: {:?}", world.census());
        assert_eq!(world.unsettled(), None, "seed {seed}");
        for peer in 0..3 {
            let (own, children) = world.peers[peer].own_spis()[0].clone();
            assert_eq!(children.len(), 1, "seed {seed}");
            world.command(peer, Command::Liveness { local_spi: own });
            world.pass(500);
            let received = world.peers[peer].notes.received;
            let owner = world.owner(world.peers[peer].gateway_spi().unwrap());
            world.encrypt(owner, peer, 10);
            world.pass(100);
            assert_eq!(
                world.peers[peer].notes.received,
                received + 1,
                "seed {seed}"
            );
        }
    }
}

/// The owner finishes a rekeying of a CHILD_SA that it began, and what it makes of it is not on the
/// others yet: they finish the same exchange, with the same keys. What it sends until then, none of
/// them may send again.
#[test]
fn an_unfinished_rekeying_is_finished_twice_and_repeats_no_number() {
    for seed in 0..8 {
        let mut world = world(seed, 3, 1);
        world.connect(0);
        let owner = world.owner(world.peers[0].gateway_spi().unwrap());
        let before = world.hosts[&owner].kernel.sas.keys().next().copied();
        let mut others = Blocked::default();
        let mut sync = Blocked::default();
        for other in world.hosts.keys().copied().filter(|m| *m != owner) {
            others.public.insert(other);
            sync.sync.extend([(owner, other), (other, owner)]);
        }
        world.net.cut(others);
        world.expire(owner, before.unwrap());
        let sent = world.check.ike_sent;
        while world.check.ike_sent == sent {
            world.pass(1);
        }
        // The request has left: everybody knows of it, and of nothing that follows.
        world.net.cut(sync);
        for _ in 0..20 {
            world.pass(1);
            world.encrypt(owner, 0, 50);
        }
        let kernel = &world.hosts[&owner].kernel;
        assert_eq!((kernel.sas.len(), kernel.promoted), (2, 0), "seed {seed}");
        world.lose(owner);
        world.net.heal_all();
        world.pass(1500);
        let heir = world.owner(world.peers[0].gateway_spi().unwrap());
        assert_ne!(heir, owner, "seed {seed}");
        let kernel = &world.hosts[&heir].kernel;
        assert!(kernel.sas.keys().all(|id| Some(*id) != before));
        assert_eq!(kernel.promoted, 1, "seed {seed}");
        let sent = world.check.esp_sent;
        world.encrypt(heir, 0, 500);
        assert_eq!(world.check.esp_sent, sent + 500, "seed {seed}");
        world.pass(100);
    }
}
