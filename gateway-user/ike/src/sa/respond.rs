//! From a datagram to its exchange, and from an answer to the wire.

use gateway_common::time::Instant;

use super::window::{Arrival, CachedResponse};
use super::{Answer, Child, IkeSa, Pending, Request, Silence, State, Step};
use crate::endpoint::core::Core;
use crate::error::{IkeError, LocalError, PeerError, notify_for};
use crate::output::{Change, ChildId, EventKind, KernelRequest, Path};
use crate::wire::{
    Body, EncryptedPacket, ExchangeType, Message, MessageBuilder, Opened, Payload, WireError,
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
        let digest = || core.crypto.sha256(&[message.bytes()]);
        match self.window.classify(header.message_id, digest) {
            Arrival::New => {}
            Arrival::InProgress => return Step::Dropped(Silence::InProgress),
            Arrival::Outside => return Step::Dropped(Silence::MessageId),
            Arrival::Retransmission(last, delta) => {
                // RFC 7296 §2.11: to where the retransmission came from.
                let bytes = last.bytes.to_vec();
                core.counters.retransmissions_answered += 1;
                core.out.transmit(path, bytes, self.slot, delta);
                return Step::Waiting;
            }
        }
        let Body::Encrypted(encrypted) = message.body() else {
            return Step::Dropped(Silence::Integrity);
        };
        let opened = match self.open(core, encrypted) {
            Ok(opened) => opened,
            Err(WireError::EncryptedTooShort(_) | WireError::Crypto(_)) => {
                return Step::Dropped(Silence::Integrity);
            }
            Err(error) => {
                let request = self.request(core, path, message);
                return self.refuse(core, request, &error.into());
            }
        };
        // Before authentication only IKE_AUTH is answered; afterwards every request is (RFC 7296
        // §2.21.3).
        let in_auth = header.exchange == ExchangeType::IKE_AUTH;
        if matches!(self.state, State::ExpectAuth(_)) && !in_auth {
            return Step::Dropped(Silence::UnexpectedExchange);
        }
        let request = self.request(core, path, message);
        self.move_to(path);
        match self.dispatch(core, now, request, &opened) {
            Ok(step) => step,
            Err(error) => self.refuse(core, request, &error),
        }
    }

    fn request(&self, core: &Core, path: Path, message: &Message<'_>) -> Request {
        Request {
            header: *message.header(),
            path,
            digest: core.crypto.sha256(&[message.bytes()]),
        }
    }

    fn open(&self, core: &Core, encrypted: &EncryptedPacket<'_>) -> Result<Opened, WireError> {
        let (_, theirs) = self.sk_e();
        encrypted.open(&*core.crypto, self.proposal.encryption, theirs)
    }

    /// RFC 7296 §2.23: a host that is not behind a NAT follows the address and port of a new,
    /// authentic packet; one that is does not, because anybody could then move it.
    fn move_to(&mut self, path: Path) {
        if !self.nat.local || matches!(self.state, State::ExpectAuth(_)) {
            self.path = path;
        }
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
            _ => return Err(PeerError::Syntax("unknown exchange type").into()),
        };
        *counter += 1;
        let payloads = opened.payloads()?;
        match request.header.exchange {
            ExchangeType::IKE_AUTH => self.auth(core, now, request, &payloads),
            ExchangeType::CREATE_CHILD_SA => self.create_child_sa(core, now, request, &payloads),
            _ => self.informational(core, request, &payloads),
        }
    }

    /// The answer to a request that cannot be granted: one NOTIFY (RFC 7296 §2.21).
    fn refuse(&mut self, core: &mut Core, request: Request, error: &IkeError) -> Step {
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
            Step::Close(answer, "a fatal error was answered")
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
        if let Some(record) = self.export(now) {
            let delta = core.out.delta(self.slot, Change::Upsert(Box::new(record)));
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
        let sealed = self
            .ivs
            .draw()
            .ok_or(IkeError::Local(LocalError::NoIv))
            .and_then(|iv| {
                let (ours, _) = self.sk_e();
                let encryption = self.proposal.encryption;
                Ok(answer.message.seal(&*core.crypto, encryption, ours, iv)?)
            });
        match sealed {
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
        let id = pending.child.id();
        let child = Child::installed(now, *pending.child);
        core.start_lifetime(&child);
        if let Some(established) = self.established_mut() {
            established.children.push(child);
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
