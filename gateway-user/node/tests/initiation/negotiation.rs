//! What a peer has begun, and the view changes.

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
