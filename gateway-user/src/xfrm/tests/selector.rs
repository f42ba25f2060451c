//! Ranges of addresses and ports as prefixes and masks.

use std::net::{IpAddr, Ipv6Addr};

use gateway_ike::output::TrafficSelector;
use ipnet::IpNet;
use proptest::prelude::*;

use super::{ip, network};
use crate::xfrm::selector::{flows, port_masks, prefixes};
use crate::xfrm::{Direction, PolicySelector, PortMatch};

fn ports(ts: TrafficSelector, protocol: u8, start: u16, end: u16) -> TrafficSelector {
    TrafficSelector {
        protocol,
        start_port: start,
        end_port: end,
        ..ts
    }
}

fn texts(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

#[test]
fn ranges_become_the_fewest_prefixes() {
    for (first, last, expected) in [
        ("10.1.0.0", "10.1.255.255", vec!["10.1.0.0/16"]),
        ("0.0.0.0", "255.255.255.255", vec!["0.0.0.0/0"]),
        ("10.0.0.1", "10.0.0.1", vec!["10.0.0.1/32"]),
        (
            "10.0.0.1",
            "10.0.0.4",
            vec!["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"],
        ),
        (
            "255.255.255.254",
            "255.255.255.255",
            vec!["255.255.255.254/31"],
        ),
        (
            "::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            vec!["::/0"],
        ),
        (
            "2001:db8::",
            "2001:db8::ffff:ffff:ffff:ffff",
            vec!["2001:db8::/64"],
        ),
    ] {
        let found = prefixes(ip(first), ip(last)).unwrap();
        assert_eq!(texts(&found), expected, "{first} to {last}");
    }
    assert!(prefixes(ip("10.0.0.2"), ip("10.0.0.1")).is_err());
    assert!(prefixes(ip("10.0.0.2"), ip("::1")).is_err());
}

#[test]
fn directions_turn_addresses_and_ports_but_not_icmp() {
    let local = ports(network("10.1.0.0/16"), 6, 443, 443);
    let remote = network("10.2.0.0/16");
    let flow = flows(&[local], &[remote]).unwrap()[0];
    assert_eq!(
        flow.selector(Direction::Out).to_string(),
        "src 10.1.0.0/16 dst 10.2.0.0/16 proto 6 sport 443"
    );
    for direction in [Direction::In, Direction::Fwd] {
        assert_eq!(
            flow.selector(direction).to_string(),
            "src 10.2.0.0/16 dst 10.1.0.0/16 proto 6 dport 443"
        );
    }
    // Echo requests only: type 8, code 0.
    let echo = ports(network("10.1.0.0/16"), 1, 0x0800, 0x0800);
    let flow = flows(&[echo], &[remote]).unwrap()[0];
    for direction in [Direction::In, Direction::Out] {
        let selector = flow.selector(direction);
        assert_eq!((selector.src_port.value, selector.dst_port.value), (8, 0));
        assert_eq!(selector.dst_port.mask, u16::MAX);
    }
}

#[test]
fn icmp_types_with_all_codes_and_ranges_of_codes() {
    let remote = network("10.2.0.0/16");
    let icmp = |start, end| {
        let local = ports(network("10.1.0.0/16"), 1, start, end);
        flows(&[local], &[ports(remote, 1, 0, u16::MAX)]).map(|flows| {
            flows
                .iter()
                .map(|f| f.selector(Direction::Out))
                .collect::<Vec<_>>()
        })
    };
    let all = icmp(0, u16::MAX).unwrap();
    assert_eq!(
        (all.len(), all[0].src_port.mask, all[0].dst_port.mask),
        (1, 0, 0)
    );
    let unreachable = icmp(0x0300, 0x03ff).unwrap();
    assert_eq!(
        (unreachable[0].src_port.value, unreachable[0].dst_port.mask),
        (3, 0)
    );
    assert_eq!(icmp(0x0300, 0x0302).unwrap().len(), 2, "codes 0-1 and 2");
    assert!(icmp(0x0301, 0x0402).is_err(), "crosses types");
}

#[test]
fn what_cannot_match_is_left_out_and_what_cannot_be_said_is_an_error() {
    let (v4, v6) = (network("10.1.0.0/16"), network("2001:db8::/64"));
    assert!(flows(&[v4], &[v6]).is_err());
    assert!(flows(&[ports(v4, 6, 0, u16::MAX)], &[ports(v4, 17, 0, u16::MAX)]).is_err());
    assert_eq!(flows(&[v4, v6], &[v4, v6]).unwrap().len(), 2);
    assert_eq!(flows(&[v4, v4], &[v4]).unwrap().len(), 1, "duplicates");
    // OPAQUE.
    assert!(flows(&[ports(v4, 6, u16::MAX, 0)], &[v4]).is_err());
}

#[test]
fn hostile_selectors_cannot_fill_the_spd() {
    let ragged = TrafficSelector {
        start: ip("0.0.0.1"),
        end: ip("255.255.255.254"),
        ..network("10.0.0.0/8")
    };
    let ragged = ports(ragged, 6, 1, 65534);
    let error = flows(&[ragged; 255], &[ragged; 255]).unwrap_err();
    assert!(error.to_string().contains("256 policies"), "{error}");
}

#[test]
fn the_more_specific_is_the_stronger() {
    let selector = |local: TrafficSelector, remote: &str| {
        let flow = flows(&[local], &[network(remote)]).unwrap()[0];
        flow.selector(Direction::Out).priority()
    };
    let net = network("10.1.0.0/16");
    let order = [
        selector(ports(network("10.1.0.1/32"), 6, 443, 443), "10.2.0.1/32"),
        selector(ports(net, 6, 443, 443), "10.2.0.0/16"),
        selector(ports(net, 6, 0, u16::MAX), "10.2.0.0/16"),
        selector(net, "10.2.0.0/16"),
        selector(net, "10.0.0.0/8"),
        selector(network("0.0.0.0/0"), "0.0.0.0/0"),
    ];
    assert!(order.is_sorted(), "{order:?}");
    let host = PolicySelector {
        src: "::1/128".parse().unwrap(),
        dst: "::1/128".parse().unwrap(),
        protocol: 6,
        src_port: PortMatch {
            value: 1,
            mask: u16::MAX,
        },
        dst_port: PortMatch {
            value: 1,
            mask: u16::MAX,
        },
    };
    assert!(host.priority() > 200_000);
}

proptest! {
    #[test]
    fn masks_cover_exactly_the_range(a: u16, b: u16, probe: u16) {
        let (first, last) = (a.min(b), a.max(b));
        let masks = port_masks(first, last);
        prop_assert!(masks.len() <= 30);
        for port in [probe, first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
            let hits = masks.iter().filter(|m| port & m.mask == m.value).count();
            prop_assert_eq!(hits, usize::from((first..=last).contains(&port)));
        }
    }

    #[test]
    fn prefixes_cover_exactly_the_range(a: u128, b: u128, probe: u128) {
        let (first, last) = (a.min(b), a.max(b));
        let address = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
        let networks = prefixes(address(first), address(last)).unwrap();
        prop_assert!(networks.len() <= 254);
        for bits in [probe, first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
            let hits = networks.iter().filter(|n| n.contains(&address(bits))).count();
            prop_assert_eq!(hits, usize::from((first..=last).contains(&bits)));
        }
    }
}
