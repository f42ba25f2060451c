//! IKE_AUTH with at most one CHILD_SA (RFC 7296 §1.2, RFC 6023); how identities are proved is in
//! [`crate::auth`].

use std::sync::Arc;

use gateway_common::time::Instant;

use crate::auth::{AuthContext, Proof, Proven, denied, identity, push_identity};
use crate::config::{Childless, Config, Connection};
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError, PolicyError, notify_for};
use crate::identity::Identity;
use crate::record::{Contact, Role};
use crate::sa::child::ChildRequest;
use crate::sa::redirect::redirected_from_init;
use crate::sa::{Answer, Established, Establishment, ExpectAuth, IkeSa, Request, State, Step};
use crate::wire::{MessageBuilder, NotifyRepr, NotifyType, Opened, Payload, Payloads};

/// Who the peer proved to be, and for which connection.
pub(crate) struct Verified {
    pub(super) connection: Arc<Connection>,
    pub(super) peer: Proven,
}

/// In three steps: which connection the peer is for ([`Self::identify`]), whether it is who it says
/// ([`Self::verify`]), and what follows from that ([`Self::complete`]). Between the last two an
/// authentication can pause ([`super::decision`]); an exchange of its own there, as EAP would be, is an
/// answer in state [`ExpectAuth`], under which any number of IKE_AUTH exchanges may follow each other.
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
        opened: &Opened,
    ) -> Result<Step, IkeError> {
        let payloads = opened.payloads()?;
        let connection = self.identify(core, request, &payloads)?;
        let peer = self.verify(core, now, &connection, &payloads)?;
        check_childless(connection.transport.childless, payloads.sa.is_some())?;
        let verified = Verified { connection, peer };
        match verified.connection.auth.authorization.clone() {
            None => self.complete(core, now, request, &payloads, verified),
            Some(by) => Ok(self.ask(core, request, opened.clone(), verified, by)),
        }
    }

    /// The connection for the identities of a well-formed request.
    fn identify(
        &mut self,
        core: &Core,
        request: Request,
        payloads: &Payloads<'_>,
    ) -> Result<Arc<Connection>, IkeError> {
        // RFC 7296 §2.21.2: a malformed request is rejected before anything is verified.
        ChildRequest::in_auth(payloads, &Default::default())?;
        let remote_id = identity(&payloads.require_id_initiator()?)?;
        let wanted = payloads.id_responder.as_ref().map(identity).transpose()?;
        let identities = (wanted.as_ref(), &remote_id);
        let connection = self.find_connection(&core.config, request, identities, payloads)?;
        let connection = Arc::clone(connection);
        if let State::ExpectAuth(init) = &mut self.state {
            init.identified = Some(Arc::clone(&connection));
        }
        Ok(connection)
    }

    /// Who the peer is.
    fn verify(
        &self,
        core: &Core,
        now: Instant,
        connection: &Connection,
        payloads: &Payloads<'_>,
    ) -> Result<Proven, IkeError> {
        let context = self.auth_context(core, now, &self.expect_auth()?.transcript);
        context.verify(connection, &payloads.require_id_initiator()?, payloads)
    }

    /// Our proof for it.
    fn prove(&self, core: &Core, now: Instant, verified: &Verified) -> Result<Proof, IkeError> {
        let Verified { connection, peer } = verified;
        let context = self.auth_context(core, now, &self.expect_auth()?.transcript);
        let context = AuthContext {
            keys: peer.keys.as_ref().unwrap_or(&self.keys),
            ..context
        };
        context.prove(connection, Some(peer))
    }

    fn expect_auth(&self) -> Result<&ExpectAuth, PeerError> {
        match &self.state {
            State::ExpectAuth(init) => Ok(init),
            _ => Err(PeerError::Syntax("IKE_AUTH on an established IKE SA")),
        }
    }

    /// The peer is let in: answers `request`. `payloads` are those of the request that the peer's
    /// identity and its wishes came in.
    ///
    /// # Errors
    /// As [`Self::auth`].
    pub(super) fn complete(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        payloads: &Payloads<'_>,
        verified: Verified,
    ) -> Result<Step, IkeError> {
        let transcript = &self.expect_auth()?.transcript;
        let came_from = redirected_from_init(&transcript.request);
        let nonces = (transcript.nonce_i.clone(), transcript.nonce_r.clone());
        let child = ChildRequest::in_auth(payloads, &nonces)?;
        let establishment = Establishment {
            contact: if payloads.has_notify(NotifyType::INITIAL_CONTACT) {
                Contact::Initial
            } else {
                Contact::Further
            },
        };
        let proof = self.prove(core, now, &verified)?;
        let Verified { connection, peer } = verified;
        let message = auth_payloads(request, &connection, &proof);
        let transport = &connection.transport;
        let redirect_to = transport.redirect_to.clone();
        let mobike = self.negotiate_mobike(request, payloads, transport.mobike)?;
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
        let message = match mobike {
            Some(kind) => message.with(&Payload::Notify(NotifyRepr::new(kind, &[]))),
            None => message,
        };
        if let Some(keys) = peer.keys {
            self.keys = keys;
        }
        let local_id = connection.local_id.clone();
        let mut established = Established::new(connection, local_id, peer.remote_id, now);
        established.peer_syncs = peer_syncs;
        established.set_lifetimes(core, now);
        self.state = State::Established(Box::new(established));
        // RFC 5685 §6: "it prevents the creation of a CHILD SA".
        let redirect_to = redirect_to.filter(|gateway| came_from.as_ref() != Some(gateway));
        if let Some(gateway) = redirect_to.filter(|_| self.transport.redirectable) {
            let data = self.redirect_in_auth(core, &gateway);
            self.redirected(core, now);
            let redirect = NotifyRepr::new(NotifyType::REDIRECT, &data);
            let message = message.with(&Payload::Notify(redirect));
            return Ok(Step::Establish(establishment, Answer { request, message }));
        }
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
            Ok(step) => Ok(step),
            Err(error) => {
                self.failed(core, "CHILD_SA of IKE_AUTH", &error);
                let notify = notify_for(&error);
                let message = message.with(&Payload::Notify(notify.repr()));
                Ok(Step::Establish(establishment, Answer { request, message }))
            }
        }
    }

    /// The connection for addresses, identities and the algorithms that IKE_SA_INIT chose. One for
    /// the peer's way to authenticate comes before others, one that names the peer before one for
    /// anybody.
    fn find_connection<'a>(
        &self,
        config: &'a Config,
        request: Request,
        (wanted, remote_id): (Option<&Identity>, &Identity),
        payloads: &Payloads<'_>,
    ) -> Result<&'a Arc<Connection>, IkeError> {
        let candidates = config.candidates(request.path.local.ip(), request.path.remote.ip());
        candidates
            .iter()
            .filter(|connection| wanted.is_none_or(|wanted| *wanted == connection.local_id))
            .filter(|connection| connection.remote_id.matches(remote_id))
            .filter(|connection| connection.proposals.contains(&self.proposal))
            // `min_by_key` takes the first of equals, which is the most specific address.
            .min_by_key(|connection| {
                let method = payloads.auth.map(|auth| auth.method);
                let takes = method.is_none_or(|method| connection.auth.remote.takes(method));
                (!takes, connection.remote_id.rank())
            })
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

/// IDr and our proof.
fn auth_payloads(request: Request, connection: &Connection, proof: &Proof) -> MessageBuilder {
    let mut message = MessageBuilder::new(request.header.to_response());
    push_identity(&mut message, Role::Responder, &connection.local_id);
    proof.push_onto(&mut message);
    message
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

/// swanctl's `childless`, as responder.
fn check_childless(policy: Childless, has_child: bool) -> Result<(), PolicyError> {
    match (policy, has_child) {
        (Childless::Never, false) => Err(PolicyError::Childless(
            "the peer wants an IKE SA without CHILD_SA, and the connection says childless = never",
        )),
        (Childless::Force, true) => Err(PolicyError::Childless(
            "the peer wants a CHILD_SA at once, and the connection says childless = force",
        )),
        _ => Ok(()),
    }
}
