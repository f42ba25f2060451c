//! Configured connections, and orders about them.

use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::config::{
    ChildConfig, CloseAction, Connection, DpdAction, LocalAuth, RemoteAddress, RemoteAuth,
    StartAction, Uniqueness,
};
use gateway_node::{ConnectionCount, Only, Order, Refused, What};

use super::Agent;
use crate::api::model::{
    ConfiguredChild, ConnectionInfo, Connections, Ordered, Refusal, RefusalKind, Target,
};
use crate::clock;
use crate::xfrm::PolicyKey;

impl Agent {
    /// Carries out an order, or passes it on.
    pub(super) fn order(&mut self, what: What, target: &Target) -> Result<Ordered, Refusal> {
        let order = meant(what, target)?;
        self.share_loaded();
        let outcome = self.node.handle_order(clock::now(), &order);
        let outcome = outcome.map_err(|error| self.refusal(&error, target))?;
        Ok(Ordered {
            here: outcome.here,
            passed_on: outcome.passed_on.iter().map(|m| m.get()).collect(),
            waiting: outcome.waiting.iter().map(|slot| slot.0).collect(),
        })
    }

    /// The slots that an order would be about.
    pub(super) fn would_order(&self, what: What, target: &Target) -> Result<Vec<Slot>, Refusal> {
        let slots = self.node.would_order(clock::now(), &meant(what, target)?);
        slots.map_err(|error| self.refusal(&error, target))
    }

    /// What is not configured is not found; all else is a matter of the state.
    fn refusal(&self, error: &Refused, target: &Target) -> Refusal {
        let known = self
            .all_connections()
            .any(|connection| connection.name == target.connection);
        let kind = match error {
            _ if !known => RefusalKind::NotFound,
            Refused::NoChild(..) => RefusalKind::NotFound,
            _ => RefusalKind::Conflict,
        };
        Refusal::new(kind, error.to_string())
    }

    /// Hears of packets that want an SA as long as there are traps.
    pub(super) fn hear_acquires(&self) {
        if let Some(events) = &self.inputs.kernel_events
            && let Err(error) = events.hear_acquires(self.tunnels.has_traps())
        {
            tracing::error!("start_action = \"trap\": no packet is heard of: {error}");
        }
    }

    /// A packet wants an SA that is not there.
    pub(super) fn acquire(&mut self, now: Instant, policy: &PolicyKey) {
        let Some(trapped) = self.tunnels.trapped(policy) else {
            return;
        };
        let order = Order {
            what: What::Acquire,
            connection: trapped.connection.clone(),
            child: Some(trapped.child.clone()),
            only: None,
        };
        if let Err(error) = self.node.handle_order(now, &order) {
            tracing::warn!(
                connection = order.connection,
                "a packet asks for it: {error}"
            );
        }
    }

    pub(super) fn connections(&self) -> Connections {
        let counts = self.node.by_connection();
        let file = self.config.connections.len();
        let configured = self.all_connections().enumerate();
        let connections = configured.map(|(index, connection)| {
            let slot = Slot::for_connection(&connection.name);
            let owner = self.node.view().slots.owner(slot);
            let own = counts.get(&*connection.name).cloned().unwrap_or_default();
            ConnectionInfo {
                loaded: index >= file,
                ..info(connection, slot, owner, &own)
            }
        });
        Connections {
            connections: connections.collect(),
        }
    }
}

/// An order as the core takes it.
fn meant(what: What, target: &Target) -> Result<Order, Refusal> {
    Ok(Order {
        what,
        connection: target.connection.clone(),
        child: target.child.clone(),
        only: target.spi.as_deref().map(only).transpose()?,
    })
}

/// An SPI as the faces show it.
fn only(text: &str) -> Result<Only, Refusal> {
    let wrong = || {
        let reason =
            format!("\"{text}\" is no SPI: 16 hexadecimal digits of an IKE SA, 8 of a CHILD_SA");
        Refusal::new(RefusalKind::Invalid, reason)
    };
    let octets = data_encoding::HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .map_err(|_| wrong())?;
    Only::from_octets(&octets).ok_or_else(wrong)
}

fn info(
    connection: &Connection,
    slot: Slot,
    owner: Option<MemberId>,
    count: &ConnectionCount,
) -> ConnectionInfo {
    let children = connection.children.iter();
    ConnectionInfo {
        name: connection.name.clone(),
        loaded: false,
        local_addrs: texts(&connection.local_addrs),
        remote_addrs: connection.remote_addrs.iter().map(remote).collect(),
        local_id: connection.local_id.to_string(),
        remote_id: connection.remote_id.to_string(),
        local_auth: match connection.auth.local {
            LocalAuth::Psk => "psk",
            LocalAuth::PublicKey { .. } => "pubkey",
        }
        .into(),
        remote_auth: match connection.auth.remote {
            RemoteAuth::Psk => "psk",
            RemoteAuth::PublicKey(_) => "pubkey",
        }
        .into(),
        proposals: texts(&connection.proposals),
        rekey_time: connection.rekey_time.as_secs(),
        reauth_time: connection.initiation.reauth_time.as_secs(),
        dpd_delay: connection.dpd_delay.as_secs(),
        unique: match connection.unique {
            Uniqueness::Never => "never",
            Uniqueness::No => "no",
            Uniqueness::Replace => "replace",
            Uniqueness::Keep => "keep",
        }
        .into(),
        slot: slot.0,
        owner: owner.map_or(0, MemberId::get),
        ike_sas: count.ike_sas,
        children: children.map(|child| child_info(child, count)).collect(),
    }
}

fn child_info(child: &ChildConfig, count: &ConnectionCount) -> ConfiguredChild {
    ConfiguredChild {
        name: child.name.clone(),
        local_ts: texts(&child.local_ts),
        remote_ts: texts(&child.remote_ts),
        esp_proposals: texts(&child.esp_proposals),
        rekey_time: child.rekey_time.as_secs(),
        rekey_bytes: child.volume.rekey_bytes,
        rekey_packets: child.volume.rekey_packets,
        start_action: match child.actions.start {
            StartAction::None => "none",
            StartAction::Start => "start",
            StartAction::Trap => "trap",
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
        child_sas: count.child_sas.get(&child.name).copied().unwrap_or(0),
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
