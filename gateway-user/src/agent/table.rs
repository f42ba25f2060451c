//! The steering tables: what the cluster core wants in them, and what a restart finds in them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway_cluster::table::TableChange;
use gateway_common::abi::{EspOutKey, EspSaKey, IkeSaKey, NegotiationKey, RemoteNet};
use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use ipnet::IpNet;

use super::Agent;
use crate::steering::{TableError, Tables};

/// The entries that an earlier process wrote and that this one's core has not written again.
pub(super) type Inherited = BTreeMap<Key, Option<Slot>>;

/// A key of any table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Negotiation(NegotiationKey),
    IkeSa(IkeSaKey),
    EspSa(EspSaKey),
    EspOut(EspOutKey),
    RemoteNet(u32, IpNet),
}

impl Key {
    fn remove(self, tables: &dyn Tables) -> Result<bool, TableError> {
        match self {
            Self::Negotiation(key) => tables.remove_negotiation(&key),
            Self::IkeSa(key) => tables.remove_ike_sa(&key),
            Self::EspSa(key) => tables.remove_esp_sa(&key),
            Self::EspOut(key) => tables.remove_esp_out(&key),
            Self::RemoteNet(zone, net) => tables.remove_remote_net(zone, net),
        }
    }
}

impl Agent {
    /// After a restart the pinned tables hold what the earlier process wrote. It goes on steering
    /// until the owners' snapshots say which of it still stands ([`Agent::drop_inherited`]).
    pub(super) fn inherit_tables(&mut self) -> Result<(), TableError> {
        let dump = self.steering.tables().dump()?;
        let negotiations = dump
            .negotiations
            .iter()
            .map(|(key, value)| (Key::Negotiation(*key), Some(Slot(value.slot))));
        let ike_sas = dump
            .ike_sas
            .iter()
            .map(|(key, slot)| (Key::IkeSa(*key), Some(*slot)));
        let esp_sas = dump
            .esp_sas
            .iter()
            .map(|(key, slot)| (Key::EspSa(*key), Some(*slot)));
        let esp_outs = dump
            .esp_outs
            .iter()
            .map(|(key, value)| (Key::EspOut(*key), Some(Slot(value.slot))));
        let nets = dump
            .remote_nets
            .iter()
            .filter(|(_, _, slot)| slot.is_some())
            .map(|(zone, net, slot)| (Key::RemoteNet(*zone, *net), *slot));
        self.inherited = negotiations
            .chain(ike_sas)
            .chain(esp_sas)
            .chain(esp_outs)
            .chain(nets)
            .collect();
        if !self.inherited.is_empty() {
            let count = self.inherited.len();
            tracing::info!("{count} table entries of an earlier run go on steering");
        }
        Ok(())
    }

    /// `member` has told all that it owns: what was inherited from it and is not among that goes.
    pub(super) fn drop_inherited(&mut self, member: MemberId) {
        if self.inherited.is_empty() {
            return;
        }
        let owner = |slot: Slot| self.node.view().slots.owner(slot);
        let (untold, waiting): (Inherited, Inherited) = std::mem::take(&mut self.inherited)
            .into_iter()
            .partition(|(_, slot)| slot.and_then(owner) == Some(member));
        self.inherited = waiting;
        let tables = self.steering.tables();
        for key in untold.into_keys() {
            if let Err(error) = key.remove(&*tables) {
                tracing::warn!("{error}");
            }
        }
    }

    pub(super) fn write_table(&mut self, change: &TableChange) {
        if let Some(key) = put_key(change).filter(|_| !self.inherited.is_empty()) {
            self.inherited.remove(&key);
        }
        if let Err(error) = write(&*self.steering.tables(), change) {
            tracing::error!("{error}: packets of this entry stay where they arrive");
        }
    }
}

fn put_key(change: &TableChange) -> Option<Key> {
    match *change {
        TableChange::PutNegotiation { key, .. } => Some(Key::Negotiation(key)),
        TableChange::PutIkeSa { key, .. } => Some(Key::IkeSa(key)),
        TableChange::PutEspSa { key, .. } => Some(Key::EspSa(key)),
        TableChange::PutEspOut { key, .. } => Some(Key::EspOut(key)),
        TableChange::PutRemoteNet {
            prefix_len, net, ..
        } => {
            let (zone, net) = remote_net(prefix_len, &net)?;
            Some(Key::RemoteNet(zone, net))
        }
        _ => None,
    }
}

/// Zone and prefix of a `REMOTE_NET` key; `None` for a length that the trie does not allow.
fn remote_net(prefix_len: u32, net: &RemoteNet) -> Option<(u32, IpNet)> {
    let address = IpAddr::from(net.address);
    let before = if address.is_ipv4() { 32 + 96 } else { 32 };
    let prefix_len = u8::try_from(prefix_len.checked_sub(before)?).ok()?;
    Some((
        u32::from_be_bytes(net.zone),
        IpNet::new(address, prefix_len).ok()?,
    ))
}

fn write(tables: &dyn Tables, change: &TableChange) -> Result<(), TableError> {
    match change {
        TableChange::PutNegotiation { key, value } => tables.put_negotiation(key, value),
        TableChange::RemoveNegotiation(key) => tables.remove_negotiation(key).map(drop),
        TableChange::PutIkeSa { key, value } => tables.put_ike_sa(key, Slot(value.slot)),
        TableChange::RemoveIkeSa(key) => tables.remove_ike_sa(key).map(drop),
        TableChange::PutEspSa { key, value } => tables.put_esp_sa(key, Slot(value.slot)),
        TableChange::RemoveEspSa(key) => tables.remove_esp_sa(key).map(drop),
        TableChange::PutEspOut { key, slot, ceiling } => tables.put_esp_out(key, *slot, *ceiling),
        TableChange::RemoveEspOut(key) => tables.remove_esp_out(key).map(drop),
        TableChange::PutRemoteNet {
            prefix_len,
            net,
            value,
        } => match remote_net(*prefix_len, net) {
            Some((zone, net)) => tables.put_remote_net(zone, net, Slot(value.slot)),
            None => Ok(()),
        },
        TableChange::RemoveRemoteNet { prefix_len, net } => match remote_net(*prefix_len, net) {
            Some((zone, net)) => tables.remove_remote_net(zone, net).map(drop),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::abi::Address;

    use super::*;

    #[test]
    fn remote_nets_are_prefixes_again() {
        let key = |text: &str| RemoteNet {
            zone: [0, 0, 0, 7],
            address: Address::from(text.parse::<IpAddr>().unwrap()),
        };
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(
            remote_net(32 + 96 + 16, &key("10.2.0.0")),
            Some((7, net("10.2.0.0/16")))
        );
        assert_eq!(
            remote_net(32 + 48, &key("2001:db8::")),
            Some((7, net("2001:db8::/48")))
        );
        assert_eq!(remote_net(32 + 48, &key("10.2.0.0")), None);
        assert_eq!(remote_net(500, &key("2001:db8::")), None);
    }
}
