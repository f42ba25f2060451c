//! IKE_FOLLOWUP_KE (RFC 9370 §2.2.4), as its initiator.
//!
//! Each exchange follows at once the one before. All that its response will need stands in the
//! record beside the request, as that of CREATE_CHILD_SA does.

use gateway_common::time::Instant;

use super::Draft;
use super::ike::agree;
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError};
use crate::record::{ChildOffer, ChildState, FollowUp, KeyExchangeState, Purpose};
use crate::sa::{IkeSa, Step};
use crate::wire::{
    ExchangeType, KeRepr, MessageBuilder, NotifyRepr, NotifyType, Payload, Payloads,
};

/// Takes the response to an additional key exchange.
pub(super) fn follow(
    core: &Core,
    follow_up: &FollowUp,
    ours: Option<&KeyExchangeState>,
    payloads: &Payloads<'_>,
) -> Result<FollowUp, IkeError> {
    let mut follow_up = follow_up.clone();
    let (method, pending) = match follow_up.pending.split_first() {
        Some((method, pending)) => (*method, pending.to_vec()),
        None => return Err(PeerError::Syntax("no additional key exchange was to come").into()),
    };
    let ours = ours.filter(|state| state.method == method);
    let shared = agree(core, ours, method, payloads)?;
    follow_up.inputs.shared.push(shared);
    follow_up.pending = pending;
    Ok(follow_up)
}

impl IkeSa {
    /// The request of the next additional key exchange after a response: its Message ID, the message,
    /// and our half of the exchange.
    ///
    /// # Errors
    /// The peer does not say how to go on (RFC 9370 §2.2.4: it "MUST include this notification").
    pub(super) fn draft_follow_up(
        &self,
        core: &Core,
        follow_up: &FollowUp,
        payloads: &Payloads<'_>,
    ) -> Result<(u32, MessageBuilder, KeyExchangeState), IkeError> {
        let link = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
        let (Some(link), Some(method)) = (link, follow_up.pending.first()) else {
            return Err(PeerError::Syntax("no link to the next additional key exchange").into());
        };
        let exchange = core.crypto.key_exchange(*method)?;
        let header = self.next_header(ExchangeType::IKE_FOLLOWUP_KE)?;
        let message = MessageBuilder::new(header)
            .with(&Payload::Ke(KeRepr {
                method: method.transform_id(),
                data: exchange.public_value(),
            }))
            .with(&Payload::Notify(NotifyRepr::new(link.kind, link.data)));
        let state = KeyExchangeState {
            method: *method,
            private: exchange.export(),
        };
        Ok((header.message_id, message, state))
    }

    /// Goes on with the next additional key exchange, unless the peer's rekeying is to remain.
    pub(super) fn follow_child(
        &mut self,
        core: &mut Core,
        now: Instant,
        offer: &ChildOffer,
        follow_up: FollowUp,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        let lost = self.loses_to_rival(core, offer, follow_up.inputs.lowest_nonce());
        if lost || self.established().is_none_or(|e| e.closing) {
            // RFC 9370 §2.2.4: there is nothing to delete yet.
            core.esp_spis.release(&offer.spi_in);
            self.try_child_again(core, now, offer);
            return Ok(Step::Waiting);
        }
        if offer.rival.is_some() {
            self.use_again(offer.rekeys);
        }
        let sent = self.draft_follow_up(core, &follow_up, payloads).and_then(
            |(message_id, message, ke)| {
                let purpose = Purpose::Child(ChildOffer {
                    ke: Some(ke),
                    rival: None,
                    follow_up: Some(Box::new(follow_up)),
                    ..offer.clone()
                });
                let draft = Draft {
                    message_id,
                    message,
                    purpose,
                };
                self.send_request(core, now, draft)
            },
        );
        sent.inspect_err(|_| core.esp_spis.release(&offer.spi_in))?;
        Ok(Step::Waiting)
    }

    /// The peer's successor of this child has lost, and ours is still to come.
    fn use_again(&mut self, spi: Option<[u8; 4]>) {
        if let Some(established) = self.established_mut()
            && let Some(old) = spi.and_then(|spi| established.child_mut(spi))
            && old.state == ChildState::Replaced
        {
            old.state = ChildState::Current;
        }
    }
}
