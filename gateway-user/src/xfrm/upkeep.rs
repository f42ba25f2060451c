//! Reading counters, and putting the kernel right.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use gateway_ike::output::ChildId;
use serde::Serialize;

use super::block::is_base_priority;
use super::child::probe;
use super::error::XfrmError;
use super::reqid::is_ours;
use super::tunnels::Tunnels;
use super::types::{Action, Policy, PolicyKey, Request, SaId, SaState};

/// Traffic of one CHILD_SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChildCounters {
    /// Packets decrypted.
    pub packets_in: u64,
    /// Octets of these.
    pub bytes_in: u64,
    /// Packets encrypted; 0 on a replica.
    pub packets_out: u64,
    /// Octets of these.
    pub bytes_out: u64,
    /// When the last packet was decrypted, Unix seconds; `None` also on kernels before 6.2.
    pub last_used_in: Option<u64>,
    /// Links the inbound SA to its policies.
    pub reqid: u32,
}

/// What [`Tunnels::reconcile`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// SAs with our reqids that belong to no child, deleted.
    pub sas_deleted: usize,
    /// Policies of ours that nobody wants, deleted.
    pub policies_deleted: usize,
    /// Policies that were missing or different, put right.
    pub policies_restored: usize,
    /// Children of which an SA is gone from the kernel. They stay in the books until
    /// [`Tunnels::remove_child`].
    pub lost: Vec<ChildId>,
}

impl Tunnels {
    /// Tries to install an SA for each address family of `locals`, and removes it: without ESP or
    /// AES-GCM the agent should say so at its start and not at its first tunnel.
    ///
    /// # Errors
    /// The kernel's refusal, with the fix.
    pub fn probe(&mut self, locals: &[IpAddr]) -> Result<(), XfrmError> {
        for is_v4 in [true, false] {
            let Some(local) = locals.iter().find(|local| local.is_ipv4() == is_v4) else {
                continue;
            };
            let sa = probe(*local);
            match self.kernel.install_sa(&sa) {
                Err(error) if error.exists() => {}
                Err(error) => return Err(error),
                Ok(()) => self.delete_sa(&sa.id)?,
            }
        }
        Ok(())
    }

    /// Counters of one child.
    ///
    /// # Errors
    /// [`XfrmError::is_missing`] when one of its SAs, or the child, is not installed.
    pub fn counters(&mut self, id: ChildId) -> Result<ChildCounters, XfrmError> {
        let Some(child) = self.children.get(&id) else {
            let operation = format!("query CHILD_SA {:08x}", u32::from_be_bytes(id.spi_in));
            return Err(XfrmError::refused_operation(operation, libc::ESRCH, None));
        };
        let mut counters = ChildCounters::default();
        counters.add_in(&self.kernel.query_sa(&child.sa_in)?);
        if let Some(out) = &child.out {
            counters.add_out(&self.kernel.query_sa(&out.sa)?);
        }
        Ok(counters)
    }

    /// Counters of all children, by one dump.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn all_counters(&mut self) -> Result<BTreeMap<ChildId, ChildCounters>, XfrmError> {
        let mut all: BTreeMap<ChildId, ChildCounters> = BTreeMap::new();
        for state in self.kernel.dump_sas()? {
            let Some(id) = self.by_sa.get(&state.id) else {
                continue;
            };
            let counters = all.entry(*id).or_default();
            if self.children.get(id).is_some_and(|c| c.sa_in == state.id) {
                counters.add_in(&state);
            } else {
                counters.add_out(&state);
            }
        }
        Ok(all)
    }

    /// Compares the books with the kernel and puts it right: deletes SAs and policies of an earlier
    /// process, restores policies that somebody flushed, names children whose SAs are gone. For
    /// the start, and after [`super::XfrmEvent::Overrun`]. Between [`Self::begin_adoption`] and
    /// [`Self::finish_adoption`] what nobody has claimed yet stays.
    ///
    /// # Errors
    /// When a dump fails or a change is refused.
    pub fn reconcile(&mut self) -> Result<Reconciled, XfrmError> {
        let mut done = Reconciled::default();
        let dump = self.kernel.dump_policies()?;
        done.policies_restored = self.book.observe(&dump).len();
        let keys = self.book.keys();
        self.book.sync(&mut *self.kernel, &keys)?;
        let stray: Vec<PolicyKey> = dump
            .iter()
            .filter(|policy| is_our_policy(policy) && !self.book.wants(&policy.key))
            .map(|policy| policy.key)
            .collect();
        let requests: Vec<Request<'_>> = stray.iter().map(Request::DeletePolicy).collect();
        done.policies_deleted = self.delete_all(&requests)?;

        let sas = self.kernel.dump_sas()?;
        let stray: Vec<SaId> = sas
            .iter()
            .filter(|sa| is_ours(sa.reqid) && !self.by_sa.contains_key(&sa.id))
            .filter(|sa| !self.orphans.contains_key(&sa.id))
            .map(|sa| sa.id)
            .collect();
        let requests: Vec<Request<'_>> = stray.iter().map(Request::DeleteSa).collect();
        done.sas_deleted = self.delete_all(&requests)?;
        let present: HashSet<SaId> = sas.iter().map(|sa| sa.id).collect();
        let gone: Vec<SaId> = self
            .by_sa
            .keys()
            .filter(|sa| !present.contains(sa))
            .copied()
            .collect();
        for sa in &gone {
            done.lost.extend(self.expired(sa)?);
        }
        done.lost.sort_unstable();
        done.lost.dedup();
        Ok(done)
    }

    pub(super) fn delete_all(&mut self, requests: &[Request<'_>]) -> Result<usize, XfrmError> {
        let mut deleted = 0;
        for result in self.kernel.apply(requests) {
            match result {
                Ok(()) => deleted += 1,
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

pub(super) fn is_our_policy(policy: &Policy) -> bool {
    match policy.action {
        Action::Protect(template) => is_ours(template.reqid),
        Action::Bypass | Action::Block => is_base_priority(policy.priority),
    }
}

impl ChildCounters {
    fn add_in(&mut self, state: &SaState) {
        self.reqid = state.reqid;
        self.packets_in += state.packets;
        self.bytes_in += state.bytes;
        self.last_used_in = state.last_used_at;
    }

    fn add_out(&mut self, state: &SaState) {
        self.packets_out += state.packets;
        self.bytes_out += state.bytes;
    }
}
