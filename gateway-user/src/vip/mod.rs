//! The cluster's addresses on this member.
//!
//! In load sharing every VIP stands on the loopback interface of every member, as a host address
//! without duplicate address detection; routers reach it through the members' own addresses.
//! `arp_ignore = 1` and `arp_announce = 2` (the pre-flight checks them) keep a member from
//! answering for it on a link.
//!
//! In HA mode addresses can float ([`Keeper`]): they stand on the active member's interfaces, with a
//! lifetime, so that the kernel takes them away from a member whose agent is dead.

mod announce;
mod health;
mod keeper;
mod packet;
mod probe;

use std::io;
use std::net::IpAddr;

use crate::rtnl::{self, Socket};

pub use health::Health;
pub use keeper::{Keeper, drop_floating};
pub use probe::Prober;

/// A VIP could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// The kernel's addresses could not be read.
    #[error("cannot read this host's addresses: {0}; fix: see dmesg for the kernel's reason")]
    Read(#[source] io::Error),
    /// The address could not be added.
    #[error("cannot add VIP {vip} to lo: {source}; fix: {fix}")]
    Add {
        /// The address.
        vip: IpAddr,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// There is no loopback interface in this network namespace.
    #[error("there is no interface lo in this network namespace; fix: ip link set lo up")]
    NoLoopback,
}

/// Where a VIP stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipPlace {
    /// The address.
    pub vip: IpAddr,
    /// The interfaces that carry it; empty if none does.
    pub interfaces: Vec<String>,
}

/// Adds those of `vips` to the loopback interface that are on no interface yet. They stay when
/// the agent ends: peers' packets must find an address while it restarts. Answers those added.
///
/// # Errors
/// [`VipError`]; addresses before the failing one have been added.
pub fn ensure_on_loopback(vips: &[IpAddr]) -> Result<Vec<IpAddr>, VipError> {
    let mut socket = Socket::open().map_err(VipError::Read)?;
    let loopback = rtnl::link_by_name(&mut socket, "lo")
        .map_err(|error| VipError::Read(error.into()))?
        .ok_or(VipError::NoLoopback)?;
    let mut added = Vec::new();
    for place in places_with(&mut socket, vips)? {
        if !place.interfaces.is_empty() {
            continue;
        }
        match rtnl::add_address(&mut socket, loopback.index, place.vip) {
            Ok(()) => added.push(place.vip),
            Err(error) if error.errno() == Some(libc::EEXIST) => {}
            Err(error) => {
                return Err(VipError::Add {
                    vip: place.vip,
                    fix: fix_for(error.errno(), place.vip),
                    source: error.into(),
                });
            }
        }
    }
    Ok(added)
}

/// Which interfaces carry each of `vips`.
///
/// # Errors
/// [`VipError::Read`].
pub fn places(vips: &[IpAddr]) -> Result<Vec<VipPlace>, VipError> {
    let mut socket = Socket::open().map_err(VipError::Read)?;
    places_with(&mut socket, vips)
}

fn places_with(socket: &mut Socket, vips: &[IpAddr]) -> Result<Vec<VipPlace>, VipError> {
    let read = |error: rtnl::NetlinkError| VipError::Read(error.into());
    let addresses = rtnl::addresses(socket).map_err(read)?;
    let links = rtnl::links(socket).map_err(read)?;
    let name = |index: u32| {
        let link = links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("#{index}"), |link| link.name.clone())
    };
    Ok(vips
        .iter()
        .map(|vip| VipPlace {
            vip: *vip,
            interfaces: addresses
                .iter()
                .filter(|address| address.address == *vip)
                .map(|address| name(address.index))
                .collect(),
        })
        .collect())
}

const fn fix_for(errno: Option<i32>, vip: IpAddr) -> &'static str {
    match errno {
        Some(libc::EPERM) => "give gatewayd CAP_NET_ADMIN",
        Some(libc::EACCES | libc::EOPNOTSUPP | libc::ENODEV) if vip.is_ipv6() => {
            "sysctl -w net.ipv6.conf.lo.disable_ipv6=0"
        }
        _ => "add it by hand (`ip address add … dev lo`) and see what the kernel says",
    }
}
