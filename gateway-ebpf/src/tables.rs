//! The maps as the packet logic sees them.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use gateway_common::abi::{
    Address, Counter, EspOutKey, EspOutValue, EspSaKey, IkeSaKey, MemberValue, NegotiationKey,
    NegotiationValue, RemoteNet, Settings, SlotValue,
};
use gateway_common::reason::Reason;
use gateway_common::route::IkeTables;
use gateway_common::slot::Slot;
use gateway_common::steer::{Tables, is_forwardable};

use crate::maps;

/// Bits of a `REMOTE_NET` key: zone and address.
const REMOTE_NET_BITS: u32 = 32 + 128;

/// The kernel's maps.
pub(crate) struct Maps;

impl IkeTables for Maps {
    #[inline(always)]
    fn ike_sa(&self, key: &IkeSaKey) -> Option<SlotValue> {
        // SAFETY: copied at once; an entry that is replaced meanwhile gives its old or new value.
        unsafe { maps::IKE_SA.get(key) }.copied()
    }

    #[inline(always)]
    fn negotiation(&self, key: &NegotiationKey) -> Option<NegotiationValue> {
        // SAFETY: copied at once. An entry recycled meanwhile steers one packet to the wrong
        // member, whose agent relays it.
        unsafe { maps::NEGOTIATIONS.get(key) }.copied()
    }

    #[inline(always)]
    fn slot_owner(&self, slot: Slot) -> u32 {
        maps::SLOT_OWNER
            .get(u32::from(slot.0))
            .copied()
            .unwrap_or(0)
    }

    #[inline(always)]
    fn is_alive(&self, member: u32) -> bool {
        let own = self.settings().map_or(0, |settings| settings.member);
        member != 0 && (member == own || self.member(member).is_some_and(is_forwardable))
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: no arguments, no effects.
        unsafe { bpf_ktime_get_coarse_ns() }
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn is_vip(&self, address: &Address) -> bool {
        if let Some(answer) = self.is_vip_at_once(address) {
            return answer;
        }
        // SAFETY: only whether there is an entry matters.
        unsafe { maps::VIP.get(address) }.is_some()
    }

    #[inline(always)]
    fn is_vip_at_once(&self, address: &Address) -> Option<bool> {
        maps::VIP_FEW.get(0)?.contains(address)
    }

    #[inline(always)]
    fn esp_sa(&self, key: &EspSaKey) -> Option<SlotValue> {
        // SAFETY: copied at once.
        unsafe { maps::ESP_SA.get(key) }.copied()
    }

    #[inline(always)]
    fn esp_out(&self, key: &EspOutKey) -> Option<EspOutValue> {
        // SAFETY: copied at once.
        unsafe { maps::ESP_OUT.get(key) }.copied()
    }

    #[inline(always)]
    fn lease(&self) -> u64 {
        maps::LEASE.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn exact_now_ns(&self) -> u64 {
        // SAFETY: no arguments, no effects.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn remote_net(&self, key: &RemoteNet) -> Option<SlotValue> {
        maps::REMOTE_NET
            .get(&Key::new(REMOTE_NET_BITS, *key))
            .copied()
    }

    #[inline(always)]
    fn member(&self, id: u32) -> Option<&MemberValue> {
        maps::MEMBER.get(id)
    }

    #[inline(always)]
    fn live(&self, index: u32) -> u32 {
        maps::LIVE.get(index).copied().unwrap_or(0)
    }
}

/// Counts a frame of `octets`.
#[inline(always)]
pub(crate) fn count(reason: Reason, octets: u64) {
    add(maps::STATS.get_ptr_mut(reason.index()), octets);
}

/// Counts a frame that was forwarded to `member`.
#[inline(always)]
pub(crate) fn count_forwarded(member: u32, octets: u64) {
    add(maps::PEER_STATS.get_ptr_mut(member), octets);
}

/// Counts a frame that was received from `member`.
#[inline(always)]
pub(crate) fn count_received(member: u32, octets: u64) {
    let index = gateway_common::abi::size::MEMBERS + member;
    add(maps::PEER_STATS.get_ptr_mut(index), octets);
}

#[inline(always)]
fn add(counter: Option<*mut Counter>, octets: u64) {
    if let Some(counter) = counter {
        // SAFETY: this CPU's own entry, and programs are not preempted on it.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += octets;
        }
    }
}
