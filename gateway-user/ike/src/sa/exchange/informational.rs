//! INFORMATIONAL (RFC 7296 §1.4): liveness, DELETE, errors.

use crate::endpoint::core::Core;
use crate::error::IkeError;
use crate::output::EventKind;
use crate::sa::{Answer, IkeSa, Request, Step};
use crate::wire::{DeleteRepr, MessageBuilder, NotifyType, Payload, Payloads, ProtocolId};

impl IkeSa {
    /// Answers INFORMATIONAL of an authenticated peer. An empty request is a liveness check and
    /// gets an empty response (RFC 7296 §1.4).
    pub(in crate::sa) fn informational(
        &mut self,
        core: &mut Core,
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
                "deleted by the peer",
            ));
        }
        if let Some(reason) = self.peers_verdict(core, payloads) {
            return Ok(Step::Close(Answer { request, message }, reason));
        }
        let deleted = self.delete_children(core, payloads);
        let message = if deleted.is_empty() {
            message
        } else {
            message.with(&Payload::Delete(DeleteRepr::esp(&deleted)))
        };
        Ok(Step::Answer(Answer { request, message }))
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
    /// for the paired SAs going in the other direction"). Unknown SPIs get no DELETE (§2.25.1).
    fn delete_children(&mut self, core: &mut Core, payloads: &Payloads<'_>) -> Vec<[u8; 4]> {
        let mut deleted = Vec::new();
        for spi in payloads.deletes.iter().flat_map(DeleteRepr::esp_spis) {
            let Some(established) = self.established_mut() else {
                break;
            };
            let position = established
                .children
                .iter()
                .position(|child| child.sa.spi_out == spi);
            let Some(position) = position else { continue };
            let child = established.children.remove(position);
            core.cancel_lifetime(&child);
            self.remove_child(core, &child.sa, "deleted by the peer");
            deleted.push(child.sa.spi_in);
        }
        deleted
    }

    /// The CHILD_SA with the inbound SPI `spi` has reached the end of its life.
    pub(crate) fn expire_child(&mut self, core: &mut Core, spi: [u8; 4]) -> bool {
        let Some(established) = self.established_mut() else {
            return false;
        };
        let position = established
            .children
            .iter()
            .position(|child| child.sa.spi_in == spi);
        let Some(position) = position else {
            return false;
        };
        let child = established.children.remove(position);
        self.remove_child(core, &child.sa, "hard lifetime reached");
        true
    }
}
