//! CHILD_SAs over a [`SaKernel`].

use std::collections::BTreeMap;

use gateway_ike::output::{ChildId, ChildSa, TrafficSelector};
use ipnet::IpNet;

use super::SaKernel;
use super::adopt::Unclaimed;
use super::block::{self, Blocks};
use super::child::{id_in, id_out, inbound, inbound_replay, policies};
use super::error::XfrmError;
use super::gate::Gate;
use super::installed::{Installed, Outbound, Path, Start, kinship, sa_out};
use super::policies::{Place, PolicyBook};
use super::replay::InboundPolicy;
use super::reqid::Reqids;
use super::selector::{Flow, flows};
use super::survey::Survey;
use super::trap::Standing;
use super::types::{Direction, PolicyKey, Sa, SaId, SaState};

/// The CHILD_SAs in the kernel, and the policies that keep cleartext in.
///
/// Works on its own SAs and policies only; what others installed it neither counts nor deletes.
/// Dropping it leaves the kernel as it is.
pub struct Tunnels {
    pub(super) kernel: Box<dyn SaKernel>,
    pub(super) children: BTreeMap<ChildId, Installed>,
    pub(super) by_sa: BTreeMap<SaId, ChildId>,
    // Rekeyed children that do not send yet, each with the one whose outbound policies it awaits.
    pub(super) waiting: BTreeMap<ChildId, ChildId>,
    pub(super) book: PolicyBook,
    pub(super) reqids: Reqids,
    pub(super) gate: Gate,
    pub(super) inbound_policy: InboundPolicy,
    // Generations of what is the same CHILD_SA to an operator, the oldest first.
    pub(super) kin: BTreeMap<u64, Vec<ChildId>>,
    pub(super) copy_failures: u64,
    /// Children that packets bring up, by the policies that catch them.
    pub(super) traps: BTreeMap<PolicyKey, Standing>,
    /// SAs of an earlier process that nobody has claimed yet.
    pub(super) orphans: BTreeMap<SaId, SaState>,
    /// While what nobody has claimed is removed.
    pub(super) unclaimed: Option<Unclaimed>,
    pub(super) survey: Survey,
}

impl Tunnels {
    /// Over `kernel`, with nothing installed. Call [`Self::protect`] and [`Self::reconcile`] before
    /// the first child.
    pub fn new(kernel: Box<dyn SaKernel>) -> Self {
        Self {
            kernel,
            children: BTreeMap::new(),
            by_sa: BTreeMap::new(),
            waiting: BTreeMap::new(),
            book: PolicyBook::default(),
            reqids: Reqids::default(),
            gate: Gate::new(),
            inbound_policy: InboundPolicy::default(),
            kin: BTreeMap::new(),
            copy_failures: 0,
            traps: BTreeMap::new(),
            orphans: BTreeMap::new(),
            unclaimed: None,
            survey: Survey::default(),
        }
    }

    /// Who owns which slot, for the membership to tell.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What copies do about replays after a takeover. For those installed from now on.
    pub const fn set_inbound_policy(&mut self, policy: InboundPolicy) {
        self.inbound_policy = policy;
    }

    /// The kernel under it.
    pub fn kernel(&mut self) -> &mut dyn SaKernel {
        &mut *self.kernel
    }

    /// As [`Self::block_cleartext`], for networks that are reached by policies alone.
    ///
    /// # Errors
    /// As there.
    pub fn protect(
        &mut self,
        remote: &[TrafficSelector],
        exempt: &[IpNet],
    ) -> Result<Vec<IpNet>, XfrmError> {
        self.block_cleartext(&Blocks {
            remote,
            exempt,
            ..Blocks::default()
        })
    }

    /// Blocks cleartext from and to the peers' configured networks, at the lowest priority: tunnel
    /// policies are stronger, and what an SA decrypted matches one of them first. To be called
    /// with everything configured, before any child is installed; the policies stay after exit.
    ///
    /// Returns the networks of prefix length 0, which are left open: blocking them would cut the
    /// host off from everything, its operator included.
    ///
    /// # Errors
    /// When a selector cannot be expressed, or the kernel refuses.
    pub fn block_cleartext(&mut self, blocks: &Blocks<'_>) -> Result<Vec<IpNet>, XfrmError> {
        let bases = block::bases(blocks)?;
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
        self.install_owned(child, replaces, 0)
    }

    /// As [`Self::install_child`]; the outbound SA goes on after number `start`. A copy of the child
    /// becomes this member's own: the kernel is not touched if it stands at `start` or further on.
    ///
    /// # Errors
    /// As for [`Self::install_child`].
    pub fn install_owned(
        &mut self,
        child: &ChildSa,
        replaces: Option<ChildId>,
        start: u64,
    ) -> Result<(), XfrmError> {
        let id = child.id();
        match self.children.get(&id) {
            Some(installed) if installed.out.is_some() && installed.owned => {
                Err(XfrmError::refused_operation(
                    format!("install CHILD_SA, SA {}", id_in(child)),
                    libc::EEXIST,
                    None,
                ))
            }
            Some(installed) if installed.is_full() => self.own_copy(child, start),
            _ => self.install_at(child, replaces, &Start::after(start)),
        }
    }

    /// A copy becomes this member's.
    fn own_copy(&mut self, child: &ChildSa, start: u64) -> Result<(), XfrmError> {
        let id = child.id();
        self.update_path(child)?;
        let Some(out) = self.children.get(&id).and_then(|c| c.out.as_ref()) else {
            return Ok(());
        };
        let (sa, stands) = (out.sa, out.stands);
        if stands < start && self.kernel.query_sa(&sa)?.sequence_out < start {
            // Not moved: it may be sending already.
            self.reinstall_outbound(child, &Start::after(start))?;
        }
        if let Some(installed) = self.children.get_mut(&id) {
            (installed.owned, installed.quiet_since) = (true, None);
        }
        Ok(())
    }

    /// Installs what is missing of a child.
    pub(super) fn install_at(
        &mut self,
        child: &ChildSa,
        replaces: Option<ChildId>,
        start: &Start,
    ) -> Result<(), XfrmError> {
        let id = child.id();
        let replaces = replaces.filter(|old| *old != id && self.children.contains_key(old));
        let flows = flows(&child.local_ts, &child.remote_ts)?;
        let was_copy = self.children.contains_key(&id);
        if !was_copy {
            self.add_inbound(child, &flows, replaces, start)?;
        }
        let result = self.add_outbound(child, &flows, replaces, start);
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
        self.add_inbound(child, &flows, None, &Start::after(0))
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
        if let Some(kin) = self.kin.get_mut(&child.kin) {
            kin.retain(|other| *other != id);
            if kin.is_empty() {
                self.kin.remove(&child.kin);
            }
        }
        let sa = self.delete_sa(&child.sa_in);
        self.waiting.retain(|_, old| *old != id);
        outbound.and(policies).and(sa)
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
    pub(super) fn sa_in(&self, child: &ChildSa, reqid: u32, start: &Start) -> Sa {
        Sa {
            start: start.inbound(),
            event_every: self.inbound_policy.event_every(),
            ..inbound(child, reqid)
        }
    }

    fn add_inbound(
        &mut self,
        child: &ChildSa,
        flows: &[Flow],
        replaces: Option<ChildId>,
        start: &Start,
    ) -> Result<(), XfrmError> {
        let inherited = replaces.and_then(|old| Some(self.children.get(&old)?.reqid_in));
        let reqid_in = self.reqids.inbound(child, inherited);
        if let Err(error) = self.kernel.install_sa(&self.sa_in(child, reqid_in, start)) {
            self.reqids.release(reqid_in);
            return Err(error);
        }
        self.book_inbound(child, flows, replaces, reqid_in, start.sequence_in)
    }

    /// The inbound SA stands: its policies, and the books.
    pub(super) fn book_inbound(
        &mut self,
        child: &ChildSa,
        flows: &[Flow],
        replaces: Option<ChildId>,
        reqid_in: u32,
        stands_in: u64,
    ) -> Result<(), XfrmError> {
        let id = child.id();
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
                path: Path::of(child),
                replay: inbound_replay(child),
                kin: kinship(child),
                stands_in,
                owned: true,
                quiet_since: None,
            },
        );
        self.kin.entry(kinship(child)).or_default().push(id);
        if result.is_err() {
            self.forget(id);
        }
        result
    }

    pub(super) fn add_outbound(
        &mut self,
        child: &ChildSa,
        flows: &[Flow],
        replaces: Option<ChildId>,
        start: &Start,
    ) -> Result<(), XfrmError> {
        let reqid = self.reqids.unique();
        if let Err(error) = self.kernel.install_sa(&sa_out(child, reqid, start)) {
            self.reqids.release(reqid);
            return Err(error);
        }
        self.book_outbound(child, flows, replaces, reqid, start)
    }

    /// The outbound SA stands: its policies, and the books.
    pub(super) fn book_outbound(
        &mut self,
        child: &ChildSa,
        flows: &[Flow],
        replaces: Option<ChildId>,
        reqid: u32,
        start: &Start,
    ) -> Result<(), XfrmError> {
        let id = child.id();
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
            installed.out = Some(Outbound {
                sa,
                reqid,
                keys,
                stands: start.sequence_out,
                event_every: start.event_every,
                ceiling: start.ceiling as u32,
            });
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

    pub(super) fn forget(&mut self, id: ChildId) {
        self.undo(|tunnels| tunnels.remove_child(id));
    }

    /// A step of a roll-back: what fails in it cannot be answered, the first error counts.
    fn undo(&mut self, step: impl FnOnce(&mut Self) -> Result<(), XfrmError>) {
        if let Err(error) = step(self) {
            tracing::warn!(%error, "rolling back a CHILD_SA");
        }
    }
}
