//! SAs that an earlier process of this member left in the kernel.
//!
//! A restarted agent has no keys and no books; the other members' snapshot brings the records back.
//! Until then the SAs stay where they are: they decrypt what this member reassembles, they keep
//! cleartext in, and the fence lets nothing of theirs out. An SA whose record arrives becomes a copy
//! where it stands and moves forwards into its block; what no record names goes at the end.

use gateway_ike::output::ChildSa;

use super::child::{id_in, id_out, inbound, outbound};
use super::error::XfrmError;
use super::installed::Start;
use super::reqid::is_ours;
use super::selector::flows;
use super::socket::BATCH;
use super::tunnels::Tunnels;
use super::types::{Action, KeyCheck, PolicyKey, Request, Sa, SaId, SaState};
use super::upkeep::is_our_policy;

/// What goes when it is known that nobody claims it; the SAs are those that are orphans still.
pub(super) struct Unclaimed {
    policies: Vec<PolicyKey>,
    sas_removed: usize,
}

impl Tunnels {
    /// Takes note of the SAs and policies that an earlier process left, and leaves them alone until
    /// [`Self::finish_adoption`]: [`Self::install_copy`] takes over those that fit its child. To be
    /// called before [`Self::protect`]. Returns the number of SAs.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub fn begin_adoption(&mut self) -> Result<usize, XfrmError> {
        let policies = self.kernel.dump_policies()?;
        let ours = || policies.iter().filter(|p| is_our_policy(p));
        self.book.adopt(ours());
        // A trap has no SA, and must not be given somebody else's.
        for policy in ours() {
            if let Action::Protect(template) = policy.action {
                self.reqids.reserve(template.reqid);
            }
        }
        for state in self.kernel.dump_sas()? {
            if is_ours(state.reqid) && !self.by_sa.contains_key(&state.id) {
                self.reqids.reserve(state.reqid);
                self.orphans.insert(state.id, state);
            }
        }
        Ok(self.orphans.len())
    }

    /// What no record has claimed goes, a part at a time ([`Self::tidy_part`]): to be called when full
    /// sync is complete. A record that comes later still finds what has not gone yet.
    pub fn finish_adoption(&mut self) {
        self.reqids.finish_reservation();
        self.unclaimed = Some(Unclaimed {
            policies: self.book.disown(),
            sas_removed: 0,
        });
    }

    /// Whether [`Self::tidy_part`] has something to do.
    pub const fn is_tidying(&self) -> bool {
        self.unclaimed.is_some()
    }

    /// Removes the next few policies and SAs that nobody has claimed. When none are left it returns how
    /// many SAs there were. What the kernel refuses to remove stays, and is not tried again.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn tidy_part(&mut self) -> Result<Option<usize>, XfrmError> {
        let Some(unclaimed) = &mut self.unclaimed else {
            return Ok(None);
        };
        let rest = unclaimed.policies.len().saturating_sub(BATCH);
        let keys = unclaimed.policies.split_off(rest);
        let sas: Vec<SaId> = self.orphans.keys().take(BATCH).copied().collect();
        for sa in &sas {
            self.orphans.remove(sa);
        }
        if keys.is_empty() && sas.is_empty() {
            return Ok(self.unclaimed.take().map(|done| done.sas_removed));
        }
        let requests: Vec<Request<'_>> = sas.iter().map(Request::DeleteSa).collect();
        let deleted = self.delete_all(&requests);
        self.book.sync(&mut *self.kernel, &keys)?;
        let deleted = deleted?;
        if let Some(unclaimed) = &mut self.unclaimed {
            unclaimed.sas_removed += deleted;
        }
        Ok(None)
    }

    /// Whether the SAs of `child` stand in the kernel since an earlier process, and are in the books
    /// now. If only one does, or they differ in anything from what would be installed, they are
    /// removed.
    pub(super) fn adopt_copy(&mut self, child: &ChildSa) -> Result<bool, XfrmError> {
        let found_in = self.orphans.remove(&id_in(child));
        let found_out = self.orphans.remove(&id_out(child));
        if found_in.is_none() && found_out.is_none() {
            return Ok(false);
        }
        if let (Some(sa_in), Some(sa_out)) = (&found_in, &found_out)
            && self.fits(child, sa_in, sa_out)
            && self.reqids.adopt(child, sa_in.reqid, sa_out.reqid)
        {
            return self.book_adopted(child, sa_in, sa_out).map(|()| true);
        }
        for state in [found_in, found_out].into_iter().flatten() {
            self.delete_sa(&state.id)?;
        }
        Ok(false)
    }

    fn book_adopted(
        &mut self,
        child: &ChildSa,
        sa_in: &SaState,
        sa_out: &SaState,
    ) -> Result<(), XfrmError> {
        let id = child.id();
        let flows = flows(&child.local_ts, &child.remote_ts)?;
        let before = self.generation_before(child);
        let (stands_in, reqid_in) = (sa_in.sequence_in, sa_in.reqid);
        self.book_inbound(child, &flows, before, reqid_in, stands_in)?;
        let start = Start {
            sequence_out: sa_out.sequence_out,
            sequence_in: stands_in,
            ceiling: sa_out.sequence_out,
            event_every: super::replay::EVENT_EVERY_OUT,
        };
        let result = self.book_outbound(child, &flows, before, sa_out.reqid, &start);
        if result.is_err() {
            self.forget(id);
        }
        result
    }

    fn fits(&mut self, child: &ChildSa, sa_in: &SaState, sa_out: &SaState) -> bool {
        let same = |state: &SaState, sa: &Sa| {
            state.src == sa.src
                && state.encapsulation == sa.encapsulation
                && state.replay == sa.replay
                && state.output_mark == sa.output_mark
                && state.if_id == sa.if_id
                && state.key == KeyCheck::of(sa)
        };
        if !same(sa_in, &inbound(child, sa_in.reqid))
            || !same(sa_out, &outbound(child, sa_out.reqid))
        {
            return false;
        }
        // One that tells by the clock cannot be cured of it.
        self.kernel
            .standpoints(&[sa_in.id, sa_out.id])
            .iter()
            .all(|answer| answer.as_ref().is_ok_and(|standpoint| !standpoint.timed))
    }
}
