//! The algebra of selectors against a model: a set of selectors is the set of packets, out of a
//! small world of packets, that it matches.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_ike::selector::{MAX_SELECTORS, TrafficSelector, narrow, narrow_both};
use proptest::prelude::*;

/// Address, protocol, port.
type Packet = (IpAddr, u8, u16);

const ADDRESSES: u8 = 8;
const PORTS: u16 = 4;
const PROTOCOLS: [u8; 3] = [6, 17, 47];

fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn v6(number: u8) -> IpAddr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number)).into()
}

/// All packets there are; GRE (47) has no ports, so its packets have port 0.
fn world() -> Vec<Packet> {
    let mut packets = Vec::new();
    for address in (0..ADDRESSES).flat_map(|number| [v4(number), v6(number)]) {
        for protocol in PROTOCOLS {
            let ports = if protocol == 47 { 1 } else { PORTS };
            packets.extend((0..ports).map(|port| (address, protocol, port)));
        }
    }
    packets
}

fn packets(selectors: &[TrafficSelector]) -> BTreeSet<Packet> {
    let matches = |(address, protocol, port): &Packet| {
        selectors
            .iter()
            .any(|ts| ts.matches(*address, *protocol, *port))
    };
    world().into_iter().filter(matches).collect()
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ends = (0..ADDRESSES, 0..ADDRESSES).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let ports = (0..PORTS, 0..PORTS).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let protocol = prop::sample::select(vec![0u8, 6, 17, 47]);
    (any::<bool>(), ends, protocol, prop::option::of(ports)).prop_map(
        |(is_v4, (start, end), protocol, ports)| {
            let address = if is_v4 { v4 } else { v6 };
            let range = TrafficSelector::range(address(start), address(end)).unwrap();
            let range = range.with_protocol(protocol);
            match ports.filter(|_| [6, 17].contains(&protocol)) {
                Some((first, last)) => range.with_ports(first, last),
                None => range,
            }
        },
    )
}

fn selectors() -> impl Strategy<Value = Vec<TrafficSelector>> {
    prop::collection::vec(selector(), 0..5)
}

proptest! {
    #[test]
    fn intersection_is_that_of_the_sets(a in selector(), b in selector()) {
        let both: Vec<_> = a.intersect(&b).into_iter().collect();
        let expected: BTreeSet<_> = packets(&[a]).intersection(&packets(&[b])).copied().collect();
        prop_assert_eq!(packets(&both), expected);
        prop_assert_eq!(a.intersect(&b), b.intersect(&a));
        prop_assert_eq!(a.intersect(&a), Some(a));
        for both in both {
            prop_assert!(both.is_enforceable() && a.contains(&both) && b.contains(&both));
        }
    }

    #[test]
    fn containment_is_that_of_the_sets(a in selector(), b in selector()) {
        if a.contains(&b) {
            prop_assert!(packets(&[b]).is_subset(&packets(&[a])));
            prop_assert_eq!(a.intersect(&b), Some(b));
        } else {
            prop_assert_ne!(a.intersect(&b), Some(b));
        }
    }

    #[test]
    fn narrowing_is_the_intersection(configured in selectors(), proposed in selectors()) {
        let answer = narrow(&configured, &proposed);
        let expected: BTreeSet<_> =
            packets(&configured).intersection(&packets(&proposed)).copied().collect();
        prop_assert_eq!(packets(&answer), expected);
        prop_assert!(answer.len() <= MAX_SELECTORS);
        for (index, ts) in answer.iter().enumerate() {
            let others = answer.iter().enumerate().filter(|(other, _)| *other != index);
            prop_assert!(others.into_iter().all(|(_, other)| !other.contains(ts)), "redundant");
        }
        // RFC 7296 §2.9: what we allow of the first proposed selector is in the answer's front.
        let hint = packets(&narrow(&configured, &proposed[..proposed.len().min(1)]));
        if let Some(packet) = hint.first() {
            prop_assert!(packets(&answer).contains(packet));
            prop_assert!(!packets(&answer[..1]).is_disjoint(&hint));
        }
    }

    /// Cut off or not, an answer never exceeds what was configured and proposed.
    #[test]
    fn long_lists_never_widen(
        configured in prop::collection::vec(selector(), 0..80),
        proposed in prop::collection::vec(selector(), 0..80),
    ) {
        let answer = narrow(&configured, &proposed);
        prop_assert!(answer.len() <= MAX_SELECTORS);
        let both: BTreeSet<_> =
            packets(&configured).intersection(&packets(&proposed)).copied().collect();
        prop_assert!(packets(&answer).is_subset(&both));
        for ts in &answer {
            prop_assert!(configured.iter().any(|c| c.contains(ts)));
            prop_assert!(proposed.iter().any(|p| p.contains(ts)));
        }
    }

    /// Leaving out what nothing fits to loses no flow: a flow is a packet's two ends, of one family
    /// and protocol.
    #[test]
    fn both_sides_keep_all_flows(
        configured in (selectors(), selectors()),
        proposed in (selectors(), selectors()),
    ) {
        let flows = |local: &[TrafficSelector], remote: &[TrafficSelector]| {
            let remote = packets(remote);
            let mut flows = BTreeSet::new();
            for a in packets(local) {
                let fits = |b: &&Packet| a.0.is_ipv4() == b.0.is_ipv4() && a.1 == b.1;
                flows.extend(remote.iter().filter(fits).map(|b| (a, *b)));
            }
            flows
        };
        let local = narrow(&configured.0, &proposed.0);
        let remote = narrow(&configured.1, &proposed.1);
        let all = flows(&local, &remote);
        let result = narrow_both((&configured.0, &configured.1), (&proposed.0, &proposed.1));
        match result {
            Ok(narrowed) => {
                prop_assert_eq!(flows(&narrowed.local, &narrowed.remote), all);
                for ts in &narrowed.local {
                    prop_assert!(!flows(&[*ts], &narrowed.remote).is_empty(), "useless");
                }
                for ts in &narrowed.remote {
                    prop_assert!(!flows(&narrowed.local, &[*ts]).is_empty(), "useless");
                }
            }
            Err(_) => prop_assert!(all.is_empty()),
        }
    }

    /// The prefixes of a range cover it exactly, without overlap, and no two could be one.
    #[test]
    fn prefixes_are_exact_and_minimal(a: u32, b: u32, shift in 0u32..32) {
        let (start, end) = ((a.min(b) >> shift), (a.max(b) >> shift));
        let range = TrafficSelector::range(Ipv4Addr::from_bits(start).into(), Ipv4Addr::from_bits(end).into()).unwrap();
        let prefixes = range.prefixes();
        prop_assert!(!prefixes.is_empty() && prefixes.len() <= 62);
        let mut next = u64::from(start);
        for prefix in &prefixes {
            let IpAddr::V4(first) = prefix.address else { panic!("family") };
            let size = 1u64 << (32 - prefix.len);
            prop_assert_eq!(u64::from(first.to_bits()), next);
            prop_assert_eq!(next % size, 0, "aligned");
            next += size;
        }
        prop_assert_eq!(next, u64::from(end) + 1);
        for pair in prefixes.windows(2) {
            let parent = TrafficSelector::prefix(pair[0].address, pair[0].len.saturating_sub(1));
            let mergeable = pair[0].len == pair[1].len && parent.contains(&TrafficSelector::host(pair[1].address));
            prop_assert!(!mergeable);
        }
    }

    #[test]
    fn prefixes_of_ipv6(a: u128, b: u128, shift in 0u32..128) {
        let (start, end) = ((a.min(b) >> shift), (a.max(b) >> shift));
        let range = TrafficSelector::range(Ipv6Addr::from_bits(start).into(), Ipv6Addr::from_bits(end).into()).unwrap();
        let prefixes = range.prefixes();
        prop_assert!(!prefixes.is_empty() && prefixes.len() <= 254);
        let mut next = Some(start);
        for prefix in &prefixes {
            let whole = TrafficSelector::prefix(prefix.address, prefix.len);
            let (IpAddr::V6(first), IpAddr::V6(last)) = (whole.start, whole.end) else { panic!("family") };
            prop_assert_eq!(Some(first.to_bits()), next);
            prop_assert!(last.to_bits() <= end);
            next = last.to_bits().checked_add(1);
        }
        prop_assert_eq!(next, end.checked_add(1));
    }

    #[test]
    fn port_masks_are_exact(a: u16, b: u16, probes in prop::collection::vec(any::<u16>(), 64)) {
        let (start, end) = (a.min(b), a.max(b));
        let ts = TrafficSelector::host(v4(1)).with_protocol(6).with_ports(start, end);
        let masks = ts.port_masks();
        prop_assert!(masks.len() <= 30);
        let edges = [start, end, start.wrapping_sub(1), end.wrapping_add(1)];
        for port in probes.into_iter().chain(edges) {
            let hits = masks.iter().filter(|m| port & m.mask == m.port).count();
            prop_assert_eq!(hits, usize::from((start..=end).contains(&port)), "port {}", port);
        }
    }

    #[test]
    fn text_round_trip(ts in selector()) {
        prop_assert_eq!(ts.to_string().parse(), Ok(ts));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9a-f.:/-]{0,20}(\\[[a-z0-9/()-]{0,12}\\]?)?|\\PC{0,30}") {
        let _ = text.parse::<TrafficSelector>();
    }
}
