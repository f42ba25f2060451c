//! The kernel's answer for a CHILD_SA of ours, and which of several remains (RFC 7296 §2.8.1).

use gateway_common::time::Instant;

use super::{Installing, Task};
use crate::endpoint::core::Core;
use crate::error::LocalError;
use crate::output::{ChildId, EventKind, KernelRequest};
use crate::record::{ChildOffer, ChildState, Purpose};
use crate::sa::{IkeSa, Step};

impl IkeSa {
    /// The kernel has answered for a child of ours. `None` if it was not asked for this one.
    pub(in crate::sa) fn own_child_answered(
        &mut self,
        core: &mut Core,
        now: Instant,
        child: ChildId,
        outcome: &Result<(), String>,
    ) -> Option<Step> {
        let asked = self
            .established()?
            .outstanding
            .as_ref()?
            .installing
            .as_ref()?;
        if asked.child.id() != child {
            return None;
        }
        let outstanding = self.take_outstanding(core)?;
        let Purpose::Child(offer) = outstanding.request.purpose else {
            return None;
        };
        let installing = *outstanding.installing?;
        match outcome {
            Ok(()) => self.own_child_installed(core, now, &offer, installing),
            Err(reason) => {
                core.counters.kernel_failures += 1;
                core.esp_spis.release(&offer.spi_in);
                let error = LocalError::Kernel(reason.clone()).into();
                self.failed(core, "CHILD_SA", &error);
                self.delete_at_peer(offer.spi_in);
                self.try_child_again(core, now, &offer);
            }
        }
        Some(if self.announced {
            Step::Waiting
        } else {
            Step::Opened
        })
    }

    /// The kernel did not answer in time. It may still do what it was asked, so it is asked to undo
    /// it.
    pub(super) fn install_timeout(&mut self, core: &mut Core, now: Instant) -> Step {
        let asked = self
            .outstanding_mut()
            .and_then(|o| o.installing.as_ref())
            .map(|installing| installing.child.id());
        let Some(child) = asked else {
            return Step::Waiting;
        };
        core.out.kernel(KernelRequest::Remove { child });
        let outcome = Err("no answer in time".to_owned());
        self.own_child_answered(core, now, child, &outcome)
            .unwrap_or(Step::Waiting)
    }

    /// RFC 7296 §2.8, §2.8.1: one of old, new and the rival's remains; each side closes what it
    /// has to.
    fn own_child_installed(
        &mut self,
        core: &mut Core,
        now: Instant,
        offer: &ChildOffer,
        installing: Installing,
    ) {
        core.counters.child_sas_installed += 1;
        core.counters.child_rekeys += u64::from(offer.rekeys.is_some());
        let id = installing.child.id();
        let mut child = self.new_child(core, now, *installing.child);
        let lost = self.loses_to_rival(core, offer, &installing.lowest_nonce);
        let Some(established) = self.established_mut() else {
            return;
        };
        established.refused_since = None;
        established.retried = false;
        if lost {
            child.state = ChildState::Closing;
        }
        core.start_lifetime(&child);
        established.children.push(child);
        if !lost {
            core.out.kernel(KernelRequest::Promote { child: id });
            if let Some(old) = offer.rekeys.and_then(|old| established.child_mut(old)) {
                old.state = ChildState::Closing;
            }
        }
        established.dirty = true;
        self.add_task(Task::CloseChildren);
        self.event(
            core,
            EventKind::ChildSaInstalled {
                child: id,
                replaces: installing.replaces,
            },
        );
    }

    /// Compares our exchange with the peer's, if there was one and its SA still is, or is about to
    /// be. The rival that loses waits for the peer's DELETE; if additional key exchanges were to come
    /// first, it will not be made (RFC 9370 §2.2.4).
    pub(super) fn loses_to_rival(
        &mut self,
        core: &mut Core,
        offer: &ChildOffer,
        ours: &[u8],
    ) -> bool {
        let (Some(rival), Some(established)) = (&offer.rival, self.established_mut()) else {
            return false;
        };
        // RFC 7296 §2.8.1: "the SA created with the lowest of the four nonces […] SHOULD be closed
        // by the endpoint that created it"; octet by octet, a prefix is lower.
        let lost = ours < rival.lowest_nonce.as_slice();
        if let Some(pending) = &mut established.pending
            && pending.child.spi_in == rival.spi
        {
            pending.lost = !lost;
            return lost;
        }
        if established.awaits_this_child(rival.spi) {
            if !lost {
                self.drop_child_to_be(core, rival.spi);
            }
            return lost;
        }
        match established.child_mut(rival.spi) {
            Some(child) if !lost => {
                child.state = ChildState::Replaced;
                false
            }
            Some(_) => true,
            None => false,
        }
    }
}
