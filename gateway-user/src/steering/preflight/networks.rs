//! VIPs and the routes to the protected networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::config::{Role, SteeringConfig};
use super::{Check, Severity, unreadable};
use crate::rtnl::{self, Link, Socket};
use crate::vip;

pub(super) fn checks(
    socket: &mut Socket,
    config: &SteeringConfig,
    links: &[(Link, Role)],
) -> Vec<Check> {
    let mut checks = vips(config);
    for net in &config.local_networks {
        checks.push(route(socket, *net, config, links));
    }
    checks
}

fn vips(config: &SteeringConfig) -> Vec<Check> {
    let places = match vip::places(&config.vips) {
        Ok(places) => places,
        Err(error) => return vec![unreadable("vip", "addresses", &error.to_string())],
    };
    places
        .into_iter()
        .map(|place| {
            let subject = place.vip.to_string();
            if place.interfaces.is_empty() {
                let bits = if place.vip.is_ipv4() { 32 } else { 128 };
                return Check::failed(
                    "vip",
                    &subject,
                    Severity::Warning,
                    "on no interface: packets to it are not delivered (gatewayd adds it to lo \
                     when it starts)"
                        .to_owned(),
                    format!("ip address add {subject}/{bits} dev lo nodad"),
                );
            }
            let message = format!("on {}", place.interfaces.join(", "));
            Check::passed("vip", &subject, message)
        })
        .collect()
}

/// Every member needs its own way to the protected networks: it decrypts for them, and answers
/// "too big" towards them. A route through the public interface is the default route in disguise.
fn route(
    socket: &mut Socket,
    net: IpNet,
    config: &SteeringConfig,
    links: &[(Link, Role)],
) -> Check {
    let subject = net.to_string();
    let host = first_host(net);
    let fix = format!("ip route add {subject} via <router> dev <inside interface>");
    let route = match rtnl::route_to(socket, host) {
        Ok(Some(route)) => route,
        Ok(None) => {
            let message = "no route to this protected network".to_owned();
            return Check::failed("route", &subject, Severity::Error, message, fix);
        }
        Err(error) => return unreadable("route", &subject, &error.to_string()),
    };
    let through = links.iter().find(|(link, _)| link.index == route.index);
    match through {
        _ if route.local => Check::passed("route", &subject, "on this host".to_owned()),
        Some((link, Role::Inside)) => {
            Check::passed("route", &subject, format!("through {}", link.name))
        }
        Some((link, role)) if !config.inside.is_empty() => Check::failed(
            "route",
            &subject,
            Severity::Warning,
            format!(
                "leads out of {} interface {}, not to an inside interface",
                role.as_str(),
                link.name
            ),
            fix,
        ),
        _ => Check::passed("route", &subject, "present".to_owned()),
    }
}

/// An address that stands for the network: the first behind its own.
fn first_host(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(v4) if v4.prefix_len() < 31 => {
            IpAddr::V4(v4.network().to_bits().wrapping_add(1).into())
        }
        IpNet::V6(v6) if v6.prefix_len() < 127 => {
            IpAddr::V6(v6.network().to_bits().wrapping_add(1).into())
        }
        _ => net.network(),
    }
}
