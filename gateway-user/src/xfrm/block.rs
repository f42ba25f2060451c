//! The policies beneath all tunnels: no cleartext from or to a peer's network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_ike::mark::Mark;
use gateway_ike::output::TrafficSelector;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::XfrmError;
use super::selector::{Flow, PolicySelector, flows};
use super::types::{Action, Direction, Policy, PolicyKey};

/// Weaker than every tunnel policy and than what operators usually install by hand.
const BASE_PRIORITY: u32 = 0x7f00_0000;

/// Directions of policies, of which `Fwd` is about what comes in.
const BOTH_WAYS: [Direction; 3] = [Direction::In, Direction::Out, Direction::Fwd];
const INWARDS: [Direction; 2] = [Direction::In, Direction::Fwd];

/// Whether a block or bypass policy of this priority is one of ours.
pub(super) const fn is_base_priority(priority: u32) -> bool {
    priority <= BASE_PRIORITY && priority > BASE_PRIORITY - 1024
}

/// Where cleartext is not let through without an SA.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocks<'a> {
    /// Peers' networks: nothing enters from them or leaves for them in clear.
    pub remote: &'a [TrafficSelector],
    /// Those that are reached through an XFRM interface: nothing enters from them in clear. What leaves
    /// for them is looked up once without an interface id before the route leads it into the
    /// interface, so that a block would stop it there; that nothing leaves beside the interface is
    /// up to the routes.
    pub routed: &'a [TrafficSelector],
    /// Selectors of ours and of a peer's: nothing passes between the two in clear. No exemption applies.
    pub pairs: &'a [(TrafficSelector, TrafficSelector)],
    /// Networks that lie within a remote one but are reached in clear (our own protected networks, sync
    /// addresses). The longest prefix decides between block and exemption.
    pub exempt: &'a [IpNet],
}

/// Policies that stand under the tunnels.
#[derive(Debug, Default)]
pub(super) struct Bases {
    /// Blocks and exemptions, in all three directions.
    pub(super) policies: Vec<Policy>,
    /// Networks of prefix length 0, not blocked.
    pub(super) open: Vec<IpNet>,
}

/// Blocks, and bypasses for what is exempt and overlaps them. The longer prefix is the stronger; of equal
/// ones the bypass.
pub(super) fn bases(blocks: &Blocks<'_>) -> Result<Bases, XfrmError> {
    let mut bases = Bases::default();
    let remote = bases.block_all(blocks.remote, &BOTH_WAYS)?;
    let routed = bases.block_all(blocks.routed, &INWARDS)?;
    for network in &routed {
        // Of a wider one that is reached by policies this part is not.
        if !remote.contains(network) && remote.iter().any(|wider| wider.contains(network)) {
            bases.bypass(Direction::Out, *network);
        }
    }
    for (local, remote) in blocks.pairs {
        for flow in flows(&[*local], &[*remote])? {
            bases.block(&flow, &BOTH_WAYS);
        }
    }
    for network in blocks.exempt {
        if remote.iter().chain(&routed).any(|b| b.contains(network)) {
            bases.exempt(*network);
        }
    }
    // Overlapping children name one network several times; an exemption (stronger) wins.
    bases.policies.sort_by_key(|p| (p.key, p.priority));
    bases.policies.dedup_by_key(|p| p.key);
    bases.open.sort_unstable();
    bases.open.dedup();
    Ok(bases)
}

impl Bases {
    fn push(
        &mut self,
        direction: Direction,
        selector: PolicySelector,
        priority: u32,
        action: Action,
    ) {
        self.policies.push(Policy {
            key: PolicyKey {
                direction,
                selector,
                if_id: 0,
                mark: Mark::NONE,
            },
            priority,
            action,
            icmp: false,
        });
    }

    /// Blocks what lies between anything and `remote`; returns the networks.
    fn block_all(
        &mut self,
        remote: &[TrafficSelector],
        directions: &[Direction],
    ) -> Result<Vec<IpNet>, XfrmError> {
        let mut blocked = Vec::new();
        for ts in remote {
            for flow in flows(&[everything(ts)], &[*ts])? {
                let network = flow.selector(Direction::Out).dst;
                if network.prefix_len() == 0 {
                    self.open.push(network);
                    continue;
                }
                blocked.push(network);
                self.block(&flow, directions);
            }
        }
        Ok(blocked)
    }

    fn block(&mut self, flow: &Flow, directions: &[Direction]) {
        let network = flow.selector(Direction::Out).dst;
        let priority = BASE_PRIORITY - 2 * u32::from(network.prefix_len());
        for &direction in directions {
            self.push(direction, flow.selector(direction), priority, Action::Block);
        }
    }

    fn exempt(&mut self, network: IpNet) {
        for direction in BOTH_WAYS {
            self.bypass(direction, network);
        }
    }

    fn bypass(&mut self, direction: Direction, network: IpNet) {
        let priority = BASE_PRIORITY - 2 * u32::from(network.prefix_len()) - 1;
        let any = any_network(network.addr());
        let selector = match direction {
            Direction::Out => PolicySelector::between(any, network.trunc()),
            Direction::In | Direction::Fwd => PolicySelector::between(network.trunc(), any),
        };
        self.push(direction, selector, priority, Action::Bypass);
    }
}

/// All networks of the family of `address`.
fn any_network(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

/// Everything that may talk to `ts`: all addresses of its family, all ports. The protocol stays,
/// so that port masks keep their meaning.
fn everything(ts: &TrafficSelector) -> TrafficSelector {
    let (start, end) = match ts.start {
        IpAddr::V4(_) => (
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V4(Ipv4Addr::BROADCAST),
        ),
        IpAddr::V6(_) => (
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
        ),
    };
    TrafficSelector {
        protocol: ts.protocol,
        start_port: 0,
        end_port: u16::MAX,
        start,
        end,
    }
}
