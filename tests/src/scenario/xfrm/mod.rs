//! The XFRM back end against a kernel that has ESP, with static keys and without IKE.

mod copies;
mod measure;
mod moves;
mod pair;
mod rates;

pub(super) use copies::copies;
pub(super) use moves::{adopt, path};
pub(super) use rates::rates;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gateway_ike::crypto::Encryption;
use gateway_user::xfrm::{
    Events, Recording, Request, SaId, SaKernel, SaState, Tunnels, Xfrm, XfrmEvent,
};

use super::Context;
use crate::lab::wait_until;
use pair::{Kind, PLAIN, Pair, ends};

/// Removes what no record has claimed; returns the number of SAs.
fn finish_adoption(tunnels: &mut Tunnels) -> Result<usize> {
    tunnels.finish_adoption();
    loop {
        if let Some(removed) = tunnels.tidy_part()? {
            return Ok(removed);
        }
    }
}

/// Every kind of tunnel carries both families both ways, each packet marked with its slot, and
/// leaves nothing behind.
pub(super) fn kinds(context: &Context) -> Result<String> {
    let mut pair = Pair::new(context, "xfrm-kinds")?;
    pair.protect()?;
    pair.near
        .probe(&["192.0.2.1".parse()?, "2001:db8::1".parse()?])?;
    pair.expect_empty().context("after the probe")?;
    let encap = Some((4500, 61234));
    let kinds = [
        PLAIN,
        Kind {
            name: "UDP encapsulation",
            encap,
            ..PLAIN
        },
        Kind {
            name: "ESP over IPv6",
            outer_v6: true,
            ..PLAIN
        },
        Kind {
            name: "UDP encapsulation over IPv6",
            outer_v6: true,
            encap,
            ..PLAIN
        },
        Kind {
            name: "ESN, window 128",
            esn: true,
            window: 128,
            ..PLAIN
        },
        Kind {
            name: "window 4096",
            window: 4096,
            ..PLAIN
        },
        Kind {
            name: "AES-256, ESN over IPv6",
            outer_v6: true,
            esn: true,
            encryption: Encryption::AesGcm16Key256,
            ..PLAIN
        },
    ];
    for (number, kind) in (1..).zip(kinds) {
        one_kind(&mut pair, kind, number).with_context(|| kind.name)?;
    }
    Ok(format!("{} kinds of tunnel", kinds.len()))
}

fn one_kind(pair: &mut Pair, kind: Kind, number: u8) -> Result<()> {
    let marked = pair.left("marked")?;
    let (near, far) = pair.install(kind, number)?;
    let pings = u64::from(pair.ping_all(3)?);
    let counters = pair.near.counters(near.id())?;
    ensure!(
        (counters.packets_in, counters.packets_out) == (pings, pings),
        "{pings} pings, {counters:?}"
    );
    let marked = pair.left("marked")? - marked;
    ensure!(marked == pings, "{marked} of {pings} carried the mark");
    ensure!(pair.left("unmarked")? == 0, "ESP without the mark");
    ensure!(pair.left("cleartext")? == 0, "cleartext on the wire");

    let out = sa(pair.near.kernel(), near.spi_out)?;
    let inbound = sa(pair.near.kernel(), near.spi_in)?;
    ensure!(out.sequence_out == pings, "{out:?}");
    ensure!(inbound.sequence_in == pings, "{inbound:?}");
    ensure!(inbound.replay.window == kind.window, "{inbound:?}");
    ensure!(inbound.replay.esn == kind.esn, "{inbound:?}");
    pair.remove(&near, &far)?;
    pair.expect_empty()
}

fn sa(kernel: &mut dyn SaKernel, spi: [u8; 4]) -> Result<SaState> {
    let sas = kernel.dump_sas()?;
    let found = sas.into_iter().find(|sa| sa.id.spi == spi);
    found.context("an SA is missing from the dump")
}

/// Without SAs no cleartext leaves or enters: before the first tunnel, after the last, and when
/// the kernel dropped the SAs by itself.
pub(super) fn block(context: &Context) -> Result<String> {
    let mut pair = Pair::new(context, "xfrm-block")?;
    // The test can fail: without policies the network carries cleartext, and it is counted.
    pair.ping_all(1).context("cleartext without any policy")?;
    let leaked = pair.left("cleartext")?;
    ensure!(
        leaked >= 4,
        "the counter of cleartext missed some: {leaked}"
    );

    pair.protect()?;
    pair.ping_in_vain().context("before the first tunnel")?;
    ensure!(
        pair.xfrm_stat("XfrmOutPolBlock")? > 0,
        "nothing was blocked"
    );

    let (near, far) = pair.install(PLAIN, 1)?;
    pair.ping_all(2).context("through the tunnel")?;
    pair.remove(&near, &far)?;
    pair.ping_in_vain().context("after the tunnel")?;

    // The other side sends in clear, to the gateway itself and to the host behind it.
    pair.far.protect(&[], &[])?;
    let blocked = pair.xfrm_stat("XfrmInPolBlock")?;
    for to in ["10.1.0.1", "10.1.5.1"] {
        let answered = pair.b.ping(Some("10.2.0.1".parse()?), to.parse()?, 2, 1)?;
        ensure!(answered == 0, "cleartext reached {to}");
    }
    let blocked = pair.xfrm_stat("XfrmInPolBlock")? - blocked;
    ensure!(blocked == 4, "{blocked} of 4 packets were blocked inbound");
    pair.protect()?;
    expiry(&mut pair)?;
    ensure!(
        pair.left("cleartext")? == leaked,
        "cleartext left the gateway"
    );
    pair.expect_empty()?;
    Ok(format!(
        "{blocked} cleartext packets refused inbound, none left"
    ))
}

fn expiry(pair: &mut Pair) -> Result<()> {
    let mut events = pair.a.inside(|| Ok(Events::open()?))?;
    let (mut near, far) = ends(PLAIN, 2);
    near.hard_lifetime_seconds = 1;
    pair.near.install_child(&near, None)?;
    pair.far.install_child(&far, None)?;
    let mut gone = Vec::new();
    wait_until(Duration::from_secs(10), "the hard lifetime", || {
        while let Some(event) = events.try_next()? {
            match event {
                XfrmEvent::Expired { sa, hard: true } => gone.push(sa),
                other => bail!("unexpected {other:?}"),
            }
        }
        Ok(gone.len() >= 2)
    })?;
    for sa in &gone {
        ensure!(
            pair.near.child_of(sa) == Some(near.id()),
            "{sa} is not ours"
        );
    }
    ensure!(
        pair.near.reconcile()?.lost == [near.id()],
        "the loss was not found"
    );
    pair.ping_in_vain().context("after the hard lifetime")?;
    pair.remove(&near, &far)
}

/// The peer rekeys while pings run: none is lost, and the new SAs carry the later ones.
pub(super) fn rekey(context: &Context) -> Result<String> {
    let mut pair = Pair::new(context, "xfrm-rekey")?;
    pair.protect()?;
    let (old_near, old_far) = pair.install(PLAIN, 1)?;
    let (new_near, new_far) = ends(PLAIN, 2);
    pair.ping_all(1)?;
    let pinging = pair.ping_on(120)?;
    let packets =
        |tunnels: &mut Tunnels, id| -> Result<u64> { Ok(tunnels.counters(id)?.packets_in) };
    let some_more = |tunnels: &mut Tunnels, id| {
        let before = packets(tunnels, id)?;
        wait_until(Duration::from_secs(5), "pings on an SA", || {
            Ok(packets(tunnels, id)? >= before + 5)
        })
    };
    some_more(&mut pair.near, old_near.id())?;
    // We answer the exchange: the peer does not have the new SA yet and must not be sent to on it.
    pair.near.install_child(&new_near, Some(old_near.id()))?;
    some_more(&mut pair.near, old_near.id())?;
    ensure!(pair.near.promote_used()?.is_empty(), "nobody used it yet");
    // The answer arrives: the peer installs and uses it at once.
    pair.far.install_child(&new_far, Some(old_far.id()))?;
    pair.far.promote(new_far.id())?;
    some_more(&mut pair.near, new_near.id())?;
    ensure!(
        packets(&mut pair.far, new_far.id())? == 0,
        "we switched on our own"
    );
    ensure!(
        pair.near.promote_used()? == [new_near.id()],
        "we did not follow"
    );
    some_more(&mut pair.far, new_far.id())?;
    // The peer deletes the old one.
    pair.remove(&old_near, &old_far)?;
    some_more(&mut pair.near, new_near.id())?;
    let summary = pinging.finish()?;
    ensure!(pair.left("cleartext")? == 0, "cleartext on the wire");
    pair.remove(&new_near, &new_far)?;
    pair.expect_empty()?;
    Ok(summary)
}

/// SAs answer requests as the recording kernel's do; and what an installation costs.
pub(super) fn semantics(context: &Context) -> Result<String> {
    let pair = Pair::new(context, "xfrm-semantics")?;
    let mut real = pair.b.inside(|| Ok(Xfrm::open()?))?;
    compare(&mut real)?;
    measure::installation(&mut real)
}

fn compare(real: &mut Xfrm) -> Result<()> {
    let first = measure::sa(1, false);
    let second = measure::sa(2, true);
    let mut changed = measure::sa(1, false);
    changed.hard_lifetime_seconds = 77;
    let missing = SaId::new([0xcc, 9, 9, 9], first.id.dst);
    let script = [
        Request::UpdateSa(&first),
        Request::NewSa(&first),
        Request::NewSa(&first),
        Request::NewSa(&second),
        Request::UpdateSa(&changed),
        Request::DeleteSa(&missing),
        Request::DeleteSa(&second.id),
        Request::DeleteSa(&second.id),
    ];
    let mut recording = Recording::new();
    let mut answers = Vec::new();
    let mut contents = Vec::new();
    for kernel in [real as &mut dyn SaKernel, &mut recording] {
        let results = kernel.apply(&script);
        let errno = |result: &Result<(), gateway_user::xfrm::XfrmError>| {
            result
                .as_ref()
                .err()
                .and_then(gateway_user::xfrm::XfrmError::errno)
        };
        answers.push(results.iter().map(errno).collect::<Vec<_>>());
        let mut sas = kernel.dump_sas()?;
        for sa in &mut sas {
            (sa.added_at, sa.first_used_at, sa.last_used_at) = (0, 0, None);
        }
        contents.push(sas);
        kernel.delete_sa(&first.id)?;
    }
    ensure!(answers[0] == answers[1], "answers differ: {answers:?}");
    ensure!(contents[0] == contents[1], "contents differ: {contents:?}");
    ensure!(answers[0].iter().flatten().count() == 4, "{answers:?}");
    Ok(())
}
