//! The maps, as `gateway_common::abi` describes them. BTF-defined, so that libbpf and bpftool load
//! the object and print entries by field name. No program writes any but the two of counters.

use aya_ebpf::btf_maps::lpm_trie::LpmTrie;
use aya_ebpf::btf_maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use gateway_common::abi::{
    Address, Counter, EspOutKey, EspOutValue, EspSaKey, FewVips, IkeSaKey, MemberValue,
    NegotiationKey, NegotiationValue, RemoteNet, Settings, SlotValue, size,
};
use gateway_common::slot::Slot;

/// Negotiations. The loader sizes it by `table.max_entries`. One common LRU list: the agent fills
/// it from whatever CPU it runs on, and a per-CPU list would let it evict only its own share.
#[btf_map(name = "SEP_my_IKE_packet")]
pub(crate) static NEGOTIATIONS: LruHashMap<
    NegotiationKey,
    NegotiationValue,
    { size::NEGOTIATIONS as usize },
> = LruHashMap::new();

/// Established IKE SAs by our cookie.
#[btf_map]
pub(crate) static IKE_SA: HashMap<IkeSaKey, SlotValue, { size::SAS as usize }> = HashMap::new();

/// Inbound ESP SAs.
#[btf_map]
pub(crate) static ESP_SA: HashMap<EspSaKey, SlotValue, { size::SAS as usize }> = HashMap::new();

/// Outbound ESP SAs, for the fence and for the ICMP errors that quote them.
#[btf_map]
pub(crate) static ESP_OUT: HashMap<EspOutKey, EspOutValue, { size::SAS as usize }> = HashMap::new();

/// The peers' protected networks.
#[btf_map]
pub(crate) static REMOTE_NET: LpmTrie<RemoteNet, SlotValue, { size::SAS as usize }> =
    LpmTrie::new();

/// Slot → member.
#[btf_map]
pub(crate) static SLOT_OWNER: Array<u32, { Slot::COUNT }> = Array::new();

/// Until when this member may transmit.
#[btf_map]
pub(crate) static LEASE: Array<u64, 1> = Array::new();

/// Member → where it is.
#[btf_map]
pub(crate) static MEMBER: Array<MemberValue, { size::MEMBERS as usize }> = Array::new();

/// The live members, densely packed.
#[btf_map]
pub(crate) static LIVE: Array<u32, { size::MEMBERS as usize }> = Array::new();

/// The cluster's addresses.
#[btf_map]
pub(crate) static VIP: HashMap<Address, u32, { size::VIPS as usize }> = HashMap::new();

/// The cluster's addresses again, if they are few.
#[btf_map]
pub(crate) static VIP_FEW: Array<FewVips, 1> = Array::new();

/// The sync devices.
#[btf_map]
pub(crate) static SYNC_DEV: DevMap<{ size::SYNC_DEVICES as usize }> = DevMap::new();

/// What this member is.
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();

/// Frames and octets by reason.
#[btf_map]
pub(crate) static STATS: PerCpuArray<Counter, { size::REASONS as usize }> = PerCpuArray::new();

/// Frames and octets by member.
#[btf_map]
pub(crate) static PEER_STATS: PerCpuArray<Counter, { size::PEER_STATS as usize }> =
    PerCpuArray::new();
