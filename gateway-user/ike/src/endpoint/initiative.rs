//! What the driver and the kernel make an IKE SA do, and who inherits when it is rekeyed.

use gateway_common::time::Instant;

use super::core::Core;
use super::{Endpoint, Target};
use crate::output::ChildId;
use crate::sa::{Cause, IkeSa, Step, Succession};
use crate::wire::Message;

impl Endpoint {
    /// The kernel's clock for a CHILD_SA has run out (XFRM EXPIRE). Soft: it is rekeyed. Hard: the
    /// kernel has dropped it; the peer is told, and asked for a new one. What is not known (any
    /// more) is ignored.
    pub fn handle_expire(&mut self, now: Instant, child: ChildId, hard: bool) {
        self.with_child(now, child.spi_in, |sa, core, spi| {
            if hard {
                sa.expire_child(core, spi);
            } else {
                sa.rekey_child(spi);
            }
        });
    }

    /// Lets an IKE SA do something, if it is there.
    pub(super) fn with_sa(
        &mut self,
        now: Instant,
        local_spi: [u8; 8],
        work: impl FnOnce(&mut IkeSa, &mut Core),
    ) {
        self.at_sa(now, local_spi, |sa, core| {
            work(sa, core);
            Step::Waiting
        });
    }

    /// As [`Self::with_sa`], and sees to what comes of it.
    pub(super) fn at_sa(
        &mut self,
        now: Instant,
        local_spi: [u8; 8],
        work: impl FnOnce(&mut IkeSa, &mut Core) -> Step,
    ) {
        if let Some(mut sa) = self.sas.remove(&local_spi) {
            let step = work(&mut sa, &mut self.core);
            self.settle(now, sa, step);
        }
    }

    /// Lets the IKE SA of a child do something.
    pub(super) fn with_child(
        &mut self,
        now: Instant,
        spi_in: [u8; 4],
        work: impl FnOnce(&mut IkeSa, &mut Core, [u8; 4]),
    ) {
        if let Some(owner) = self.core.esp_spis.owner(&spi_in) {
            self.with_sa(now, owner, |sa, core| work(sa, core, spi_in));
        }
    }

    pub(super) fn rekey(&mut self, now: Instant, target: Target) {
        match target {
            Target::Ike(spi) => self.with_sa(now, spi, |sa, _| sa.request_rekey()),
            Target::Child(spi) => self.with_child(now, spi, |sa, _, spi| sa.rekey_child(spi)),
        }
    }

    pub(super) fn terminate(&mut self, now: Instant, target: Target) {
        match target {
            Target::Ike(spi) => self.at_sa(now, spi, |sa, _| sa.terminate()),
            Target::Child(spi) => self.with_child(now, spi, |sa, _, spi| sa.terminate_child(spi)),
        }
    }

    /// We have rekeyed an IKE SA. RFC 7296 §2.8.2: of two successors "the new IKE SA containing the
    /// lowest nonce SHOULD be deleted by the node that created it, and the other surviving new IKE
    /// SA MUST inherit all the Child SAs"; its creator also deletes the old one.
    pub(super) fn succeeded(&mut self, now: Instant, mut sa: Box<IkeSa>, succession: Succession) {
        let Succession {
            successor,
            rival,
            lost,
            rival_to_come,
        } = succession;
        let mut successor = Box::new(successor);
        let local_spi = successor.local_spi;
        match rival.filter(|rival| self.sas.contains_key(rival)) {
            Some(rival) if lost || sa.is_replaced() => {
                self.bequeath(now, &mut sa, rival);
                successor.terminate();
                self.add_successor(now, successor);
                self.finish_succession(now, sa, local_spi);
                return self.with_sa(now, rival, |_, _| ());
            }
            // The peer goes on to make its own, which will inherit.
            _ if rival_to_come => {
                successor.terminate();
                self.add_successor(now, successor);
                return self.finish_succession(now, sa, local_spi);
            }
            rival => {
                successor.inherit(&mut self.core, &mut sa);
                self.add_successor(now, successor);
                if let Some(mut rival) = rival.and_then(|rival| self.sas.remove(&rival)) {
                    rival.await_delete(&mut self.core, now);
                    self.keep(now, rival);
                }
                sa.terminate();
                self.superseded(now, &mut sa, local_spi);
            }
        }
        self.finish_succession(now, sa, local_spi);
    }

    fn finish_succession(&mut self, now: Instant, sa: Box<IkeSa>, local_spi: [u8; 8]) {
        // The successor does nothing before the old one's record says that it has one: until then
        // a replica takes it for one that was never used.
        self.keep(now, sa);
        self.with_sa(now, local_spi, |_, _| ());
    }

    /// The peer uses the successor that it made while we are still waiting for the answer to our own
    /// rekeying: so it has decided for its own (RFC 7296 §2.8.2), and the children belong there
    /// before the request is looked at.
    pub(super) fn decide_by_use(
        &mut self,
        now: Instant,
        sa: &mut Box<IkeSa>,
        message: &Message<'_>,
    ) {
        let spi = sa.local_spi;
        let predecessor = sa.established().and_then(|e| e.predecessor);
        let undecided = |old: &IkeSa| old.rival() == Some(spi) && !old.is_replaced();
        let Some(predecessor) = predecessor
            .filter(|old| self.sas.get(old).is_some_and(|old| undecided(old)))
            .filter(|_| sa.is_used_by(&self.core, message))
        else {
            return;
        };
        if let Some(mut old) = self.sas.remove(&predecessor) {
            sa.inherit(&mut self.core, &mut old);
            sa.publish(&mut self.core, now);
            self.superseded(now, &mut old, spi);
            self.keep(now, old);
        }
    }

    /// Gives the children to the peer's successor, if it still is. Its record goes out first; what
    /// it asks for next it asks when the old one is back in the table, or gone: the peer may not know
    /// it yet.
    pub(super) fn bequeath(&mut self, now: Instant, sa: &mut IkeSa, rival: [u8; 8]) {
        let Some(mut heir) = self.sas.remove(&rival) else {
            return;
        };
        let decided = sa.is_replaced();
        heir.inherit(&mut self.core, sa);
        heir.publish_if_dirty(&mut self.core, now);
        self.sas.insert(rival, heir);
        if !decided {
            self.superseded(now, sa, rival);
        }
    }

    /// Successors of an IKE SA that the peer has made and may not know.
    pub(super) fn unconfirmed_heirs(&self, sa: &IkeSa) -> Vec<[u8; 8]> {
        let kin = self.kin(sa).filter_map(|spi| self.sas.get(&spi));
        kin.filter(|heir| heir.unconfirmed_successor_of() == Some(sa.local_spi))
            .map(|heir| heir.local_spi)
            .collect()
    }

    pub(super) fn has_unconfirmed_heir(&self, spi: [u8; 8]) -> bool {
        let sa = self.sas.get(&spi);
        sa.is_some_and(|sa| !self.unconfirmed_heirs(sa).is_empty())
    }

    /// Their predecessor is gone: they are all that the peer can know. If it did not answer under that
    /// one, it may because it has deleted it, so it is asked again.
    pub(super) fn release(&mut self, now: Instant, heirs: &[[u8; 8]], cause: Cause) {
        for heir in heirs {
            self.with_sa(now, *heir, |heir, _| {
                if cause == Cause::Failure {
                    heir.request_liveness();
                }
            });
        }
    }
}
