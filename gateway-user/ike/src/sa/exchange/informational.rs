//! INFORMATIONAL (RFC 7296 §1.4): liveness, DELETE, errors.

use gateway_common::time::Instant;

use crate::config::CloseAction;
use crate::endpoint::core::Core;
use crate::error::IkeError;
use crate::output::EventKind;
use crate::record::{ChildState, Purpose};
use crate::sa::{Answer, Cause, IkeSa, Request, Step};
use crate::wire::{DeleteRepr, MessageBuilder, NotifyType, Payload, Payloads, ProtocolId};

/// Unknown SPIs that are remembered: a peer deletes one CHILD_SA too early, not dozens.
const MAX_NOTED: usize = 16;

impl IkeSa {
    /// Answers INFORMATIONAL of an authenticated peer. An empty request is a liveness check and
    /// gets an empty response (RFC 7296 §1.4).
    pub(in crate::sa) fn informational(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        let message = MessageBuilder::new(request.header.to_response());
        let deletes_ike = payloads
            .deletes
            .iter()
            .any(|delete| delete.protocol == ProtocolId::IKE);
        if deletes_ike {
            // RFC 7296 §1.4.1: "The response to a request that deletes the IKE SA is an empty
            // INFORMATIONAL response."
            return Ok(Step::Close(
                Answer { request, message },
                Cause::PeersWill,
                "deleted by the peer",
            ));
        }
        if let Some(reason) = self.peers_verdict(core, payloads) {
            return Ok(Step::Close(
                Answer { request, message },
                Cause::Failure,
                reason,
            ));
        }
        let message = self.mobility(core, now, request, payloads, message);
        let deleted = self.delete_children(core, payloads);
        let message = if deleted.is_empty() {
            message
        } else {
            message.with(&Payload::Delete(DeleteRepr::esp(&deleted)))
        };
        let answer = Answer { request, message };
        Ok(match self.take_redirect(payloads) {
            Some(gateway) => Step::SentElsewhere(answer, gateway),
            None => Step::Answer(answer),
        })
    }

    /// Notifications that end the IKE SA without a DELETE (RFC 7296 §2.21.2): the peer could not
    /// use our last response. All others are noted and change nothing.
    fn peers_verdict(&self, core: &mut Core, payloads: &Payloads<'_>) -> Option<&'static str> {
        let notify = payloads.error_notify()?;
        let verdict = match notify.kind {
            NotifyType::AUTHENTICATION_FAILED => Some("the peer does not accept our identity"),
            NotifyType::INVALID_SYNTAX => Some("the peer found our response malformed"),
            NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD => {
                Some("the peer does not support our response")
            }
            _ => None,
        };
        self.event(
            core,
            EventKind::ExchangeFailed {
                reason: format!("the peer reports {}", notify.kind),
            },
        );
        verdict
    }

    /// Closes the children that the peer deletes by its inbound SPIs, and gives ours (RFC 7296
    /// §1.4.1: "Normally, the response in the INFORMATIONAL exchange will contain Delete payloads
    /// for the paired SAs going in the other direction"). Unknown SPIs get no DELETE (§2.25.1), nor
    /// do those whose DELETE by us is on its way: "it SHOULD reply without a Delete payload".
    fn delete_children(&mut self, core: &mut Core, payloads: &Payloads<'_>) -> Vec<[u8; 4]> {
        let mut deleted = Vec::new();
        for spi in payloads.deletes.iter().flat_map(DeleteRepr::esp_spis) {
            let known = self
                .established()
                .and_then(|e| e.children.iter().find(|child| child.sa.spi_out == spi))
                .map(|child| child.sa.spi_in);
            let Some(spi_in) = known else {
                self.note_unknown_delete(spi);
                continue;
            };
            let child = self.take_out_child(core, spi_in, "deleted by the peer");
            if !self.is_closing_child(spi_in) {
                deleted.push(spi_in);
            }
            if let Some(child) = child.filter(|child| child.state == ChildState::Current) {
                self.closed_by_peer(&child.sa.name);
            }
        }
        deleted
    }

    /// swanctl's `close_action`.
    fn closed_by_peer(&mut self, name: &str) {
        let again = self.established().is_some_and(|e| {
            let mut children = e.connection.children.iter();
            children.any(|child| child.name == name && child.actions.close == CloseAction::Start)
        });
        if again && !self.has_child(name) {
            self.want_child(name);
        }
    }

    /// Perhaps the DELETE of a CHILD_SA of ours has overtaken the response that makes it.
    fn note_unknown_delete(&mut self, spi: [u8; 4]) {
        let outstanding = self
            .established_mut()
            .and_then(|e| e.outstanding.as_deref_mut());
        if let Some(outstanding) = outstanding
            && let Purpose::Child(offer) = &mut outstanding.request.purpose
            && offer.deleted.len() < MAX_NOTED
            && !offer.deleted.contains(&spi)
        {
            offer.deleted.push(spi);
        }
    }

    /// Whether our DELETE of this child is on its way.
    fn is_closing_child(&self, spi: [u8; 4]) -> bool {
        self.established()
            .and_then(|e| e.outstanding.as_ref())
            .is_some_and(|o| {
                matches!(&o.request.purpose, Purpose::CloseChildren(spis) if spis.contains(&spi))
            })
    }
}
