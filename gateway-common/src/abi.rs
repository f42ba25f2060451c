//! The layout of every BPF map. All fields have fixed size and explicit padding, multi-byte
//! identifiers from the wire stay in network byte order, so that `bpftool map dump` shows the
//! bytes that a packet capture shows.
//!
//! Any change of a type, size or flag here is a new [`ABI_VERSION`], and with it a new pin folder.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Version of this layout; part of the pin path `/sys/fs/bpf/gateway/v<ABI>/{maps,links}`.
pub const ABI_VERSION: u32 = 2;

/// Message id in a [`NegotiationKey`] that stands for every message of the negotiation.
pub const ANY_MESSAGE_ID: [u8; 4] = [0xff; 4];

/// Lifetime of a negotiation entry (the seed's `timeout: 120_seconds`).
pub const NEGOTIATION_SECONDS: u64 = 120;

/// First four octets of a marked source MAC, a locally administered unicast address; then the
/// cluster id and the forwarding member's id: `02:47:57:46:<cluster>:<member>`.
/// A frame that carries it has been forwarded once and is never forwarded again.
pub const MARKED_MAC_PREFIX: [u8; 4] = [0x02, 0x47, 0x57, 0x46];

/// `skb->mark` of what an outbound SA produced: `0x1_0000 | slot << 8`, under [`MARK_MASK`].
pub const MARK_SA: u32 = 0x1_0000;
/// `skb->mark` of IKE and NAT-keepalive datagrams sent by the agent: `0x2_0000 | slot << 8`.
pub const MARK_IKE: u32 = 0x2_0000;
/// The bits of the mark that belong to the gateway (documented for operators).
pub const MARK_MASK: u32 = 0x3_ff00;

/// The mark that an SA of `slot` gives its packets (`XFRMA_SET_MARK`), or, with [`MARK_IKE`] as
/// `kind`, the `SO_MARK` of an IKE datagram.
pub const fn mark(kind: u32, slot: u8) -> u32 {
    kind | ((slot as u32) << 8)
}

/// An IPv6 address, or an IPv4 address in its mapped form `::ffff:a.b.c.d`.
///
/// Aligned, like the other keys, so that the eBPF programs fill it by words and not by octets; four
/// is what leaves no hole in any key.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Network order.
    pub octets: [u8; 16],
}

impl Address {
    /// All zero: "no address" in keys that do not need one.
    pub const UNSPECIFIED: Self = Self { octets: [0; 16] };

    /// The mapped form of four octets.
    #[inline(always)]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        // Arithmetic, not bytes: the eBPF programs have few registers and little stack.
        let octets = (0xffff_0000_0000 | u32::from_be_bytes(v4) as u128).to_be_bytes();
        Self { octets }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4(address.octets())
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Self {
                octets: v6.octets(),
            },
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Ipv6Addr::from(address.octets).to_canonical()
    }
}

/// Key of `SEP_my_IKE_packet` (LRU hash): one negotiation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NegotiationKey {
    /// Our cookie if we drew one, else the peer's.
    pub cookie: [u8; 8],
    /// Network order, or [`ANY_MESSAGE_ID`].
    pub message_id: [u8; 4],
    /// The peer's address; [`Address::UNSPECIFIED`] when the cookie is ours and so unique.
    pub peer: Address,
}

/// Value of `SEP_my_IKE_packet`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiationValue {
    /// The member that holds the negotiation's secrets, 1..=63.
    pub member: u8,
    /// The slot chosen at IKE_SA_INIT.
    pub slot: u8,
    /// A [`NegotiationState`].
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// Monotonic nanoseconds on the member that holds this map.
    pub created_ns: u64,
    /// From here on the entry is a miss. Monotonic nanoseconds on the member that holds this map.
    pub expires_ns: u64,
}

/// What `NegotiationValue::state` says.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegotiationState {
    /// IKE_SA_INIT answered, IKE_AUTH not complete.
    HalfOpen = 1,
    /// Pinned by an operator.
    Static = 2,
}

/// Key of `IKE_SA` (hash): our cookie of an established IKE SA.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSaKey {
    /// Our IKE SPI, network order.
    pub cookie: [u8; 8],
}

/// Key of `ESP_SA` (hash): an inbound SA.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspSaKey {
    /// Inbound SPI, network order.
    pub spi: [u8; 4],
    /// The VIP it is addressed to.
    pub vip: Address,
}

/// Key of `ESP_OUT` (hash): an outbound SA, as it stands in its packets and in those that ICMP
/// errors quote.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspOutKey {
    /// Outbound SPI, network order.
    pub spi: [u8; 4],
    /// The peer it is addressed to.
    pub peer: Address,
}

/// Value of `ESP_OUT`: whose the SA is, and how far this member may count it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspOutValue {
    /// The slot.
    pub slot: u8,
    /// Zero.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// The highest sequence number that may leave, its low 32 bits. Compared by
    /// [`is_within_ceiling`], so the SA's counter must stay within 2³¹ of it.
    pub ceiling: u32,
}

impl EspOutValue {
    /// An SA of `slot` that may count up to `ceiling`.
    pub const fn new(slot: u8, ceiling: u32) -> Self {
        Self {
            slot,
            flags: 0,
            reserved: [0; 2],
            ceiling,
        }
    }
}

/// Whether sequence number `last` may leave under `ceiling`: low halves of numbers that are less
/// than 2³¹ apart (serial number arithmetic, RFC 1982 §3.2).
#[inline(always)]
pub const fn is_within_ceiling(last: u32, ceiling: u32) -> bool {
    ceiling.wrapping_sub(last).cast_signed() >= 0
}

/// Value of `IKE_SA`, `ESP_SA` and `REMOTE_NET`: slots, never members, so that a
/// takeover rewrites `SLOT_OWNER` and touches no entry.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotValue {
    /// The slot.
    pub slot: u8,
    /// In `REMOTE_NET`: 0 or [`NET_LOCAL`]; elsewhere 0.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl SlotValue {
    /// A value for `slot`.
    pub const fn new(slot: u8) -> Self {
        Self {
            slot,
            flags: 0,
            reserved: [0; 2],
        }
    }

    /// An exception in `REMOTE_NET`: this prefix stays here ([`NET_LOCAL`]).
    pub const fn local() -> Self {
        Self {
            slot: 0,
            flags: NET_LOCAL,
            reserved: [0; 2],
        }
    }
}

/// `SlotValue::flags` in `REMOTE_NET`: the prefix belongs to this member or its inside networks
/// although a wider prefix belongs to a peer. `gateway_inside` lets it pass, `gateway_sync` does
/// not accept forwarded frames for it.
pub const NET_LOCAL: u8 = 1;

/// Data of a `REMOTE_NET` (LPM trie) key; the prefix length counts the zone's 32 bits, and 96 more
/// for a mapped IPv4 prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteNet {
    /// Routing zone, network order; 0 for the main one.
    pub zone: [u8; 4],
    /// The peer's protected network.
    pub address: Address,
}

/// Value of `MEMBER` (array of 64, by member id).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberValue {
    /// Destination MAC of forwarded frames: that member's sync interface.
    pub mac: [u8; 6],
    /// Source MAC of frames forwarded to it: our marked MAC.
    pub marked_mac: [u8; 6],
    /// Index into `SYNC_DEV` of the device that reaches it.
    pub device: u32,
    /// [`MEMBER_KNOWN`] | [`MEMBER_FORWARDABLE`].
    pub flags: u32,
}

/// The member is configured: frames that carry its marked MAC are accepted.
pub const MEMBER_KNOWN: u32 = 1;
/// Frames may be forwarded to it: alive, and its MAC and device are known.
pub const MEMBER_FORWARDABLE: u32 = 2;

/// Value of `SETTINGS` (array of 1): what the programs must know about this member.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// This member's id; 0 before the agent has written it: everything passes.
    pub member: u32,
    /// `ike_forwarding.enabled`: 1, or 0 to leave every packet where it arrived.
    pub enabled: u32,
    /// Cluster id, fifth octet of a marked MAC.
    pub cluster: u32,
    /// Number of live members in `LIVE`, which share the fragments.
    pub live_members: u32,
    /// The unicast Ethernet addresses of this member's public and inside interfaces, virtual ones
    /// (VRRP) included: six octets, then two zero octets. Zero entries are unused. Frames to other
    /// addresses, which a hub, a flooding switch or promiscuous mode lets us see, are not ours to
    /// forward. If the first entry is zero, every unicast address counts as ours.
    pub macs: [[u8; 8]; OWN_MACS],
}

/// Entries of [`Settings::macs`].
pub const OWN_MACS: usize = 8;

/// Value of `VIP_FEW` (array of 1): the VIPs again, if they are few. Comparing with a handful costs
/// less than one look-up in `VIP`, and every IKE packet asks.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FewVips {
    /// Number of entries in `vips`, which then are all there are; 0 sends the question to `VIP`.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
    /// The first `count` are in use; the others zero.
    pub vips: [FewVip; FEW_VIPS],
}

/// One of [`FewVips::vips`]: an [`Address`], aligned so that two words compare it. The compiler
/// would go octet by octet.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FewVip {
    /// As in [`Address`].
    pub octets: [u8; 16],
}

/// Entries of [`FewVips::vips`].
pub const FEW_VIPS: usize = 4;

impl FewVips {
    /// The value for these VIPs: all of them, or none if they are too many.
    pub fn new(vips: &[Address]) -> Self {
        let mut few = Self::default();
        if vips.len() <= FEW_VIPS {
            for (place, vip) in few.vips.iter_mut().zip(vips) {
                place.octets = vip.octets;
                few.count += 1;
            }
        }
        few
    }

    /// Whether `address` is a VIP; `None` if only `VIP` knows.
    #[inline(always)]
    pub fn contains(&self, address: &Address) -> Option<bool> {
        if self.count == 0 {
            return None;
        }
        let wanted = u128::from_ne_bytes(address.octets);
        // The unspecified address stands in the unused places, and is never a VIP.
        let found = |vip: &FewVip| u128::from_ne_bytes(vip.octets) == wanted;
        Some(wanted != 0 && self.vips.iter().any(found))
    }
}

/// A pair of counters: value of `STATS` and `PEER_STATS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Octets, L2 header included.
    pub bytes: u64,
}

/// Map names as they stand in the object and in the pin folder.
pub mod map {
    /// LRU hash [`super::NegotiationKey`] → [`super::NegotiationValue`].
    pub const NEGOTIATIONS: &str = "SEP_my_IKE_packet";
    /// Hash [`super::IkeSaKey`] → [`super::SlotValue`].
    pub const IKE_SA: &str = "IKE_SA";
    /// Hash [`super::EspSaKey`] → [`super::SlotValue`].
    pub const ESP_SA: &str = "ESP_SA";
    /// Hash [`super::EspOutKey`] → [`super::EspOutValue`].
    pub const ESP_OUT: &str = "ESP_OUT";
    /// LPM trie [`super::RemoteNet`] → [`super::SlotValue`].
    pub const REMOTE_NET: &str = "REMOTE_NET";
    /// Array of 256 `u32`: slot → member id, 0 = unset.
    pub const SLOT_OWNER: &str = "SLOT_OWNER";
    /// Array of 1 `u64`: until when this member may transmit, in `CLOCK_MONOTONIC` nanoseconds;
    /// 0 = not at all.
    pub const LEASE: &str = "LEASE";
    /// Array of 64 [`super::MemberValue`].
    pub const MEMBER: &str = "MEMBER";
    /// Array of 64 `u32`: the live members' ids, densely packed from index 0.
    pub const LIVE: &str = "LIVE";
    /// Hash [`super::Address`] → `u32` flags (1).
    pub const VIP: &str = "VIP";
    /// Array of 1 [`super::FewVips`]: what `VIP` holds, if that is little.
    pub const VIP_FEW: &str = "VIP_FEW";
    /// Devmap of 8: sync devices.
    pub const SYNC_DEV: &str = "SYNC_DEV";
    /// Array of 1 [`super::Settings`].
    pub const SETTINGS: &str = "SETTINGS";
    /// Per-CPU array of 128 [`super::Counter`] by [`crate::reason::Reason`].
    pub const STATS: &str = "STATS";
    /// Per-CPU array of 128 [`super::Counter`]: index `member` = forwarded to it, `64 + member` =
    /// received from it.
    pub const PEER_STATS: &str = "PEER_STATS";
}

/// Program names in the object.
pub mod program {
    /// XDP on public interfaces.
    pub const INGRESS: &str = "gateway_ingress";
    /// XDP on the sync interface.
    pub const SYNC: &str = "gateway_sync";
    /// XDP on inside interfaces.
    pub const INSIDE: &str = "gateway_inside";
    /// tc egress, the fence.
    pub const EGRESS: &str = "gateway_egress";
}

/// Default and maximum sizes of the maps.
pub mod size {
    /// Default of `table.max_entries`.
    pub const NEGOTIATIONS: u32 = 65_536;
    /// Entries of `IKE_SA`, `ESP_SA`, `ESP_OUT` and `REMOTE_NET`.
    pub const SAS: u32 = 131_072;
    /// Members, index 0 unused.
    pub const MEMBERS: u32 = 64;
    /// VIPs.
    pub const VIPS: u32 = 256;
    /// Sync devices.
    pub const SYNC_DEVICES: u32 = 8;
    /// Entries of `STATS`: room for more reasons without a new layout.
    pub const REASONS: u32 = 128;
    /// Entries of `PEER_STATS`: forwarded to and received from each member.
    pub const PEER_STATS: u32 = 2 * MEMBERS;
}

#[cfg(feature = "user")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($type:ty),* $(,)?) => {$(
            // SAFETY: repr(C), only integers and arrays of them, padding is explicit.
            unsafe impl aya::Pod for $type {}
        )*};
    }
    pod!(
        Address,
        NegotiationKey,
        NegotiationValue,
        IkeSaKey,
        EspSaKey,
        EspOutKey,
        EspOutValue,
        SlotValue,
        RemoteNet,
        MemberValue,
        Settings,
        FewVips,
        Counter,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_no_hidden_padding() {
        assert_eq!(size_of::<NegotiationKey>(), 28);
        assert_eq!(size_of::<NegotiationValue>(), 24);
        assert_eq!(size_of::<IkeSaKey>(), 8);
        assert_eq!(size_of::<EspSaKey>(), 20);
        assert_eq!(size_of::<EspOutKey>(), 20);
        assert_eq!(size_of::<EspOutValue>(), 8);
        assert_eq!(size_of::<RemoteNet>(), 20);
        assert_eq!(size_of::<MemberValue>(), 20);
        assert_eq!(size_of::<SlotValue>(), 4);
        assert_eq!(size_of::<Settings>(), 80);
        assert_eq!(size_of::<Counter>(), 16);
        assert_eq!(size_of::<FewVips>(), 72);
    }

    #[test]
    fn ceilings_hold_across_the_wrap() {
        for (last, ceiling, within) in [
            (7, 7, true),
            (8, 7, false),
            (0, 0, true),
            (1, 0, false),
            (u32::MAX, 5, true),
            (6, 5, false),
            (3, u32::MAX - 9, false),
            (u32::MAX - 10, u32::MAX - 9, true),
            (0, i32::MAX as u32, true),
        ] {
            assert_eq!(is_within_ceiling(last, ceiling), within, "{last} {ceiling}");
        }
    }

    #[test]
    fn few_vips_know_all_or_send_elsewhere() {
        let vip = |last: u8| Address::from_v4([192, 0, 2, last]);
        let two = FewVips::new(&[vip(1), vip(2)]);
        assert_eq!(two.contains(&vip(2)), Some(true));
        assert_eq!(two.contains(&vip(3)), Some(false));
        assert_eq!(two.contains(&Address::UNSPECIFIED), Some(false));
        let five: Vec<_> = (1..=5).map(vip).collect();
        assert_eq!(FewVips::new(&five).contains(&vip(2)), None);
        assert_eq!(FewVips::new(&[]).contains(&vip(2)), None);
    }

    #[test]
    fn addresses_round_trip() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address);
        }
    }
}
