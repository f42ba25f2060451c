//! The tables in the kernel.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, DevMap, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, Pod};
use gateway_common::abi::{
    Address, Counter, EspOutKey, EspOutValue, EspSaKey, FewVips, IkeSaKey, MemberValue, NET_LOCAL,
    NegotiationKey, NegotiationValue, RemoteNet, Settings, SlotValue, is_within_ceiling, map, size,
};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::array_table::ArrayTable;
use super::hash_table::{HashTable, failed, lock, removed};
use super::tables::{Counters, Dump, Fill, TableError, Tables};

/// Zone bits in front of an address in a `REMOTE_NET` key.
const ZONE_BITS: u32 = 32;
/// `::ffff:0:0/96` in front of an IPv4 prefix.
const MAPPED_BITS: u32 = 96;

/// [`Tables`] over the pinned maps. Each map has its own lock: the agent is the only writer, and
/// a dump of one table does not hold up another.
pub(super) struct BpfTables {
    negotiations: HashTable<NegotiationKey, NegotiationValue>,
    ike_sas: HashTable<IkeSaKey, SlotValue>,
    esp_sas: HashTable<EspSaKey, SlotValue>,
    esp_outs: HashTable<EspOutKey, EspOutValue>,
    remote_nets: Mutex<LpmTrie<MapData, RemoteNet, SlotValue>>,
    slot_owners: ArrayTable<u32>,
    lease: ArrayTable<u64>,
    members: Mutex<Array<MapData, MemberValue>>,
    live: ArrayTable<u32>,
    vips: HashTable<Address, u32>,
    few_vips: Mutex<Array<MapData, FewVips>>,
    devices: Mutex<DevMap<MapData>>,
    settings: Mutex<Array<MapData, Settings>>,
    stats: Mutex<PerCpuArray<MapData, Counter>>,
    peer_stats: Mutex<PerCpuArray<MapData, Counter>>,
}

impl fmt::Debug for BpfTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BpfTables")
            .field("max_entries", &self.negotiations.max_entries())
            .finish_non_exhaustive()
    }
}

/// Takes map `name` out of the loaded object.
fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, TableError> {
    ebpf.take_map(name).ok_or(TableError::Invalid {
        table: name,
        reason: "the object has no such map",
    })
}

/// Takes map `name` out of the loaded object as a typed map.
fn typed<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<Mutex<T>, TableError>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(take(ebpf, name)?)
        .map(Mutex::new)
        .map_err(|error| failed(name, "open", error))
}

fn hash<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<HashTable<K, V>, TableError> {
    HashTable::new(name, take(ebpf, name)?)
}

fn array<V: Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<ArrayTable<V>, TableError> {
    ArrayTable::new(name, take(ebpf, name)?)
}

/// An owner as `SLOT_OWNER` and `LIVE` hold it.
fn raw(member: Option<&MemberId>) -> u32 {
    member.map_or(0, |member| u32::from(member.get()))
}

fn slots<K: Pod>(table: &HashTable<K, SlotValue>) -> Result<Vec<(K, Slot)>, TableError> {
    let entries = table.read()?;
    Ok(entries
        .into_iter()
        .map(|(key, value)| (key, Slot(value.slot)))
        .collect())
}

/// The trie's key of a prefix.
pub(super) fn remote_net_key(zone: u32, net: IpNet) -> Key<RemoteNet> {
    let extra = match net {
        IpNet::V4(_) => ZONE_BITS + MAPPED_BITS,
        IpNet::V6(_) => ZONE_BITS,
    };
    Key::new(
        extra + u32::from(net.prefix_len()),
        RemoteNet {
            zone: zone.to_be_bytes(),
            address: net.network().into(),
        },
    )
}

/// The prefix of a trie's key; `None` if the agent cannot have written it.
pub(super) fn remote_net(key: &Key<RemoteNet>) -> Option<(u32, IpNet)> {
    let RemoteNet { zone, address } = key.data();
    let bits = key.prefix_len().checked_sub(ZONE_BITS)?;
    let net = match IpAddr::from(address) {
        IpAddr::V4(v4) => mapped_net(v4, bits)?,
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new(v6, u8::try_from(bits).ok()?).ok()?),
    };
    Some((u32::from_be_bytes(zone), net))
}

fn mapped_net(address: Ipv4Addr, bits: u32) -> Option<IpNet> {
    let prefix = u8::try_from(bits.checked_sub(MAPPED_BITS)?).ok()?;
    Ipv4Net::new(address, prefix).ok().map(IpNet::V4)
}

impl BpfTables {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        Ok(Self {
            negotiations: hash(ebpf, map::NEGOTIATIONS)?,
            ike_sas: hash(ebpf, map::IKE_SA)?,
            esp_sas: hash(ebpf, map::ESP_SA)?,
            esp_outs: hash(ebpf, map::ESP_OUT)?,
            remote_nets: typed(ebpf, map::REMOTE_NET)?,
            slot_owners: array(ebpf, map::SLOT_OWNER)?,
            lease: array(ebpf, map::LEASE)?,
            members: typed(ebpf, map::MEMBER)?,
            live: array(ebpf, map::LIVE)?,
            vips: hash(ebpf, map::VIP)?,
            few_vips: typed(ebpf, map::VIP_FEW)?,
            devices: typed(ebpf, map::SYNC_DEV)?,
            settings: typed(ebpf, map::SETTINGS)?,
            stats: typed(ebpf, map::STATS)?,
            peer_stats: typed(ebpf, map::PEER_STATS)?,
        })
    }

    /// Points `SYNC_DEV[0]` at an interface. The entry vanishes with the interface.
    pub(super) fn set_sync_device(&self, interface: u32) -> Result<(), TableError> {
        lock(&self.devices)
            .set(0, interface, None, 0)
            .map_err(|error| failed(map::SYNC_DEV, "set", error))
    }

    /// The interface in `SYNC_DEV[0]`.
    pub(super) fn sync_device(&self) -> Option<u32> {
        let value = lock(&self.devices).get(0, 0).ok()?;
        (value.if_index != 0).then_some(value.if_index)
    }

    fn put_net(&self, zone: u32, net: IpNet, value: SlotValue) -> Result<(), TableError> {
        lock(&self.remote_nets)
            .insert(&remote_net_key(zone, net), value, 0)
            .map_err(|error| failed(map::REMOTE_NET, "insert", error))
    }

    fn read_owners(&self) -> Result<Vec<Option<MemberId>>, TableError> {
        let owners = self.slot_owners.read()?;
        Ok(owners
            .into_iter()
            .map(|raw| u8::try_from(raw).ok().and_then(MemberId::new))
            .collect())
    }

    fn write_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<(), TableError> {
        let mut table = lock(&self.settings);
        let mut settings = table
            .get(&0, 0)
            .map_err(|error| failed(map::SETTINGS, "read", error))?;
        change(&mut settings);
        table
            .set(0, settings, 0)
            .map_err(|error| failed(map::SETTINGS, "set", error))
    }
}

fn sums(
    table: &Mutex<PerCpuArray<MapData, Counter>>,
    name: &'static str,
) -> Result<Vec<Counter>, TableError> {
    let table = lock(table);
    (0..table.len())
        .map(|index| {
            let values = table
                .get(&index, 0)
                .map_err(|error| failed(name, "read", error))?;
            Ok(values
                .iter()
                .fold(Counter::default(), |sum, value| Counter {
                    packets: sum.packets.wrapping_add(value.packets),
                    bytes: sum.bytes.wrapping_add(value.bytes),
                }))
        })
        .collect()
}

impl Tables for BpfTables {
    fn put_negotiation(
        &self,
        key: &NegotiationKey,
        value: &NegotiationValue,
    ) -> Result<(), TableError> {
        self.negotiations.put(key, value)
    }

    fn remove_negotiation(&self, key: &NegotiationKey) -> Result<bool, TableError> {
        self.negotiations.remove(key)
    }

    fn put_ike_sa(&self, key: &IkeSaKey, slot: Slot) -> Result<(), TableError> {
        self.ike_sas.put(key, &SlotValue::new(slot.0))
    }

    fn remove_ike_sa(&self, key: &IkeSaKey) -> Result<bool, TableError> {
        self.ike_sas.remove(key)
    }

    fn put_esp_sa(&self, key: &EspSaKey, slot: Slot) -> Result<(), TableError> {
        self.esp_sas.put(key, &SlotValue::new(slot.0))
    }

    fn remove_esp_sa(&self, key: &EspSaKey) -> Result<bool, TableError> {
        self.esp_sas.remove(key)
    }

    fn put_esp_out(&self, key: &EspOutKey, slot: Slot, ceiling: u32) -> Result<(), TableError> {
        self.esp_outs.put(key, &EspOutValue::new(slot.0, ceiling))
    }

    fn raise_ceiling(&self, key: &EspOutKey, ceiling: u32) -> Result<bool, TableError> {
        let Some(value) = self.esp_outs.get(key)? else {
            return Ok(false);
        };
        if !is_within_ceiling(ceiling, value.ceiling) {
            self.esp_outs.put(key, &EspOutValue { ceiling, ..value })?;
        }
        Ok(true)
    }

    fn remove_esp_out(&self, key: &EspOutKey) -> Result<bool, TableError> {
        self.esp_outs.remove(key)
    }

    fn put_remote_net(&self, zone: u32, net: IpNet, slot: Slot) -> Result<(), TableError> {
        self.put_net(zone, net, SlotValue::new(slot.0))
    }

    fn put_local_net(&self, zone: u32, net: IpNet) -> Result<(), TableError> {
        self.put_net(zone, net, SlotValue::local())
    }

    fn remote_net(&self, zone: u32, address: IpAddr) -> Result<Option<SlotValue>, TableError> {
        let key = remote_net_key(zone, IpNet::from(address));
        match lock(&self.remote_nets).get(&key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(map::REMOTE_NET, "look up", error)),
        }
    }

    fn remove_remote_net(&self, zone: u32, net: IpNet) -> Result<bool, TableError> {
        let result = lock(&self.remote_nets).remove(&remote_net_key(zone, net));
        removed(result, map::REMOTE_NET)
    }

    fn set_slot_owners(&self, owners: &[Option<MemberId>; Slot::COUNT]) -> Result<(), TableError> {
        let values: [u32; Slot::COUNT] = std::array::from_fn(|slot| raw(owners[slot].as_ref()));
        self.slot_owners.write(&values)
    }

    fn set_lease(&self, until: Instant) -> Result<(), TableError> {
        self.lease.write(&[until.as_nanos()])
    }

    fn set_member(&self, id: MemberId, value: &MemberValue) -> Result<(), TableError> {
        lock(&self.members)
            .set(u32::from(id.get()), value, 0)
            .map_err(|error| failed(map::MEMBER, "set", error))
    }

    fn member(&self, id: MemberId) -> Result<MemberValue, TableError> {
        lock(&self.members)
            .get(&u32::from(id.get()), 0)
            .map_err(|error| failed(map::MEMBER, "read", error))
    }

    fn set_live(&self, live: &[MemberId]) -> Result<(), TableError> {
        let count = u32::try_from(live.len())
            .ok()
            .filter(|count| *count < size::MEMBERS)
            .ok_or(TableError::Invalid {
                table: map::LIVE,
                reason: "more than 63 live members",
            })?;
        // Entries behind the count are cleared too: a packet that read the old count meanwhile
        // finds "unset" there, and stays where it arrived.
        let values: [u32; size::MEMBERS as usize] = std::array::from_fn(|at| raw(live.get(at)));
        self.live.write(&values)?;
        self.write_settings(|settings| settings.live_members = count)
    }

    fn set_vips(&self, vips: &[IpAddr]) -> Result<(), TableError> {
        let wanted: Vec<Address> = vips.iter().map(|vip| (*vip).into()).collect();
        for (address, _) in self.vips.read()? {
            if !wanted.contains(&address) {
                self.vips.remove(&address)?;
            }
        }
        for address in &wanted {
            self.vips.put(address, &1)?;
        }
        // Last: the short list outranks the map, which now has them all.
        lock(&self.few_vips)
            .set(0, FewVips::new(&wanted), 0)
            .map_err(|error| failed(map::VIP_FEW, "set", error))
    }

    fn set_settings(&self, mut settings: Settings) -> Result<(), TableError> {
        self.write_settings(move |current| {
            settings.live_members = current.live_members;
            *current = settings;
        })
    }

    fn settings(&self) -> Result<Settings, TableError> {
        lock(&self.settings)
            .get(&0, 0)
            .map_err(|error| failed(map::SETTINGS, "read", error))
    }

    fn dump(&self) -> Result<Dump, TableError> {
        let remote_nets = {
            let table = lock(&self.remote_nets);
            let mut nets = Vec::new();
            for entry in table.iter() {
                let (key, value) = entry.map_err(|error| failed(map::REMOTE_NET, "read", error))?;
                let slot = (value.flags & NET_LOCAL == 0).then_some(Slot(value.slot));
                nets.extend(remote_net(&key).map(|(zone, net)| (zone, net, slot)));
            }
            nets
        };
        Ok(Dump {
            esp_outs: self.esp_outs.read()?,
            remote_nets,
            ..self.dump_owners()?
        })
    }

    fn dump_owners(&self) -> Result<Dump, TableError> {
        Ok(Dump {
            negotiations: self.negotiations.read()?,
            ike_sas: slots(&self.ike_sas)?,
            esp_sas: slots(&self.esp_sas)?,
            slot_owners: self.read_owners()?,
            lease: Instant::from_nanos(self.lease.get(0)?),
            ..Dump::default()
        })
    }

    fn negotiation(&self, key: &NegotiationKey) -> Result<Option<NegotiationValue>, TableError> {
        self.negotiations.get(key)
    }

    fn negotiations(&self) -> Result<Vec<(NegotiationKey, NegotiationValue)>, TableError> {
        self.negotiations.read()
    }

    fn ike_sa(&self, key: &IkeSaKey) -> Result<Option<Slot>, TableError> {
        Ok(self.ike_sas.get(key)?.map(|value| Slot(value.slot)))
    }

    fn esp_sa(&self, key: &EspSaKey) -> Result<Option<Slot>, TableError> {
        Ok(self.esp_sas.get(key)?.map(|value| Slot(value.slot)))
    }

    fn esp_out(&self, key: &EspOutKey) -> Result<Option<EspOutValue>, TableError> {
        self.esp_outs.get(key)
    }

    fn slot_owners(&self) -> Result<Vec<Option<MemberId>>, TableError> {
        self.read_owners()
    }

    fn live(&self) -> Result<Vec<MemberId>, TableError> {
        let count = self.settings()?.live_members as usize;
        let live = self.live.read()?;
        let ids = live.into_iter().take(count);
        Ok(ids
            .filter_map(|raw| u8::try_from(raw).ok().and_then(MemberId::new))
            .collect())
    }

    fn fill(&self) -> Result<Fill, TableError> {
        let entries = self.negotiations.read()?;
        Ok(Fill {
            entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            max_entries: self.negotiations.max_entries(),
        })
    }

    fn counters(&self) -> Result<Counters, TableError> {
        let mut peers = sums(&self.peer_stats, map::PEER_STATS)?;
        let received = peers.split_off(peers.len().min(size::MEMBERS as usize));
        Ok(Counters {
            reasons: sums(&self.stats, map::STATS)?,
            forwarded: peers,
            received,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_survive_the_trip_through_a_trie_key() {
        for text in [
            "10.2.0.0/16",
            "0.0.0.0/0",
            "192.0.2.1/32",
            "2001:db8::/32",
            "::/0",
            "2001:db8::1/128",
        ] {
            let net: IpNet = text.parse().unwrap();
            let key = remote_net_key(7, net);
            assert_eq!(remote_net(&key), Some((7, net)), "{text}");
        }
    }

    #[test]
    fn host_bits_are_cut_from_the_key() {
        let key = remote_net_key(0, "10.2.3.4/16".parse().unwrap());
        assert_eq!(remote_net(&key), Some((0, "10.2.0.0/16".parse().unwrap())));
    }
}
