//! What the driver orders, and what the peers answer to what comes of it.

use gateway_common::slot::Slot;
use gateway_ike::endpoint::{Command, Target};
use gateway_ike::wire::{NotifyRepr, NotifyType, Payload};

use super::draft::Draft;
use super::world::World;
use crate::fuzz::input::Input;

/// Refusals that a peer may answer with.
const REFUSALS: [NotifyType; 4] = [
    NotifyType::TEMPORARY_FAILURE,
    NotifyType::NO_PROPOSAL_CHOSEN,
    NotifyType::CHILD_SA_NOT_FOUND,
    NotifyType::INVALID_SYNTAX,
];

/// An order about one of the IKE SAs, or an answer of peer `at`.
pub(super) fn order(world: &mut World, at: usize, choice: u8, input: &mut Input<'_>) {
    if choice % 4 == 3 {
        return answer(world, at, input);
    }
    let all: Vec<_> = world.endpoint.sas().collect();
    let Some(sa) = all.get(input.index(all.len())) else {
        return;
    };
    let local_spi = sa.local_spi;
    let child = sa.children.get(input.index(sa.children.len()));
    let child = child.map_or(Target::Ike(local_spi), |c| Target::Child(c.spi_in));
    match choice % 9 {
        0 => world.command(Command::Liveness { local_spi }),
        1 => world.command(Command::Rekey(Target::Ike(local_spi))),
        2 => world.command(Command::Rekey(child)),
        3 => world.command(Command::Terminate(Target::Ike(local_spi))),
        4 => world.command(Command::Terminate(child)),
        5 => world.command(Command::SyncMessageIds { local_spi }),
        6 => {
            let slot = Slot(input.octet());
            world.command(Command::Reslot { local_spi, slot });
        }
        7 => world.bring_back(local_spi, None),
        _ => world.bring_back(local_spi, Some(input.octet() & 1 == 0)),
    }
}

/// The peer answers the last request: as if all were well, refusing, or with anything at all.
fn answer(world: &mut World, at: usize, input: &mut Input<'_>) {
    let how = input.octet();
    let peer = &mut world.peers[at];
    let Some((session, mut header)) = peer.asked.take() else {
        return;
    };
    header.from_initiator = true;
    header.response = true;
    let bytes = match how & 3 {
        0 | 1 => peer.seal_raw(session, &header, (0, &[0])),
        2 => {
            let kind = REFUSALS[usize::from(how >> 2) % REFUSALS.len()];
            let draft = Draft::new(header, &[Payload::Notify(NotifyRepr::new(kind, &[]))]);
            peer.seal(session, &draft)
        }
        _ => {
            let first = input.octet();
            peer.seal_raw(session, &header, (first, input.octets()))
        }
    };
    let path = peer.path;
    world.send(path, bytes);
}
