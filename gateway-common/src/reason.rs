//! Why a frame was forwarded, passed or dropped: counter index, metric label and word in one.

use core::fmt;

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It goes on as if there were no program: `XDP_PASS`, or `TC_ACT_UNSPEC` at the fence.
    Pass,
    /// It ends here: `XDP_DROP`, or `TC_ACT_SHOT` at the fence.
    Drop,
    /// It leaves through a sync device towards another member: `XDP_REDIRECT`.
    Forward,
}

/// Which program counts a reason. Every reason belongs to exactly one, so one block of counters
/// serves all and a sum over the reasons of a program is the number of frames it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// `gateway_ingress`.
    Ingress,
    /// `gateway_sync`.
    Sync,
    /// `gateway_inside`.
    Inside,
    /// `gateway_egress`, the fence.
    Egress,
}

macro_rules! reasons {
    ($($program:ident {
        $($(#[$doc:meta])* $name:ident = $index:literal $word:literal $action:ident,)+
    })+) => {
        /// The one reason with which a program leaves a frame. The number is the index into the
        /// `STATS` map, below [`crate::abi::size::REASONS`]; numbers and words are stable.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($($(#[$doc])* $name = $index,)+)+
        }

        impl Reason {
            /// Every reason, by rising index.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)+)+];

            /// The word for metrics, JSON and the command line.
            pub const fn as_str(self) -> &'static str {
                match self { $($(Self::$name => $word,)+)+ }
            }

            /// What happens to a frame with this reason.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $($(Self::$name => Action::$action,)+)+ }
            }

            /// The program that counts it.
            pub const fn program(self) -> Program {
                match self { $($(Self::$name => Program::$program,)+)+ }
            }
        }
    };
}

reasons! {
    Ingress {
    /// The agent has not written `SETTINGS` yet.
    NotConfigured = 0 "not_configured" Pass,
    /// `ike_forwarding.enabled` is off.
    ForwardingOff = 1 "forwarding_off" Pass,
    /// Shorter than its Ethernet header and tags.
    ShortFrame = 2 "short_frame" Pass,
    /// To a group or broadcast Ethernet address.
    NotUnicast = 3 "not_unicast" Pass,
    /// To a unicast Ethernet address that is not this member's.
    ForeignMac = 4 "foreign_mac" Pass,
    /// Carries a member's marked source address: it was forwarded once and is not again.
    AlreadyForwarded = 5 "already_forwarded" Pass,
    /// More than two VLAN tags.
    TooManyTags = 6 "too_many_tags" Pass,
    /// Neither IPv4 nor IPv6: ARP and the like.
    NotIp = 7 "not_ip" Pass,
    /// An IP header that contradicts itself or the frame.
    IpMalformed = 8 "ip_malformed" Pass,
    /// More than six IPv6 extension headers.
    TooManyHeaders = 9 "too_many_headers" Pass,
    /// Neither IKE, ESP nor an ICMP error: the member's own business.
    OtherTraffic = 10 "other_traffic" Pass,
    /// IKE, ESP, an ICMP error or a fragment, but not to a VIP.
    NotToVip = 11 "not_to_vip" Pass,
    /// A UDP header on port 500 or 4500 that contradicts the packet, or too little behind it.
    UdpMalformed = 12 "udp_malformed" Pass,
    /// One octet 0xff on port 4500 (RFC 3948 §2.3): has done its work on the way.
    NatKeepalive = 13 "nat_keepalive" Pass,
    /// A fragment, for the member that reassembles its datagram.
    FragmentForwarded = 14 "fragment_forwarded" Forward,
    /// A fragment of a datagram that this member reassembles.
    FragmentLocal = 15 "fragment_local" Pass,
    /// A fragment, but no live member to reassemble it.
    FragmentUnreachable = 16 "fragment_unreachable" Pass,
    /// An IKE header that is cut off or contradicts the datagram.
    IkeMalformed = 17 "ike_malformed" Pass,
    /// A major version of IKE other than 1 and 2.
    IkeVersion = 18 "ike_version" Pass,
    /// IKE of an established SA of another member.
    IkeSaForwarded = 19 "ike_sa_forwarded" Forward,
    /// IKE of an established SA of this member.
    IkeSaLocal = 20 "ike_sa_local" Pass,
    /// IKE of another member's negotiation.
    NegotiationForwarded = 21 "negotiation_forwarded" Forward,
    /// IKE of this member's negotiation.
    NegotiationLocal = 22 "negotiation_local" Pass,
    /// IKE that no table knows; the decision function gives it to another member.
    NewIkeForwarded = 23 "new_ike_forwarded" Forward,
    /// IKE that no table knows; the decision function gives it to this member.
    NewIkeLocal = 24 "new_ike_local" Pass,
    /// IKE whose slot has no owner that frames can be forwarded to.
    IkeUnreachable = 25 "ike_unreachable" Pass,
    /// IKEv1 for another member.
    IkeV1Forwarded = 26 "ikev1_forwarded" Forward,
    /// IKEv1 for this member.
    IkeV1Local = 27 "ikev1_local" Pass,
    /// ESP shorter than SPI and sequence number.
    EspMalformed = 28 "esp_malformed" Pass,
    /// ESP of another member's SA.
    EspForwarded = 29 "esp_forwarded" Forward,
    /// ESP of this member's SA.
    EspLocal = 30 "esp_local" Pass,
    /// ESP to a VIP with an SPI that no table knows; the kernel drops it.
    EspUnknown = 31 "esp_unknown" Pass,
    /// ESP whose slot has no owner that frames can be forwarded to.
    EspUnreachable = 32 "esp_unreachable" Pass,
    /// An ICMP error about another member's packet.
    IcmpForwarded = 33 "icmp_forwarded" Forward,
    /// An ICMP error about this member's packet.
    IcmpLocal = 34 "icmp_local" Pass,
    /// An ICMP error to a VIP that quotes nothing of ours, or too little to tell.
    IcmpUnrelated = 35 "icmp_unrelated" Pass,
    /// An ICMP error whose slot has no owner that frames can be forwarded to.
    IcmpUnreachable = 36 "icmp_unreachable" Pass,
    /// To be forwarded, but the sync device is missing.
    NoSyncDevice = 37 "no_sync_device" Pass,
    }

    Sync {
    /// The agent has not written `SETTINGS` yet.
    SyncNotConfigured = 64 "sync_not_configured" Pass,
    /// No marked source address: the sync network's own traffic.
    SyncUnmarked = 65 "sync_unmarked" Pass,
    /// Forwarded by a known member, to a VIP or a peer's network.
    SyncAccepted = 66 "sync_accepted" Pass,
    /// Marked by a member of another cluster.
    SyncForeignCluster = 67 "sync_foreign_cluster" Drop,
    /// Marked by a member that is not configured, or by this one.
    SyncUnknownMember = 68 "sync_unknown_member" Drop,
    /// Marked, but neither to a VIP nor to a peer's network.
    SyncWrongDestination = 69 "sync_wrong_destination" Drop,
    /// Marked, but not a well-formed IP packet to a unicast Ethernet address.
    SyncMalformed = 70 "sync_malformed" Drop,
    }

    Inside {
    /// The agent has not written `SETTINGS` yet.
    InsideNotConfigured = 80 "inside_not_configured" Pass,
    /// `ike_forwarding.enabled` is off.
    InsideForwardingOff = 81 "inside_forwarding_off" Pass,
    /// Not to one of this member's unicast Ethernet addresses, or cut off.
    InsideNotOurs = 82 "inside_not_ours" Pass,
    /// Carries a member's marked source address.
    InsideAlreadyForwarded = 83 "inside_already_forwarded" Pass,
    /// Not a well-formed IP packet behind at most two VLAN tags: ARP and the like.
    InsideNotIp = 84 "inside_not_ip" Pass,
    /// To a link-local, multicast, broadcast or loopback address, or neighbour discovery.
    InsideLinkScope = 85 "inside_link_scope" Pass,
    /// To a VIP.
    InsideToVip = 86 "inside_to_vip" Pass,
    /// To no peer's network.
    InsideUnmatched = 87 "inside_unmatched" Pass,
    /// To a prefix that stays here although it lies within a peer's network.
    InsideLocalNet = 88 "inside_local_net" Pass,
    /// To a peer's network behind another member's SA.
    InsideForwarded = 89 "inside_forwarded" Forward,
    /// To a peer's network behind this member's SA.
    InsideOwned = 90 "inside_owned" Pass,
    /// To a peer's network whose slot has no owner that frames can be forwarded to.
    InsideUnreachable = 91 "inside_unreachable" Pass,
    /// To be forwarded, but the sync device is missing.
    InsideNoSyncDevice = 92 "inside_no_sync_device" Pass,
    }

    Egress {
    /// The agent has not written `SETTINGS` yet.
    FenceNotConfigured = 104 "fence_not_configured" Pass,
    /// Neither ESP nor IKE from a VIP.
    FenceOther = 105 "fence_other" Pass,
    /// ESP or IKE from a VIP, of a slot that this member owns under a running lease; ESP within
    /// its SA's ceiling.
    FenceOwned = 106 "fence_owned" Pass,
    /// IKE from a VIP, of a slot that this member does not own; or ESP of a slot without a live
    /// owner.
    FenceNotOwner = 107 "fence_not_owner" Drop,
    /// ESP or IKE from a VIP without a mark that names its slot.
    FenceUnmarked = 108 "fence_unmarked" Drop,
    /// ESP or IKE from a VIP, of a slot that this member owns, but its lease is over.
    FenceLeaseOver = 109 "fence_lease_over" Drop,
    /// ESP from a VIP of an SA that `ESP_OUT` does not know.
    FenceUnknownSa = 110 "fence_unknown_sa" Drop,
    /// ESP from a VIP with a sequence number that the SA's ceiling does not cover.
    FenceAboveCeiling = 111 "fence_above_ceiling" Drop,
    /// ESP from a VIP, cut off before SPI and sequence number.
    FenceMalformed = 112 "fence_malformed" Drop,
    /// ESP from a VIP, of a slot of another live member: made by this member's copy of the SA from
    /// what never passed `gateway_inside`, its own traffic or another peer's (hub and spoke).
    FenceStandbyCopy = 113 "fence_standby_copy" Drop,
    }
}

impl Reason {
    /// Index into `STATS`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Whether a frame from outside with this reason stays because this member owns it.
    pub const fn is_own(self) -> bool {
        matches!(
            self,
            Self::FragmentLocal
                | Self::IkeSaLocal
                | Self::NegotiationLocal
                | Self::NewIkeLocal
                | Self::IkeV1Local
                | Self::EspLocal
                | Self::IcmpLocal
        )
    }

    /// The reason with that index.
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.index() == index)
    }

    /// The reason with that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Program {
    /// The program's name in the object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => crate::abi::program::INGRESS,
            Self::Sync => crate::abi::program::SYNC,
            Self::Inside => crate::abi::program::INSIDE,
            Self::Egress => crate::abi::program::EGRESS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_unique_snake_case_and_indices_rise_within_the_map() {
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for word in words {
            assert!(
                word.bytes()
                    .all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit()),
                "{word}"
            );
        }
        assert!(Reason::ALL.is_sorted_by(|a, b| a.index() < b.index()));
        let last = Reason::ALL[Reason::ALL.len() - 1];
        assert!(last.index() < crate::abi::size::REASONS);
    }

    #[test]
    fn only_sync_and_fence_drop() {
        for reason in Reason::ALL {
            if reason.action() == Action::Drop {
                assert!(matches!(reason.program(), Program::Sync | Program::Egress));
            }
        }
    }

    #[test]
    fn index_and_word_lead_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_index(reason.index()), Some(*reason));
            assert_eq!(Reason::from_word(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::from_index(63), None);
    }
}
