//! Which member initiates, and who goes on.

#![allow(clippy::unwrap_used, clippy::panic)]

mod negotiation;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::slot::Slot;
use gateway_ike::config::{Connection, StartAction};
use gateway_ike::endpoint::{Command, Endpoint, InitiateOrder};
use gateway_ike::output::Path;
use gateway_ike::record::Contact;
use gateway_ike::testing::Toy;
use gateway_node::effect::Effect;
use gateway_node::{PATIENCE, Refused, What};

use world::{World, connection, id, ike_config};

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

/// The packet may reach any member, or several; it is the owner of the connection's slot that
/// initiates, and nobody before there is a packet.
#[test]
fn a_packet_at_any_member_starts_the_tunnel_at_its_owner() {
    let mut world = World::new(StartAction::Trap, 2);
    world.run();
    assert!(world.sent.is_empty());
    for round in 1..=2 {
        let outcome = world.order(1, What::Acquire).unwrap();
        assert_eq!(outcome.passed_on, BTreeSet::from([id(2)]), "{round}");
        world.order(2, What::Acquire).unwrap();
        world.run();
        assert_eq!(world.senders(), BTreeSet::from([2]));
        assert_eq!((world.tunnels(1), world.peer.sas().count()), (1, 1));
        world.order(1, What::Terminate).unwrap();
        world.run();
        assert_eq!((world.tunnels(1), world.peer.sas().count()), (0, 0));
    }
}

/// Successors of the peer's CHILD_SA, the first one included.
fn rekeyed(world: &World) -> u64 {
    world.peer.counters().create_child_requests
}

/// Peers of one connection.
const CROWD: usize = 100;

/// A world whose member 1 has as many tunnels of its connection.
fn crowded() -> World {
    let mut world = World::new(StartAction::None, 1);
    let mut config = ike_config(40, false, StartAction::None);
    let names = (0..=CROWD).map(|number| format!("peer-{number}"));
    let peers = names.map(|name| {
        let connection = connection(false, StartAction::None);
        Arc::new(Connection { name, ..connection })
    });
    config.connections = peers.collect();
    world.peer = Endpoint::new(Arc::new(config), Arc::new(Toy::new(77)), world.now);
    for number in 0..CROWD {
        joins(&mut world, number);
    }
    assert_eq!((world.tunnels(1), world.peer.sas().count()), (CROWD, CROWD));
    world.sent.clear();
    world
}

/// One of the peers brings its tunnel up.
fn joins(world: &mut World, number: usize) {
    world.peer_begins(&format!("peer-{number}"));
    world.run();
}

/// The owner does a little in each turn; what comes in between is not kept waiting, and all is done in
/// the end, by the next owner if need be.
#[test]
fn an_order_about_very_many_is_carried_out_a_little_in_each_turn() {
    let mut world = crowded();
    let outcome = world.order(1, What::Terminate).unwrap();
    assert_eq!(outcome.here, CROWD);
    world.frames();
    let asked = world.sent.len();
    assert!((1..CROWD / 4).contains(&asked), "{asked} in one turn");
    let node = world.nodes[0].as_ref().unwrap();
    assert!(node.poll_timeout().unwrap() <= world.now);
    // Another peer comes up meanwhile.
    world.to_peer.clear();
    joins(&mut world, CROWD);
    assert_eq!(world.peer.sas().count(), CROWD + 1);
    assert!(world.nodes[0].as_ref().unwrap().poll_timeout().unwrap() <= world.now);
    // Member 2 gets the slots in the midst of it.
    world.view(2, &[1, 2], 2);
    world.heard_by = 1;
    for _ in 0..40 {
        world.pass(Duration::from_secs(1));
    }
    assert!(world.senders().contains(&2), "member 2 has gone on with it");
    assert_eq!(world.tunnels(2), 0);
    assert!(world.lapsed.is_empty());
}

/// The member that takes over is known before it may serve: what it is asked meanwhile it does then,
/// and whoever asked itself in that time is told that it waits.
#[test]
fn an_order_waits_for_its_slot_to_be_served() {
    for asked in [1, 2] {
        let mut world = World::new(StartAction::Start, 1);
        world.run();
        world.install(2, &[1, 2], [Some(id(2)); Slot::COUNT]);
        let outcome = world.order(asked, What::Rekey).unwrap();
        let waits = usize::from(asked == 2);
        assert_eq!((outcome.here, outcome.waiting.len()), (0, waits), "{asked}");
        assert_eq!(outcome.passed_on.len(), 1 - waits, "{asked}");
        world.heard_by = 1;
        world.pass(Duration::from_secs(3));
        assert_eq!(rekeyed(&world), 0, "member 2 does not serve yet");
        world.activate(2);
        world.run();
        world.pass(Duration::from_secs(20));
        assert_eq!(rekeyed(&world), 1, "asked {asked}");
        assert!(world.lapsed.is_empty());
    }
}

#[test]
fn an_order_that_nobody_can_carry_out_is_given_up_and_says_so() {
    let mut world = World::new(StartAction::Start, 1);
    world.run();
    world.install(2, &[1, 2], [Some(id(2)); Slot::COUNT]);
    world.order(1, What::Rekey).unwrap();
    world.run();
    world.pass(PATIENCE);
    let [(2, order)] = world.lapsed.as_slice() else {
        panic!("{:?}", world.lapsed)
    };
    assert_eq!(order.to_string(), "rekey out");
    // Then it is too late.
    world.activate(2);
    world.run();
    assert_eq!(rekeyed(&world), 0);
}

/// It was passed on to a member that died before it had it.
#[test]
fn an_order_outlives_the_member_that_it_was_passed_on_to() {
    let mut world = World::new(StartAction::Start, 2);
    world.heard_by = 1;
    world.run();
    assert_eq!(world.tunnels(1), 1);
    // The other one is gone, and its connection has not broken yet.
    world.nodes[1] = None;
    let outcome = world.order(1, What::Rekey).unwrap();
    assert_eq!(outcome.passed_on, BTreeSet::from([id(2)]));
    world.frames();
    world.dies(2);
    world.view(2, &[1], 1);
    world.run();
    world.pass(Duration::from_secs(1));
    assert_eq!(rekeyed(&world), 1);
}

/// What is being brought up is no SA yet, and is given up on whatever member one says so.
#[test]
fn an_initiation_is_given_up_by_order() {
    let mut world = World::new(StartAction::Start, 2);
    world.frames();
    world.to_peer.clear();
    world.order(1, What::Terminate).unwrap();
    world.frames();
    world.sent.clear();
    for _ in 0..100 {
        world.pass(Duration::from_secs(5));
    }
    assert!(world.sent.is_empty());
    assert_eq!(
        world.order(2, What::Terminate),
        Err(Refused::NothingThere("out".into()))
    );
}

/// Both sides begin at once, ours at member 1, the peer's at member 2. However their messages
/// cross, one tunnel stays, the same one for everybody.
#[test]
fn of_two_tunnels_that_both_sides_begin_at_two_members_one_stays() {
    for (ours, theirs) in (0..6).flat_map(|ours| (0..6).map(move |theirs| (ours, theirs))) {
        let mut world = World::new(StartAction::None, 2);
        let mut owners = [Some(id(2)); Slot::COUNT];
        owners[usize::from(Slot::for_connection("out").0)] = Some(id(1));
        world.install(2, &[1, 2], owners);
        world.activate(2);
        world.frames();
        world.order(1, What::Initiate).unwrap();
        world.frames();
        let order = InitiateOrder {
            connection: "out".into(),
            ..InitiateOrder::default()
        };
        world
            .peer
            .handle_command(world.now, Command::Initiate(order));
        world.cross(ours, theirs);
        assert_eq!(
            (
                world.tunnels(1),
                world.tunnels(2),
                world.peer.sas().count(),
                world.peer.child_sas()
            ),
            (1, 1, 1, 1),
            "{ours} {theirs}"
        );
        // A peer that is told so drops its own IKE SA without a word.
        if theirs + 1 < ours {
            assert!(
                !world.contacts.contains(&Contact::Initial),
                "{ours} {theirs}"
            );
        }
    }
}

impl World {
    /// Messages of the negotiation that we began take `ours` rounds to reach us, those of the
    /// peer's `theirs`. Member 1 hears the one, member 2 the other.
    fn cross(&mut self, ours: u32, theirs: u32) {
        let mut flying: Vec<(u32, usize, Path, Vec<u8>)> = Vec::new();
        let mut mine: BTreeSet<[u8; 8]> = BTreeSet::new();
        for round in 0..60 {
            while let Some((path, bytes)) = self.to_peer.pop_front() {
                if bytes[19] & 0x28 == 0x08 {
                    mine.insert(bytes[..8].try_into().unwrap());
                }
                self.peer.handle_datagram(self.now, path, &bytes);
            }
            for (path, bytes) in self.peer_says() {
                let (at, delay) = if mine.contains(&bytes[..8]) {
                    (0, ours)
                } else {
                    (1, theirs)
                };
                flying.push((round + delay, at, path, bytes));
            }
            // All of them before the members hear of each other.
            flying.retain(|(due, at, path, bytes)| {
                if *due <= round {
                    let node = self.nodes[*at].as_mut().unwrap();
                    node.handle_datagram(self.now, *path, bytes);
                }
                *due > round
            });
            self.frames();
            // Far less than a retransmission, and time to tell of a negotiation.
            self.now = self.now + Duration::from_millis(10);
            for node in self.nodes.iter_mut().flatten() {
                node.handle_timeout(self.now);
            }
            self.frames();
        }
    }
}
