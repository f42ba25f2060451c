//! The engine as a whole: three peers, honest or not, a kernel, time, and members that die.
//!
//! The octets of the input decide what happens. The peers hold the right keys, so what they send
//! reaches code behind the integrity check; the cryptography is a toy. After every step must hold:
//! what is forged changes nothing, engine, kernel and replica agree, no (key, IV) pair comes twice.
//! In the end every IKE SA still answers, and nothing is left behind.

pub(crate) mod draft;
mod follow_up;
mod fragments;
mod orders;
pub(crate) mod peer;
mod record;
pub(crate) mod setup;
mod watch;
mod world;

use std::time::Duration;

use gateway_ike::endpoint::Command;
use gateway_ike::output::Path;
use gateway_ike::secret::SecretBytes;
use gateway_ike::wire::{DeleteRepr, ExchangeType, NotifyRepr, NotifyType, Payload};

use self::draft::Draft;
pub(super) use self::fragments::reassembly;
pub(super) use self::record::record;
use self::setup::{ESP_SUITES, IKE_SUITES, secret, traffic};
use self::world::World;
use super::input::Input;

/// Steps in one run: longer ones find nothing that several short ones do not.
const STEPS: usize = 100;

/// A sequence of events.
pub(super) fn endpoint(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        step(&mut world, &mut input);
    }
    world.finish();
}

fn step(world: &mut World, input: &mut Input<'_>) {
    let kind = input.octet();
    let peer = input.index(world.peers.len());
    match kind % 16 {
        0 => raw(world, peer, input),
        1 => flipped(world, input),
        2 | 3 => init(world, peer, input),
        4 | 5 => auth(world, peer, input),
        6 => anything_authentic(world, peer, input),
        7 if kind >= 0xc0 => follow_up::follow_up(world, peer, input),
        7 => create_child(world, peer, input),
        8 => rekey(world, peer, input),
        9 => informational(world, peer, input),
        10 | 11 => {
            let choice = input.octet();
            if choice & 8 == 0 || !world.decide(choice & 6 != 6, choice & 0x30 == 0x30) {
                world.answer_kernel(choice & 1 == 0, choice & 6 != 6);
            }
        }
        12 => {
            let unit = if input.octet() & 1 == 0 { 10 } else { 1000 };
            world.advance(Duration::from_millis(unit * u64::from(input.octet())));
        }
        13 => {
            let at = input.index(world.sent.len());
            if let Some((path, bytes)) = world.sent.get(at).cloned() {
                world.send(path, bytes);
            }
        }
        14 => world.take_over(),
        _ => command(world, peer, input),
    }
}

/// Anything at all, without knowledge of a key.
fn raw(world: &mut World, peer: usize, input: &mut Input<'_>) {
    let path = world.peers[peer].path;
    world.send_forged(path, input.octets());
}

/// What was sent before, with one bit flipped.
fn flipped(world: &mut World, input: &mut Input<'_>) {
    let at = input.index(world.sent.len());
    let Some((path, mut bytes)) = world.sent.get(at).cloned() else {
        return;
    };
    let bit = usize::from(input.number()) % (8 * bytes.len().max(1));
    if let Some(octet) = bytes.get_mut(bit / 8) {
        *octet ^= 1 << (bit % 8);
        world.send_forged(path, &bytes);
    }
}

fn init(world: &mut World, peer: usize, input: &mut Input<'_>) {
    let choice = input.octet();
    let suite = IKE_SUITES[usize::from(choice >> 1) % IKE_SUITES.len()];
    let peer = &mut world.peers[peer];
    let mut draft = peer.init(suite, choice & 1 == 0);
    let spoilt = draft.spoil(input);
    let bytes = draft.in_clear();
    peer.init_sent((!spoilt).then_some(&bytes));
    let path = peer.path;
    world.send(path, bytes);
}

fn auth(world: &mut World, at: usize, input: &mut Input<'_>) {
    let choice = input.octet();
    let peer = &mut world.peers[at];
    if !peer.can_authenticate() {
        return;
    }
    let secret = match choice & 7 {
        7 => SecretBytes::from(&b"another secret"[..]),
        _ => secret(),
    };
    let esp = ESP_SUITES[usize::from(choice >> 3) % ESP_SUITES.len()];
    let traffic = traffic(choice & 0x40 != 0, choice & 0x80 != 0);
    let payloads = (choice & 7 != 6, choice & 7 == 5);
    let session = peer.sessions.len() - 1;
    if let Some(draft) = peer.auth(&secret, payloads, esp, traffic) {
        send(world, input, (at, session), draft);
    }
}

fn create_child(world: &mut World, at: usize, input: &mut Input<'_>) {
    let Some(session) = pick_session(world, at, input) else {
        return;
    };
    let choice = input.octet();
    let peer = &mut world.peers[at];
    let esp = ESP_SUITES[usize::from(choice >> 2) % ESP_SUITES.len()];
    let traffic = traffic(choice & 0x40 != 0, choice & 0x80 != 0);
    let rekeys = (choice & 3 != 0)
        .then(|| peer.esp_spis.get(input.index(peer.esp_spis.len())).copied())
        .flatten();
    let draft = peer.create_child(session, esp, rekeys, traffic);
    send(world, input, (at, session), draft);
}

fn rekey(world: &mut World, at: usize, input: &mut Input<'_>) {
    let Some(session) = pick_session(world, at, input) else {
        return;
    };
    let suite = IKE_SUITES[input.index(IKE_SUITES.len())];
    let draft = world.peers[at].rekey(session, suite);
    send(world, input, (at, session), draft);
}

fn informational(world: &mut World, at: usize, input: &mut Input<'_>) {
    let Some(session) = pick_session(world, at, input) else {
        return;
    };
    let peer = &world.peers[at];
    let header = peer.sessions[session].header(ExchangeType::INFORMATIONAL);
    let choice = input.octet();
    let first = input.index(peer.esp_spis.len());
    let spis = peer.esp_spis.get(first..).unwrap_or_default();
    let spis = &spis[..spis.len().min(1 + usize::from(choice >> 6))];
    let payloads = match choice % 6 {
        0 => vec![],
        1 | 2 => vec![Payload::Delete(DeleteRepr::esp(spis))],
        3 => vec![Payload::Delete(DeleteRepr::ike())],
        4 => {
            let kind = NotifyType(input.number());
            vec![Payload::Notify(NotifyRepr::new(kind, input.octets()))]
        }
        _ => vec![
            Payload::Delete(DeleteRepr::esp(spis)),
            Payload::Delete(DeleteRepr::esp(spis)),
        ],
    };
    let draft = Draft::new(header, &payloads);
    send(world, input, (at, session), draft);
}

/// Any payloads in any exchange, under the right key.
fn anything_authentic(world: &mut World, at: usize, input: &mut Input<'_>) {
    let Some(session) = pick_session(world, at, input) else {
        return;
    };
    let peer = &mut world.peers[at];
    let mut header = peer.sessions[session].header(ExchangeType(34 + input.octet() % 5));
    let choice = input.octet();
    if choice >= 0xe0 {
        header.message_id = header.message_id.wrapping_add(u32::from(choice & 3));
        header.response = choice & 4 != 0;
        header.from_initiator = choice & 8 != 0;
    }
    let first = input.octet();
    let bytes = peer.seal_raw(session, &header, (first, input.octets()));
    let path = peer.path;
    world.send(path, bytes);
}

fn command(world: &mut World, at: usize, input: &mut Input<'_>) {
    let choice = input.octet();
    if choice >= 0x80 {
        orders::order(world, at, choice & 0x7f, input);
    } else if choice & 1 == 0 {
        world.command(Command::SetCookieSecret {
            version: u32::from(choice),
            secret: SecretBytes::new(vec![choice; 16]),
        });
    } else {
        // The peer moves: another port, as behind a NAT that has forgotten it.
        let path = &mut world.peers[at].path;
        let port = 4500 + u16::from(choice >> 1) % 8;
        path.remote.set_port(port);
        *path = Path::new((path.local.ip(), 4500).into(), path.remote);
    }
}

fn pick_session(world: &World, at: usize, input: &mut Input<'_>) -> Option<usize> {
    let count = world.peers[at].sessions.len();
    // Mostly the newest.
    let back = input.octet();
    let back = if back < 0xc0 {
        0
    } else {
        usize::from(back & 3)
    };
    count.checked_sub(1)?.checked_sub(back)
}

/// Sends a request of a session, spoilt or not.
fn send(world: &mut World, input: &mut Input<'_>, (at, session): (usize, usize), mut draft: Draft) {
    let peer = &mut world.peers[at];
    if draft.spoil(input) {
        peer.forget_offer();
    }
    let bytes = peer.seal(session, &draft);
    let path = peer.path;
    world.send(path, bytes);
}
