//! IKE_INTERMEDIATE (RFC 9242) with additional key exchanges (RFC 9370 §2.2.2), as its initiator.

use gateway_common::time::Instant;

use super::Resend;
use crate::crypto::KeyExchange;
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError};
use crate::sa::{IkeSa, State, Step};
use crate::wire::{
    Body, ExchangeType, KeRepr, Message, MessageBuilder, Opened as Content, Payload,
};

/// The request that waits for its response.
pub(super) struct Additional {
    ke: Box<dyn KeyExchange>,
    /// What IntAuth covers of it.
    content: Vec<u8>,
}

impl IkeSa {
    /// Sends the next additional key exchange or, after the last one, IKE_AUTH.
    pub(super) fn send_opening(&mut self, core: &mut Core, now: Instant) -> Result<(), IkeError> {
        let (path, slot) = (self.path, self.slot);
        let message = match self.draft_intermediate(core)? {
            Some(message) => message,
            None => self.draft_auth(core, now)?,
        };
        let bytes = self.seal_message(core, path, message)?;
        if let State::ExpectAuthResponse(state) = &mut self.state {
            state.bytes = bytes.as_slice().into();
        }
        core.counters.requests_sent += 1;
        core.out.transmit(path, bytes, slot, None);
        Ok(())
    }

    /// `None` if there is no additional key exchange to come.
    fn draft_intermediate(&mut self, core: &Core) -> Result<Option<MessageBuilder>, IkeError> {
        let (local_spi, remote_spi) = (self.local_spi, self.remote_spi);
        let State::ExpectAuthResponse(state) = &mut self.state else {
            return Ok(None);
        };
        let Some(method) = state.intermediate.next() else {
            return Ok(None);
        };
        let ke = core.crypto.key_exchange(method)?;
        let exchange = ExchangeType::IKE_INTERMEDIATE;
        let header =
            super::auth::opening_header((local_spi, remote_spi), exchange, state.message_id);
        let message = MessageBuilder::new(header).with(&Payload::Ke(KeRepr {
            method: method.transform_id(),
            data: ke.public_value(),
        }));
        let content = message.int_auth_content()?;
        state.additional = Some(Additional { ke, content });
        Ok(Some(message))
    }

    /// Takes the response to an additional key exchange, and goes on.
    pub(super) fn take_intermediate_response(
        &mut self,
        core: &mut Core,
        now: Instant,
        message: &Message<'_>,
        opened: &Content,
    ) -> Result<Step, IkeError> {
        let payloads = opened.payloads()?;
        if let Some(notify) = payloads.error_notify() {
            return Ok(Step::Unopened(self.refused_by_peer(notify)));
        }
        let (Body::Encrypted(sealed) | Body::Fragment(_, sealed)) = message.body() else {
            return Err(PeerError::Syntax("IKE_INTERMEDIATE in clear").into());
        };
        let (prf, spis) = (self.proposal.prf, (self.local_spi, self.remote_spi));
        let State::ExpectAuthResponse(state) = &mut self.state else {
            return Ok(Step::Waiting);
        };
        let Some(Additional { ke, content }) = state.additional.take() else {
            return Ok(Step::Waiting);
        };
        let theirs = payloads.require_ke()?;
        if theirs.method != ke.method().transform_id() {
            return Err(PeerError::Syntax("additional key exchange of another method").into());
        }
        let shared = ke.agree(theirs.data)?;
        state.message_id += 1;
        let crypto = &*core.crypto;
        let transcript = &mut state.negotiated.transcript;
        let contents = (&*content, &*sealed.int_auth_content(opened));
        transcript.int_auth =
            state
                .intermediate
                .cover(crypto, prf, &self.keys, contents, state.message_id);
        self.keys = self.keys.after_additional(
            crypto,
            (prf, self.proposal.encryption),
            &shared,
            (&transcript.nonce_i, &transcript.nonce_r),
            (&spis.0, &spis.1),
        )?;
        state.resend.stop(core);
        state.resend = Resend::start(core, now, spis.0);
        self.send_opening(core, now)?;
        Ok(Step::Waiting)
    }
}
