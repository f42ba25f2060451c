//! SAs that outlive their process, and SAs whose peer moves.

use anyhow::{Result, ensure};
use gateway_ike::output::ChildSa;
use gateway_ike::secret::SecretBytes;
use gateway_node::effect::Standing;
use gateway_user::xfrm::{Reconciled, SaState, Tunnels, Xfrm};

use super::copies::{inbound, outbound, send};
use super::pair::{Kind, PLAIN, Pair, SLOT, ends, networks};
use super::sa;
use crate::scenario::Context;

/// A restarted agent takes its SAs over where they stand, moves them forwards, and removes what no
/// record names; cleartext stays in all the time.
pub(in crate::scenario) fn adopt(context: &Context) -> Result<String> {
    let mut pair = Pair::new(context, "xfrm-adopt")?;
    pair.protect()?;
    let (near, far) = pair.install(PLAIN, 1)?;
    let (stray, _) = ends(PLAIN, 2);
    let (mut other_key, _) = ends(PLAIN, 3);
    pair.near.install_child(&stray, None)?;
    pair.near.install_child(&other_key, None)?;
    // In force is the newest: the first again.
    pair.near.remove_child(near.id())?;
    pair.near.install_child(&near, None)?;
    pair.ping_all(2)?;
    let before = sa(pair.near.kernel(), near.spi_out)?;
    ensure!(before.packets > 0);

    // Killed and started again.
    pair.near = Tunnels::new(Box::new(pair.a.inside(|| Ok(Xfrm::open()?))?));
    let found = pair.near.begin_adoption()?;
    ensure!(found == 6, "{found} SAs were found");
    pair.near.protect(&networks(2), &[])?;
    pair.near.reconcile()?;
    let marked = pair.left("marked")?;
    send(&pair, 3)?;
    ensure!(
        pair.left("marked")? == marked + 3,
        "not encrypted while nobody has the books"
    );

    let standing = Standing {
        sequence_out: 50_000,
        ceiling: 66_384,
        sequence_in: 0,
    };
    pair.near.install_copy(&near, standing)?;
    let after = sa(pair.near.kernel(), near.spi_out)?;
    same_sa(&before, &after)?;
    ensure!(after.sequence_out == 50_000, "{after:?}");
    // A record whose block lies behind what the SA has sent.
    let behind = Standing {
        sequence_out: 1,
        ..standing
    };
    other_key.key_out = SecretBytes::new(vec![9; other_key.key_out.len()]);
    let old = sa(pair.near.kernel(), other_key.spi_out)?;
    pair.near.install_copy(&other_key, behind)?;
    let new = sa(pair.near.kernel(), other_key.spi_out)?;
    ensure!(new.key != old.key && new.sequence_out == 1, "{new:?}");

    let removed = super::finish_adoption(&mut pair.near)?;
    ensure!(removed == 2, "{removed} SAs removed");
    let left = pair.near.reconcile()?;
    ensure!(left == Reconciled::default(), "{left:?}");
    pair.near.remove_child(other_key.id())?;
    pair.near.gate().gain(|slot| slot == SLOT);
    pair.ping_all(2)?;
    ensure!(pair.left("cleartext")? == 0, "cleartext on the wire");
    pair.remove(&near, &far)?;
    pair.expect_empty()?;
    Ok("1 of 3 adopted in place, 1 had another key, 1 nobody claimed".into())
}

fn same_sa(before: &SaState, after: &SaState) -> Result<()> {
    ensure!(
        after.packets >= before.packets && after.reqid == before.reqid,
        "installed anew: {before:?}, {after:?}"
    );
    ensure!(after.added_at == before.added_at, "{before:?}, {after:?}");
    Ok(())
}

/// Ports change in place; addresses by a new SA that goes on exactly where the old one stood.
pub(in crate::scenario) fn path(context: &Context) -> Result<String> {
    let mut pair = Pair::new(context, "xfrm-path")?;
    pair.protect()?;
    pair.b.ip("addr add 192.0.2.3/24 dev out")?;
    for (number, esn) in [(1, false), (2, true)] {
        let kind = Kind {
            encap: Some((4500, 61234)),
            esn,
            window: if esn { 128 } else { 32 },
            ..PLAIN
        };
        one_path(&mut pair, kind, number)?;
    }
    pair.expect_empty()?;
    ensure!(pair.left("cleartext")? == 0, "cleartext on the wire");
    Ok("ports in place, addresses without a gap or a repetition".into())
}

fn one_path(pair: &mut Pair, kind: Kind, number: u8) -> Result<()> {
    let (mut near, mut far) = pair.install(kind, number)?;
    pair.ping_all(2)?;
    let before = sa(pair.near.kernel(), near.spi_out)?;
    // While packets pass: none is lost.
    let pinging = pair.ping_on(20)?;
    for port in [4500, 61234, 4500] {
        (near.encap, far.encap) = (Some((4500, port)), Some((port, 4500)));
        pair.near.update_path(&near)?;
        pair.far.update_path(&far)?;
    }
    pinging.finish()?;
    let after = sa(pair.near.kernel(), near.spi_out)?;
    same_sa(&before, &after)?;
    let pings = after.sequence_out - before.sequence_out;
    ensure!(pings == 20, "{pings} numbers for 20 pings: {after:?}");
    ensure!(after.encapsulation.is_some_and(|e| e.dst_port == 4500));
    pair.ping_all(2)?;

    // The peer moves to another address, and its numbers go on.
    let (out, received) = standing(&mut pair.near, &near)?;
    let sent = sa(pair.far.kernel(), far.spi_out)?.sequence_out;
    pair.far.remove_child(far.id())?;
    far.local = "192.0.2.3".parse()?;
    pair.far.install_owned(&far, None, sent)?;
    near.remote = far.local;
    pair.near.update_path(&near)?;
    ensure!(
        standing(&mut pair.near, &near)? == (out, received.clone()),
        "the numbers changed on the way"
    );
    pair.ping_all(2)?;
    // Out of its encapsulation.
    let (out, received) = standing(&mut pair.near, &near)?;
    (near.encap, far.encap) = (None, None);
    pair.far.update_path(&far)?;
    pair.near.update_path(&near)?;
    ensure!(
        standing(&mut pair.near, &near)? == (out, received),
        "the numbers changed out of the encapsulation"
    );
    let refused = pair.xfrm_stat("XfrmInStateSeqError")?;
    pair.ping_all(2)?;
    ensure!(pair.xfrm_stat("XfrmInStateSeqError")? == refused);
    pair.remove(&near, &far)
}

fn standing(tunnels: &mut Tunnels, child: &ChildSa) -> Result<(u64, gateway_user::xfrm::Position)> {
    let out = outbound(tunnels, child)?.position.sequence_out;
    let inbound = inbound(tunnels, child)?.position;
    Ok((out, inbound))
}
