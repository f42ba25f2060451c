//! `[ha] addresses`, in keepalived's words: `"203.0.113.10/24 dev eth0"`.

use ipnet::IpNet;

use super::error::ConfigError;
use super::raw::Mode;
use super::{Cluster, Interfaces, Member, raw};

/// An address that stands on the active member only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingAddress {
    /// Address and length of its network's prefix.
    pub net: IpNet,
    /// The interface that it stands on.
    pub interface: String,
}

pub(super) fn check(
    raw: &raw::Ha,
    cluster: &Cluster,
    interfaces: &Interfaces,
) -> Result<Vec<FloatingAddress>, ConfigError> {
    const KEY: &str = "ha.addresses";
    let Some(addresses) = &raw.addresses else {
        return Ok(usual(cluster, interfaces));
    };
    if cluster.mode != Mode::Ha {
        return Err(ConfigError::new(
            KEY,
            "is set, but cluster.mode is not \"ha\"",
            "addresses that move only in mode \"ha\"",
        ));
    }
    let mut found: Vec<FloatingAddress> = Vec::new();
    for (index, text) in addresses.iter().enumerate() {
        let key = format!("{KEY}[{index}]");
        let parsed = text.split_once(" dev ").and_then(|(net, interface)| {
            Some(FloatingAddress {
                net: net.trim().parse().ok()?,
                interface: interface.trim().to_owned(),
            })
        });
        let Some(address) = parsed else {
            return Err(ConfigError::new(
                key,
                format!("is \"{text}\""),
                "address/prefix dev interface, like \"203.0.113.10/24 dev eth0\"",
            ));
        };
        let mut known = interfaces.public.iter().chain(&interfaces.inside);
        if !known.any(|name| *name == address.interface) {
            return Err(ConfigError::new(
                key,
                format!("names {}, which has no role", address.interface),
                "an interface of interfaces.public or interfaces.inside",
            ));
        }
        let mut own = cluster.members.values().flat_map(Member::addresses);
        if own.any(|own| own == address.net.addr())
            || found
                .iter()
                .any(|other| other.net.addr() == address.net.addr())
        {
            return Err(ConfigError::new(
                key,
                format!("has {}, which is in use already", address.net.addr()),
                "addresses that belong to no member, each once",
            ));
        }
        found.push(address);
    }
    Ok(found)
}

/// In HA mode the VIPs float on the first public interface.
fn usual(cluster: &Cluster, interfaces: &Interfaces) -> Vec<FloatingAddress> {
    let interface = interfaces.public.first();
    let float = |vip: &std::net::IpAddr| {
        Some(FloatingAddress {
            net: IpNet::from(*vip),
            interface: interface?.clone(),
        })
    };
    match cluster.mode {
        Mode::Ha => cluster.vips.iter().filter_map(float).collect(),
        Mode::LoadSharing => Vec::new(),
    }
}
