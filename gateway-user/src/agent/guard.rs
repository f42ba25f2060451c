//! The policies that stand whether or not their tunnels are up: blocks, and traps.

use std::sync::Arc;

use gateway_ike::config::{Connection, StartAction};
use gateway_ike::selector::{SelectorConfig, TrafficSelector};

use super::translate;
use crate::config::Config;
use crate::xfrm::{Blocks, Trap, Tunnels, XfrmError, ask_again_soon};

/// Puts them in line with `connections`. They are the same on every member, whoever owns the
/// connections' slots: a packet may reach any.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn guard(
    tunnels: &mut Tunnels,
    config: &Config,
    connections: &[Arc<Connection>],
) -> Result<(), XfrmError> {
    if config.forwarding_block {
        block(tunnels, config, connections)?;
    }
    let traps = traps(connections);
    if !traps.is_empty()
        && let Err(error) = ask_again_soon()
    {
        tracing::warn!("net.core.xfrm_acq_expires: {error}");
    }
    for refused in tunnels.set_traps(&traps)? {
        tracing::error!("start_action = \"trap\": {refused}");
    }
    Ok(())
}

/// Cleartext for the peers' networks does not leave without an SA.
fn block(
    tunnels: &mut Tunnels,
    config: &Config,
    connections: &[Arc<Connection>],
) -> Result<(), XfrmError> {
    let children = connections.iter().flat_map(|c| &c.children);
    let remote = |routed: bool| -> Vec<TrafficSelector> {
        let children = children.clone();
        let these = children.filter(|child| (child.if_id_out != 0) == routed);
        let selectors = these.flat_map(|child| &child.remote_ts);
        selectors.filter_map(SelectorConfig::fixed).collect()
    };
    let local = children.clone().flat_map(|child| &child.local_ts);
    let blocks = Blocks {
        remote: &remote(false),
        routed: &remote(true),
        pairs: &dynamic_flows(connections),
        exempt: &translate::exempt_networks(config, local.filter_map(SelectorConfig::fixed)),
    };
    for open in tunnels.block_cleartext(&blocks)? {
        tracing::warn!(
            "remote_ts {open} is everything: cleartext to it is not blocked while its tunnel is down"
        );
    }
    Ok(())
}

/// What goes to the peers' own addresses (`dynamic`), as far as these are known. Only what comes from
/// the children's own selectors: the members may have other business with these addresses.
fn dynamic_flows(connections: &[Arc<Connection>]) -> Vec<(TrafficSelector, TrafficSelector)> {
    let mut flows = Vec::new();
    for connection in connections {
        for ends in connection.destinations() {
            let children = connection.children.iter();
            for child in children.filter(|child| child.if_id_out == 0) {
                let dynamic = child.remote_ts.iter().filter(|ts| ts.is_dynamic());
                for remote in dynamic.map(|ts| ts.resolve(ends.1)) {
                    let local = child.local_ts.iter().map(|ts| ts.resolve(ends.0));
                    let pairs = local.map(|local| (local, remote));
                    flows.extend(pairs.filter(|(a, b)| a.is_ipv4() == b.is_ipv4()));
                }
            }
        }
    }
    flows
}

fn traps(connections: &[Arc<Connection>]) -> Vec<Trap<'_>> {
    let mut traps = Vec::new();
    for connection in connections {
        let Some(ends) = connection.destinations().first().copied() else {
            continue;
        };
        let children = connection.children.iter();
        let trapped = children.filter(|child| child.actions.start == StartAction::Trap);
        traps.extend(trapped.map(|child| Trap {
            connection: &connection.name,
            child,
            ends,
        }));
    }
    traps
}
