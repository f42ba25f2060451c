//! Socket options that an IKE socket needs.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use gateway_ike::mark::Mark;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zerocopy::IntoBytes;

use super::message::policy_info;
use super::selector::PolicySelector;
use super::types::{Action, Direction, Policy, PolicyKey};
use super::uapi::UDP_ENCAP_ESPINUDP;

const IP_XFRM_POLICY: libc::c_int = 17;
const IPV6_XFRM_POLICY: libc::c_int = 35;
const UDP_ENCAP: libc::c_int = 100;

/// Exempts a socket's own traffic from all policies, in both directions: IKE must get through
/// although the peer's address may lie within a protected or blocked network.
///
/// `local` tells the socket's family (`AF_INET` or `AF_INET6`). An IPv6 socket is exempt for IPv6
/// only: one that also carries mapped IPv4 must not be used (`IPV6_V6ONLY`).
///
/// # Errors
/// Without CAP_NET_ADMIN, or when the socket is of the other family.
pub fn exempt_from_policies(socket: &impl AsFd, local: IpAddr) -> io::Result<()> {
    let (level, option, any) = match local {
        IpAddr::V4(_) => (libc::SOL_IP, IP_XFRM_POLICY, IpNet::V4(Ipv4Net::default())),
        IpAddr::V6(_) => (
            libc::SOL_IPV6,
            IPV6_XFRM_POLICY,
            IpNet::V6(Ipv6Net::default()),
        ),
    };
    for direction in [Direction::In, Direction::Out] {
        let policy = Policy {
            key: PolicyKey {
                direction,
                selector: PolicySelector::between(any, any),
                if_id: 0,
                mark: Mark::NONE,
            },
            priority: 0,
            action: Action::Bypass,
            icmp: false,
        };
        set_option(
            socket.as_fd(),
            level,
            option,
            policy_info(&policy).as_bytes(),
        )?;
    }
    Ok(())
}

/// Makes a UDP socket (port 4500) hand ESP in UDP to the kernel's SAs and deliver only IKE, which
/// still carries its non-ESP marker (RFC 3948 §2.2). NAT keepalives are swallowed.
///
/// # Errors
/// When the kernel has no UDP encapsulation (no ESP).
pub fn decapsulate_esp(socket: &impl AsFd) -> io::Result<()> {
    let kind = libc::c_int::from(UDP_ENCAP_ESPINUDP);
    set_option(socket.as_fd(), libc::SOL_UDP, UDP_ENCAP, kind.as_bytes())
}

fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            value.len() as u32,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
