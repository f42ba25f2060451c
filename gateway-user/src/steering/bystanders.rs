//! The fence on the interfaces that the configuration does not name. A packet in the cluster's name
//! leaves by whatever interface the routes say: a tunnel, a second uplink, a container's, one that
//! comes up tomorrow.

use std::collections::BTreeMap;

use super::error::SteeringError;
use super::fence::Fence;
use super::hooks::Hooks;
use super::links;
use super::report::Finding;
use crate::rtnl::Link;

/// The fences on those interfaces, by interface index. The loopback device has none: what goes
/// there stays here.
#[derive(Debug, Default)]
pub(super) struct Bystanders {
    fences: BTreeMap<u32, Fence>,
}

impl Bystanders {
    /// The interfaces that stand fenced.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.fences.keys().copied()
    }

    /// Forgets all fences; they stay in the kernel.
    pub(super) fn clear(&mut self) {
        self.fences.clear();
    }

    /// Fences every interface of `present` that is not `configured`: new ones at once, the others
    /// again if their fence is gone. Answers what was wrong.
    ///
    /// # Errors
    /// Pins of interfaces that are gone could not be removed.
    pub(super) fn keep(
        &mut self,
        hooks: &mut Hooks,
        present: &[Link],
        configured: &[u32],
    ) -> Result<Vec<Finding>, SteeringError> {
        let ours = |link: &&Link| !link.loopback && !configured.contains(&link.index);
        let wanted: Vec<&Link> = present.iter().filter(ours).collect();
        self.forget(hooks, &wanted, configured)?;
        let mut findings = Vec::new();
        for link in wanted {
            if let Some(finding) = self.keep_one(hooks, link)
                // It may have gone meanwhile, and its fence with it.
                && hooks.exists(link)
            {
                findings.push(finding);
            }
        }
        Ok(findings)
    }

    /// Lets go of interfaces that went, were moved to another namespace or became configured.
    fn forget(
        &mut self,
        hooks: &Hooks,
        wanted: &[&Link],
        configured: &[u32],
    ) -> Result<(), SteeringError> {
        let is_wanted = |index: u32| wanted.iter().any(|link| link.index == index);
        for (index, _) in self.fences.extract_if(.., |index, _| !is_wanted(*index)) {
            if !configured.contains(&index) {
                links::release(&links::tcx_pin(hooks.pins.links(), index))?;
            }
        }
        Ok(())
    }

    fn keep_one(&mut self, hooks: &mut Hooks, link: &Link) -> Option<Finding> {
        let Some(fence) = self.fences.get(&link.index) else {
            let installed = hooks.install_fence(link).map(|fence| {
                self.fences.insert(link.index, fence);
            });
            return match installed {
                Ok(()) => None,
                failed => Some(finding(link, "it has no egress fence".to_owned(), failed)),
            };
        };
        let breach = match hooks.check_fence(fence, link) {
            Ok(breach) => breach?,
            Err(error) => {
                let what = "its egress fence could not be checked".to_owned();
                return Some(finding(link, what, Err(error)));
            }
        };
        let repaired = hooks.repair_fence(fence, link, &breach).map(|new| {
            self.fences.insert(link.index, new);
        });
        Some(finding(link, breach.to_string(), repaired))
    }
}

fn finding(link: &Link, what: String, repaired: Result<(), SteeringError>) -> Finding {
    Finding::new(&link.name, None, what, repaired)
}
