//! What a peer has begun, and the view changes.

use std::time::Duration;

use gateway_common::slot::Slot;
use gateway_ike::config::StartAction;

use crate::world::{World, id};

/// Its slot goes to another member between IKE_SA_INIT and IKE_AUTH: whoever answered the first
/// message has the secrets, and completes it in a slot of its own.
#[test]
fn a_negotiation_survives_the_loss_of_its_slot() {
    for heard_by in [0, 1] {
        let mut world = World::new(StartAction::None, 1);
        world.peer_begins("out");
        world.frames();
        let lost = world.sent[0].1.slot;
        let mut owners = [Some(id(1)); Slot::COUNT];
        owners[usize::from(lost.0)] = Some(id(2));
        world.install(2, &[1, 2], owners);
        world.activate(2);
        world.heard_by = heard_by;
        world.run();
        assert_eq!(world.peer.sas().count(), 1, "heard by {heard_by}");
        assert_eq!((world.tunnels(1), world.tunnels(2)), (1, 1));
        assert!(world.sent.iter().skip(1).all(|(_, sent)| sent.slot != lost));
    }
}

/// All slots go to another member, as in HA mode or when a member is drained: it goes on with what was
/// begun, whoever hears the peer's next message. That of a member that has not been told yet comes
/// again.
#[test]
fn a_negotiation_goes_on_at_the_next_owner_of_all_slots() {
    for (heard_by, repeated) in [(0, false), (1, false), (0, true), (1, true)] {
        let mut world = World::new(StartAction::None, 1);
        world.peer_begins("out");
        world.frames();
        let begun = world.sent[0].1.bytes[8..16].to_vec();
        let all = [Some(id(2)); Slot::COUNT];
        world.install(2, &[1, 2], all);
        if repeated {
            // IKE_AUTH overtakes the activation, and is lost.
            world.heard_by = heard_by;
            world.run();
            assert_eq!((world.tunnels(1), world.tunnels(2)), (0, 0));
        }
        world.activate(2);
        world.frames();
        world.heard_by = heard_by;
        // Both members say soon what they know of it.
        world.pass(Duration::from_millis(20));
        if repeated {
            world.peer_repeats();
            world.run();
        }
        let case = format!("heard by {heard_by}, repeated: {repeated}");
        assert_eq!(world.peer.sas().count(), 1, "{case}");
        assert_eq!((world.tunnels(1), world.tunnels(2)), (1, 1), "{case}");
        let sa = world.peer.sas().next().unwrap();
        assert_eq!(sa.remote_spi[..], begun, "no second IKE_SA_INIT");
    }
}
