//! Which member processes a datagram.

use std::net::IpAddr;

use gateway_common::{member::MemberId, slot::Slot};

use super::net::{Net, established, id, opened};
use crate::change::{Change, Mirror};
use crate::config::Limits;
use crate::frame::Path;
use crate::route::{IkeFacts, Origin, Route};

/// An IKE_SA_INIT request that the decision function gives to `owner`.
fn init_for(net: &Net, owner: u8) -> IkeFacts {
    (0u8..=255)
        .map(|n| IkeFacts {
            source: IpAddr::from([192, 0, 2, 77]),
            initiator_cookie: [n, 1, 2, 3, 4, 5, 6, 7],
            responder_cookie: [0; 8],
            message_id: [0; 4],
            from_initiator: true,
        })
        .find(|facts| net.core(1).slots().owner(facts.slot()) == Some(id(owner)))
        .unwrap()
}

fn route(net: &Net, member: u8, facts: &IkeFacts) -> Route {
    net.core(member).route(facts, Origin::Network, net.now)
}

fn relayed(net: &Net, member: u8, from: u8, facts: &IkeFacts) -> Route {
    let origin = Origin::Relayed(id(from));
    net.core(member).route(facts, origin, net.now)
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
    let local_cookie = [0xee; 8];
    let Change::NegotiationOpened {
        mut negotiation,
        lifetime,
    } = opened(local_cookie)
    else {
        panic!("not opened");
    };
    negotiation.peer_cookie = init.initiator_cookie;
    negotiation.peer = init.source;
    let change = Change::NegotiationOpened {
        negotiation,
        lifetime,
    };
    net.publish(1, change, Mirror::Urgent).unwrap();
    net.deliver_all();
    let auth = IkeFacts {
        responder_cookie: local_cookie,
        message_id: [0, 0, 0, 1],
        // A NAT that changed its mind.
        source: "192.0.2.99".parse().unwrap(),
        ..init
    };
    for facts in [init, auth] {
        assert_eq!(route(&net, 1, &facts), Route::Local);
        assert_eq!(route(&net, 3, &facts), Route::Relay(id(1)));
    }
    // While its member cannot be reached, the entry is a miss.
    net.cut(1, 3, (true, true));
    assert_eq!(route(&net, 3, &init), Route::Relay(id(2)));
    net.settle();
    // Once established, the slot decides.
    let slot = foreign_slot(&net, 1);
    let owner = net.core(1).slots().owner(slot).unwrap();
    let node = net.nodes.get_mut(&1).unwrap();
    let sa = established(local_cookie, 1);
    node.core
        .publish(net.now, slot, sa, Mirror::Urgent)
        .unwrap();
    net.drain(1);
    net.deliver_all();
    assert_eq!(route(&net, 1, &auth), Route::Relay(owner));
    assert_eq!(route(&net, owner.get(), &auth), Route::Local);
    assert_eq!(
        route(&net, 1, &init),
        Route::Relay(id(2)),
        "retransmitted first message"
    );
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
    let theirs = IkeFacts {
        initiator_cookie: ours,
        responder_cookie: [0xbb; 8],
        from_initiator: false,
        ..init_for(&net, 2)
    };
    assert_eq!(route(&net, 2, &theirs), Route::Relay(id(1)));
    // The same cookie in the other place is the peer's and says nothing.
    let not_ours = IkeFacts {
        from_initiator: true,
        ..theirs
    };
    let by_hash = net.core(2).slots().owner(not_ours.slot());
    assert_eq!(net.core(2).responsible(&not_ours, net.now), by_hash);
}

#[test]
fn facts_come_from_the_header() {
    let source = IpAddr::from([192, 0, 2, 1]);
    let mut message = vec![0u8; 40];
    message[..8].copy_from_slice(&[1; 8]);
    message[8..16].copy_from_slice(&[2; 8]);
    message[17] = 0x20;
    message[19] = 0x08;
    message[23] = 7;
    let facts = IkeFacts::parse(source, &message).unwrap();
    assert_eq!(facts.our_cookie(), [2; 8]);
    assert_eq!(facts.message_id, [0, 0, 0, 7]);
    message[19] = 0x20;
    let facts = IkeFacts::parse(source, &message).unwrap();
    assert_eq!(facts.our_cookie(), [1; 8]);
    assert!(IkeFacts::parse(source, &message[..27]).is_none());
    message[17] = 0x10;
    assert!(IkeFacts::parse(source, &message).is_none(), "IKEv1");
}
