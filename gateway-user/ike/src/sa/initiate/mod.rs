//! Exchanges that we initiate, one at a time (a window of one, RFC 7296 §2.3).
//!
//! What is to be done is a [`Task`]; as soon as nothing is outstanding the most urgent one becomes
//! a request. Request, record and everything that the response will need go out as one delta, so
//! that any other member can send the same octets again and use the response.

mod child;
mod close;
mod confirm;
mod follow_up;
mod ike;
mod install;
mod lifetime;
mod reconcile;
mod response;
mod sync;

use std::time::Duration;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use super::clock::{Clock, jitter};
use super::{Cause, Established, IkeSa, Step};
use crate::config::{Gateway, Limits};
use crate::endpoint::core::Core;
use crate::error::{IkeError, LocalError};
use crate::output::{Change, ChildId, ChildSa, DeltaId, EventKind, KernelRequest};
use crate::record::{OutstandingRequest, Purpose, Role};
use crate::wire::{EncodeError, ExchangeType, HeaderRepr, MessageBuilder};

pub(super) use self::child::Offered;
pub(crate) use self::ike::Succession;

/// How often a request is sent again before Message IDs are synchronised without its answer.
const PATIENCE: u32 = 2;

/// Something to ask the peer for, most urgent first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// RFC 6311: whatever comes before may be dropped by the peer.
    SyncMessageIds,
    /// DELETE of the IKE SA.
    CloseIke,
    /// UPDATE_SA_ADDRESSES (RFC 4555).
    UpdateAddresses,
    /// A check that the peer is where it says to be.
    VerifyPath,
    /// DELETE of all children in state `Closing`, and of those that only the peer has.
    CloseChildren,
    /// A successor of the child with this inbound SPI.
    RekeyChild([u8; 4]),
    /// A child of this name, from scratch.
    CreateChild(String),
    /// A successor of the IKE SA.
    RekeyIke,
    /// REDIRECT to another gateway (RFC 5685).
    Redirect(Gateway),
    /// Is the peer alive?
    Liveness,
}

/// A request that waits for its response.
pub(crate) struct Outstanding {
    pub(super) request: OutstandingRequest,
    /// How often it was sent again.
    resent: u32,
    /// When it was sent first; `None` after an import.
    asked_at: Option<Instant>,
    /// The delta that it is in; `None` after an import.
    delta: Option<DeltaId>,
    /// The response has come, and the kernel is installing what it agreed to.
    pub(super) installing: Option<Box<Installing>>,
}

/// A child of ours that waits for the kernel.
pub(super) struct Installing {
    pub(super) child: Box<ChildSa>,
    replaces: Option<ChildId>,
    /// The lower one of the exchange's nonces.
    lowest_nonce: Vec<u8>,
}

impl Outstanding {
    fn move_to_slot(&mut self, slot: Slot) {
        if let Some(installing) = &mut self.installing {
            installing.child.slot = slot;
        }
        if let Purpose::Child(offer) = &mut self.request.purpose
            && let Some(follow_up) = &mut offer.follow_up
        {
            follow_up.move_to_slot(slot);
        }
    }

    /// From a record: it is sent again from the beginning.
    pub(super) fn resume(request: OutstandingRequest) -> Self {
        Self {
            request,
            resent: 0,
            asked_at: None,
            delta: None,
            installing: None,
        }
    }
}

/// A request that is ready to be sealed.
struct Draft {
    message_id: u32,
    message: MessageBuilder,
    purpose: Purpose,
}

impl IkeSa {
    /// Adds something to be done. Does nothing before authentication.
    pub(crate) fn add_task(&mut self, task: Task) {
        if let Some(established) = self.established_mut() {
            established.deferred.retain(|(_, other)| *other != task);
            established.tasks.insert(task);
        }
    }

    /// Adds a liveness check, a rekeying or a DELETE on behalf of the driver.
    pub(crate) fn request_liveness(&mut self) {
        self.add_task(Task::Liveness);
    }

    /// Whether a request of ours waits for its answer.
    pub(crate) fn is_asking(&self) -> bool {
        self.established().is_some_and(|e| e.outstanding.is_some())
    }

    /// Asks for a successor, unless it has one.
    pub(crate) fn request_rekey(&mut self) {
        self.add_task(Task::RekeyIke);
    }

    /// Its children stay where they are, but all of it moves to another slot.
    pub(crate) fn move_to_slot(&mut self, slot: Slot) {
        self.slot = slot;
        if let Some(established) = self.established_mut() {
            established.dirty = true;
            for child in &mut established.children {
                child.sa.slot = slot;
            }
            if let Some(pending) = &mut established.pending {
                pending.child.slot = slot;
            }
            for awaited in &mut established.follow_ups {
                awaited.follow_up.move_to_slot(slot);
            }
            if let Some(outstanding) = &mut established.outstanding {
                outstanding.move_to_slot(slot);
            }
        }
    }

    /// It lost against another successor; the peer, who made it, deletes it.
    pub(crate) fn await_delete(&mut self, core: &mut Core, now: Instant) {
        if let Some(established) = self.established_mut() {
            established.replaced = true;
            established.dirty = true;
        }
        self.start_clocks(core, now);
    }

    /// Goes on from a record: what is to be done waits for the next time-out.
    pub(crate) fn resume(&mut self, core: &mut Core, now: Instant) {
        self.start_clocks(core, now);
        if let Some(established) = self.established_mut() {
            let tasks = std::mem::take(&mut established.tasks);
            established
                .deferred
                .extend(tasks.into_iter().map(|task| (now, task)));
        }
        self.wait_for_deferred(core);
    }

    /// Inbound SPIs of CHILD_SAs to come: that which an outstanding request has offered, and those of
    /// the peer's additional key exchanges.
    pub(crate) fn reserved_esp_spis(&self) -> impl Iterator<Item = [u8; 4]> + '_ {
        let offered = match self.purpose() {
            Some(Purpose::Child(offer)) => Some(offer.spi_in),
            _ => None,
        };
        offered.into_iter().chain(self.awaited_spis().0)
    }

    /// The same of IKE SPIs.
    pub(crate) fn reserved_ike_spis(&self) -> impl Iterator<Item = [u8; 8]> + '_ {
        let offered = match self.purpose() {
            Some(Purpose::RekeyIke(offer)) => Some(offer.spi),
            _ => None,
        };
        offered.into_iter().chain(self.awaited_spis().1)
    }

    /// What the outstanding request is for.
    pub(in crate::sa) fn purpose(&self) -> Option<&Purpose> {
        let outstanding = self.established()?.outstanding.as_ref()?;
        Some(&outstanding.request.purpose)
    }

    /// To be called whenever an input has been dealt with: starts the next exchange, and publishes
    /// the record if it changed. `Some` if the IKE SA is over.
    pub(crate) fn advance(&mut self, core: &mut Core, now: Instant) -> Option<Step> {
        if !self.announced {
            return None;
        }
        while let Some(task) = self.next_task() {
            match self.start(core, now, &task) {
                Ok(true) => break,
                // There is nothing left of it to do.
                Ok(false) => {}
                Err(error) => {
                    self.failed(core, "request", &error);
                    if task == Task::CloseIke {
                        return Some(Step::Gone(Cause::Failure, "its DELETE cannot be sealed"));
                    }
                    if is_final(&error) {
                        return Some(Step::Gone(Cause::Failure, "it can send nothing any more"));
                    }
                    self.defer(core, now, task);
                }
            }
        }
        self.publish_if_dirty(core, now);
        None
    }

    /// Takes out the most urgent task that may start now.
    fn next_task(&mut self) -> Option<Task> {
        let established = self.established_mut()?;
        if established.outstanding.is_some() || established.held {
            return None;
        }
        // RFC 7296 §2.18: a replaced IKE SA makes nothing new; while the kernel installs a child for
        // the peer, rekeying the IKE SA would only be refused (§2.25.1).
        let (replaced, installing) = (established.replaced, established.pending.is_some());
        let closing = established.closing;
        // RFC 9370 §2.2.4: additional key exchanges of the peer are to come to their end first.
        let ike_awaited = established.awaits_successor();
        let child_awaited = established.awaits_child();
        let awaited = |task: &&Task| match task {
            Task::RekeyIke => ike_awaited || child_awaited,
            // While the kernel installs the peer's successor of it, the two would not be seen to collide.
            Task::RekeyChild(spi) => {
                let pending = established.pending.as_ref().and_then(|p| p.replaces);
                ike_awaited
                    || established.awaits_successor_of(*spi)
                    || pending.is_some_and(|old| old.spi_in == *spi)
            }
            Task::CloseChildren | Task::CreateChild(_) => ike_awaited,
            _ => false,
        };
        let task = established
            .tasks
            .iter()
            .filter(|task| !awaited(task))
            .find(|task| match task {
                Task::SyncMessageIds | Task::CloseIke => true,
                Task::UpdateAddresses | Task::VerifyPath | Task::Redirect(_) | Task::Liveness => {
                    !closing
                }
                Task::CloseChildren | Task::RekeyChild(_) | Task::CreateChild(_) => {
                    !replaced && !closing
                }
                Task::RekeyIke => !replaced && !installing && !closing,
            })?
            .clone();
        established.tasks.remove(&task);
        Some(task)
    }

    /// Makes a request of a task and sends it. `false` if there is nothing to ask for any more.
    fn start(&mut self, core: &mut Core, now: Instant, task: &Task) -> Result<bool, IkeError> {
        let draft = match task {
            Task::SyncMessageIds => self.draft_sync(core)?,
            Task::CloseIke => Some(self.draft_close()?),
            Task::CloseChildren => self.draft_close_children()?,
            Task::RekeyChild(spi) => self.draft_rekey_child(core, *spi)?,
            Task::CreateChild(name) => self.draft_child(core, name)?,
            Task::RekeyIke => Some(self.draft_rekey(core)?),
            Task::UpdateAddresses => Some(self.draft_update(core)?),
            Task::VerifyPath => Some(self.draft_check(core)?),
            Task::Redirect(gateway) => Some(self.draft_redirect(gateway)?),
            Task::Liveness => Some(self.draft_empty()?),
        };
        let Some(draft) = draft else {
            return Ok(false);
        };
        self.send_request(core, now, draft)?;
        Ok(true)
    }

    /// The header of our next request.
    fn next_header(&self, exchange: ExchangeType) -> Result<HeaderRepr, IkeError> {
        let next = self.established().map_or(0, |e| e.next_request);
        // RFC 7296 §2.2: Message IDs do not wrap; the IKE SA has to end before.
        let id = u32::try_from(next).map_err(|_| LocalError::NoMessageId)?;
        Ok(self.header(exchange, id))
    }

    fn header(&self, exchange: ExchangeType, message_id: u32) -> HeaderRepr {
        let (initiator_spi, responder_spi) = match self.role {
            Role::Initiator => (self.local_spi, self.remote_spi),
            Role::Responder => (self.remote_spi, self.local_spi),
        };
        HeaderRepr {
            initiator_spi,
            responder_spi,
            exchange,
            from_initiator: self.role == Role::Initiator,
            response: false,
            message_id,
        }
    }

    /// Seals and sends; the first transmission waits for the record.
    fn send_request(
        &mut self,
        core: &mut Core,
        now: Instant,
        draft: Draft,
    ) -> Result<(), IkeError> {
        let bytes = self.seal_message(core, self.path, draft.message)?;
        let counts = !matches!(draft.purpose, Purpose::SyncMessageIds(_));
        let request = OutstandingRequest {
            message_id: draft.message_id,
            bytes: bytes.as_slice().into(),
            purpose: draft.purpose,
        };
        if let Some(established) = self.established_mut() {
            if counts {
                established.next_request = u64::from(draft.message_id) + 1;
            }
            established.outstanding = Some(Box::new(Outstanding::resume(request)));
        }
        core.counters.requests_sent += 1;
        self.start_retransmission(core, now);
        let delta = self.publish(core, now);
        if let Some(outstanding) = self.outstanding_mut() {
            outstanding.delta = delta;
            outstanding.asked_at = Some(now);
        }
        core.out.transmit(self.path, bytes, self.slot, delta);
        Ok(())
    }

    fn outstanding_mut(&mut self) -> Option<&mut Outstanding> {
        self.established_mut()?.outstanding.as_deref_mut()
    }

    /// RFC 7296 §2.1, §2.4: with growing intervals, so that a network that is overloaded is not
    /// kept so; with jitter, because after a takeover many do it.
    fn start_retransmission(&mut self, core: &mut Core, now: Instant) {
        let resent = self.outstanding_mut().map_or(0, |o| o.resent);
        let interval = retransmission_interval(&core.config.limits, resent);
        let interval = interval + jitter(&*core.crypto, interval / 8);
        self.set_clock(core, Clock::Retransmit, now + interval);
    }

    /// The response has not come in time.
    fn retransmit(&mut self, core: &mut Core, now: Instant) -> Step {
        let slot = self.slot;
        let tries = core.config.limits.retransmit_tries;
        let Some(outstanding) = self.outstanding_mut() else {
            return Step::Waiting;
        };
        let resent = outstanding.resent;
        if resent >= tries {
            return self.give_up(core, now);
        }
        if resent >= PATIENCE && self.wants_sync() {
            self.ask_anew(core);
            return Step::Waiting;
        }
        let Some(outstanding) = self.outstanding_mut() else {
            return Step::Waiting;
        };
        outstanding.resent += 1;
        let (bytes, delta) = (outstanding.request.bytes.to_vec(), outstanding.delta);
        core.counters.requests_resent += 1;
        let path = self.retransmission_path(resent + 1);
        core.out.transmit(path, bytes, slot, delta);
        self.start_retransmission(core, now);
        Step::Waiting
    }

    /// RFC 7296 §2.4: the peer is dead when "repeated attempts to contact it have gone unanswered
    /// for a timeout period".
    fn give_up(&mut self, core: &mut Core, now: Instant) -> Step {
        let purpose = self.outstanding_mut().map(|o| o.request.purpose.clone());
        match purpose {
            // The peer drops what it takes for a replay (RFC 6311 §5.1); a liveness check tells
            // whether it is alive.
            Some(Purpose::SyncMessageIds(_)) => {
                self.drop_outstanding(core);
                self.add_task(Task::Liveness);
                self.event(
                    core,
                    EventKind::ExchangeFailed {
                        reason: "Message ID synchronisation: no answer".to_owned(),
                    },
                );
                Step::Waiting
            }
            Some(Purpose::CloseIke) => Step::Gone(
                self.cause_of_closing(),
                "deleted by us, without an answer of the peer",
            ),
            // The peer is there; what it answers another member hears, and takes for its own.
            _ if core.divided && self.heard_since() => {
                self.drop_outstanding(core);
                self.ask_later(core, now, purpose);
                Step::Waiting
            }
            _ => {
                core.counters.peers_lost += 1;
                Step::Gone(Cause::Failure, "the peer does not answer")
            }
        }
    }

    /// The response has come, or nobody waits for it any more.
    pub(super) fn take_outstanding(&mut self, core: &mut Core) -> Option<Outstanding> {
        self.stop_clock(core, Clock::Retransmit);
        self.stop_clock(core, Clock::Install);
        let established = self.established_mut()?;
        established.dirty |= established.outstanding.is_some();
        established
            .outstanding
            .take()
            .map(|outstanding| *outstanding)
    }

    /// Gives up the outstanding request: what was reserved for it, and what the kernel was asked
    /// for.
    pub(super) fn drop_outstanding(&mut self, core: &mut Core) {
        if let Some(installing) = self.forget_outstanding(core) {
            core.out.kernel(KernelRequest::Remove {
                child: installing.child.id(),
            });
        }
    }

    /// As [`Self::drop_outstanding`], without a word to the kernel.
    pub(super) fn forget_outstanding(&mut self, core: &mut Core) -> Option<Box<Installing>> {
        let outstanding = self.take_outstanding(core)?;
        match outstanding.request.purpose {
            Purpose::Child(offer) => core.esp_spis.release(&offer.spi_in),
            Purpose::RekeyIke(offer) => {
                core.ike_spis.remove(&offer.spi);
            }
            _ => {}
        }
        outstanding.installing
    }

    /// Publishes the record; `None` before authentication.
    pub(crate) fn publish(&mut self, core: &mut Core, now: Instant) -> Option<DeltaId> {
        let record = self.export(now)?;
        if let Some(established) = self.established_mut() {
            established.dirty = false;
            established.contact = None;
        }
        Some(core.out.delta(self.slot, Change::Upsert(Box::new(record))))
    }

    pub(crate) fn publish_if_dirty(&mut self, core: &mut Core, now: Instant) {
        if self.established().is_some_and(|e| e.dirty) {
            self.publish(core, now);
        }
    }
}

/// How long a request that was sent again `resent` times waits, without jitter.
fn retransmission_interval(limits: &Limits, resent: u32) -> Duration {
    let first = limits.retransmit_timeout;
    (0..resent.min(32)).fold(first, |interval, _| interval.saturating_mul(9) / 5)
}

/// Whether no later request can be sent either, not even a DELETE: the Message IDs (RFC 7296 §2.2:
/// the IKE SA MUST be closed) or the IVs under its key are used up.
fn is_final(error: &IkeError) -> bool {
    matches!(
        error,
        IkeError::Local(LocalError::NoMessageId | LocalError::Encode(EncodeError::NoIv))
    )
}
