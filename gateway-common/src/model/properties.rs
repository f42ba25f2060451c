//! What must hold for every frame, for property tests and fuzzing.

use super::cases::{CLUSTER, world};
use super::{ModelTables, packet};
use crate::packet::{Direction, Ethernet, Flow, IkeHeader, Octets, Transport, classify};
use crate::reason::{Action, Program, Reason};
use crate::route::route_ike;
use crate::steer::{self, Forward, Leaving, Link, Verdict};

/// Runs all programs on `frame` in [`world`].
///
/// # Panics
/// If one of them breaks a promise.
pub fn check(frame: &[u8]) {
    let tables = world();
    let octets = Octets(frame);
    for program in [Program::Ingress, Program::Inside] {
        match steered(program, frame, &tables) {
            Verdict::Stay(reason) => {
                assert_eq!(reason.program(), program);
                assert_eq!(reason.action(), Action::Pass, "{reason}");
            }
            Verdict::Forward(forward) => {
                assert_eq!(forward.reason.program(), program);
                assert_eq!(forward.reason.action(), Action::Forward);
                forwarded_once(frame, &forward, &tables);
                complete(program, frame, &tables);
            }
        }
    }
    let received = steer::sync(&octets, &tables);
    assert_eq!(received.reason.program(), Program::Sync);
    assert_eq!(
        received.member != 0,
        received.reason == Reason::SyncAccepted
    );
    fenced(frame, &tables);
    agent_agrees(frame, &tables);
}

/// Whatever leaves in the cluster's name leaves for the owner alone, under its lease, and within a
/// ceiling: what passes stops when any of them is taken away.
fn fenced(frame: &[u8], tables: &ModelTables) {
    let octets = Octets(frame);
    let mut without_lease = tables.clone();
    without_lease.lease = tables.now_ns;
    let mut without_slots = tables.clone();
    without_slots.slot_owner.clear();
    let mut without_sas = tables.clone();
    without_sas.esp_out.clear();
    for mark in [0, crate::abi::mark(crate::abi::MARK_SA, 0), u32::MAX] {
        for link in [
            Link::Ethernet,
            Link::Ip(packet::IPV4),
            Link::Ip(packet::IPV6),
        ] {
            let judge = |segments, tables: &ModelTables| {
                let leaving = Leaving {
                    link,
                    mark,
                    segments,
                };
                steer::fence(&octets, &leaving, tables)
            };
            let reason = judge(0, tables);
            assert_eq!(reason.program(), Program::Egress);
            let concerned = !matches!(reason, Reason::FenceOther | Reason::FenceUnmarked);
            if concerned {
                assert_eq!(judge(0, &without_slots), Reason::FenceNotOwner);
            } else {
                assert_eq!(judge(0, &without_slots), reason);
                assert_eq!(judge(0, &without_lease), reason);
            }
            if reason != Reason::FenceOwned {
                continue;
            }
            assert_eq!(judge(0, &without_lease), Reason::FenceLeaseOver);
            // More segments never make a packet better, and without a number none make it worse.
            let numbered = judge(0, &without_sas) == Reason::FenceUnknownSa;
            for segments in [1, 2, 1 << 10, 1 << 20, u32::MAX] {
                let reason = judge(segments, tables);
                let above = numbered && segments > 1 && reason == Reason::FenceAboveCeiling;
                assert!(reason == Reason::FenceOwned || above, "{reason}");
            }
        }
    }
}

fn steered<'a>(program: Program, frame: &[u8], tables: &'a ModelTables) -> Verdict<'a> {
    match program {
        Program::Inside => steer::inside(&Octets(frame), tables),
        _ => steer::ingress(&Octets(frame), tables),
    }
}

/// The receiver accepts a forwarded frame and names the sender; nobody forwards it again.
fn forwarded_once(frame: &[u8], forward: &Forward, tables: &ModelTables) {
    assert_ne!(forward.member, tables.settings.member);
    let rest = &frame[12 + 4 * usize::from(forward.tags)..];
    let sent = [&forward.value.mac[..], &forward.value.marked_mac[..], rest].concat();
    let mut there = tables.clone();
    there.settings.member = forward.member;
    there.settings.macs = [[0; 8]; 8];
    let received = steer::sync(&Octets(&sent), &there);
    assert_eq!(received.reason, Reason::SyncAccepted);
    assert_eq!(received.member, tables.settings.member);
    let again = [Program::Ingress, Program::Inside].map(|p| steered(p, &sent, &there));
    let stays = [Reason::AlreadyForwarded, Reason::InsideAlreadyForwarded];
    assert_eq!(again, stays.map(Verdict::Stay));
    assert_eq!(sent[10], CLUSTER);
}

/// A packet of which anything is missing is not forwarded.
fn complete(program: Program, frame: &[u8], tables: &ModelTables) {
    let ethernet = Ethernet::read(&Octets(frame)).expect("it was forwarded");
    let (kind, start) = (ethernet.kind, ethernet.payload());
    let ip = crate::packet::Ip::read_headers(&Octets(frame), kind, start);
    let end = ip.map_or(start, |ip| ip.end);
    if let Some(cut) = frame.get(..end.saturating_sub(1)) {
        assert!(matches!(steered(program, cut, tables), Verdict::Stay(_)));
    }
}

/// The agent, which sees the datagram alone, finds the member that the program finds.
fn agent_agrees(frame: &[u8], tables: &ModelTables) {
    let octets = Octets(frame);
    let Ok(ethernet) = Ethernet::read(&octets) else {
        return;
    };
    let Ok(packet) = classify(&octets, &ethernet) else {
        return;
    };
    let Flow::Transport(Transport::Ike { at, available }) = packet.flow else {
        return;
    };
    let Ok(header) = IkeHeader::parse(&frame[at..at + available]) else {
        return;
    };
    let peer = packet.ip.source(&octets);
    let route = route_ike(&header, &peer, Direction::Received, tables);
    if let Verdict::Forward(forward) = steer::ingress(&octets, tables) {
        assert_eq!(route.member, forward.member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{ANY_MESSAGE_ID, Address, IkeSaKey, NegotiationKey};
    use crate::model::cases::all;
    use crate::model::mutate::{Random, mutate};
    use crate::model::packet::{Packet, esp, extensions, numbered_esp};
    use crate::packet::Ip;
    use crate::route::{IkeRoute, Via};
    use crate::slot::Slot;
    use core::net::IpAddr;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn noise_breaks_nothing(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            check(&frame);
        }

        #[test]
        fn mutated_frames_break_nothing(seed in any::<u64>()) {
            let frames: Vec<_> = all().into_iter().map(|case| case.frame).collect();
            let mut random = Random(seed);
            for _ in 0..20 {
                check(&mutate(&mut random, &frames));
            }
        }

        #[test]
        fn no_sequence_number_above_the_ceiling_leaves(
            sequence in any::<u32>(),
            ahead in -0x4000_0000i32..0x4000_0000,
            segments in prop_oneof![0u32..4, 0..0x1_0000u32],
        ) {
            let ceiling = sequence.wrapping_add_signed(ahead);
            let mut tables = world();
            for value in tables.esp_out.values_mut() {
                value.ceiling = ceiling;
            }
            let key = tables.esp_out.iter().find(|(key, value)| {
                value.slot == 0 && IpAddr::from(key.peer).is_ipv4()
            });
            let (key, _) = key.expect("an SA of this member");
            let payload = numbered_esp(u32::from_be_bytes(key.spi), sequence);
            let vip = tables.vip.iter().map(|vip| IpAddr::from(*vip)).find(IpAddr::is_ipv4);
            let frame = Packet::new(vip.expect("a VIP"), key.peer.into(), 50, payload).frame();
            let leaving = Leaving {
                link: Link::Ethernet,
                mark: crate::abi::mark(crate::abi::MARK_SA, 0),
                segments,
            };
            // The numbers that leave are sequence..=last, in numbers that do not wrap.
            let last = i64::from(segments.max(1)) - 1;
            let expected = if last <= i64::from(ahead) {
                Reason::FenceOwned
            } else {
                Reason::FenceAboveCeiling
            };
            prop_assert_eq!(steer::fence(&Octets(&frame), &leaving, &tables), expected);
        }

        #[test]
        fn every_chain_of_up_to_six_headers_is_walked(
            kinds in proptest::collection::vec((0usize..4, 0u8..4), 0..8),
        ) {
            let headers: Vec<(u8, Vec<u8>)> = kinds
                .iter()
                .map(|(kind, units)| {
                    let mut rest = vec![0; 7 + 8 * usize::from(*units)];
                    rest[0] = *units;
                    ([0, 43, 60, 135][*kind], rest)
                })
                .collect();
            let headers: Vec<_> = headers.iter().map(|(k, rest)| (*k, &rest[..])).collect();
            let [source, destination] = ["2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap());
            let mut packet = Packet::new(source, destination, 50, esp(1));
            packet.extra = extensions(&headers, 50);
            let octets = packet.octets();
            let ip = Ip::read(&Octets(&octets), packet::IPV6, 0);
            if headers.len() > 6 {
                prop_assert!(ip.is_err());
            } else {
                let ip = ip.unwrap();
                prop_assert_eq!(ip.protocol, 50);
                prop_assert_eq!(ip.transport, octets.len() - esp(1).len());
            }
        }

        #[test]
        fn routes_are_what_the_rules_say(
            initiator in cookie(),
            responder in cookie(),
            flags in prop_oneof![Just(0u8), Just(0x08), Just(0x20), Just(0x28)],
            message_id in prop_oneof![Just(7u32), Just(0), any::<u32>()],
            version in prop_oneof![Just(0x20u8), Just(0x10)],
            sent in any::<bool>(),
            exchange in prop_oneof![Just(34u8), Just(35), Just(36), Just(37), Just(43)],
            peer in prop_oneof![Just("198.51.100.7"), Just("2001:db8:2::7")],
        ) {
            let header = IkeHeader {
                initiator,
                responder,
                version,
                exchange,
                flags,
                message_id: message_id.to_be_bytes(),
                length: 28,
            };
            let direction = if sent { Direction::Sent } else { Direction::Received };
            let peer = Address::from(peer.parse::<IpAddr>().unwrap());
            let tables = both_ways();
            prop_assert_eq!(
                route_ike(&header, &peer, direction, &tables),
                by_the_rules(&header, peer, sent, &tables)
            );
        }
    }

    /// The coarse clock may stand still for a while: near the end the exact one decides.
    #[test]
    fn the_lease_ends_to_the_nanosecond_whatever_the_coarse_clock_says() {
        let mut tables = world();
        let case = all()
            .into_iter()
            .find(|case| case.reason == Reason::FenceOwned);
        let case = case.expect("a packet that leaves");
        let leaving = Leaving {
            link: Link::Ethernet,
            mark: case.mark,
            segments: 0,
        };
        for (left, lag, reason) in [
            (1, 0, Reason::FenceOwned),
            (0, 0, Reason::FenceLeaseOver),
            (50_000_000, 49_999_999, Reason::FenceOwned),
            (50_000_000, 50_000_000, Reason::FenceLeaseOver),
            (100_000_000, 100_000_000, Reason::FenceLeaseOver),
        ] {
            tables.lease = tables.now_ns + left;
            tables.lag_ns = lag;
            let found = steer::fence(&Octets(&case.frame), &leaving, &tables);
            assert_eq!(found, reason, "{left} ns left, {lag} ns behind");
        }
    }

    #[test]
    fn uncounted_segments_are_never_too_few() {
        assert_eq!(steer::segments(0, 0, 9000), 0);
        assert_eq!(steer::segments(32, 1394, 44_710), 32);
        assert_eq!(steer::segments(0, 1394, 44_710), 33);
        assert_eq!(steer::segments(0, 1400, 1400), 2);
    }

    /// Zero, one that a table knows, or any.
    fn cookie() -> impl Strategy<Value = [u8; 8]> {
        let tables = world();
        let mut known: Vec<_> = tables.negotiations.keys().map(|key| key.cookie).collect();
        known.extend(tables.ike_sa.keys().map(|key| key.cookie));
        known.sort_unstable();
        prop_oneof![
            1 => Just([0; 8]),
            4 => proptest::sample::select(known),
            1 => any::<[u8; 8]>(),
        ]
    }

    /// The world, but every established cookie is still among the negotiations too.
    fn both_ways() -> ModelTables {
        let mut tables = world();
        let value = tables.negotiations.values().find(|value| value.member == 3);
        let value = *value.expect("a negotiation of member 3");
        for key in tables.ike_sa.keys() {
            let key = NegotiationKey {
                cookie: key.cookie,
                message_id: ANY_MESSAGE_ID,
                peer: Address::UNSPECIFIED,
            };
            tables.negotiations.insert(key, value);
        }
        tables
    }

    /// The rules once more, as a list of questions.
    fn by_the_rules(header: &IkeHeader, peer: Address, sent: bool, t: &ModelTables) -> IkeRoute {
        let peer_initiated = (header.flags & 8 != 0) != sent;
        let ours = if peer_initiated {
            header.responder
        } else {
            header.initiator
        };
        let nobody = Address::UNSPECIFIED;
        let mut questions = Vec::new();
        if header.version == 0x10 {
            questions.extend([(header.responder, nobody), (header.initiator, nobody)]);
            questions.retain(|(cookie, _)| *cookie != [0; 8]);
            questions.push((header.initiator, peer));
        } else if ours == [0; 8] {
            questions.push((header.initiator, peer));
        } else {
            questions.push((ours, nobody));
        }
        let opens = header.version == 0x20 && [34, 35, 43].contains(&header.exchange);
        for (cookie, address) in questions {
            let sa = t
                .ike_sa
                .get(&IkeSaKey { cookie })
                .filter(|_| address == nobody);
            let sa = sa.map(|value| IkeRoute {
                slot: Slot(value.slot),
                member: t.slot_owner[&value.slot],
                via: Via::Sa,
            });
            let negotiation = [header.message_id, ANY_MESSAGE_ID]
                .into_iter()
                .find_map(|id| {
                    let key = NegotiationKey {
                        cookie,
                        message_id: id,
                        peer: address,
                    };
                    let value = t.negotiations.get(&key)?;
                    let alive = value.expires_ns > t.now_ns && [1, 2, 3, 5].contains(&value.member);
                    alive.then(|| IkeRoute {
                        slot: Slot(value.slot),
                        member: u32::from(value.member),
                        via: Via::Negotiation,
                    })
                });
            let found = if opens {
                negotiation.or(sa)
            } else {
                sa.or(negotiation)
            };
            if let Some(route) = found {
                return route;
            }
        }
        let slot = Slot::for_negotiation(&peer.octets, &header.initiator);
        IkeRoute {
            slot,
            member: t.slot_owner[&slot.0],
            via: Via::Decision,
        }
    }
}
