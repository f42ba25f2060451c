//! Which member processes an IKE datagram.

use std::net::IpAddr;

use gateway_common::abi::{IkeSaKey, NegotiationKey, NegotiationValue, SlotValue};
use gateway_common::packet::{Direction, IkeHeader};
use gateway_common::route::{IkeRoute, IkeTables, route_ike};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::cluster::Cluster;

/// How a datagram came to this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the network (XDP may have redirected it).
    Network,
    /// Another agent relayed it; it is never relayed again.
    Relayed(MemberId),
}

/// What to do with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Process it here.
    Local,
    /// Relay it to its member ([`Cluster::relay`]).
    Relay(MemberId),
    /// Nobody who can be reached may process it.
    Drop,
}

impl Cluster {
    /// What to do with an IKE datagram that `peer` sent: this member processes it only if it is the
    /// one that [`Cluster::responsible`] names, serves its slot and has a transmit right until
    /// `lease_until`; otherwise it is relayed once or dropped.
    pub fn route(
        &self,
        header: &IkeHeader,
        peer: IpAddr,
        origin: Origin,
        now: Instant,
        lease_until: Instant,
    ) -> Route {
        let found = self.responsible(header, peer, now);
        let member = u8::try_from(found.member).ok().and_then(MemberId::new);
        match (member, origin) {
            (Some(member), _) if member == self.local() => {
                if self.serves(found.slot) && now < lease_until {
                    Route::Local
                } else {
                    Route::Drop
                }
            }
            (Some(member), Origin::Network) if self.is_up(member) => Route::Relay(member),
            _ => Route::Drop,
        }
    }

    /// The slot of an IKE datagram and the member that has to process it, whether that can be reached
    /// or not: the same decision by the same code as in `gateway_ingress`, but from the agent's own
    /// tables, which are the authority.
    pub fn responsible(&self, header: &IkeHeader, peer: IpAddr, now: Instant) -> IkeRoute {
        let view = View { cluster: self, now };
        route_ike(header, &peer.into(), Direction::Received, &view)
    }
}

/// The tables as they stand at a moment.
struct View<'a> {
    cluster: &'a Cluster,
    now: Instant,
}

impl IkeTables for View<'_> {
    fn ike_sa(&self, key: &IkeSaKey) -> Option<SlotValue> {
        let slot = self.cluster.ownership().ike_sa(key.cookie)?;
        Some(SlotValue::new(slot.0))
    }

    fn negotiation(&self, key: &NegotiationKey) -> Option<NegotiationValue> {
        self.cluster.ownership().negotiation(key)
    }

    fn slot_owner(&self, slot: Slot) -> u32 {
        let owner = self.cluster.slots().owner(slot);
        owner.map_or(0, |member| u32::from(member.get()))
    }

    fn is_alive(&self, member: u32) -> bool {
        let member = u8::try_from(member).ok().and_then(MemberId::new);
        member.is_some_and(|member| member == self.cluster.local() || self.cluster.is_up(member))
    }

    fn now_ns(&self) -> u64 {
        self.now.as_nanos()
    }
}
