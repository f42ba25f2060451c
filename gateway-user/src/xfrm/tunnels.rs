//! CHILD_SAs over a [`SaKernel`].

use std::collections::{BTreeMap, HashMap};

use gateway_ike::output::{ChildId, ChildSa, KernelRequest, KernelResult, TrafficSelector};
use ipnet::IpNet;

use super::SaKernel;
use super::block;
use super::child::{id_in, id_out, inbound, outbound, policies};
use super::error::XfrmError;
use super::policies::{Place, PolicyBook};
use super::reqid::Reqids;
use super::selector::{Flow, flows};
use super::types::{Direction, PolicyKey, SaId};

/// What is installed of one child.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) sa_in: SaId,
    reqid_in: u32,
    keys_in: Vec<PolicyKey>,
    /// Absent on a replica.
    pub(super) out: Option<Outbound>,
}

#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) sa: SaId,
    reqid: u32,
    keys: Vec<PolicyKey>,
}

/// The CHILD_SAs in the kernel, and the policies that keep cleartext in.
///
/// Works on its own SAs and policies only; what others installed it neither counts nor deletes.
/// Dropping it leaves the kernel as it is.
pub struct Tunnels {
    pub(super) kernel: Box<dyn SaKernel>,
    pub(super) children: BTreeMap<ChildId, Installed>,
    pub(super) by_sa: HashMap<SaId, ChildId>,
    // Rekeyed children that do not send yet, each with the one whose outbound policies it awaits.
    waiting: BTreeMap<ChildId, ChildId>,
    pub(super) book: PolicyBook,
    reqids: Reqids,
}

impl Tunnels {
    /// Over `kernel`, with nothing installed. Call [`Self::protect`] and [`Self::reconcile`] before
    /// the first child.
    pub fn new(kernel: Box<dyn SaKernel>) -> Self {
        Self {
            kernel,
            children: BTreeMap::new(),
            by_sa: HashMap::new(),
            waiting: BTreeMap::new(),
            book: PolicyBook::default(),
            reqids: Reqids::default(),
        }
    }

    /// The kernel under it.
    pub fn kernel(&mut self) -> &mut dyn SaKernel {
        &mut *self.kernel
    }

    /// Carries out a request of the IKE engine. Only `Install` is answered.
    pub fn perform(&mut self, request: &KernelRequest) -> Option<KernelResult> {
        match request {
            KernelRequest::Install { child, replaces } => {
                let id = child.id();
                Some(match self.install_child(child, *replaces) {
                    Ok(()) => KernelResult::Installed(id),
                    Err(error) => KernelResult::Failed {
                        child: id,
                        reason: error.to_string(),
                    },
                })
            }
            KernelRequest::Remove { child } => {
                if let Err(error) = self.remove_child(*child) {
                    tracing::warn!(spi = ?child.spi_in, %error, "removing a CHILD_SA");
                }
                None
            }
        }
    }

    /// Blocks cleartext from and to the peers' configured networks, at the lowest priority: tunnel
    /// policies are stronger, and what an SA decrypted matches one of them first. To be called
    /// with everything configured, before any child is installed; the policies stay after exit.
    ///
    /// `exempt`: networks that lie within a remote one but are reached in clear (our own protected
    /// networks, sync addresses). The longest prefix decides between block and exemption.
    ///
    /// Returns the networks of prefix length 0, which are left open: blocking them would cut the
    /// host off from everything, its operator included.
    ///
    /// # Errors
    /// When a selector cannot be expressed, or the kernel refuses.
    pub fn protect(
        &mut self,
        remote: &[TrafficSelector],
        exempt: &[IpNet],
    ) -> Result<Vec<IpNet>, XfrmError> {
        let bases = block::bases(remote, exempt)?;
        let keys = self.book.set_bases(&bases.policies);
        self.book.sync(&mut *self.kernel, &keys)?;
        Ok(bases.open)
    }

    /// Installs both SAs of a CHILD_SA and its policies, or nothing. A child of which an inbound
    /// copy is installed becomes a full one.
    ///
    /// With `replaces` (rekey), inbound traffic of both generations passes from now on, and
    /// outbound traffic stays on the old SA until [`Self::remove_child`] of it or
    /// [`Self::promote_used`]: the peer may not have the new one yet (RFC 7296 §2.8).
    ///
    /// # Errors
    /// When the selectors or the SA cannot be expressed, or the kernel refuses; nothing is left.
    pub fn install_child(
        &mut self,
        child: &ChildSa,
        replaces: Option<ChildId>,
    ) -> Result<(), XfrmError> {
        let id = child.id();
        if self.children.get(&id).is_some_and(|c| c.out.is_some()) {
            return Err(XfrmError::refused_operation(
                format!("install CHILD_SA, SA {}", id_in(child)),
                libc::EEXIST,
                None,
            ));
        }
        let replaces = replaces.filter(|old| *old != id && self.children.contains_key(old));
        let flows = flows(&child.local_ts, &child.remote_ts)?;
        let was_copy = self.children.contains_key(&id);
        if !was_copy {
            self.add_inbound(child, &flows, replaces)?;
        }
        let result = self.add_outbound(child, &flows, replaces);
        if result.is_err() && !was_copy {
            self.forget(id);
        }
        result
    }

    /// Installs the inbound SA of a CHILD_SA that another member owns, with its inbound policies:
    /// this member can decrypt what reaches it (fragments), and cannot encrypt. Of a child that is
    /// fully installed the outbound half is removed. Repeating it changes nothing.
    ///
    /// # Errors
    /// As for [`Self::install_child`].
    pub fn install_inbound_copy(&mut self, child: &ChildSa) -> Result<(), XfrmError> {
        let id = child.id();
        if self.children.contains_key(&id) {
            return self.drop_outbound(id);
        }
        let flows = flows(&child.local_ts, &child.remote_ts)?;
        self.add_inbound(child, &flows, None)
    }

    /// Removes a child's policies, or hands them to whoever claims them next, then its SAs. SAs
    /// that are gone already, and a child that is not installed, are no error.
    ///
    /// # Errors
    /// The first refusal of the kernel; the rest is removed, and the child is forgotten.
    pub fn remove_child(&mut self, id: ChildId) -> Result<(), XfrmError> {
        let outbound = self.drop_outbound(id);
        let Some(child) = self.children.remove(&id) else {
            return Ok(());
        };
        for key in &child.keys_in {
            self.book.release(id, key);
        }
        let policies = self.book.sync(&mut *self.kernel, &child.keys_in);
        self.reqids.release(child.reqid_in);
        self.by_sa.remove(&child.sa_in);
        let sa = self.delete_sa(&child.sa_in);
        self.waiting.retain(|_, old| *old != id);
        outbound.and(policies).and(sa)
    }

    /// Lets rekeyed children send whose peer has shown that it has the new SA, by using it
    /// (RFC 7296 §2.8). To be called about once a second; costs one query per child that waits.
    /// Returns those that now send.
    ///
    /// # Errors
    /// The first refusal of the kernel.
    pub fn promote_used(&mut self) -> Result<Vec<ChildId>, XfrmError> {
        let waiting: Vec<(ChildId, SaId)> = self
            .waiting
            .keys()
            .filter_map(|id| Some((*id, self.children.get(id)?.sa_in)))
            .collect();
        let mut promoted = Vec::new();
        for (id, sa_in) in waiting {
            match self.kernel.query_sa(&sa_in) {
                Ok(state) if state.packets > 0 => {
                    self.promote(id)?;
                    promoted.push(id);
                }
                Ok(_) => {}
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(promoted)
    }

    /// Lets a rekeyed child send, although the child that it replaces is still installed.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn promote(&mut self, id: ChildId) -> Result<(), XfrmError> {
        let Some(old) = self.waiting.remove(&id) else {
            return Ok(());
        };
        let Some(out) = self.children.get(&id).and_then(|child| child.out.as_ref()) else {
            return Ok(());
        };
        for key in &out.keys {
            self.book.raise_above(id, old, key);
        }
        self.book.sync(&mut *self.kernel, &out.keys)
    }

    /// An SA is gone ([`super::XfrmEvent::Expired`] with `hard`): a child that rekeys the one it
    /// belonged to sends from now on. Returns that one; it stays in the books until
    /// [`Self::remove_child`]. `None`: the SA was not ours.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn expired(&mut self, sa: &SaId) -> Result<Option<ChildId>, XfrmError> {
        let Some(id) = self.child_of(sa) else {
            return Ok(None);
        };
        let successors: Vec<ChildId> = self
            .waiting
            .iter()
            .filter(|&(_, old)| *old == id)
            .map(|(new, _)| *new)
            .collect();
        for new in successors {
            self.promote(new)?;
        }
        Ok(Some(id))
    }

    /// The child that an SA belongs to.
    pub fn child_of(&self, sa: &SaId) -> Option<ChildId> {
        self.by_sa.get(sa).copied()
    }

    /// The children that are installed, each with whether it has an outbound SA.
    pub fn children(&self) -> impl Iterator<Item = (ChildId, bool)> + '_ {
        self.children.iter().map(|(id, c)| (*id, c.out.is_some()))
    }
}

/// The steps.
impl Tunnels {
    fn add_inbound(
        &mut self,
        child: &ChildSa,
        flows: &[Flow],
        replaces: Option<ChildId>,
    ) -> Result<(), XfrmError> {
        let id = child.id();
        let inherited = replaces.and_then(|old| Some(self.children.get(&old)?.reqid_in));
        let reqid_in = self.reqids.inbound(child, inherited);
        if let Err(error) = self.kernel.install_sa(&inbound(child, reqid_in)) {
            self.reqids.release(reqid_in);
            return Err(error);
        }
        // The newer generation's outer addresses are the valid ones, so it goes above.
        let place = replaces.map_or(Place::Top, Place::Above);
        let mut keys_in = Vec::new();
        for direction in [Direction::In, Direction::Fwd] {
            for policy in policies(child, flows, direction, reqid_in) {
                keys_in.push(policy.key);
                self.book.claim(id, policy, place);
            }
        }
        let result = self.book.sync(&mut *self.kernel, &keys_in);
        self.by_sa.insert(id_in(child), id);
        self.children.insert(
            id,
            Installed {
                sa_in: id_in(child),
                reqid_in,
                keys_in,
                out: None,
            },
        );
        if result.is_err() {
            self.forget(id);
        }
        result
    }

    fn add_outbound(
        &mut self,
        child: &ChildSa,
        flows: &[Flow],
        replaces: Option<ChildId>,
    ) -> Result<(), XfrmError> {
        let id = child.id();
        let reqid = self.reqids.unique();
        if let Err(error) = self.kernel.install_sa(&outbound(child, reqid)) {
            self.reqids.release(reqid);
            return Err(error);
        }
        let place = replaces.map_or(Place::Top, Place::Beneath);
        let mut keys = Vec::new();
        for policy in policies(child, flows, Direction::Out, reqid) {
            keys.push(policy.key);
            self.book.claim(id, policy, place);
        }
        let result = self.book.sync(&mut *self.kernel, &keys);
        let sa = id_out(child);
        self.by_sa.insert(sa, id);
        if let Some(installed) = self.children.get_mut(&id) {
            installed.out = Some(Outbound { sa, reqid, keys });
        }
        if let Some(old) = replaces {
            self.waiting.insert(id, old);
        }
        if result.is_err() {
            self.undo(|tunnels| tunnels.drop_outbound(id));
        }
        result
    }

    /// Policies first, so that a successor takes over before the SA goes.
    fn drop_outbound(&mut self, id: ChildId) -> Result<(), XfrmError> {
        let Some(child) = self.children.get_mut(&id) else {
            return Ok(());
        };
        self.waiting.remove(&id);
        let Some(out) = child.out.take() else {
            return Ok(());
        };
        for key in &out.keys {
            self.book.release(id, key);
        }
        let policies = self.book.sync(&mut *self.kernel, &out.keys);
        self.reqids.release(out.reqid);
        self.by_sa.remove(&out.sa);
        let sa = self.delete_sa(&out.sa);
        policies.and(sa)
    }

    pub(super) fn delete_sa(&mut self, sa: &SaId) -> Result<(), XfrmError> {
        match self.kernel.delete_sa(sa) {
            Err(error) if error.is_missing() => Ok(()),
            result => result,
        }
    }

    fn forget(&mut self, id: ChildId) {
        self.undo(|tunnels| tunnels.remove_child(id));
    }

    /// A step of a roll-back: what fails in it cannot be answered, the first error counts.
    fn undo(&mut self, step: impl FnOnce(&mut Self) -> Result<(), XfrmError>) {
        if let Err(error) = step(self) {
            tracing::warn!(%error, "rolling back a CHILD_SA");
        }
    }
}
