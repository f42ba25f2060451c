//! Where forwarded frames go.

use std::time::{Duration, Instant};

use gateway_common::abi::{MEMBER_FORWARDABLE, MEMBER_KNOWN};
use gateway_common::member::MemberId;
use gateway_user::steering::Steering;

use crate::lab::{Neighbourhood, run, with_lab};

fn id(raw: u8) -> MemberId {
    MemberId::new(raw).unwrap()
}

fn resolve(steering: &Steering, member: u8) -> [u8; 6] {
    let deadline = Instant::now() + Duration::from_secs(5);
    while steering.refresh_members().unwrap().contains(&id(member)) {
        assert!(Instant::now() < deadline, "no MAC for member {member}");
        std::thread::sleep(Duration::from_millis(20));
    }
    steering.tables().member(id(member)).unwrap().mac
}

fn mac_of(other: &Neighbourhood) -> [u8; 6] {
    let link = other.run("ip -brief link show sync0p");
    let text = link.split_whitespace().nth(2).unwrap().to_owned();
    let octets: Vec<u8> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect();
    octets.try_into().unwrap()
}

#[test]
fn macs_are_asked_for_and_followed() {
    with_lab(|lab| {
        let other = Neighbourhood::with("sync0p", "10.99.0.2/24");
        let steering = Steering::start(&lab.config()).unwrap();
        steering.set_live(&[id(1), id(2), id(3)]).unwrap();
        assert_eq!(resolve(&steering, 2), mac_of(&other));
        let flags = |raw| steering.tables().member(id(raw)).unwrap().flags;
        assert_eq!(flags(2), MEMBER_KNOWN | MEMBER_FORWARDABLE);
        assert_eq!(flags(3), MEMBER_KNOWN, "nobody answers for it");
        assert_eq!(steering.refresh_members().unwrap(), [id(3)]);

        run("ip neigh replace 10.99.0.2 lladdr 02:00:00:00:00:99 dev sync0 nud permanent");
        steering.refresh_members().unwrap();
        let value = steering.tables().member(id(2)).unwrap();
        assert_eq!(value.mac, [2, 0, 0, 0, 0, 0x99]);
        assert_eq!(value.marked_mac, [0x02, 0x47, 0x57, 0x46, 7, 1]);

        steering.set_live(&[id(1)]).unwrap();
        assert_eq!(flags(2), MEMBER_KNOWN);
        assert_eq!(steering.tables().settings().unwrap().live_members, 1);
    });
}

#[test]
fn macs_are_found_over_ipv6() {
    with_lab(|lab| {
        run("ip address add fd99::1/64 dev sync0 nodad");
        let other = Neighbourhood::with("sync0p", "fd99::2/64 nodad");
        let mut config = lab.config();
        for member in &mut config.members {
            member.sync_address = format!("fd99::{}", member.id).parse().unwrap();
        }
        let steering = Steering::start(&config).unwrap();
        assert_eq!(resolve(&steering, 2), mac_of(&other));
    });
}
