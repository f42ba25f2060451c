//! Which member processes a datagram.

use std::net::IpAddr;

use std::time::Duration;

use gateway_common::abi::Address;
use gateway_common::packet::IkeHeader;
use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::PublishError;

use super::net::{Net, established, id, opened};
use crate::change::{Change, Mirror};
use crate::config::Limits;
use crate::frame::Path;
use crate::route::{Origin, Route};
use crate::view::Epoch;

/// A lease that runs.
const FOREVER: Instant = Instant::from_nanos(u64::MAX);

/// A datagram: its header and its source.
#[derive(Clone, Copy)]
struct Datagram {
    header: IkeHeader,
    peer: IpAddr,
}

/// An IKE_SA_INIT request that the decision function gives to `owner`.
fn init_for(net: &Net, owner: u8) -> Datagram {
    (0u8..=255)
        .map(|n| Datagram {
            header: IkeHeader {
                initiator: [n, 1, 2, 3, 4, 5, 6, 7],
                responder: [0; 8],
                version: 0x20,
                exchange: 34,
                flags: IkeHeader::INITIATOR,
                message_id: [0; 4],
                length: 28,
            },
            peer: IpAddr::from([192, 0, 2, 77]),
        })
        .find(|datagram| by_hash(net, datagram) == Some(id(owner)))
        .unwrap()
}

fn by_hash(net: &Net, datagram: &Datagram) -> Option<MemberId> {
    let source = Address::from(datagram.peer);
    let slot = Slot::for_negotiation(&source.octets, &datagram.header.initiator);
    net.core(1).slots().owner(slot)
}

fn routed(net: &Net, member: u8, datagram: &Datagram, origin: Origin) -> Route {
    let Datagram { header, peer } = datagram;
    net.core(member)
        .route(header, *peer, origin, net.now, FOREVER)
}

fn route(net: &Net, member: u8, datagram: &Datagram) -> Route {
    routed(net, member, datagram, Origin::Network)
}

fn relayed(net: &Net, member: u8, from: u8, datagram: &Datagram) -> Route {
    routed(net, member, datagram, Origin::Relayed(id(from)))
}

/// A slot that `member` does not own.
fn foreign_slot(net: &Net, member: u8) -> Slot {
    let foreign =
        |(slot, owner): (Slot, Option<MemberId>)| (owner != Some(id(member))).then_some(slot);
    net.core(1).slots().iter().find_map(foreign).unwrap()
}

#[test]
fn every_member_agrees_and_exactly_one_processes() {
    let net = Net::connected(3, &Limits::default());
    for owner in 1..=3 {
        let facts = init_for(&net, owner);
        for member in 1..=3 {
            let expected = if member == owner {
                Route::Local
            } else {
                Route::Relay(id(owner))
            };
            assert_eq!(route(&net, member, &facts), expected);
        }
    }
}

#[test]
fn a_relayed_datagram_is_never_relayed_again() {
    let net = Net::connected(3, &Limits::default());
    let facts = init_for(&net, 3);
    assert_eq!(relayed(&net, 3, 1, &facts), Route::Local);
    assert_eq!(relayed(&net, 2, 1, &facts), Route::Drop);
}

#[test]
fn the_datagram_arrives_as_it_was() {
    let mut net = Net::connected(2, &Limits::default());
    let path = Path {
        local: "203.0.113.10:4500".parse().unwrap(),
        remote: "[2001:db8::9]:31000".parse().unwrap(),
    };
    let node = net.node(1);
    assert!(node.core.relay(id(2), &path, b"datagram"));
    assert!(!node.core.relay(id(1), &path, b"to ourselves"));
    assert!(
        !node.core.relay(id(2), &path, &[0; 65_528]),
        "no datagram is that long"
    );
    net.drain(1);
    net.deliver_all();
    assert_eq!(net.node(2).relayed, [(id(1), b"datagram".to_vec())]);
    assert_eq!(net.peer(1, 2).counters.relayed_out, 1);
    assert_eq!(net.peer(2, 1).counters.relayed_in, 1);
    net.cut(1, 2, (true, true));
    assert!(!net.node(1).core.relay(id(2), &path, b"datagram"));
}

#[test]
fn an_unreachable_owner_means_drop() {
    let mut net = Net::connected(3, &Limits::default());
    let facts = init_for(&net, 3);
    net.cut(1, 3, (true, true));
    assert_eq!(route(&net, 1, &facts), Route::Drop);
    assert_eq!(route(&net, 2, &facts), Route::Relay(id(3)));
}

#[test]
fn a_negotiation_goes_to_its_member_and_an_established_sa_to_its_slot() {
    let mut net = Net::connected(3, &Limits::default());
    // Member 1 answered a negotiation that the decision function would give to member 2.
    let init = init_for(&net, 2);
    let slot = foreign_slot(&net, 2);
    assert_eq!(net.core(1).slots().owner(slot), Some(id(1)));
    let local_cookie = [0xee, slot.0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee];
    let Change::NegotiationOpened {
        mut negotiation,
        lifetime,
    } = opened(local_cookie)
    else {
        panic!("not opened");
    };
    negotiation.peer_cookie = init.header.initiator;
    negotiation.peer = init.peer;
    let change = Change::NegotiationOpened {
        negotiation,
        lifetime,
    };
    net.publish(1, change, Mirror::Urgent).unwrap();
    net.deliver_all();
    let mut auth = init;
    auth.header.responder = local_cookie;
    auth.header.message_id = [0, 0, 0, 1];
    // A NAT that changed its mind.
    auth.peer = "192.0.2.99".parse().unwrap();
    for facts in [init, auth] {
        assert_eq!(route(&net, 1, &facts), Route::Local);
        assert_eq!(route(&net, 3, &facts), Route::Relay(id(1)));
    }
    // While its member cannot be reached, the entry is a miss.
    net.cut(1, 3, (true, true));
    assert_eq!(route(&net, 3, &init), Route::Relay(id(2)));
    net.settle();
    // Once established, the slot decides.
    let now = net.now;
    let node = net.node(1);
    let sa = established(local_cookie, 1);
    node.core.publish(now, slot, sa, Mirror::Urgent).unwrap();
    net.drain(1);
    net.deliver_all();
    assert_eq!(route(&net, 1, &auth), Route::Local);
    assert_eq!(route(&net, 3, &auth), Route::Relay(id(1)));
    assert_eq!(
        route(&net, 1, &init),
        Route::Relay(id(2)),
        "retransmitted first message"
    );
    // Nobody else may write what is in that slot.
    let theft = established(local_cookie, 2);
    let refused = net.node(2).core.publish(now, slot, theft, Mirror::Urgent);
    assert_eq!(refused, Err(PublishError::NotOwner(slot)));
}

#[test]
fn our_cookie_depends_on_who_initiated() {
    let mut net = Net::connected(2, &Limits::default());
    let ours = [0xaa; 8];
    let slot = foreign_slot(&net, 2);
    let node = net.nodes.get_mut(&1).unwrap();
    node.core
        .publish(net.now, slot, established(ours, 1), Mirror::Urgent)
        .unwrap();
    net.drain(1);
    net.deliver_all();
    let mut theirs = init_for(&net, 2);
    theirs.header.initiator = ours;
    theirs.header.responder = [0xbb; 8];
    theirs.header.flags = 0x20;
    assert_eq!(route(&net, 2, &theirs), Route::Relay(id(1)));
    // The same cookie in the other place is the peer's and says nothing.
    let mut not_ours = theirs;
    not_ours.header.flags = IkeHeader::INITIATOR;
    let responsible = net
        .core(2)
        .responsible(&not_ours.header, not_ours.peer, net.now);
    let by_hash = by_hash(&net, &not_ours).unwrap();
    assert_eq!(responsible.member, u32::from(by_hash.get()));
}

#[test]
fn an_expired_negotiation_is_a_miss_even_before_its_timer() {
    let mut net = Net::connected(2, &Limits::default());
    let mut auth = init_for(&net, 2);
    let slot = foreign_slot(&net, 2);
    let local_cookie = [0xee, slot.0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee];
    let Change::NegotiationOpened { negotiation, .. } = opened(local_cookie) else {
        panic!("not opened");
    };
    let lifetime = Duration::from_secs(10);
    let change = Change::NegotiationOpened {
        negotiation,
        lifetime,
    };
    net.publish(1, change, Mirror::Urgent).unwrap();
    auth.header.responder = local_cookie;
    assert_eq!(route(&net, 1, &auth), Route::Local);
    let Datagram { header, peer } = auth;
    let later = net.now + lifetime;
    let late = net
        .core(1)
        .route(&header, peer, Origin::Network, later, FOREVER);
    assert_eq!(late, Route::Relay(id(2)));
}

#[test]
fn without_lease_or_before_it_is_active_a_slot_is_not_served() {
    let mut net = Net::connected(2, &Limits::default());
    let init = init_for(&net, 1);
    let Datagram { header, peer } = init;
    let route = |net: &Net, lease| {
        net.core(1)
            .route(&header, peer, Origin::Network, net.now, lease)
    };
    assert_eq!(route(&net, net.now + Duration::from_nanos(1)), Route::Local);
    assert_eq!(route(&net, net.now), Route::Drop, "the lease is over");
    // Slots that come back have to be activated again; a stale activation does nothing.
    let mut view = net.core(1).view().clone();
    let slots = view.slots.clone();
    let now = net.now;
    for (epoch, owners) in [(2, Default::default()), (3, slots)] {
        view.epoch = Epoch(epoch);
        view.slots = owners;
        for member in [1, 2] {
            net.node(member).core.handle_view(now, view.clone());
            net.drain(member);
        }
        net.deliver_all();
    }
    net.node(1).core.handle_active(now, Epoch(2));
    assert_eq!(route(&net, FOREVER), Route::Drop);
    net.node(1).core.handle_active(now, Epoch(3));
    assert_eq!(route(&net, FOREVER), Route::Local);
}
