//! The tables without a kernel.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gateway_common::abi::{
    Counter, EspOutKey, EspOutValue, EspSaKey, IkeSaKey, MemberValue, NegotiationKey,
    NegotiationValue, Settings, SlotValue, is_within_ceiling, map, size,
};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use ipnet::IpNet;

use super::tables::{Counters, Dump, Fill, TableError, Tables};

/// The tables in memory, with the capacities and the semantics of the maps: for
/// `steering.attach = "none"` and for tests. Nothing reads them but [`Tables::dump`]; all
/// counters stay zero.
#[derive(Debug)]
pub struct MemoryTables {
    state: Mutex<State>,
    max_entries: u32,
}

#[derive(Debug)]
struct State {
    negotiations: HashMap<NegotiationKey, (u64, NegotiationValue)>,
    writes: u64,
    ike_sas: HashMap<IkeSaKey, Slot>,
    esp_sas: HashMap<EspSaKey, Slot>,
    esp_outs: HashMap<EspOutKey, EspOutValue>,
    remote_nets: BTreeMap<(u32, IpNet), Option<Slot>>,
    slot_owners: [Option<MemberId>; Slot::COUNT],
    lease: Instant,
    live: Vec<MemberId>,
    members: HashMap<MemberId, MemberValue>,
    vips: HashSet<IpAddr>,
    settings: Settings,
}

impl MemoryTables {
    /// Empty tables; `max_entries` (at least 1) bounds the negotiations.
    pub fn new(max_entries: u32) -> Self {
        Self {
            state: Mutex::new(State {
                negotiations: HashMap::new(),
                writes: 0,
                ike_sas: HashMap::new(),
                esp_sas: HashMap::new(),
                esp_outs: HashMap::new(),
                remote_nets: BTreeMap::new(),
                slot_owners: [None; Slot::COUNT],
                lease: Instant::default(),
                live: Vec::new(),
                members: HashMap::new(),
                vips: HashSet::new(),
                settings: Settings::default(),
            }),
            max_entries: max_entries.max(1),
        }
    }

    /// The configured addresses.
    pub fn vips(&self) -> Vec<IpAddr> {
        self.state().vips.iter().copied().collect()
    }

    fn put_net(&self, zone: u32, net: IpNet, slot: Option<Slot>) -> Result<(), TableError> {
        let mut state = self.state();
        let key = (zone, net.trunc());
        if state.remote_nets.len() >= size::SAS as usize && !state.remote_nets.contains_key(&key) {
            return Err(TableError::Full(map::REMOTE_NET));
        }
        state.remote_nets.insert(key, slot);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inserts as a BPF hash map does: an existing key may always be overwritten.
fn put<K: Hash + Eq, V>(
    table: &mut HashMap<K, V>,
    name: &'static str,
    key: K,
    value: V,
) -> Result<(), TableError> {
    if table.len() >= size::SAS as usize && !table.contains_key(&key) {
        return Err(TableError::Full(name));
    }
    table.insert(key, value);
    Ok(())
}

fn copy<K: Copy, V: Copy>(table: &HashMap<K, V>) -> Vec<(K, V)> {
    table.iter().map(|(key, value)| (*key, *value)).collect()
}

impl Tables for MemoryTables {
    fn put_negotiation(
        &self,
        key: &NegotiationKey,
        value: &NegotiationValue,
    ) -> Result<(), TableError> {
        let mut state = self.state();
        let full = state.negotiations.len() >= self.max_entries as usize;
        if full && !state.negotiations.contains_key(key) {
            let oldest = state
                .negotiations
                .iter()
                .min_by_key(|(_, (written, _))| *written)
                .map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                state.negotiations.remove(&oldest);
            }
        }
        state.writes += 1;
        let written = state.writes;
        state.negotiations.insert(*key, (written, *value));
        Ok(())
    }

    fn remove_negotiation(&self, key: &NegotiationKey) -> Result<bool, TableError> {
        Ok(self.state().negotiations.remove(key).is_some())
    }

    fn put_ike_sa(&self, key: &IkeSaKey, slot: Slot) -> Result<(), TableError> {
        put(&mut self.state().ike_sas, map::IKE_SA, *key, slot)
    }

    fn remove_ike_sa(&self, key: &IkeSaKey) -> Result<bool, TableError> {
        Ok(self.state().ike_sas.remove(key).is_some())
    }

    fn put_esp_sa(&self, key: &EspSaKey, slot: Slot) -> Result<(), TableError> {
        put(&mut self.state().esp_sas, map::ESP_SA, *key, slot)
    }

    fn remove_esp_sa(&self, key: &EspSaKey) -> Result<bool, TableError> {
        Ok(self.state().esp_sas.remove(key).is_some())
    }

    fn put_esp_out(&self, key: &EspOutKey, slot: Slot, ceiling: u32) -> Result<(), TableError> {
        let value = EspOutValue::new(slot.0, ceiling);
        put(&mut self.state().esp_outs, map::ESP_OUT, *key, value)
    }

    fn raise_ceiling(&self, key: &EspOutKey, ceiling: u32) -> Result<bool, TableError> {
        let mut state = self.state();
        let Some(value) = state.esp_outs.get_mut(key) else {
            return Ok(false);
        };
        if !is_within_ceiling(ceiling, value.ceiling) {
            value.ceiling = ceiling;
        }
        Ok(true)
    }

    fn remove_esp_out(&self, key: &EspOutKey) -> Result<bool, TableError> {
        Ok(self.state().esp_outs.remove(key).is_some())
    }

    fn put_remote_net(&self, zone: u32, net: IpNet, slot: Slot) -> Result<(), TableError> {
        self.put_net(zone, net, Some(slot))
    }

    fn put_local_net(&self, zone: u32, net: IpNet) -> Result<(), TableError> {
        self.put_net(zone, net, None)
    }

    fn remote_net(&self, zone: u32, address: IpAddr) -> Result<Option<SlotValue>, TableError> {
        let state = self.state();
        let nets = state.remote_nets.iter();
        let around = nets.filter(|((of, net), _)| *of == zone && net.contains(&address));
        let found = around.max_by_key(|((_, net), _)| net.prefix_len());
        Ok(
            found
                .map(|(_, slot)| slot.map_or_else(SlotValue::local, |slot| SlotValue::new(slot.0))),
        )
    }

    fn remove_remote_net(&self, zone: u32, net: IpNet) -> Result<bool, TableError> {
        Ok(self
            .state()
            .remote_nets
            .remove(&(zone, net.trunc()))
            .is_some())
    }

    fn set_slot_owners(&self, owners: &[Option<MemberId>; Slot::COUNT]) -> Result<(), TableError> {
        self.state().slot_owners = *owners;
        Ok(())
    }

    fn set_lease(&self, until: Instant) -> Result<(), TableError> {
        self.state().lease = until;
        Ok(())
    }

    fn set_member(&self, id: MemberId, value: &MemberValue) -> Result<(), TableError> {
        self.state().members.insert(id, *value);
        Ok(())
    }

    fn member(&self, id: MemberId) -> Result<MemberValue, TableError> {
        Ok(self.state().members.get(&id).copied().unwrap_or_default())
    }

    fn set_live(&self, live: &[MemberId]) -> Result<(), TableError> {
        let count = u32::try_from(live.len())
            .ok()
            .filter(|count| *count < size::MEMBERS)
            .ok_or(TableError::Invalid {
                table: map::LIVE,
                reason: "more than 63 live members",
            })?;
        let mut state = self.state();
        state.settings.live_members = count;
        state.live = live.to_vec();
        Ok(())
    }

    fn set_vips(&self, vips: &[IpAddr]) -> Result<(), TableError> {
        if vips.len() > size::VIPS as usize {
            return Err(TableError::Full(map::VIP));
        }
        self.state().vips = vips.iter().copied().collect();
        Ok(())
    }

    fn set_settings(&self, settings: Settings) -> Result<(), TableError> {
        let mut state = self.state();
        let live_members = state.settings.live_members;
        state.settings = Settings {
            live_members,
            ..settings
        };
        Ok(())
    }

    fn settings(&self) -> Result<Settings, TableError> {
        Ok(self.state().settings)
    }

    fn dump_owners(&self) -> Result<Dump, TableError> {
        Ok(Dump {
            esp_outs: Vec::new(),
            remote_nets: Vec::new(),
            ..self.dump()?
        })
    }

    fn dump(&self) -> Result<Dump, TableError> {
        let state = self.state();
        Ok(Dump {
            negotiations: state
                .negotiations
                .iter()
                .map(|(key, (_, value))| (*key, *value))
                .collect(),
            ike_sas: copy(&state.ike_sas),
            esp_sas: copy(&state.esp_sas),
            esp_outs: copy(&state.esp_outs),
            remote_nets: state
                .remote_nets
                .iter()
                .map(|((zone, net), slot)| (*zone, *net, *slot))
                .collect(),
            slot_owners: state.slot_owners.to_vec(),
            lease: state.lease,
        })
    }

    fn negotiation(&self, key: &NegotiationKey) -> Result<Option<NegotiationValue>, TableError> {
        Ok(self.state().negotiations.get(key).map(|(_, value)| *value))
    }

    fn negotiations(&self) -> Result<Vec<(NegotiationKey, NegotiationValue)>, TableError> {
        let state = self.state();
        let all = state.negotiations.iter();
        Ok(all.map(|(key, (_, value))| (*key, *value)).collect())
    }

    fn ike_sa(&self, key: &IkeSaKey) -> Result<Option<Slot>, TableError> {
        Ok(self.state().ike_sas.get(key).copied())
    }

    fn esp_sa(&self, key: &EspSaKey) -> Result<Option<Slot>, TableError> {
        Ok(self.state().esp_sas.get(key).copied())
    }

    fn esp_out(&self, key: &EspOutKey) -> Result<Option<EspOutValue>, TableError> {
        Ok(self.state().esp_outs.get(key).copied())
    }

    fn slot_owners(&self) -> Result<Vec<Option<MemberId>>, TableError> {
        Ok(self.state().slot_owners.to_vec())
    }

    fn live(&self) -> Result<Vec<MemberId>, TableError> {
        Ok(self.state().live.clone())
    }

    fn fill(&self) -> Result<Fill, TableError> {
        let entries = u32::try_from(self.state().negotiations.len()).unwrap_or(u32::MAX);
        Ok(Fill {
            entries,
            max_entries: self.max_entries,
        })
    }

    fn counters(&self) -> Result<Counters, TableError> {
        let members = vec![Counter::default(); size::MEMBERS as usize];
        Ok(Counters {
            reasons: Vec::new(),
            forwarded: members.clone(),
            received: members,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_common::abi::{Address, NegotiationState};

    fn key(number: u8) -> NegotiationKey {
        NegotiationKey {
            cookie: [number; 8],
            message_id: gateway_common::abi::ANY_MESSAGE_ID,
            peer: Address::UNSPECIFIED,
        }
    }

    fn value() -> NegotiationValue {
        NegotiationValue {
            member: 1,
            slot: 7,
            state: NegotiationState::HalfOpen as u8,
            reserved: [0; 5],
            created_ns: 1,
            expires_ns: 2,
        }
    }

    #[test]
    fn a_full_negotiation_table_forgets_the_oldest() {
        let tables = MemoryTables::new(2);
        for number in [1, 2, 1, 3] {
            tables.put_negotiation(&key(number), &value()).unwrap();
        }
        assert_eq!(tables.fill().unwrap().entries, 2);
        assert!(!tables.remove_negotiation(&key(2)).unwrap());
        assert!(tables.remove_negotiation(&key(1)).unwrap());
        assert!(tables.remove_negotiation(&key(3)).unwrap());
    }

    #[test]
    fn host_bits_of_a_remote_network_do_not_matter() {
        let tables = MemoryTables::new(1);
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        tables
            .put_remote_net(0, net("10.2.3.4/16"), Slot(9))
            .unwrap();
        tables.put_local_net(0, net("10.2.3.0/24")).unwrap();
        let found = |text: &str| tables.remote_net(0, text.parse().unwrap()).unwrap();
        assert_eq!(found("10.2.4.1"), Some(SlotValue::new(9)));
        assert_eq!(
            found("10.2.3.1"),
            Some(SlotValue::local()),
            "the longest prefix"
        );
        assert_eq!(found("10.3.0.1"), None);
        assert!(tables.remove_remote_net(0, net("10.2.0.0/16")).unwrap());
        assert!(!tables.remove_remote_net(0, net("10.2.0.0/16")).unwrap());
    }

    #[test]
    fn ceilings_only_rise() {
        let tables = MemoryTables::new(1);
        let key = EspOutKey {
            spi: [1; 4],
            peer: Address::UNSPECIFIED,
        };
        assert!(!tables.raise_ceiling(&key, 5).unwrap(), "no such SA");
        tables.put_esp_out(&key, Slot(3), u32::MAX - 1).unwrap();
        for (wanted, now) in [(7, 7), (6, 7), (u32::MAX, 7), (8, 8)] {
            assert!(tables.raise_ceiling(&key, wanted).unwrap());
            let value = tables.dump().unwrap().esp_outs[0].1;
            assert_eq!((value.slot, value.ceiling), (3, now), "{wanted}");
        }
        tables.put_esp_out(&key, Slot(3), 1).unwrap();
        let value = tables.dump().unwrap().esp_outs[0].1;
        assert_eq!(value.ceiling, 1, "an SA installed anew starts anew");
    }

    #[test]
    fn settings_keep_the_number_of_live_members() {
        let tables = MemoryTables::new(1);
        let live = [MemberId::new(1).unwrap(), MemberId::new(3).unwrap()];
        tables.set_live(&live).unwrap();
        tables
            .set_settings(Settings {
                member: 1,
                enabled: 1,
                cluster: 1,
                live_members: 99,
                ..Settings::default()
            })
            .unwrap();
        assert_eq!(tables.settings().unwrap().live_members, 2);
    }
}
