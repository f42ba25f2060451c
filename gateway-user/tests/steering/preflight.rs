//! The pre-flight finds each thing that is wrong, and nothing else.

use std::net::IpAddr;

use gateway_user::steering::{AttachMode, Check, Steering, SteeringConfig, preflight};
use gateway_user::vip;

use crate::lab::{Lab, run, sysctl, with_lab};

/// Puts everything right that a fresh namespace has wrong.
fn prepare(lab: &Lab) -> SteeringConfig {
    let config = lab.config();
    sysctl("net/ipv4/conf/all/rp_filter", 0);
    sysctl("net/ipv6/conf/all/forwarding", 1);
    for name in ["pub0", "sync0", "in0"] {
        sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), 0);
        sysctl(&format!("net/ipv4/conf/{name}/forwarding"), 1);
        sysctl(&format!("net/ipv4/conf/{name}/arp_ignore"), 1);
        sysctl(&format!("net/ipv4/conf/{name}/arp_announce"), 2);
    }
    vip::ensure_on_loopback(&config.vips).unwrap();
    config
}

/// The failed checks, but for the one on ESP, which depends on the machine.
fn failed(config: &SteeringConfig) -> Vec<Check> {
    let wrong = |check: &Check| !check.ok && check.name != "esp";
    preflight(config).into_iter().filter(wrong).collect()
}

fn expect(config: &SteeringConfig, name: &str, subject: &str, fix: &str) {
    let failed = failed(config);
    assert_eq!(failed.len(), 1, "{name} {subject}: {failed:#?}");
    assert_eq!(
        (failed[0].name, failed[0].subject.as_str()),
        (name, subject)
    );
    assert!(failed[0].fix.contains(fix), "{:?}", failed[0]);
}

#[test]
fn each_wrong_sysctl_is_found_and_its_fix_works() {
    with_lab(|lab| {
        let config = prepare(lab);
        assert_eq!(failed(&config), []);
        let cases = [
            ("ipv4/conf/sync0/rp_filter", 1, "sync0"),
            ("ipv4/conf/all/rp_filter", 1, "sync0"),
            ("ipv4/conf/sync0/forwarding", 0, "sync0"),
            ("ipv4/conf/pub0/forwarding", 0, "pub0"),
            ("ipv4/conf/in0/forwarding", 0, "in0"),
            ("ipv6/conf/all/forwarding", 0, "all"),
            ("ipv4/conf/sync0/arp_ignore", 0, "sync0"),
            ("ipv4/conf/sync0/arp_announce", 0, "sync0"),
        ];
        for (path, wrong, subject) in cases {
            prepare(lab);
            sysctl(&format!("net/{path}"), wrong);
            let setting = path.rsplit_once('/').unwrap().1;
            let name = if path.starts_with("ipv6") {
                "forwarding_v6"
            } else {
                setting
            };
            expect(&config, name, subject, "sysctl -w net.");
            let fix = failed(&config)[0].fix.clone();
            let (name, value) = fix
                .strip_prefix("sysctl -w ")
                .and_then(|setting| setting.split_once('='))
                .unwrap();
            sysctl(&name.replace('.', "/"), value.parse().unwrap());
            assert_eq!(failed(&config), [], "after {fix}");
        }
    });
}

#[test]
fn loose_reverse_path_filtering_is_fine() {
    with_lab(|lab| {
        let config = prepare(lab);
        sysctl("net/ipv4/conf/all/rp_filter", 1);
        sysctl("net/ipv4/conf/sync0/rp_filter", 2);
        assert_eq!(failed(&config), []);
    });
}

#[test]
fn a_small_sync_mtu_is_found() {
    with_lab(|lab| {
        let config = prepare(lab);
        run("ip link set dev sync0 mtu 1400");
        expect(&config, "mtu", "sync0", "ip link set dev sync0 mtu 1500");
    });
}

#[test]
fn a_veth_that_would_drop_redirected_frames_is_found() {
    with_lab(|lab| {
        let mut config = prepare(lab);
        config.attach = AttachMode::Generic;
        run("ethtool -K sync0 gro off");
        expect(&config, "veth", "sync0", "ethtool -K sync0 gro on");
        run("ethtool -K sync0 gro on");
        assert_eq!(failed(&config), []);
    });
}

#[test]
fn other_programs_are_found_and_ours_are_not() {
    with_lab(|lab| {
        let config = prepare(lab);
        let running = Steering::start(&config).unwrap();
        assert_eq!(failed(&config), [], "our own programs are no conflict");
        let mut other = config.clone();
        other.bpffs = lab.other_bpffs();
        let found: Vec<_> = failed(&other)
            .into_iter()
            .map(|check| (check.name, check.subject))
            .collect();
        let wanted = ["pub0", "sync0", "in0"].map(|name| ("xdp", name.to_owned()));
        assert_eq!(found, wanted);
        drop(running);
    });
}

#[test]
fn a_missing_bpffs_a_vip_and_routes_are_found() {
    with_lab(|lab| {
        let config = prepare(lab);
        let mut wrong = config.clone();
        wrong.bpffs = "/tmp".into();
        expect(&wrong, "bpffs", "/tmp", "mount -t bpf bpf /tmp");

        let mut wrong = config.clone();
        wrong.vips.push("203.0.113.99".parse().unwrap());
        expect(
            &wrong,
            "vip",
            "203.0.113.99",
            "ip address add 203.0.113.99/32 dev lo",
        );

        let mut wrong = config.clone();
        wrong.local_networks = vec!["10.1.0.0/16".parse().unwrap()];
        expect(&wrong, "route", "10.1.0.0/16", "ip route add");
        run("ip address add 192.0.2.1/24 dev pub0");
        run("ip route add default via 192.0.2.2");
        expect(&wrong, "route", "10.1.0.0/16", "ip route add");
        run("ip address add 10.1.0.1/16 dev in0");
        assert_eq!(failed(&wrong), []);
    });
}

#[test]
fn vips_are_added_once_and_stay() {
    with_lab(|lab| {
        let vips: Vec<IpAddr> = lab.config().vips;
        assert_eq!(vip::ensure_on_loopback(&vips).unwrap(), vips);
        assert_eq!(
            vip::ensure_on_loopback(&vips).unwrap(),
            Vec::<IpAddr>::new()
        );
        let v6 = run("ip -6 address show dev lo");
        assert!(v6.contains("2001:db8:1::10/128 scope global nodad"), "{v6}");
        assert!(run("ip address show dev lo").contains("203.0.113.10/32"));

        run("ip address add 203.0.113.20/32 dev pub0");
        let elsewhere: IpAddr = "203.0.113.20".parse().unwrap();
        assert_eq!(
            vip::ensure_on_loopback(&[elsewhere]).unwrap(),
            Vec::<IpAddr>::new(),
            "another tool has placed it"
        );
        let places = vip::places(&[elsewhere]).unwrap();
        assert_eq!(places[0].interfaces, ["pub0"]);
    });
}
