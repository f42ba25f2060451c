//! Configured connections, and orders about them.

use std::sync::Arc;

use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use gateway_ike::config::{
    ChildConfig, CloseAction, Connection, DpdAction, RemoteAddress, StartAction,
};
use gateway_ike::endpoint::SaStatus;
use gateway_node::{Order, Refused, What};

use super::Agent;
use crate::api::model::{
    ConfiguredChild, ConnectionInfo, Connections, Ordered, Refusal, RefusalKind, Target,
};
use crate::clock;

impl Agent {
    /// Carries out an order, or passes it on.
    pub(super) fn order(&mut self, what: What, target: &Target) -> Result<Ordered, Refusal> {
        let order = Order {
            what,
            connection: target.connection.clone(),
            child: target.child.clone(),
        };
        let outcome = self.node.handle_order(clock::now(), &order);
        let outcome = outcome.map_err(|error| refusal(&error, target, &self.config.connections))?;
        Ok(Ordered {
            here: outcome.here,
            passed_on: outcome.passed_on.iter().map(|m| m.get()).collect(),
            waiting: outcome.waiting.iter().map(|slot| slot.0).collect(),
        })
    }

    pub(super) fn connections(&self) -> Connections {
        let sas: Vec<SaStatus> = self.node.sas(clock::now()).map(|(_, sa)| sa).collect();
        let configured = self.config.connections.iter();
        let connections = configured.map(|connection| {
            let slot = Slot::for_connection(&connection.name);
            let owner = self.node.view().slots.owner(slot);
            let own: Vec<&SaStatus> = sas
                .iter()
                .filter(|sa| sa.connection == connection.name)
                .collect();
            info(connection, slot, owner, &own)
        });
        Connections {
            connections: connections.collect(),
        }
    }
}

/// What is not configured is not found; all else is a matter of the state.
fn refusal(error: &Refused, target: &Target, configured: &[Arc<Connection>]) -> Refusal {
    let known = configured.iter().any(|c| c.name == target.connection);
    let kind = match error {
        _ if !known => RefusalKind::NotFound,
        Refused::NoChild(..) => RefusalKind::NotFound,
        _ => RefusalKind::Conflict,
    };
    Refusal::new(kind, error.to_string())
}

fn info(
    connection: &Connection,
    slot: Slot,
    owner: Option<MemberId>,
    sas: &[&SaStatus],
) -> ConnectionInfo {
    let children = connection.children.iter();
    ConnectionInfo {
        name: connection.name.clone(),
        local_addrs: texts(&connection.local_addrs),
        remote_addrs: connection.remote_addrs.iter().map(remote).collect(),
        local_id: connection.local_id.to_string(),
        remote_id: connection.remote_id.to_string(),
        proposals: texts(&connection.proposals),
        slot: slot.0,
        owner: owner.map_or(0, MemberId::get),
        ike_sas: sas.len(),
        children: children.map(|child| child_info(child, sas)).collect(),
    }
}

fn child_info(child: &ChildConfig, sas: &[&SaStatus]) -> ConfiguredChild {
    let live = sas.iter().flat_map(|sa| &sa.children);
    ConfiguredChild {
        name: child.name.clone(),
        local_ts: texts(&child.local_ts),
        remote_ts: texts(&child.remote_ts),
        esp_proposals: texts(&child.esp_proposals),
        start_action: match child.actions.start {
            StartAction::None => "none",
            StartAction::Start => "start",
        }
        .into(),
        close_action: match child.actions.close {
            CloseAction::None => "none",
            CloseAction::Start => "start",
        }
        .into(),
        dpd_action: match child.actions.dpd {
            DpdAction::Clear => "clear",
            DpdAction::Restart => "restart",
        }
        .into(),
        child_sas: live.filter(|live| live.name == child.name).count(),
    }
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn remote(address: &RemoteAddress) -> String {
    match (address, address.single()) {
        (RemoteAddress::Any, _) => "%any".into(),
        (_, Some(single)) => single.to_string(),
        (
            RemoteAddress::Network {
                address,
                prefix_len,
            },
            None,
        ) => format!("{address}/{prefix_len}"),
    }
}
