//! IKE_INTERMEDIATE (RFC 9242), each with one additional key exchange (RFC 9370 §2.2.2): where it
//! stands, and its responder.

use std::collections::VecDeque;

use crate::crypto::{CryptoProvider, KeyExchangeMethod, Prf};
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError};
use crate::keys::IkeKeys;
use crate::proposal::IkeProposal;
use crate::sa::{Answer, IkeSa, Request, State, Step};
use crate::secret::SecretBytes;
use crate::wire::{KeRepr, MessageBuilder, Payload, Payloads};

/// Where the exchanges between IKE_SA_INIT and IKE_AUTH stand.
#[derive(Default)]
pub(crate) struct Intermediate {
    /// Additional key exchanges that are still to come, in order.
    pending: VecDeque<KeyExchangeMethod>,
    /// IntAuth_i and IntAuth_r of the exchanges so far.
    int_auth: Option<(SecretBytes, SecretBytes)>,
    /// The keys of everything that follows the answer that is about to be sealed.
    next_keys: Option<IkeKeys>,
}

impl Intermediate {
    /// Before the first of them.
    pub(crate) fn of(proposal: &IkeProposal) -> Self {
        Self {
            pending: proposal.additional.iter().collect(),
            ..Self::default()
        }
    }

    /// Whether IKE_AUTH has to wait.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes out the next one.
    pub(in crate::sa) fn next(&mut self) -> Option<KeyExchangeMethod> {
        self.pending.pop_front()
    }

    /// The keys to go on with; once.
    pub(crate) fn take_next_keys(&mut self) -> Option<IkeKeys> {
        self.next_keys.take()
    }

    /// Takes a request and its answer into IntAuth, and gives the octets that AUTH covers if
    /// IKE_AUTH comes next (RFC 9242 §3.3.2). `keys` are those that protect the two messages.
    pub(in crate::sa) fn cover(
        &mut self,
        crypto: &dyn CryptoProvider,
        prf: Prf,
        keys: &IkeKeys,
        contents: (&[u8], &[u8]),
        next_message_id: u32,
    ) -> Vec<u8> {
        let (i, r) = self.int_auth.take().unwrap_or_default();
        let i = crypto.prf(prf, keys.pi.expose(), &[i.expose(), contents.0]);
        let r = crypto.prf(prf, keys.pr.expose(), &[r.expose(), contents.1]);
        let covered = [i.expose(), r.expose(), &next_message_id.to_be_bytes()].concat();
        self.int_auth = Some((i, r));
        covered
    }
}

impl IkeSa {
    /// Answers IKE_INTERMEDIATE. `content` is what IntAuth covers of the request.
    ///
    /// # Errors
    /// The peer breaks the protocol: the negotiation is over (RFC 9242 §3.4).
    pub(in crate::sa) fn intermediate(
        &mut self,
        core: &Core,
        request: Request,
        content: &[u8],
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        let crypto = &*core.crypto;
        let State::ExpectAuth(init) = &mut self.state else {
            return Err(PeerError::Syntax("IKE_INTERMEDIATE on an established IKE SA").into());
        };
        let method = init
            .intermediate
            .next()
            .ok_or(PeerError::Syntax("IKE_INTERMEDIATE that was not agreed on"))?;
        let ke = payloads.require_ke()?;
        if ke.method != method.transform_id() {
            return Err(PeerError::Syntax("additional key exchange of another method").into());
        }
        let answer = crypto.answer_key_exchange(method, ke.data)?;
        let message =
            MessageBuilder::new(request.header.to_response()).with(&Payload::Ke(KeRepr {
                method: method.transform_id(),
                data: &answer.public,
            }));
        let contents = (content, &*message.int_auth_content()?);
        let prf = self.proposal.prf;
        let next_message_id = request.header.message_id.saturating_add(1);
        init.transcript.int_auth =
            init.intermediate
                .cover(crypto, prf, &self.keys, contents, next_message_id);
        let keys = self.keys.after_additional(
            crypto,
            (prf, self.proposal.encryption),
            &answer.shared,
            (&init.transcript.nonce_i, &init.transcript.nonce_r),
            (&self.remote_spi, &self.local_spi),
        )?;
        init.intermediate.next_keys = Some(keys);
        Ok(Step::Answer(Answer { request, message }))
    }
}
