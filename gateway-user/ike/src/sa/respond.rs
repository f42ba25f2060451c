//! From a datagram to its exchange, and from an answer to the wire.

use gateway_common::time::Instant;

use super::reassembly::{Unsealed, Whole};
use super::window::{Arrival, CachedResponse};
use super::{Answer, Cause, IkeSa, Pending, Request, Silence, State, Step};
use crate::endpoint::core::Core;
use crate::error::{IkeError, LocalError, PeerError, notify_for};
use crate::output::{ChildId, EventKind, KernelRequest, Path};
use crate::record::{ChildState, Role};
use crate::wire::{
    Body, EncryptedPacket, ExchangeType, Message, MessageBuilder, NotifyType, Opened, Payload,
    WireError,
};

/// The last answer of an IKE SA that is gone, for the retransmissions of its request.
pub(crate) struct Farewell {
    pub(crate) response: CachedResponse,
    pub(crate) path: Path,
}

impl IkeSa {
    /// Takes a request that carries our SPI. Nothing changes before its integrity check succeeds.
    pub(crate) fn handle_request(
        &mut self,
        core: &mut Core,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Step {
        let header = *message.header();
        // What we have initiated answers nothing before all members know it.
        if self.role == Role::Initiator && !self.announced {
            return Step::Dropped(Silence::InProgress);
        }
        let digest = || core.crypto.sha256(&[message.bytes()]);
        match self.window.classify(header.message_id, digest) {
            Arrival::New => {}
            Arrival::InProgress => return Step::Dropped(Silence::InProgress),
            Arrival::Outside => return self.handle_outside(core, now, path, message),
            Arrival::Retransmission(last, delta) => {
                // RFC 7296 §2.11: to where the retransmission came from.
                let bytes = last.bytes.to_vec();
                core.counters.retransmissions_answered += 1;
                core.out.transmit(path, bytes, self.slot, delta);
                return Step::Waiting;
            }
        }
        let Whole { opened, digest } = match self.unseal(core, now, message) {
            Ok(Some(whole)) => whole,
            Ok(None) => return Step::Waiting,
            Err(Unsealed::Dropped(silence)) => return Step::Dropped(silence),
            Err(Unsealed::Malformed(error)) => {
                let request = self.request(core, path, message);
                return self.refuse(core, request, &error.into());
            }
        };
        if !self.admits(header.exchange) {
            return Step::Dropped(Silence::UnexpectedExchange);
        }
        let request = Request {
            header,
            path,
            digest,
        };
        // On a successor, Message ID 0 is also that of the first ordinary request.
        if let Ok(payloads) = opened.payloads()
            && header.message_id == 0
            && header.exchange == ExchangeType::INFORMATIONAL
            && payloads.has_notify(NotifyType::IKEV2_MESSAGE_ID_SYNC)
            && self.established().is_some_and(|e| e.peer_syncs)
        {
            return match self.answer_sync(core, now, request, &payloads) {
                Ok(step) => step,
                Err(silence) => Step::Dropped(silence),
            };
        }
        self.heard(now);
        self.move_to(core, path);
        let step = if header.exchange == ExchangeType::IKE_INTERMEDIATE {
            self.take_intermediate(core, request, message, &opened)
        } else {
            self.dispatch(core, now, request, &opened)
        };
        match step {
            Ok(step) => step,
            Err(error) => self.refuse(core, request, &error),
        }
    }

    /// Before authentication only IKE_AUTH is answered, and what was agreed on to come before it;
    /// afterwards every request is (RFC 7296 §2.21.3).
    pub(super) fn admits(&self, exchange: ExchangeType) -> bool {
        match &self.state {
            State::ExpectAuth(init) if init.intermediate.is_pending() => {
                exchange == ExchangeType::IKE_INTERMEDIATE
            }
            State::ExpectAuth(init) => {
                init.decision.is_none() && exchange == ExchangeType::IKE_AUTH
            }
            _ => true,
        }
    }

    fn take_intermediate(
        &mut self,
        core: &mut Core,
        request: Request,
        message: &Message<'_>,
        opened: &Opened,
    ) -> Result<Step, IkeError> {
        core.counters.exchanges_processed += 1;
        let (Body::Encrypted(sealed) | Body::Fragment(_, sealed)) = message.body() else {
            return Err(PeerError::Syntax("IKE_INTERMEDIATE in clear").into());
        };
        let content = sealed.int_auth_content(opened);
        self.intermediate(core, request, &content, &opened.payloads()?)
    }

    fn request(&self, core: &Core, path: Path, message: &Message<'_>) -> Request {
        Request {
            header: *message.header(),
            path,
            digest: core.crypto.sha256(&[message.bytes()]),
        }
    }

    pub(super) fn open(
        &self,
        core: &Core,
        encrypted: &EncryptedPacket<'_>,
    ) -> Result<Opened, WireError> {
        let (_, theirs) = self.sk_e();
        encrypted.open(&*core.crypto, self.proposal.encryption, theirs)
    }

    fn dispatch(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        opened: &Opened,
    ) -> Result<Step, IkeError> {
        core.counters.exchanges_processed += 1;
        let counter = match request.header.exchange {
            ExchangeType::IKE_AUTH => &mut core.counters.auth_requests,
            ExchangeType::CREATE_CHILD_SA => &mut core.counters.create_child_requests,
            ExchangeType::INFORMATIONAL => &mut core.counters.informational_requests,
            ExchangeType::IKE_FOLLOWUP_KE => &mut core.counters.followup_ke_requests,
            _ => return Err(PeerError::Syntax("unknown exchange type").into()),
        };
        *counter += 1;
        let payloads = opened.payloads()?;
        match request.header.exchange {
            ExchangeType::IKE_AUTH => self.auth(core, now, request, opened),
            ExchangeType::CREATE_CHILD_SA => self.create_child_sa(core, now, request, &payloads),
            ExchangeType::IKE_FOLLOWUP_KE => self.follow_up(core, now, request, &payloads),
            _ => self.informational(core, now, request, &payloads),
        }
    }

    /// A request outside the window. Only a synchronisation of Message IDs may be (RFC 6311 §5),
    /// and only if both sides said that they can do it.
    fn handle_outside(
        &mut self,
        core: &mut Core,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Step {
        let header = *message.header();
        if let Some(bytes) = self.window.response(header.message_id)
            && self.is_refragmented(core, message)
        {
            let bytes = bytes.to_vec();
            core.counters.retransmissions_answered += 1;
            core.out
                .transmit(path, bytes, self.slot, self.window.delta());
            return Step::Waiting;
        }
        let expects_sync = self.established().is_some_and(|e| e.peer_syncs);
        let looks_like_sync =
            header.message_id == 0 && header.exchange == ExchangeType::INFORMATIONAL;
        let Body::Encrypted(encrypted) = message.body() else {
            return Step::Dropped(Silence::MessageId);
        };
        if self.is_overtaken(core, now, message) {
            return Step::Waiting;
        }
        if !expects_sync || !looks_like_sync {
            return Step::Dropped(Silence::MessageId);
        }
        let request = self.request(core, path, message);
        if let Some(last) = self.established().and_then(|e| e.last_sync.as_ref())
            && last.request_digest == request.digest
        {
            // It comes again because our answer was lost.
            core.counters.retransmissions_answered += 1;
            let bytes = last.bytes.to_vec();
            core.out.transmit(path, bytes, self.slot, None);
            return Step::Waiting;
        }
        let Ok(opened) = self.open(core, encrypted) else {
            return Step::Dropped(Silence::Integrity);
        };
        let Ok(payloads) = opened.payloads() else {
            return Step::Dropped(Silence::MessageId);
        };
        match self.answer_sync(core, now, request, &payloads) {
            Ok(step) => step,
            Err(silence) => Step::Dropped(silence),
        }
    }

    /// Seals and sends an answer that the window knows nothing of.
    pub(super) fn answer_outside_window(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        message: MessageBuilder,
    ) {
        let path = request.path;
        if let Some(response) = self.seal(core, Answer { request, message }) {
            let delta = self.publish(core, now);
            core.out
                .transmit(path, response.bytes.to_vec(), self.slot, delta);
            if let Some(established) = self.established_mut() {
                established.last_sync = Some(response);
            }
        }
    }

    /// The answer to a request that cannot be granted: one NOTIFY (RFC 7296 §2.21).
    pub(super) fn refuse(&mut self, core: &mut Core, request: Request, error: &IkeError) -> Step {
        let in_auth = request.header.exchange == ExchangeType::IKE_AUTH;
        self.failed(core, exchange_name(request.header.exchange), error);
        if matches!(error, IkeError::Peer(PeerError::Authentication(_))) {
            core.counters.authentication_failures += 1;
        }
        let notify = notify_for(error);
        let message =
            MessageBuilder::new(request.header.to_response()).with(&Payload::Notify(notify.repr()));
        let answer = Answer { request, message };
        // An IKE SA that is not authenticated has nothing to live on for.
        let unauthenticated = matches!(self.state, State::ExpectAuth(_));
        if error.is_fatal(in_auth) || unauthenticated {
            Step::Close(answer, Cause::Failure, "a fatal error was answered")
        } else {
            Step::Answer(answer)
        }
    }

    /// Tells the operator of a failure.
    pub(super) fn failed(&self, core: &mut Core, what: &str, error: &IkeError) {
        self.event(
            core,
            EventKind::ExchangeFailed {
                reason: format!("{what}: {error}"),
            },
        );
    }

    /// Seals an answer, remembers it, and lets it go as soon as the record of what it says is on
    /// every replica. `false` if it cannot be sealed; then the IKE SA is of no use any more.
    pub(crate) fn answer(&mut self, core: &mut Core, now: Instant, answer: Answer) -> bool {
        let path = answer.request.path;
        let Some(response) = self.seal(core, answer) else {
            return false;
        };
        let bytes = response.bytes.to_vec();
        self.window.complete(response);
        if let State::ExpectAuth(init) = &mut self.state {
            // RFC 9370 §2.2.2: the answer itself is still under the keys before it. It is no part
            // of any record: only this member has the negotiation.
            if let Some(keys) = init.intermediate.take_next_keys() {
                self.keys = keys;
            }
            core.out.transmit(path, bytes, self.slot, None);
        } else if let Some(delta) = self.publish(core, now) {
            self.window.depends_on(delta);
            core.out.transmit(path, bytes, self.slot, Some(delta));
        }
        true
    }

    /// Seals the last answer of this IKE SA.
    pub(crate) fn farewell(&mut self, core: &mut Core, answer: Answer) -> Option<Farewell> {
        let path = answer.request.path;
        let response = self.seal(core, answer)?;
        Some(Farewell { response, path })
    }

    fn seal(&mut self, core: &mut Core, answer: Answer) -> Option<CachedResponse> {
        match self.seal_message(core, answer.request.path, answer.message) {
            Ok(bytes) => Some(CachedResponse {
                message_id: answer.request.header.message_id,
                request_digest: answer.request.digest,
                bytes: bytes.into(),
            }),
            Err(error) => {
                self.failed(core, "answer", &error);
                None
            }
        }
    }

    /// Takes the kernel's answer for the child that this IKE SA waits for. `None` if it does not
    /// wait for this one.
    pub(crate) fn handle_kernel(
        &mut self,
        core: &mut Core,
        now: Instant,
        child: ChildId,
        outcome: Result<(), String>,
    ) -> Option<Step> {
        if let Some(step) = self.own_child_answered(core, now, child, &outcome) {
            return Some(step);
        }
        let established = self.established_mut()?;
        let pending = established
            .pending
            .take_if(|pending| pending.child.id() == child)?;
        core.stop_waiting(self.local_spi, &pending);
        Some(match outcome {
            Ok(()) => self.child_installed(core, now, *pending),
            Err(reason) => self.child_refused(core, *pending, reason),
        })
    }

    /// The kernel did not answer in time. It may still do what it was asked, so it is asked to undo
    /// it.
    pub(crate) fn kernel_timeout(&mut self, core: &mut Core) -> Option<Step> {
        let pending = self.established_mut()?.pending.take()?;
        core.out.kernel(KernelRequest::Remove {
            child: pending.child.id(),
        });
        Some(self.child_refused(core, *pending, "no answer in time".to_owned()))
    }

    fn child_installed(&mut self, core: &mut Core, now: Instant, pending: Pending) -> Step {
        core.counters.child_sas_installed += 1;
        core.counters.child_rekeys += u64::from(pending.replaces.is_some());
        let id = pending.child.id();
        let mut child = self.new_child(core, now, *pending.child);
        if pending.lost {
            child.state = ChildState::Replaced;
        }
        core.start_lifetime(&child);
        if let Some(established) = self.established_mut() {
            established.children.push(child);
            established.end_follow_up(id.spi_in);
            // RFC 7296 §2.8: the peer, who asked, deletes the old one.
            let replaced = pending.replaces.filter(|_| !pending.lost);
            if let Some(old) = replaced.and_then(|old| established.child_mut(old.spi_in))
                && old.state == ChildState::Current
            {
                old.state = ChildState::Replaced;
            }
        }
        self.event(
            core,
            EventKind::ChildSaInstalled {
                child: id,
                replaces: pending.replaces,
            },
        );
        let answer = Answer {
            request: pending.request,
            message: pending.installed,
        };
        match pending.establishes {
            Some(establishment) => Step::Establish(establishment, answer),
            None => Step::Answer(answer),
        }
    }

    /// RFC 7296 §1.3.1: "A failed attempt to create a Child SA SHOULD NOT tear down the IKE SA".
    fn child_refused(&mut self, core: &mut Core, pending: Pending, reason: String) -> Step {
        core.counters.kernel_failures += 1;
        core.esp_spis.release(&pending.child.spi_in);
        if let Some(established) = self.established_mut() {
            established.end_follow_up(pending.child.spi_in);
        }
        let error = LocalError::Kernel(reason).into();
        self.failed(core, "CHILD_SA", &error);
        let notify = notify_for(&error);
        let answer = Answer {
            request: pending.request,
            message: pending.refused.with(&Payload::Notify(notify.repr())),
        };
        match pending.establishes {
            Some(establishment) => Step::Establish(establishment, answer),
            None => Step::Answer(answer),
        }
    }
}

fn exchange_name(exchange: ExchangeType) -> &'static str {
    exchange.name().unwrap_or("unknown exchange")
}
