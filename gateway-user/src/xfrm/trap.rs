//! Policies that ask for the SAs of a child that is not up: its first packet brings it up.
//!
//! A trap stands under the policies of the CHILD_SA with the same selectors, on every member, and so
//! it is in force again when that one goes. Its packets are dropped, never sent in clear.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway_ike::config::ChildConfig;

use super::error::XfrmError;
use super::selector::flows;
use super::tunnels::Tunnels;
use super::types::{Action, Direction, Policy, PolicyKey, Template};

/// Traps are weaker than all tunnels (which end at 400,000) and stronger than the blocks.
const TRAP_PRIORITY: u32 = 1_000_000;

/// A child of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trapped {
    /// Name of the connection.
    pub connection: String,
    /// Name of its child.
    pub child: String,
}

/// A child that packets bring up, as it is configured.
#[derive(Clone, Copy, Debug)]
pub struct Trap<'a> {
    /// Name of the connection.
    pub connection: &'a str,
    /// The child.
    pub child: &'a ChildConfig,
    /// Our address and the peer's, that the SA will probably have.
    pub ends: (IpAddr, IpAddr),
}

/// A trap as it stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    of: Trapped,
    template: Template,
}

impl Tunnels {
    /// Makes these the traps, and no others: what their selectors select asks for an SA. To be called
    /// after [`Tunnels::protect`]; they stay after exit, when nobody hears them.
    ///
    /// Of two children that want the same packets the first has them. Returns why others have none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_traps(&mut self, traps: &[Trap<'_>]) -> Result<Vec<XfrmError>, XfrmError> {
        let before = std::mem::take(&mut self.traps);
        let mut refused = Vec::new();
        for trap in traps {
            if let Err(error) = self.add_trap(trap, &before) {
                refused.push(error);
            }
        }
        let kept: Vec<u32> = self.traps.values().map(|t| t.template.reqid).collect();
        let gone = before.values().map(|standing| standing.template.reqid);
        for reqid in gone.filter(|reqid| !kept.contains(reqid)) {
            self.reqids.release(reqid);
        }
        let policies: Vec<Policy> = self.traps.iter().map(|(key, t)| t.policy(*key)).collect();
        let keys = self.book.set_traps(&policies);
        self.book.sync(&mut *self.kernel, &keys)?;
        Ok(refused)
    }

    fn add_trap(
        &mut self,
        trap: &Trap<'_>,
        before: &BTreeMap<PolicyKey, Standing>,
    ) -> Result<(), XfrmError> {
        let child = trap.child;
        let (local_ts, remote_ts) = child.selectors(trap.ends);
        let keys: Vec<PolicyKey> = flows(&local_ts, &remote_ts)?
            .iter()
            .map(|flow| PolicyKey {
                direction: Direction::Out,
                selector: flow.selector(Direction::Out),
                if_id: child.if_id_out,
                mark: child.marks.outbound,
            })
            .collect();
        if let Some((key, other)) = keys.iter().find_map(|key| self.traps.get_key_value(key)) {
            return Err(XfrmError::Unsupported(format!(
                "children.{} of connection {} has no trap: {key} is caught for children.{} of \
                 connection {}; give one of them other selectors, or another start_action",
                child.name, trap.connection, other.of.child, other.of.connection
            )));
        }
        for key in keys {
            let of = Trapped {
                connection: trap.connection.to_owned(),
                child: child.name.clone(),
            };
            let (src, dst) = trap.ends;
            let same = before.get(&key).map(|standing| standing.template);
            let template = match same.filter(|same| (same.src, same.dst) == trap.ends) {
                Some(same) => same,
                // Of its own: the kernel asks once per reqid and addresses, not once per policy.
                None => Template {
                    src,
                    dst,
                    reqid: self.reqids.unique(),
                },
            };
            self.traps.insert(key, Standing { of, template });
        }
        Ok(())
    }

    /// Whether there is any.
    pub fn has_traps(&self) -> bool {
        !self.traps.is_empty()
    }

    /// What a packet asks for that a policy has caught; `None` if it is no trap of ours.
    pub fn trapped(&self, policy: &PolicyKey) -> Option<&Trapped> {
        self.traps.get(policy).map(|standing| &standing.of)
    }
}

impl Standing {
    fn policy(&self, key: PolicyKey) -> Policy {
        Policy {
            key,
            priority: TRAP_PRIORITY + key.priority(),
            action: Action::Protect(self.template),
            icmp: true,
        }
    }
}
