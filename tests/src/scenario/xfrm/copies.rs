//! Standby copies: where they stand, who may move them, and what the kernel tells of it.

use std::net::UdpSocket;

use anyhow::{Context as _, Result, bail, ensure};
use gateway_ike::output::ChildSa;
use gateway_node::effect::{KernelEvent, Standing};
use gateway_user::xfrm::{
    CopyMove, Events, Move, Moved, Position, SaId, SaKernel, Seen, Standpoint, Tunnels, Xfrm,
    XfrmEvent, quiet_defaults,
};

use super::measure;
use super::pair::{Kind, PLAIN, Pair, SLOT, ends};
use crate::scenario::Context;

/// Where the copies of these tests stand: events come every 64 packets.
const BLOCK: Standing = Standing {
    sequence_out: 100_000,
    ceiling: 100_256,
    sequence_in: 50,
};
const EVERY: u64 = 64;

/// A copy stands in its block, becomes the owner's without a request to the kernel, tells of every
/// 64th packet, and is moved forwards only and never while its slot is this member's.
pub(in crate::scenario) fn copies(context: &Context) -> Result<String> {
    let mut pair = Pair::new(context, "xfrm-copies")?;
    pair.protect()?;
    let kinds = [
        PLAIN,
        Kind {
            name: "ESN, window 128",
            esn: true,
            window: 128,
            ..PLAIN
        },
        Kind {
            name: "window 100",
            window: 100,
            ..PLAIN
        },
    ];
    for (number, kind) in (1..).zip(kinds) {
        one_kind(&mut pair, kind, number).with_context(|| kind.name)?;
    }
    pair.expect_empty()?;
    others_stay_quiet(&pair)?;
    Ok(format!("{} kinds of sequence numbers", kinds.len()))
}

/// SAs that say nothing about events, as other daemons' do, get none for our listening.
fn others_stay_quiet(pair: &Pair) -> Result<()> {
    let mut kernel = pair.b.inside(|| Ok(Xfrm::open()?))?;
    let mut sa = measure::sa(1, false);
    sa.event_every = 0;
    for (quiet, expected) in [(false, true), (true, false)] {
        if quiet {
            pair.b.inside(|| Ok(quiet_defaults()?))?;
        }
        kernel.install_sa(&sa)?;
        let found = kernel.standpoints(&[sa.id]).pop().context("no answer")??;
        let told = found.timed || found.event_every != 0;
        ensure!(told == expected, "{found:?}");
        kernel.delete_sa(&sa.id)?;
    }
    Ok(())
}

fn one_kind(pair: &mut Pair, kind: Kind, number: u8) -> Result<()> {
    let (near, far) = ends(kind, number);
    let mut events = pair.a.inside(|| Ok(Events::open()?))?;
    pair.near.install_copy(&near, BLOCK)?;
    // The peer has sent 40 numbers; the last checkpoint says that 50 came in.
    pair.far.install_owned(&far, None, 40)?;
    let gate = pair.near.gate().clone();

    stands_in_its_block(pair, &near)?;
    cleartext_is_encrypted(pair)?;
    gate.gain(|slot| slot == SLOT);
    replays_below_the_checkpoint(pair, &near)?;
    // From here on by number: what was sent so far went out after the block's beginning.
    let sent = outbound(&mut pair.near, &near)?.position.sequence_out;
    events_by_count(pair, &near, &mut events, sent)?;
    the_gate_refuses(pair, &near)?;
    gate.lose(|_| false);
    forwards_only(pair, &near)?;
    let event = events.try_next()?;
    ensure!(event.is_none(), "an echo is no event: {event:?}");
    pair.remove(&near, &far)
}

fn stands_in_its_block(pair: &mut Pair, near: &ChildSa) -> Result<()> {
    let out = outbound(&mut pair.near, near)?;
    ensure!(out.position.sequence_out == BLOCK.sequence_out, "{out:?}");
    ensure!(u64::from(out.event_every) == EVERY && !out.timed, "{out:?}");
    let inbound = inbound(&mut pair.near, near)?;
    ensure!(
        inbound.position.sequence_in == BLOCK.sequence_in,
        "{inbound:?}"
    );
    let Seen::Bitmap(words) = &inbound.position.seen else {
        bail!("no bitmap: {inbound:?}");
    };
    ensure!(words.iter().all(|word| *word == u32::MAX), "{inbound:?}");
    ensure!(inbound.event_every == 16_384 && !inbound.timed);
    Ok(())
}

/// What a member that is not the owner sends leaves as ESP with the slot's mark, for the fence to
/// stop, and never in clear.
fn cleartext_is_encrypted(pair: &mut Pair) -> Result<()> {
    let (marked, cleartext) = (pair.left("marked")?, pair.left("cleartext")?);
    send(pair, 7)?;
    ensure!(
        pair.left("marked")? == marked + 7,
        "not encrypted by the copy"
    );
    ensure!(pair.left("cleartext")? == cleartext, "cleartext left");
    Ok(())
}

/// The peer goes on after 40; up to 50 nothing comes in.
fn replays_below_the_checkpoint(pair: &mut Pair, near: &ChildSa) -> Result<()> {
    let from = inbound(&mut pair.near, near)?.position;
    ensure!(from.sequence_in == BLOCK.sequence_in, "{from:?}");
    let refused = pair.xfrm_stat("XfrmInStateSeqError")?;
    let taken = pair.near.counters(near.id())?.packets_in;
    ensure!(taken == 0, "{taken} packets came through below the window");
    // The 7 datagrams above were answered with 7 or fewer errors, all below the window.
    let answered = pair
        .b
        .ping(Some("10.2.0.1".parse()?), "10.1.0.1".parse()?, 15, 2)?;
    let refused = pair.xfrm_stat("XfrmInStateSeqError")? - refused;
    ensure!(
        refused <= 10 && u64::from(answered) + refused == 15,
        "{answered} answered, {refused} refused"
    );
    ensure!(refused > 0, "the window let everything in");
    let taken = pair.near.counters(near.id())?.packets_in;
    ensure!(taken == u64::from(answered), "{taken} of {answered}");
    Ok(())
}

fn events_by_count(pair: &mut Pair, near: &ChildSa, events: &mut Events, sent: u64) -> Result<()> {
    let stands = BLOCK.sequence_out;
    ensure!(sent < stands + EVERY, "too much was sent before: {sent}");
    send(pair, 200)?;
    let expected: Vec<KernelEvent> = (1..)
        .map(|n| stands + n * EVERY)
        .take_while(|at| *at <= sent + 200)
        .map(|sequence| KernelEvent::SentUpTo {
            child: near.id(),
            sequence,
        })
        .collect();
    let mut heard = Vec::new();
    while let Some(event) = events.try_next()? {
        heard.extend(pair.near.hear(&event)?);
    }
    ensure!(heard == expected, "{heard:?} instead of {expected:?}");
    let mut all = pair.near.hear(&XfrmEvent::Overrun)?;
    while pair.near.is_surveying() {
        all.extend(pair.near.survey_part());
    }
    let last = KernelEvent::SentUpTo {
        child: near.id(),
        sequence: sent + 200,
    };
    ensure!(all.contains(&last), "{all:?} without {last:?}");
    // Other reservation, other distance; the numbers go on.
    pair.near.pace(near.id(), 32 * EVERY)?;
    let out = outbound(&mut pair.near, near)?;
    ensure!(u64::from(out.event_every) == 8 * EVERY, "{out:?}");
    ensure!(out.position.sequence_out == sent + 200, "{out:?}");
    Ok(())
}

fn the_gate_refuses(pair: &mut Pair, near: &ChildSa) -> Result<()> {
    let before = outbound(&mut pair.near, near)?;
    ensure!(move_to(&mut pair.near, near, 300_000) == Moved::Ours);
    ensure!(outbound(&mut pair.near, near)? == before, "it was moved");
    Ok(())
}

fn forwards_only(pair: &mut Pair, near: &ChildSa) -> Result<()> {
    let before = outbound(&mut pair.near, near)?.position.sequence_out;
    // Ahead of what the books know, behind what it sent while it was ours.
    ensure!(move_to(&mut pair.near, near, before - 10) == Moved::Done);
    let now = outbound(&mut pair.near, near)?.position.sequence_out;
    ensure!(now == before, "went from {before} back to {now}");
    for (to, stands) in [
        (before + 5_000, before + 5_000),
        (before + 1_000, before + 5_000),
    ] {
        ensure!(move_to(&mut pair.near, near, to) == Moved::Done);
        let now = outbound(&mut pair.near, near)?.position.sequence_out;
        ensure!(now == stands, "{now} instead of {stands}");
    }
    let inbound_before = inbound(&mut pair.near, near)?.position;
    ensure!(
        inbound_before.sequence_in > BLOCK.sequence_in,
        "{inbound_before:?}"
    );
    // The books know 50, the window has followed the traffic: a late checkpoint changes nothing.
    let late = CopyMove {
        child: near.id(),
        slot: near.slot,
        standing: Standing {
            sequence_in: BLOCK.sequence_in + 1,
            ..BLOCK
        },
    };
    ensure!(pair.near.move_copies(&[late]) == [Moved::Done]);
    ensure!(inbound(&mut pair.near, near)?.position == inbound_before);
    // The kernel itself would go back: what all this is for.
    let sa = out_id(near);
    let back = Move {
        id: sa,
        replay: pair.near.kernel().query_sa(&sa)?.replay,
        position: Position::sent(5),
    };
    pair.near.kernel().move_sa(&back)?;
    ensure!(outbound(&mut pair.near, near)?.position.sequence_out == 5);
    Ok(())
}

fn move_to(tunnels: &mut Tunnels, child: &ChildSa, sequence_out: u64) -> Moved {
    let to = CopyMove {
        child: child.id(),
        slot: child.slot,
        standing: Standing {
            sequence_out,
            ceiling: sequence_out + 4 * EVERY,
            sequence_in: 0,
        },
    };
    tunnels.move_copies(&[to])[0]
}

/// Sends so many datagrams from the gateway into the tunnel.
pub(super) fn send(pair: &Pair, count: u32) -> Result<()> {
    pair.a.inside(|| {
        let socket = UdpSocket::bind("10.1.0.1:0")?;
        for _ in 0..count {
            socket.send_to(b"x", "10.2.0.1:9")?;
        }
        Ok(())
    })
}

fn out_id(child: &ChildSa) -> SaId {
    SaId::new(child.spi_out, child.remote)
}

pub(super) fn outbound(tunnels: &mut Tunnels, child: &ChildSa) -> Result<Standpoint> {
    standpoint(tunnels, out_id(child))
}

pub(super) fn inbound(tunnels: &mut Tunnels, child: &ChildSa) -> Result<Standpoint> {
    let sa = SaId::new(child.spi_in, child.local);
    standpoint(tunnels, sa)
}

fn standpoint(tunnels: &mut Tunnels, sa: SaId) -> Result<Standpoint> {
    let mut answers = tunnels.kernel().standpoints(&[sa]);
    Ok(answers.pop().context("no answer")??)
}
