//! IKE_AUTH with a pre-shared key and at most one CHILD_SA (RFC 7296 §1.2, §2.15, RFC 6023).

use std::sync::Arc;

use gateway_common::time::Instant;

use crate::config::{Config, Connection};
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError, notify_for};
use crate::identity::Identity;
use crate::keys::{AuthInput, psk_auth, verify_psk_auth};
use crate::sa::child::ChildRequest;
use crate::sa::{Answer, Established, Establishment, ExpectAuth, IkeSa, Request, State, Step};
use crate::secret::SecretBytes;
use crate::wire::{
    AuthMethod, AuthRepr, IdRepr, MessageBuilder, NotifyRepr, NotifyType, Payload, Payloads,
};

/// Who the peer proved to be, and for which connection.
struct Authenticated {
    connection: Arc<Connection>,
    remote_id: Identity,
    /// Our AUTH data.
    auth: Vec<u8>,
}

impl IkeSa {
    /// Answers IKE_AUTH in state [`ExpectAuth`].
    ///
    /// # Errors
    /// Whatever denies the authentication. Errors of the CHILD_SA do not: they are told to the peer
    /// beside our AUTH (RFC 7296 §2.21.2).
    pub(crate) fn auth(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        payloads: &Payloads<'_>,
    ) -> Result<Step, IkeError> {
        let State::ExpectAuth(init) = &self.state else {
            return Err(PeerError::Syntax("IKE_AUTH on an established IKE SA").into());
        };
        let nonces = (init.nonce_i.clone(), init.nonce_r.clone());
        // RFC 7296 §2.21.2: a malformed request is rejected before anything is verified.
        let child = ChildRequest::in_auth(payloads, &nonces)?;
        let peer = self.authenticate(core, request, payloads, init)?;
        let establishment = Establishment {
            initial_contact: payloads.has_notify(NotifyType::INITIAL_CONTACT),
        };
        let message = auth_payloads(request, &peer);
        self.path = request.path;
        // RFC 6311 §5: "the responder MUST NOT assert support of a capability unless such support
        // was asserted by the initiator".
        let peer_syncs = payloads.has_notify(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED);
        let message = if peer_syncs {
            message.with(&Payload::Notify(NotifyRepr::new(
                NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED,
                &[],
            )))
        } else {
            message
        };
        let mut established = Established::new(
            Arc::clone(&peer.connection),
            peer.connection.local_id.clone(),
            peer.remote_id,
            now,
        );
        established.peer_syncs = peer_syncs;
        established.set_lifetimes(core, now);
        self.state = State::Established(Box::new(established));
        let Some(child) = child else {
            // RFC 6023 §3: such a request gets such a response.
            return Ok(Step::Establish(establishment, Answer { request, message }));
        };
        match self.create_child(
            core,
            now,
            request,
            &child,
            message.clone(),
            Some(establishment),
        ) {
            Ok(()) => Ok(Step::Waiting),
            Err(error) => {
                self.failed(core, "CHILD_SA of IKE_AUTH", &error);
                let notify = notify_for(&error);
                let message = message.with(&Payload::Notify(notify.repr()));
                Ok(Step::Establish(establishment, Answer { request, message }))
            }
        }
    }

    fn authenticate(
        &self,
        core: &Core,
        request: Request,
        payloads: &Payloads<'_>,
        init: &ExpectAuth,
    ) -> Result<Authenticated, IkeError> {
        let id_i = payloads.require_id_initiator()?;
        let remote_id = identity(&id_i)?;
        let wanted = payloads.id_responder.as_ref().map(identity).transpose()?;
        let connection =
            self.find_connection(&core.config, request, wanted.as_ref(), &remote_id)?;
        // RFC 7296 §2.16: without AUTH the peer asks for EAP.
        let auth = payloads.auth.ok_or_else(|| {
            denied(format!(
                "{remote_id} asks for EAP, connection {} wants a pre-shared key",
                connection.name
            ))
        })?;
        if auth.method != AuthMethod::SHARED_KEY {
            return Err(denied(format!(
                "{remote_id} authenticates by {}, connection {} wants a pre-shared key",
                auth.method, connection.name
            )));
        }
        let secret = core
            .config
            .secret(&connection.local_id, &remote_id)
            .ok_or_else(|| {
                denied(format!(
                    "no pre-shared key configured for {} and {remote_id}",
                    connection.local_id
                ))
            })?;
        let crypto = &*core.crypto;
        let theirs = AuthInput {
            message: &init.request,
            peer_nonce: &init.nonce_r,
            sk_p: &self.keys.pi,
            id_body: &id_i.rest_of_payload(),
        };
        if !verify_psk_auth(crypto, self.proposal.prf, secret, theirs, auth.data) {
            return Err(denied(format!(
                "{remote_id} used another pre-shared key than the one configured for {} and it",
                connection.local_id
            )));
        }
        let auth = self.our_auth(core, init, secret, &connection.local_id);
        Ok(Authenticated {
            connection: Arc::clone(connection),
            remote_id,
            auth,
        })
    }

    /// Our AUTH data (RFC 7296 §2.15).
    fn our_auth(
        &self,
        core: &Core,
        init: &ExpectAuth,
        secret: &SecretBytes,
        local_id: &Identity,
    ) -> Vec<u8> {
        let (kind, data) = local_id.to_payload();
        let ours = AuthInput {
            message: &init.response,
            peer_nonce: &init.nonce_i,
            sk_p: &self.keys.pr,
            id_body: &IdRepr::new(kind, &data).rest_of_payload(),
        };
        psk_auth(&*core.crypto, self.proposal.prf, secret, ours)
    }

    /// The connection for addresses, identities and the algorithms that IKE_SA_INIT chose. One that
    /// names the peer comes before one for anybody.
    fn find_connection<'a>(
        &self,
        config: &'a Config,
        request: Request,
        wanted: Option<&Identity>,
        remote_id: &Identity,
    ) -> Result<&'a Arc<Connection>, IkeError> {
        let candidates = config.candidates(request.path.local.ip(), request.path.remote.ip());
        candidates
            .iter()
            .filter(|connection| wanted.is_none_or(|wanted| *wanted == connection.local_id))
            .filter(|connection| connection.remote_id.matches(remote_id))
            .filter(|connection| connection.proposals.contains(&self.proposal))
            // `min_by_key` takes the first of equals, which is the most specific address.
            .min_by_key(|connection| !connection.remote_id.is_specific())
            .copied()
            .ok_or_else(|| {
                let wanted = wanted.map_or_else(|| "anyone".to_owned(), Identity::to_string);
                denied(format!(
                    "no connection for {remote_id} that wants to talk to {wanted} with {}; \
                     configured for these addresses: {}",
                    self.proposal,
                    describe(&candidates)
                ))
            })
    }
}

/// IDr and AUTH.
fn auth_payloads(request: Request, peer: &Authenticated) -> MessageBuilder {
    let (kind, data) = peer.connection.local_id.to_payload();
    MessageBuilder::new(request.header.to_response())
        .with(&Payload::IdResponder(IdRepr::new(kind, &data)))
        .with(&Payload::Auth(AuthRepr {
            method: AuthMethod::SHARED_KEY,
            data: &peer.auth,
        }))
}

fn denied(reason: String) -> IkeError {
    PeerError::Authentication(reason).into()
}

fn identity(repr: &IdRepr<'_>) -> Result<Identity, IkeError> {
    Identity::from_payload(repr.kind, repr.data)
        .map_err(|error| denied(format!("identity of type {}: {error}", repr.kind)))
}

fn describe(candidates: &[&Arc<Connection>]) -> String {
    if candidates.is_empty() {
        return "none".to_owned();
    }
    candidates
        .iter()
        .map(|c| format!("{} ({} with {})", c.name, c.local_id, c.remote_id))
        .collect::<Vec<_>>()
        .join(", ")
}
