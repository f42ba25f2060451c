//! Messages in fragments (RFC 7383): honest ones in any order, and anything that a peer can seal.

use std::time::Duration;

use gateway_ike::wire::{ExchangeType, NotifyRepr, NotifyType, Payload};

use super::draft::Draft;
use super::setup::{ESP_SUITES, IKE_SUITES, REASSEMBLY_TOTAL, secret, traffic};
use super::world::World;
use super::{flipped, pick_session};
use crate::fuzz::input::Input;

const STEPS: usize = 100;

/// A sequence of fragments.
pub(in crate::fuzz) fn reassembly(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for peer in &mut world.peers {
        peer.fragments = true;
    }
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        step(&mut world, &mut input);
        assert!(world.endpoint.reassembling() <= REASSEMBLY_TOTAL);
    }
    world.finish();
    assert_eq!(world.endpoint.reassembling(), 0);
}

fn step(world: &mut World, input: &mut Input<'_>) {
    let kind = input.octet();
    let peer = input.index(world.peers.len());
    match kind % 8 {
        0 => init(world, peer, input),
        1 => auth(world, peer, input),
        2 => anything(world, peer, input),
        3 => informational(world, peer, input),
        4 => {
            let at = input.index(world.sent.len());
            if let Some((path, bytes)) = world.sent.get(at).cloned() {
                world.send(path, bytes);
            }
        }
        5 => flipped(world, input),
        6 => {
            let unit = if input.octet() & 1 == 0 { 10 } else { 1000 };
            world.advance(Duration::from_millis(unit * u64::from(input.octet())));
            world.answer_kernel(true, true);
        }
        _ => world.take_over(),
    }
}

fn init(world: &mut World, at: usize, input: &mut Input<'_>) {
    let suite = IKE_SUITES[input.index(IKE_SUITES.len())];
    let peer = &mut world.peers[at];
    let bytes = peer.init(suite, true).in_clear();
    peer.init_sent(Some(&bytes));
    let path = peer.path;
    world.send(path, bytes);
}

fn auth(world: &mut World, at: usize, input: &mut Input<'_>) {
    let peer = &mut world.peers[at];
    if !peer.can_authenticate() {
        return;
    }
    let session = peer.sessions.len() - 1;
    let traffic = traffic(true, false);
    if let Some(draft) = peer.auth(&secret(), (true, false), ESP_SUITES[0], traffic) {
        send(world, input, (at, session), &draft);
    }
    world.answer_kernel(true, true);
}

fn informational(world: &mut World, at: usize, input: &mut Input<'_>) {
    let Some(session) = pick_session(world, at, input) else {
        return;
    };
    let header = world.peers[at].sessions[session].header(ExchangeType::INFORMATIONAL);
    let kind = NotifyType(40_000 + u16::from(input.octet()));
    let payload = Payload::Notify(NotifyRepr::new(kind, input.octets()));
    let draft = Draft::new(header, &[payload]);
    send(world, input, (at, session), &draft);
}

/// A message in fragments, in an order that the input decides; some may be missing.
fn send(world: &mut World, input: &mut Input<'_>, (at, session): (usize, usize), draft: &Draft) {
    let chunk = 16 + usize::from(input.octet());
    let peer = &mut world.peers[at];
    let path = peer.path;
    let mut fragments = peer.seal_fragments(session, draft, chunk);
    let missing = input.octet() & 7 == 7;
    while fragments.len() > usize::from(missing) {
        let next = fragments.remove(input.index(fragments.len()));
        world.send(path, next);
    }
}

/// One fragment with any fields and any content, under the right key.
fn anything(world: &mut World, at: usize, input: &mut Input<'_>) {
    let Some(session) = pick_session(world, at, input) else {
        return;
    };
    let peer = &mut world.peers[at];
    let choice = input.octet();
    let mut header = peer.sessions[session].header(ExchangeType(34 + (choice & 3)));
    header.message_id = header.message_id.wrapping_sub(u32::from(choice >> 7));
    header.response = choice & 0x40 != 0;
    let total = if choice & 0x20 == 0 {
        u16::from(input.octet() & 7)
    } else {
        input.number()
    };
    let number = u16::from(input.octet() & 15);
    let first = input.octet();
    let content = (first, input.octets());
    let bytes = peer.seal_fragment(session, &header, (number, total), content);
    let path = peer.path;
    world.send(path, bytes);
}
