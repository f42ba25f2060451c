//! How a connection's messages and packets travel: fragments, NAT, mobility, redirection.

use std::net::IpAddr;
use std::time::Duration;

use crate::wire::PORT_IKE;

/// Octets of an IPv4 header without options and of the UDP header.
const OVERHEAD_V4: usize = 20 + 8;
/// Octets of an IPv6 header without extensions and of the UDP header.
const OVERHEAD_V6: usize = 40 + 8;
/// Octets of the non-ESP marker.
const MARKER: usize = 4;

/// What has to do with the way between the two gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// IKE fragmentation (RFC 7383).
    pub fragmentation: Fragmentation,
    /// Largest IP datagram in octets that an IKE message may make before it is sent in fragments;
    /// at least 200. Default 1280.
    pub fragment_size: u16,
    /// ESP goes in UDP though there is no NAT: the peer is made to believe that we are behind one.
    pub encap: bool,
    /// While we are behind a NAT, a NAT keepalive is sent every so often (RFC 3948 §4); zero = never.
    /// Default 20 s.
    pub keepalive: Duration,
    /// MOBIKE (RFC 4555): the peer may move its addresses. Default: yes.
    pub mobike: bool,
    /// IKE SAs without CHILD_SA (RFC 6023).
    pub childless: Childless,
    /// Peers that can be redirected are sent there (RFC 5685).
    pub redirect_to: Option<Gateway>,
    /// A peer may redirect us. Default: yes.
    pub follow_redirects: bool,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            fragmentation: Fragmentation::default(),
            fragment_size: 1280,
            encap: false,
            keepalive: Duration::from_secs(20),
            mobike: true,
            childless: Childless::default(),
            redirect_to: None,
            follow_redirects: true,
        }
    }
}

impl Transport {
    /// Octets of the largest IKE message that goes in one datagram from `local` (address family)
    /// and its port: 500 needs no non-ESP marker.
    pub(crate) fn message_size(&self, local: std::net::SocketAddr) -> usize {
        let overhead = if local.is_ipv4() {
            OVERHEAD_V4
        } else {
            OVERHEAD_V6
        };
        let marker = if local.port() == PORT_IKE { 0 } else { MARKER };
        usize::from(self.fragment_size).saturating_sub(overhead + marker)
    }
}

/// swanctl's `fragmentation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragmentation {
    /// Announced; messages that are too large go in fragments.
    #[default]
    Yes,
    /// Announced; the peer's fragments are taken, ours are not sent.
    Accept,
    /// As [`Fragmentation::Yes`]: in IKEv2 no message can be sent in fragments before the peer has
    /// announced that it takes them.
    Force,
    /// Not announced; fragments are dropped.
    No,
}

impl Fragmentation {
    /// Whether the peer is told that it may send fragments.
    pub const fn is_announced(self) -> bool {
        !matches!(self, Self::No)
    }

    /// Whether we send fragments to a peer that takes them.
    pub const fn sends(self) -> bool {
        matches!(self, Self::Yes | Self::Force)
    }
}

/// swanctl's `childless`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Childless {
    /// As responder taken; as initiator only if there is no child to start.
    #[default]
    Allow,
    /// As responder taken; as initiator used if the responder can.
    Prefer,
    /// Nothing else, in either role.
    Force,
    /// As responder not announced and refused; as initiator not used.
    Never,
}

/// A gateway that peers are redirected to (RFC 5685 §9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gateway {
    /// By address.
    Address(IpAddr),
    /// By name, at most 255 octets of ASCII.
    Fqdn(String),
}

impl std::fmt::Display for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Fqdn(name) => f.write_str(name),
        }
    }
}
