//! Which member processes an IKE datagram.

use std::net::IpAddr;

use gateway_common::abi::{ANY_MESSAGE_ID, Address, NegotiationKey};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::Cookie;
use crate::cluster::Cluster;

/// What of an IKE datagram decides where it belongs (RFC 7296 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeFacts {
    /// Source address of the datagram.
    pub source: IpAddr,
    /// IKE SA initiator's SPI.
    pub initiator_cookie: Cookie,
    /// IKE SA responder's SPI; zero in the first message.
    pub responder_cookie: Cookie,
    /// Message id, network order.
    pub message_id: [u8; 4],
    /// The Initiator flag: sent by the original initiator of the IKE SA.
    pub from_initiator: bool,
}

impl IkeFacts {
    /// Octets of an IKE header.
    pub const HEADER: usize = 28;

    /// From an IKE message without non-ESP marker. `None` if it is shorter than a header or is not
    /// IKE version 2.
    pub fn parse(source: IpAddr, message: &[u8]) -> Option<Self> {
        let header = message.first_chunk::<{ Self::HEADER }>()?;
        let [i0, i1, i2, i3, i4, i5, i6, i7, rest @ ..] = *header;
        let [r0, r1, r2, r3, r4, r5, r6, r7, rest @ ..] = rest;
        let [_next, version, _exchange, flags, m0, m1, m2, m3, ..] = rest;
        (version >> 4 == 2).then_some(Self {
            source,
            initiator_cookie: [i0, i1, i2, i3, i4, i5, i6, i7],
            responder_cookie: [r0, r1, r2, r3, r4, r5, r6, r7],
            message_id: [m0, m1, m2, m3],
            from_initiator: flags & 0x08 != 0,
        })
    }

    /// Our SPI; zero if the peer does not know it yet.
    pub const fn our_cookie(&self) -> Cookie {
        if self.from_initiator {
            self.responder_cookie
        } else {
            self.initiator_cookie
        }
    }

    /// The slot by the decision function.
    pub fn slot(&self) -> Slot {
        Slot::for_negotiation(&Address::from(self.source).0, &self.initiator_cookie)
    }

    /// The keys under which a negotiation may stand, most specific first.
    fn keys(&self) -> [NegotiationKey; 2] {
        let ours = self.our_cookie();
        let (cookie, peer) = if ours == [0; 8] {
            (self.initiator_cookie, self.source.into())
        } else {
            (ours, Address::UNSPECIFIED)
        };
        let key = |message_id| NegotiationKey {
            cookie,
            message_id,
            peer,
        };
        [key(self.message_id), key(ANY_MESSAGE_ID)]
    }
}

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
    /// Which member processes an IKE datagram: the owner of the slot of the established IKE SA with
    /// our cookie, else the member that announced the negotiation (exact message id, then any), else
    /// the owner of the slot that the decision function gives. A negotiation that has expired, or
    /// whose member cannot be reached, is a miss. The same order as in `gateway_ingress`, of which
    /// this is the authority and not a consequence.
    pub fn route(&self, facts: &IkeFacts, origin: Origin, now: Instant) -> Route {
        match (self.responsible(facts, now), origin) {
            (Some(member), _) if member == self.local() => Route::Local,
            (Some(member), Origin::Network) if self.is_up(member) => Route::Relay(member),
            _ => Route::Drop,
        }
    }

    /// The member that has to process an IKE datagram, whether it can be reached or not.
    pub fn responsible(&self, facts: &IkeFacts, now: Instant) -> Option<MemberId> {
        if let Some(slot) = self.ownership().ike_sa(facts.our_cookie()) {
            return self.slots().owner(slot);
        }
        let announced = facts.keys().into_iter().find_map(|key| {
            let mut members = self.ownership().negotiation(&key, now);
            members.find(|(member, _)| *member == self.local() || self.is_up(*member))
        });
        match announced {
            Some((member, _)) => Some(member),
            None => self.slots().owner(facts.slot()),
        }
    }
}
