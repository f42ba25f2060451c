//! From a response to the exchange that it ends.

use gateway_common::time::Instant;

use super::{Outstanding, Task};
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError};
use crate::output::{EventKind, Path};
use crate::record::{ChildOffer, IkeOffer, Purpose};
use crate::sa::reassembly::Unsealed;
use crate::sa::{Cause, IkeSa, Silence, Step};
use crate::wire::{ExchangeType, HeaderRepr, Message, NotifyType, Opened, Payloads};

impl IkeSa {
    /// Takes a response that carries our SPI. Nothing changes before its integrity check succeeds.
    pub(crate) fn handle_response(
        &mut self,
        core: &mut Core,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Step {
        if self.opening().is_some() {
            return self.handle_auth_response(core, now, message);
        }
        let id = message.header().message_id;
        let outstanding = self.established().and_then(|e| e.outstanding.as_ref());
        let Some(outstanding) = outstanding.filter(|o| o.request.message_id == id) else {
            return if self.is_overtaken(core, now, message) {
                Step::Waiting
            } else {
                Step::Dropped(Silence::UnexpectedResponse)
            };
        };
        if outstanding.installing.is_some() {
            return Step::Dropped(Silence::InProgress);
        }
        let opened = match self.unseal(core, now, message) {
            Ok(Some(whole)) => whole.opened,
            Ok(None) => return Step::Waiting,
            Err(Unsealed::Dropped(silence)) => return Step::Dropped(silence),
            Err(Unsealed::Malformed(error)) => {
                let purpose = self.purpose().cloned();
                return self.useless_response(core, now, purpose, &error.into());
            }
        };
        let purpose = self.purpose().cloned().filter(|_| core.divided);
        match self.finish_exchange(core, now, path, message, &opened) {
            Ok(step) => step,
            Err(error) => self.useless_response(core, now, purpose, &error),
        }
    }

    fn finish_exchange(
        &mut self,
        core: &mut Core,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        opened: &Opened,
    ) -> Result<Step, IkeError> {
        let payloads = opened.payloads()?;
        if self.is_foreign_sync(&payloads) {
            // RFC 6311 §5.1: "A response MUST be silently dropped if the received nonce does not
            // match the one that was sent."
            return Ok(Step::Dropped(Silence::UnexpectedResponse));
        }
        let Some(outstanding) = self.take_outstanding(core) else {
            return Ok(Step::Dropped(Silence::UnexpectedResponse));
        };
        core.counters.response(message.header().exchange);
        self.heard(now);
        self.move_to(core, path);
        if self.is_fatal(core, &payloads) && outstanding.request.purpose != Purpose::CloseIke {
            self.release_offer(core, &outstanding);
            return Ok(Step::Gone(
                Cause::Failure,
                "the peer found our request unacceptable",
            ));
        }
        let answered = &outstanding.request.purpose;
        if message.header().exchange != exchange_of(answered) && *answered != Purpose::Liveness {
            self.release_offer(core, &outstanding);
            return Err(PeerError::Syntax("a response of another exchange").into());
        }
        self.dispatch_response(core, now, message.header(), outstanding, &payloads)
    }

    fn dispatch_response(
        &mut self,
        core: &mut Core,
        now: Instant,
        header: &HeaderRepr,
        outstanding: Outstanding,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        match &outstanding.request.purpose {
            Purpose::Liveness => Ok(Step::Waiting),
            Purpose::CloseIke => Ok(Step::Gone(self.cause_of_closing(), "deleted by us")),
            Purpose::CloseChildren(spis) => {
                let spis = spis.clone();
                self.children_closed(core, &spis);
                Ok(Step::Waiting)
            }
            Purpose::Child(offer) => {
                let offer = offer.clone();
                self.child_answered(core, now, outstanding, &offer, payloads)
            }
            Purpose::RekeyIke(offer) => {
                let offer = offer.clone();
                self.rekey_answered(core, now, &outstanding, offer, payloads)
            }
            Purpose::VerifyPath { cookie, path } => {
                self.path_answered(core, cookie, *path, payloads)?;
                Ok(Step::Waiting)
            }
            Purpose::UpdateAddresses { .. } => {
                self.update_answered(core, &outstanding, header, payloads)?;
                self.start_keepalives(core, now);
                Ok(Step::Waiting)
            }
            Purpose::Redirect => {
                self.redirected(core, now);
                Ok(Step::Waiting)
            }
            Purpose::SyncMessageIds(_) => {
                self.synchronised(payloads);
                Ok(Step::Waiting)
            }
        }
    }

    /// The peer is alive.
    pub(in crate::sa) fn heard(&mut self, now: Instant) {
        if let Some(established) = self.established_mut() {
            established.heard_at = now;
            established.heard = true;
        }
    }

    /// RFC 7296 §2.21.3: notifications in a response that end the IKE SA without a DELETE.
    fn is_fatal(&self, core: &mut Core, payloads: &Payloads<'_>) -> bool {
        let Some(notify) = payloads.error_notify() else {
            return false;
        };
        self.event(
            core,
            EventKind::ExchangeFailed {
                reason: format!("the peer answers {}", notify.kind),
            },
        );
        matches!(
            notify.kind,
            NotifyType::INVALID_SYNTAX | NotifyType::AUTHENTICATION_FAILED
        )
    }

    /// The response is authentic and cannot be used: nobody knows what the peer has made of our
    /// request, so the IKE SA is closed (RFC 7296 §2.21.3). In a divided cluster it may answer what
    /// the other half has asked for: then ours was not heard.
    fn useless_response(
        &mut self,
        core: &mut Core,
        now: Instant,
        purpose: Option<Purpose>,
        error: &IkeError,
    ) -> Step {
        self.failed(core, "response", error);
        self.drop_outstanding(core);
        if core.divided {
            self.ask_later(core, now, purpose);
            return Step::Waiting;
        }
        self.terminate_failed()
    }

    /// Frees what was reserved for the answer.
    fn release_offer(&self, core: &mut Core, outstanding: &Outstanding) {
        match &outstanding.request.purpose {
            Purpose::Child(offer) => core.esp_spis.release(&offer.spi_in),
            Purpose::RekeyIke(offer) => {
                core.ike_spis.remove(&offer.spi);
            }
            _ => {}
        }
    }

    /// RFC 7296 §2.25, RFC 9370 §2.2.4: not immediately again, and not for ever.
    pub(super) fn refused_for_now(&mut self, core: &mut Core, now: Instant, task: Task) -> Step {
        let limit = core.config.limits.temporary_failures;
        let Some(established) = self.established_mut() else {
            return Step::Waiting;
        };
        let since = *established.refused_since.get_or_insert(now);
        if now.saturating_since(since) >= limit && !core.divided {
            let reason =
                "the peer refuses it for too long (TEMPORARY_FAILURE, STATE_NOT_FOUND)".to_owned();
            self.event(core, EventKind::ExchangeFailed { reason });
            return self.terminate_failed();
        }
        self.defer(core, now, task);
        Step::Waiting
    }
}

fn exchange_of(purpose: &Purpose) -> ExchangeType {
    match purpose {
        Purpose::Child(ChildOffer {
            follow_up: Some(_), ..
        })
        | Purpose::RekeyIke(IkeOffer {
            follow_up: Some(_), ..
        }) => ExchangeType::IKE_FOLLOWUP_KE,
        Purpose::Child(_) | Purpose::RekeyIke(_) => ExchangeType::CREATE_CHILD_SA,
        _ => ExchangeType::INFORMATIONAL,
    }
}
