//! The tables in ordinary maps: what the eBPF programs look up, for tests that ask the same
//! questions on the host. With them, packets ([`packet`]), a table of packets and their verdicts
//! ([`cases`]) and hostile variations ([`mutate`]) and what holds for all
//! of them ([`properties`]), so that host and kernel pass the same tests.

pub mod cases;
pub mod mutate;
pub mod packet;
pub mod properties;

use std::collections::{HashMap, HashSet};

use crate::abi::{
    Address, EspOutKey, EspOutValue, EspSaKey, IkeSaKey, MemberValue, NegotiationKey,
    NegotiationValue, RemoteNet, Settings, SlotValue,
};
use crate::route::IkeTables;
use crate::slot::Slot;
use crate::steer::{Tables, is_forwardable};

/// All tables. The fields are named after the maps.
#[derive(Clone, Debug, Default)]
pub struct ModelTables {
    /// `SETTINGS`.
    pub settings: Settings,
    /// `SEP_my_IKE_packet`.
    pub negotiations: HashMap<NegotiationKey, NegotiationValue>,
    /// `IKE_SA`.
    pub ike_sa: HashMap<IkeSaKey, SlotValue>,
    /// `ESP_SA`.
    pub esp_sa: HashMap<EspSaKey, SlotValue>,
    /// `ESP_OUT`.
    pub esp_out: HashMap<EspOutKey, EspOutValue>,
    /// `REMOTE_NET`: prefix length over zone and address (32 more than that of the address), key
    /// and value. The longest match wins.
    pub remote_net: Vec<(u32, RemoteNet, SlotValue)>,
    /// `SLOT_OWNER`; a missing slot is unset.
    pub slot_owner: HashMap<u8, u32>,
    /// `MEMBER`; a missing member is all zero.
    pub member: HashMap<u32, MemberValue>,
    /// `LIVE`.
    pub live: Vec<u32>,
    /// `VIP`.
    pub vip: HashSet<Address>,
    /// `LEASE`.
    pub lease: u64,
    /// Monotonic nanoseconds.
    pub now_ns: u64,
    /// How far `now_ns`, the coarse clock, is behind the exact one.
    pub lag_ns: u64,
}

impl ModelTables {
    /// Makes `members` share the slots in turn, all known, forwardable and live, with sync devices
    /// at index 0, and this member the first.
    pub fn share(&mut self, cluster: u8, members: &[u8]) {
        for (slot, id) in (0..=u8::MAX).zip(members.iter().cycle()) {
            self.slot_owner.insert(slot, u32::from(*id));
        }
        for id in members {
            let value = MemberValue {
                mac: [0x02, 0, 0, 0, 0, *id],
                marked_mac: [0x02, 0x47, 0x57, 0x46, cluster, members[0]],
                device: 0,
                flags: crate::abi::MEMBER_KNOWN | crate::abi::MEMBER_FORWARDABLE,
            };
            self.member.insert(u32::from(*id), value);
        }
        self.live = members.iter().map(|id| u32::from(*id)).collect();
        self.settings.member = u32::from(members[0]);
        self.settings.enabled = 1;
        self.settings.cluster = u32::from(cluster);
        self.settings.live_members = u32::try_from(members.len()).unwrap_or(0);
    }
}

const NO_MEMBER: &MemberValue = &MemberValue {
    mac: [0; 6],
    marked_mac: [0; 6],
    device: 0,
    flags: 0,
};

impl IkeTables for ModelTables {
    fn ike_sa(&self, key: &IkeSaKey) -> Option<SlotValue> {
        self.ike_sa.get(key).copied()
    }

    fn negotiation(&self, key: &NegotiationKey) -> Option<NegotiationValue> {
        self.negotiations.get(key).copied()
    }

    fn slot_owner(&self, slot: Slot) -> u32 {
        self.slot_owner.get(&slot.0).copied().unwrap_or(0)
    }

    fn is_alive(&self, member: u32) -> bool {
        member != 0
            && (member == self.settings.member || self.member(member).is_some_and(is_forwardable))
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }
}

impl Tables for ModelTables {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn is_vip(&self, address: &Address) -> bool {
        self.vip.contains(address)
    }

    fn esp_sa(&self, key: &EspSaKey) -> Option<SlotValue> {
        self.esp_sa.get(key).copied()
    }

    fn esp_out(&self, key: &EspOutKey) -> Option<EspOutValue> {
        self.esp_out.get(key).copied()
    }

    fn lease(&self) -> u64 {
        self.lease
    }

    fn exact_now_ns(&self) -> u64 {
        self.now_ns.saturating_add(self.lag_ns)
    }

    fn remote_net(&self, key: &RemoteNet) -> Option<SlotValue> {
        self.remote_net
            .iter()
            .filter(|(length, prefix, _)| shares_prefix(*length, prefix, key))
            .max_by_key(|(length, ..)| *length)
            .map(|(.., value)| *value)
    }

    fn member(&self, id: u32) -> Option<&MemberValue> {
        (id < crate::abi::size::MEMBERS).then(|| self.member.get(&id).unwrap_or(NO_MEMBER))
    }

    fn live(&self, index: u32) -> u32 {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.live.get(index).copied().unwrap_or(0)
    }
}

fn shares_prefix(length: u32, prefix: &RemoteNet, key: &RemoteNet) -> bool {
    let mask = u32::MAX.checked_shl(32 - length.min(32)).unwrap_or(0);
    let zones = [prefix, key].map(|net| u32::from_be_bytes(net.zone) & mask);
    let rest = length.saturating_sub(32).min(128);
    let mask = u128::MAX.checked_shl(128 - rest).unwrap_or(0);
    let addresses = [prefix, key].map(|net| u128::from_be_bytes(net.address.octets) & mask);
    zones[0] == zones[1] && addresses[0] == addresses[1]
}
