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

/// Whether a block or bypass policy of this priority is one of ours.
pub(super) const fn is_base_priority(priority: u32) -> bool {
    priority <= BASE_PRIORITY && priority > BASE_PRIORITY - 1024
}

/// Policies that stand under the tunnels.
#[derive(Debug, Default)]
pub(super) struct Bases {
    /// Blocks and exemptions, in all three directions.
    pub(super) policies: Vec<Policy>,
    /// Networks of prefix length 0, not blocked.
    pub(super) open: Vec<IpNet>,
}

/// Blocks for `remote` and for the `pairs` of ours and a peer's, and bypasses for those of `exempt`
/// that overlap `remote`. The longer prefix is the stronger; of equal ones the bypass.
pub(super) fn bases(
    remote: &[TrafficSelector],
    pairs: &[(TrafficSelector, TrafficSelector)],
    exempt: &[IpNet],
) -> Result<Bases, XfrmError> {
    let mut bases = Bases::default();
    let mut blocked = Vec::new();
    for ts in remote {
        for flow in flows(&[everything(ts)], &[*ts])? {
            let network = flow.selector(Direction::Out).dst;
            if network.prefix_len() == 0 {
                bases.open.push(network);
                continue;
            }
            blocked.push(network);
            bases.block(&flow);
        }
    }
    for (local, remote) in pairs {
        for flow in flows(&[*local], &[*remote])? {
            bases.block(&flow);
        }
    }
    for network in exempt {
        if blocked.iter().any(|b| b.contains(network)) {
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

    fn block(&mut self, flow: &Flow) {
        let network = flow.selector(Direction::Out).dst;
        let priority = BASE_PRIORITY - 2 * u32::from(network.prefix_len());
        for direction in [Direction::In, Direction::Out, Direction::Fwd] {
            self.push(direction, flow.selector(direction), priority, Action::Block);
        }
    }

    fn exempt(&mut self, network: IpNet) {
        let priority = BASE_PRIORITY - 2 * u32::from(network.prefix_len()) - 1;
        let any = any_network(network.addr());
        for direction in [Direction::In, Direction::Out, Direction::Fwd] {
            let selector = match direction {
                Direction::Out => PolicySelector::between(any, network.trunc()),
                Direction::In | Direction::Fwd => PolicySelector::between(network.trunc(), any),
            };
            self.push(direction, selector, priority, Action::Bypass);
        }
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
