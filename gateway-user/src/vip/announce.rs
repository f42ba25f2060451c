//! Frames that tell neighbours who has an address, or ask them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Router and Override: take this over whatever you knew before (RFC 4861 §4.4).
const ROUTER_OVERRIDE: [u8; 4] = [0xa0, 0, 0, 0];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// `mac` has `address` from now on: an ARP announcement and a gratuitous reply (RFC 5227 §3; some
/// hosts take only one of the two), or an unsolicited neighbour advertisement (RFC 4861 §7.2.6).
pub(super) fn announcements(mac: [u8; 6], address: IpAddr) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => vec![
            arp(ARP_REQUEST, mac, address, address),
            arp(ARP_REPLY, mac, address, address),
        ],
        IpAddr::V6(address) => {
            let message = neighbour_message(
                NEIGHBOUR_ADVERTISEMENT,
                ROUTER_OVERRIDE,
                address,
                (TARGET_LINK_LAYER, mac),
            );
            vec![icmpv6(mac, address, ALL_NODES, &message)]
        }
    }
}

/// Who has `target`? Asked by `mac`, which has `own`. `None` if the families differ.
pub(super) fn question(mac: [u8; 6], own: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
    match (own, target) {
        (IpAddr::V4(own), IpAddr::V4(target)) => Some(arp(ARP_REQUEST, mac, own, target)),
        (IpAddr::V6(own), IpAddr::V6(target)) => {
            let option = (SOURCE_LINK_LAYER, mac);
            let message = neighbour_message(NEIGHBOUR_SOLICITATION, [0; 4], target, option);
            let [.., x, y, z] = target.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
            Some(icmpv6(mac, own, group, &message))
        }
        _ => None,
    }
}

/// Whether `frame` is an answer that says that somebody has `target`.
pub(super) fn answers(frame: &[u8], target: IpAddr) -> bool {
    match target {
        IpAddr::V4(target) => {
            frame.get(12..14) == Some(&ETHERTYPE_ARP)
                && frame.get(20..22) == Some(&[0, ARP_REPLY])
                && frame.get(28..32) == Some(&target.octets())
        }
        IpAddr::V6(target) => {
            frame.get(12..14) == Some(&ETHERTYPE_IPV6)
                && frame.get(20) == Some(&58)
                && frame.get(54) == Some(&NEIGHBOUR_ADVERTISEMENT)
                && frame.get(62..78) == Some(&target.octets())
        }
    }
}

fn arp(operation: u8, mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet, IPv4, lengths of their addresses.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(if operation == ARP_REPLY {
        &mac
    } else {
        &[0; 6]
    });
    frame.extend_from_slice(&target.octets());
    frame
}

fn neighbour_message(
    kind: u8,
    flags: [u8; 4],
    target: Ipv6Addr,
    (option, mac): (u8, [u8; 6]),
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(&flags);
    message.extend_from_slice(&target.octets());
    message.extend_from_slice(&[option, 1]);
    message.extend_from_slice(&mac);
    message
}

fn icmpv6(mac: [u8; 6], source: Ipv6Addr, group: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let [.., a, b, c, d] = group.octets();
    let mut frame = ethernet([0x33, 0x33, a, b, c, d], mac, ETHERTYPE_IPV6);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    // ICMPv6, hop limit 255 (RFC 4861 §7.1).
    frame.extend_from_slice(&[58, 255]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&group.octets());
    let start = frame.len();
    frame.extend_from_slice(message);
    let sum = checksum(source, group, message);
    frame[start + 2..start + 4].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&kind);
    frame
}

/// Over pseudo header and message (RFC 8200 §8.1).
fn checksum(source: Ipv6Addr, target: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut all = source.octets().to_vec();
    all.extend_from_slice(&target.octets());
    all.extend_from_slice(&length.to_be_bytes());
    all.extend_from_slice(&[0, 0, 0, 58]);
    all.extend_from_slice(message);
    let mut sum: u32 = all
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_arp_announcement_names_the_address_twice() {
        let frames = announcements(MAC, "192.0.2.5".parse().unwrap());
        assert_eq!(frames.len(), 2);
        for (frame, operation) in frames.iter().zip([1, 2]) {
            assert_eq!((frame.len(), frame[21]), (42, operation));
            assert_eq!(frame[..6], BROADCAST);
            assert_eq!(frame[28..32], [192, 0, 2, 5]);
            assert_eq!(frame[38..42], [192, 0, 2, 5]);
        }
        assert!(answers(&frames[1], "192.0.2.5".parse().unwrap()));
        assert!(!answers(&frames[0], "192.0.2.5".parse().unwrap()));
        assert!(!answers(&frames[1], "192.0.2.6".parse().unwrap()));
    }

    #[test]
    fn a_neighbour_advertisement_has_a_good_checksum() {
        let address: Ipv6Addr = "2001:db8::5".parse().unwrap();
        let frame = announcements(MAC, address.into()).remove(0);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        // Over a message with its checksum in place the sum is zero.
        assert_eq!(checksum(address, ALL_NODES, &frame[54..]), 0);
        assert_eq!(frame[21], 255);
        assert!(answers(&frame, address.into()));
        let question = question(MAC, "2001:db8::1".parse().unwrap(), address.into()).unwrap();
        assert_eq!(question[..6], [0x33, 0x33, 0xff, 0, 0, 5]);
        assert!(!answers(&question, address.into()));
    }

    #[test]
    fn families_are_not_mixed() {
        let v4 = IpAddr::from([192, 0, 2, 1]);
        assert!(question(MAC, v4, "2001:db8::5".parse().unwrap()).is_none());
    }
}
