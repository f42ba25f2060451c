//! Who holds which policy.
//!
//! The kernel has one policy per key, whatever the priorities. Several parties may want one: the
//! block of a configured network whose selector equals a tunnel's, two peers that negotiated the
//! same networks, a CHILD_SA and the one that rekeys it. Each key therefore has a stack of claims
//! over an optional base, the kernel holds the topmost, and changes replace in one step
//! (`XFRM_MSG_UPDPOLICY`): there is no moment without a policy while anybody wants one.

use std::collections::BTreeMap;

use gateway_ike::output::ChildId;

use super::SaKernel;
use super::error::XfrmError;
use super::types::{Action, Policy, PolicyKey, Request};

/// Where a claim stands relative to that of the child it rekeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On top of all.
    Top,
    /// Directly above this child's claim, if it has one; else on top.
    Above(ChildId),
    /// Directly beneath this child's claim, if it has one; else on top.
    Beneath(ChildId),
}

/// A policy without its key, which is that of its entry: with a hundred thousand children the books
/// hold several hundred thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Body {
    priority: u32,
    action: Action,
    icmp: bool,
}

impl Body {
    const fn of(policy: &Policy) -> Self {
        Self {
            priority: policy.priority,
            action: policy.action,
            icmp: policy.icmp,
        }
    }

    const fn policy(self, key: PolicyKey) -> Policy {
        Policy {
            key,
            priority: self.priority,
            action: self.action,
            icmp: self.icmp,
        }
    }
}

#[derive(Debug, Default)]
struct Entry {
    base: Option<Body>,
    // Over the base: asks for the SAs of a child that is not up.
    trap: Option<Body>,
    // Of an earlier process: stays until it is claimed or disowned.
    found: Option<Body>,
    // The last one is in force.
    claims: Vec<(ChildId, Body)>,
    installed: Option<Body>,
}

impl Entry {
    fn wanted(&self) -> Option<Body> {
        let claimed = self.claims.last().map(|&(_, body)| body);
        claimed.or(self.found).or(self.trap).or(self.base)
    }

    fn is_idle(&self) -> bool {
        self.installed.is_none() && self.wanted().is_none()
    }

    fn position(&self, child: ChildId) -> Option<usize> {
        self.claims.iter().position(|&(owner, _)| owner == child)
    }
}

/// The stacks of claims, by key.
#[derive(Debug, Default)]
pub(super) struct PolicyBook {
    entries: BTreeMap<PolicyKey, Entry>,
}

enum Change {
    Install(Policy),
    Replace(Policy),
    Delete(PolicyKey),
}

impl PolicyBook {
    /// Adds `child`'s claim, or moves it.
    pub(super) fn claim(&mut self, child: ChildId, policy: Policy, place: Place) {
        self.claim_body(child, policy.key, Body::of(&policy), place);
    }

    fn claim_body(&mut self, child: ChildId, key: PolicyKey, body: Body, place: Place) {
        let entry = self.entries.entry(key).or_default();
        if let Some(at) = entry.position(child) {
            entry.claims.remove(at);
        }
        let at = match place {
            Place::Top => None,
            Place::Above(other) => entry.position(other).map(|at| at + 1),
            Place::Beneath(other) => entry.position(other),
        };
        // Most keys have one claim for ever.
        entry.claims.reserve_exact(1);
        entry
            .claims
            .insert(at.unwrap_or(entry.claims.len()), (child, body));
    }

    /// Puts another policy in the place of `child`'s claim on the same key, if it has one.
    pub(super) fn replace(&mut self, child: ChildId, policy: Policy) {
        if let Some(entry) = self.entries.get_mut(&policy.key)
            && let Some(at) = entry.position(child)
        {
            entry.claims[at].1 = Body::of(&policy);
        }
    }

    /// Policies that an earlier process left: nothing takes them away until [`Self::disown`].
    pub(super) fn adopt<'a>(&mut self, policies: impl Iterator<Item = &'a Policy>) {
        for policy in policies {
            let entry = self.entries.entry(policy.key).or_default();
            if entry.installed.is_none() {
                entry.found = Some(Body::of(policy));
                entry.installed = entry.found;
            }
        }
    }

    /// What was found is nobody's any more. Returns the keys that this leaves without a claim, or with
    /// another one than is installed.
    pub(super) fn disown(&mut self) -> Vec<PolicyKey> {
        let mut differing = Vec::new();
        for (key, entry) in &mut self.entries {
            if entry.found.take().is_some() && entry.wanted() != entry.installed {
                differing.push(*key);
            }
        }
        differing
    }

    /// Moves `child`'s claim on `key` directly above `other`'s, if both have one.
    pub(super) fn raise_above(&mut self, child: ChildId, other: ChildId, key: &PolicyKey) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        if let Some(at) = entry.position(child)
            && entry.position(other).is_some()
        {
            let (_, body) = entry.claims[at];
            self.claim_body(child, *key, body, Place::Above(other));
        }
    }

    /// Withdraws `child`'s claim on `key`.
    pub(super) fn release(&mut self, child: ChildId, key: &PolicyKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.claims.retain(|&(owner, _)| owner != child);
        }
    }

    /// Makes `policies` the bases, and no others. Returns the keys concerned.
    pub(super) fn set_bases(&mut self, policies: &[Policy]) -> Vec<PolicyKey> {
        self.set_layer(policies, |entry| &mut entry.base)
    }

    /// Puts these traps over the bases of their keys, and no others. Returns the keys concerned.
    pub(super) fn set_traps(&mut self, policies: &[Policy]) -> Vec<PolicyKey> {
        self.set_layer(policies, |entry| &mut entry.trap)
    }

    fn set_layer(
        &mut self,
        policies: &[Policy],
        layer: fn(&mut Entry) -> &mut Option<Body>,
    ) -> Vec<PolicyKey> {
        let mut keys: Vec<PolicyKey> = policies.iter().map(|policy| policy.key).collect();
        for (key, entry) in &mut self.entries {
            if layer(entry).take().is_some() {
                keys.push(*key);
            }
        }
        for policy in policies {
            *layer(self.entries.entry(policy.key).or_default()) = Some(Body::of(policy));
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Whether anybody wants a policy with this key.
    pub(super) fn wants(&self, key: &PolicyKey) -> bool {
        self.entries
            .get(key)
            .is_some_and(|entry| entry.wanted().is_some())
    }

    /// Believes a dump instead of its own books about what is installed. Returns the keys of which
    /// something else is installed than was believed.
    pub(super) fn observe(&mut self, dump: &[Policy]) -> Vec<PolicyKey> {
        let installed: BTreeMap<PolicyKey, Body> = dump
            .iter()
            .map(|policy| (policy.key, Body::of(policy)))
            .collect();
        let mut differing = Vec::new();
        for (key, entry) in &mut self.entries {
            let found = installed.get(key).copied();
            if entry.installed != found {
                entry.installed = found;
                differing.push(*key);
            }
        }
        differing
    }

    /// Brings the kernel in line with the claims on `keys`, in one batch.
    ///
    /// # Errors
    /// The first refusal; the other changes stand, and are known to stand.
    pub(super) fn sync(
        &mut self,
        kernel: &mut dyn SaKernel,
        keys: &[PolicyKey],
    ) -> Result<(), XfrmError> {
        let changes: Vec<Change> = keys.iter().filter_map(|key| self.change(key)).collect();
        let requests: Vec<Request<'_>> = changes.iter().map(Change::request).collect();
        let mut failure = None;
        for (change, result) in changes.iter().zip(kernel.apply(&requests)) {
            let result = match (change, result) {
                (Change::Install(policy), Err(error)) if error.exists() => {
                    tracing::warn!(policy = %policy.key, "replacing a policy that is not ours");
                    kernel.update_policy(policy)
                }
                (Change::Delete(_), Err(error)) if error.is_missing() => Ok(()),
                (_, result) => result,
            };
            match result {
                Ok(()) => self.note(change),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        for key in keys {
            if self.entries.get(key).is_some_and(Entry::is_idle) {
                self.entries.remove(key);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn change(&self, key: &PolicyKey) -> Option<Change> {
        let entry = self.entries.get(key)?;
        match (entry.installed, entry.wanted()) {
            (None, Some(body)) => Some(Change::Install(body.policy(*key))),
            (Some(installed), Some(body)) if installed != body => {
                Some(Change::Replace(body.policy(*key)))
            }
            (Some(_), None) => Some(Change::Delete(*key)),
            _ => None,
        }
    }

    fn note(&mut self, change: &Change) {
        match change {
            Change::Install(policy) | Change::Replace(policy) => {
                self.entries.entry(policy.key).or_default().installed = Some(Body::of(policy));
            }
            Change::Delete(key) => {
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.installed = None;
                }
            }
        }
    }

    /// All keys.
    pub(super) fn keys(&self) -> Vec<PolicyKey> {
        self.entries.keys().copied().collect()
    }
}

impl Change {
    fn request(&self) -> Request<'_> {
        match self {
            Self::Install(policy) => Request::NewPolicy(policy),
            Self::Replace(policy) => Request::UpdatePolicy(policy),
            Self::Delete(key) => Request::DeletePolicy(key),
        }
    }
}
