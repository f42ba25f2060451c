//! Forwarding, source validation and ARP. The kernel combines most of these per interface with
//! `all`; what counts is the effective value.

use std::fs;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::config::{Role, SteeringConfig};
use super::{Check, Severity, steering_severity, unreadable};
use crate::rtnl::Link;

/// Reads `net.<family>.conf.<interface>.<name>`.
fn read(family: &str, interface: &str, name: &str) -> io::Result<u32> {
    let path = format!("/proc/sys/net/{family}/conf/{interface}/{name}");
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(io::Error::other)
}

/// The larger of `all` and the interface's own value.
fn effective(interface: &str, name: &str) -> io::Result<u32> {
    Ok(read("ipv4", "all", name)?.max(read("ipv4", interface, name)?))
}

/// The dots in an interface name are separators to sysctl(8); it takes slashes instead.
fn set(family: &str, interface: &str, name: &str, value: u32) -> String {
    let interface = interface.replace('.', "/");
    format!("sysctl -w net.{family}.conf.{interface}.{name}={value}")
}

pub(super) fn checks(config: &SteeringConfig, links: &[(Link, Role)]) -> Vec<Check> {
    let arp = config.vips.iter().any(IpAddr::is_ipv4);
    // What is forwarded are the inner packets, of the protected networks' family.
    let nets = &config.local_networks;
    let v4 = nets.is_empty() || nets.iter().any(|net| matches!(net, IpNet::V4(_)));
    let v6 = config.vips.iter().any(IpAddr::is_ipv6)
        || nets.iter().any(|net| matches!(net, IpNet::V6(_)));
    let mut checks = Vec::new();
    if v6 {
        checks.push(forwarding_v6());
    }
    for (link, role) in links {
        if v4 {
            checks.push(forwarding(link));
        }
        if *role == Role::Sync {
            checks.push(rp_filter(config, link));
        }
        if arp {
            checks.push(arp_ignore(link, *role));
            checks.push(arp_announce(link, *role));
        }
    }
    checks
}

/// A packet that was forwarded to us and decrypted here has the sync interface as its input
/// device: without forwarding there it vanishes, uncounted. `all` does not make up for it.
fn forwarding(link: &Link) -> Check {
    match read("ipv4", &link.name, "forwarding") {
        Ok(0) => Check::failed(
            "forwarding",
            &link.name,
            Severity::Error,
            "IPv4 forwarding is off: decrypted packets are dropped".to_owned(),
            set("ipv4", &link.name, "forwarding", 1),
        ),
        Ok(_) => Check::passed("forwarding", &link.name, "on".to_owned()),
        Err(error) => unreadable("forwarding", &link.name, &error.to_string()),
    }
}

/// IPv6 is forwarded by the host or not at all: the setting of an interface only says how it
/// treats router advertisements.
fn forwarding_v6() -> Check {
    match read("ipv6", "all", "forwarding") {
        Ok(0) => Check::failed(
            "forwarding_v6",
            "all",
            Severity::Error,
            "IPv6 forwarding is off: decrypted packets are dropped".to_owned(),
            set("ipv6", "all", "forwarding", 1),
        ),
        Ok(_) => Check::passed("forwarding_v6", "all", "on".to_owned()),
        Err(error) => unreadable("forwarding_v6", "all", &error.to_string()),
    }
}

/// Forwarded packets come in on sync with the peers' addresses: strict source validation drops
/// every one. On public and inside it may stay strict, decrypted packets are exempt.
fn rp_filter(config: &SteeringConfig, link: &Link) -> Check {
    match effective(&link.name, "rp_filter") {
        Ok(1) => {
            // The maximum counts, so 2 on the interface is enough whatever `all` is.
            Check::failed(
                "rp_filter",
                &link.name,
                steering_severity(config),
                "strict (effective value 1): every forwarded packet is dropped".to_owned(),
                set("ipv4", &link.name, "rp_filter", 2),
            )
        }
        Ok(value) => Check::passed("rp_filter", &link.name, format!("effective value {value}")),
        Err(error) => unreadable("rp_filter", &link.name, &error.to_string()),
    }
}

/// With `arp_ignore = 0` a member answers for the VIP on its loopback on every link, and pulls
/// the cluster's traffic to itself.
fn arp_ignore(link: &Link, role: Role) -> Check {
    match effective(&link.name, "arp_ignore") {
        Ok(0) => Check::failed(
            "arp_ignore",
            &link.name,
            arp_severity(role),
            "0: this member answers ARP for the VIP on this link".to_owned(),
            set("ipv4", &link.name, "arp_ignore", 1),
        ),
        Ok(value) => Check::passed("arp_ignore", &link.name, format!("effective value {value}")),
        Err(error) => unreadable("arp_ignore", &link.name, &error.to_string()),
    }
}

fn arp_announce(link: &Link, role: Role) -> Check {
    match effective(&link.name, "arp_announce") {
        Ok(value @ 0..=1) => Check::failed(
            "arp_announce",
            &link.name,
            arp_severity(role),
            format!("{value}: this member may ask by ARP in the VIP's name"),
            set("ipv4", &link.name, "arp_announce", 2),
        ),
        Ok(value) => Check::passed(
            "arp_announce",
            &link.name,
            format!("effective value {value}"),
        ),
        Err(error) => unreadable("arp_announce", &link.name, &error.to_string()),
    }
}

/// Only on the sync network it is wrong for sure; on the others it depends on whether a router
/// could ask for the VIP there.
const fn arp_severity(role: Role) -> Severity {
    match role {
        Role::Sync => Severity::Error,
        Role::Public | Role::Inside => Severity::Warning,
    }
}
