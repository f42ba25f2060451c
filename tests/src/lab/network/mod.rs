//! The lab's network.
//!
//! ```text
//!            10.2.n.1 (behind the peer)
//!  P  peer   198.51.100.10 … .109, 2001:db8:51::10 … (or 192.168.77.10 … behind N)
//!  |
//! [N  NAT router, optional, outside address 198.51.100.3]
//!  |
//!  R  router: sprays what goes to the VIP over the members
//!  |\________\_______
//!  M1        M2      M3    VIP 203.0.113.10, 2001:db8:1::10
//!  |  (or one segment with R: 203.0.113.1, .101 … .103; 2001:db8:1::1, ::101 …)
//!  |  sync bridge S: 10.99.0.1 … .3
//!  |  inside bridge I: 10.1.0.1 … .3
//!  H  inside host 10.1.0.100
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result};

mod attach;
mod upstream;

use super::device;
use super::node::Node;
use super::run::Run;
use super::wait::wait_until;

pub use attach::Cable;
pub use upstream::Spray;

/// The cluster's IPv4 address.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The cluster's IPv6 address.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
/// The inside host.
pub const INSIDE_HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
/// A second address of the inside host, whose packets can be sent to one member alone.
pub const INSIDE_PUSHER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 101);
/// The router's address towards the peer.
const ROUTER_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The router's address on the segment that it shares with the members.
const ROUTER_SEGMENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The NAT router's outside address.
pub const NAT_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Sources of spoofed packets; the router drops what is sent back to them.
pub const SPOOFED: &str = "100.64.0.0/10";
/// How many addresses the peer has at most.
pub const MAX_SITES: u16 = 200;

/// What to build.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Number of members, 1 to 9.
    pub members: u8,
    /// Number of addresses of the peer, 1 to [`MAX_SITES`].
    pub sites: u16,
    /// Whether a NAT router stands before the peer (IPv4 only).
    pub nat: bool,
    /// Whether router and members share one Ethernet segment, on which the VIPs are: a cluster in
    /// HA mode claims them there by ARP and neighbour discovery. Else each member has a link of its
    /// own and the router has routes to the VIPs over all of them.
    pub segment: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            members: 3,
            sites: 1,
            nat: false,
            segment: false,
        }
    }
}

/// Longest that links take to come up.
const CARRIER: Duration = Duration::from_secs(5);

/// What every node is set to before it has an address.
const BASICS: &[&str] = &[
    "net.ipv6.conf.all.disable_ipv6=0",
    "net.ipv6.conf.default.disable_ipv6=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
];
/// What routers and members are set to.
const FORWARDING: &[&str] = &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];

/// The namespaces and the links between them.
#[derive(Debug)]
pub struct Network {
    /// What was asked for.
    pub plan: Plan,
    /// The outside peer.
    pub peer: Node,
    /// The NAT router before it.
    pub nat: Option<Node>,
    /// The router before the members.
    pub router: Node,
    /// The members, `m1` first.
    pub members: Vec<Node>,
    /// The inside host.
    pub host: Node,
    /// The bridges' namespace: sync and inside.
    pub switch: Node,
}

/// The peer's `site`-th outer address (0-based) as it knows it itself.
pub fn site_address(plan: &Plan, site: u16) -> Ipv4Addr {
    let [_, number] = (10 + site.min(MAX_SITES)).to_be_bytes();
    if plan.nat {
        Ipv4Addr::new(192, 168, 77, number)
    } else {
        Ipv4Addr::new(198, 51, 100, number)
    }
}

/// The peer's `site`-th outer IPv6 address.
pub fn site_address6(site: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x10 + site)
}

/// The host behind the peer's `site`-th connection; its network is the /24 around it.
pub fn site_host(site: u16) -> Ipv4Addr {
    let [_, number] = (1 + site.min(MAX_SITES)).to_be_bytes();
    Ipv4Addr::new(10, 2, number, 1)
}

/// A member's address on the sync network.
pub fn sync_address(member: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, member)
}

/// A member's address on the inside network.
pub fn inside_address(member: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, member)
}

/// A member's public address on a link of its own.
pub fn public_address(member: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 4 * member + 2)
}

/// A member's public address on the shared segment.
pub fn segment_address(member: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 100 + member)
}

impl Network {
    /// Builds namespaces, links, addresses and routes.
    ///
    /// # Errors
    /// A command fails; what was built so far is removed.
    pub fn new(run: &Run, plan: Plan) -> Result<Self> {
        let all: Vec<u8> = (1..=plan.members).collect();
        let mut names = ["p", "r", "h", "s"].map(str::to_owned).to_vec();
        names.extend(plan.nat.then(|| "n".to_owned()));
        names.extend(all.iter().map(|id| format!("m{id}")));
        let mut nodes = Node::collecting(run, &names)?.into_iter();
        let mut node = || nodes.next().context("as many nodes as names");
        let mut network = Self {
            plan,
            peer: node()?,
            router: node()?,
            host: node()?,
            switch: node()?,
            nat: if plan.nat { Some(node()?) } else { None },
            members: Vec::new(),
        };
        for _ in &all {
            network.members.push(node()?.with_bpffs(run)?);
        }
        network.prepare()?;
        for id in &all {
            network.prepare_member(*id)?;
        }
        let mut cables = network.fixed_cables();
        for id in &all {
            cables.extend(network.member_cables(*id)?);
        }
        connect(&cables)?;
        network.bridges()?;
        network.configure_outside()?;
        for id in &all {
            network.configure_member(*id)?;
        }
        network.configure_host()?;
        network.upstream(&all)?;
        network.inside_among(&all)?;
        for node in network.fixed_nodes().chain(&network.members) {
            node.flush()?;
        }
        for (node, name) in cables.iter().flat_map(|cable| &cable.ends) {
            let what = format!("a carrier of {name} of {}", node.name);
            node.inside(|| wait_until(CARRIER, &what, || device::is_running(name)))?;
        }
        drop(cables);
        Ok(network)
    }

    fn fixed_nodes(&self) -> impl Iterator<Item = &Node> {
        let fixed = [&self.peer, &self.router, &self.host, &self.switch];
        fixed.into_iter().chain(self.nat.as_ref())
    }

    /// Settings that have to be there before the first address is.
    fn prepare(&self) -> Result<()> {
        for node in self.fixed_nodes() {
            node.sysctl(BASICS)?;
        }
        let forwarding = FORWARDING;
        let routers = std::iter::once(&self.router).chain(self.nat.as_ref());
        for node in routers {
            node.sysctl(forwarding)?;
        }
        // By flow: addresses and ports, as routers with layer-4 hashing do.
        self.router.sysctl(&[
            "net.ipv4.fib_multipath_hash_policy=1",
            "net.ipv6.fib_multipath_hash_policy=1",
        ])
    }

    /// What is plugged in whatever members there are.
    fn fixed_cables(&self) -> Vec<Veth<'_>> {
        let next = self.nat.as_ref().unwrap_or(&self.peer);
        let mut cables = vec![
            Veth::new(next, "eth0", &self.router, "outside"),
            Veth::new(&self.host, "eth0", &self.switch, "i-host"),
        ];
        if let Some(nat) = &self.nat {
            cables.push(Veth::new(&self.peer, "eth0", nat, "lan"));
        }
        if self.plan.segment {
            cables.push(Veth::new(&self.router, "segment", &self.switch, "p-router"));
        }
        cables
    }

    fn bridges(&self) -> Result<()> {
        self.switch
            .ip("link add sync type bridge\nlink add inside type bridge\n\
             link set sync up\nlink set inside up\nlink set i-host master inside")?;
        if self.plan.segment {
            self.switch
                .ip("link add public type bridge\nlink set public up\n\
                 link set p-router master public")?;
        }
        Ok(())
    }

    fn configure_outside(&self) -> Result<()> {
        let gateway = if self.plan.nat {
            Ipv4Addr::new(192, 168, 77, 1)
        } else {
            ROUTER_OUTSIDE
        };
        let mut lines = String::new();
        for site in 0..self.plan.sites {
            let (outer, inner) = (site_address(&self.plan, site), site_host(site));
            lines += &format!("addr add {outer}/24 dev eth0\naddr add {inner}/32 dev lo\n");
            if !self.plan.nat {
                lines += &format!("addr add {}/64 dev eth0 nodad\n", site_address6(site));
            }
        }
        lines += &format!("route add default via {gateway}\n");
        if !self.plan.nat {
            lines += "-6 route add default via 2001:db8:51::1\n";
        }
        self.peer.ip(&lines)?;
        if let Some(nat) = &self.nat {
            nat.ip(&format!(
                "addr add 192.168.77.1/24 dev lan\naddr add {NAT_OUTSIDE}/24 dev eth0\n\
                 route add default via {ROUTER_OUTSIDE}"
            ))?;
            nat.nft(
                "table ip nat { chain out { type nat hook postrouting priority srcnat; \
                 oifname \"eth0\" masquerade\n}\n}",
            )?;
        }
        self.router.ip(&format!(
            "addr add {ROUTER_OUTSIDE}/24 dev outside\naddr add 2001:db8:51::1/64 dev outside nodad\n\
             route add blackhole {SPOOFED}"
        ))?;
        if self.plan.segment {
            self.router.ip(&format!(
                "addr add {ROUTER_SEGMENT}/24 dev segment\naddr add 2001:db8:1::1/64 dev segment nodad"
            ))?;
        }
        Ok(())
    }

    fn configure_host(&self) -> Result<()> {
        self.host
            .sysctl(&["net.ipv4.fib_multipath_hash_policy=1"])?;
        self.host.ip(&format!(
            "addr add {INSIDE_HOST}/16 dev eth0\naddr add {INSIDE_PUSHER}/16 dev eth0"
        ))
    }

    /// Puts the VIP on a member's loopback device, for a gateway that does not do it itself.
    ///
    /// # Errors
    /// The address cannot be set.
    pub fn add_vip(&self, member: &Node) -> Result<()> {
        member.ip(&format!(
            "addr add {VIP}/32 dev lo\naddr add {VIP6}/128 dev lo nodad"
        ))
    }

    /// The VIP of an address family.
    pub fn vip(v6: bool) -> IpAddr {
        if v6 { VIP6.into() } else { VIP.into() }
    }
}

/// A veth pair between two nodes.
struct Veth<'a> {
    ends: [(&'a Node, String); 2],
}

impl<'a> Veth<'a> {
    fn new(a: &'a Node, a_name: &str, b: &'a Node, b_name: &str) -> Self {
        let ends = [(a, a_name.to_owned()), (b, b_name.to_owned())];
        Self { ends }
    }
}

/// Makes veth pairs, up at both ends.
///
/// Transmit checksum offload is off: a frame that native XDP redirects keeps the half-finished
/// checksum that the sender left to a device. GRO is on: it gives the receiving side the NAPI
/// context without which a native redirect to its other end is lost silently.
fn connect(cables: &[Veth<'_>]) -> Result<()> {
    let line = |cable: &Veth<'_>| {
        let [(a, a_name), (b, b_name)] = &cable.ends;
        format!(
            "link add {a_name} netns {} type veth peer name {b_name} netns {}\n",
            a.namespace(),
            b.namespace()
        )
    };
    super::node::batch(None, &cables.iter().map(line).collect::<String>())?;
    for (node, name) in cables.iter().flat_map(|cable| &cable.ends) {
        node.inside(|| {
            device::up(name)?;
            device::offload(name, device::TX_CHECKSUM, false)?;
            device::offload(name, device::GRO, true)
        })
        .with_context(|| format!("{name} of {}", node.name))?;
    }
    Ok(())
}
