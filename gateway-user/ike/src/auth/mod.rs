//! Authentication: what proves an identity in IKE_AUTH (RFC 7296 §2.15), for either role.
//!
//! [`AuthContext::prove`] makes our AUTH payload and what belongs to it, [`AuthContext::verify`]
//! judges the peer's. The responder verifies first and proves with what it learned ([`Proven`]);
//! the initiator proves first, knowing of the peer only what IKE_SA_INIT told ([`Transcript`]) and
//! what is configured.
//!
//! Neither changes anything: the caller goes on with [`Proven::keys`] and sends [`Proof`]. That is
//! also the place where an authentication can pause while somebody else decides: between the
//! peer's message and what follows from [`Proven`] there is no state but the caller's.

mod certificates;
mod ppk;
mod psk;
mod signature;
mod transcript;

#[cfg(test)]
mod tests;

use gateway_common::time::Instant;

pub(crate) use self::transcript::{Announced, Transcript, announce};

use self::certificates::{Requested, push_request, request};
use self::ppk::Outcome;
use crate::config::{Connection, LocalAuth, RemoteAuth};
use crate::crypto::Prf;
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError};
use crate::identity::Identity;
use crate::keys::{AuthInput, IkeKeys};
use crate::record::Role;
use crate::wire::{
    AuthMethod, AuthRepr, CertEncoding, CertRepr, IdRepr, MessageBuilder, NotifyRepr, NotifyType,
    Payload, Payloads,
};

/// What an authentication is made with.
#[derive(Clone, Copy)]
pub(crate) struct AuthContext<'a> {
    pub(crate) core: &'a Core,
    pub(crate) now: Instant,
    /// Ours.
    pub(crate) role: Role,
    /// The IKE SA's.
    pub(crate) prf: Prf,
    pub(crate) keys: &'a IkeKeys,
    pub(crate) transcript: &'a Transcript,
}

/// What the peer proved.
pub(crate) struct Proven {
    /// Who it is.
    pub(crate) remote_id: Identity,
    /// The keys to go on with, if others than so far: they have a PPK in them (RFC 8784).
    pub(crate) keys: Option<IkeKeys>,
    /// The certificates that it asked for.
    requested: Requested,
}

/// Our proof: the payloads that IKE_AUTH has for it, besides IDi or IDr.
pub(crate) struct Proof {
    /// DER, ours first.
    certificates: Vec<Vec<u8>>,
    /// The authorities of our CERTREQ, if there is one.
    request: Option<Vec<[u8; 20]>>,
    method: AuthMethod,
    data: Vec<u8>,
    /// Status notifications and their data.
    notifies: Vec<(NotifyType, Vec<u8>)>,
}

impl Proof {
    fn new(method: AuthMethod, data: Vec<u8>) -> Self {
        Self {
            certificates: Vec::new(),
            request: None,
            method,
            data,
            notifies: Vec::new(),
        }
    }

    /// Appends CERT and CERTREQ payloads, AUTH and notifications. ID payloads come before, by
    /// [`push_identity`].
    pub(crate) fn push_onto(&self, message: &mut MessageBuilder) {
        for data in &self.certificates {
            message.push(&Payload::Cert(CertRepr {
                encoding: CertEncoding::X509_SIGNATURE,
                data,
            }));
        }
        if let Some(authorities) = &self.request {
            push_request(message, authorities);
        }
        message.push(&Payload::Auth(AuthRepr {
            method: self.method,
            data: &self.data,
        }));
        for (kind, data) in &self.notifies {
            message.push(&Payload::Notify(NotifyRepr::new(*kind, data)));
        }
    }
}

/// Appends the ID payload of `identity`; `role` is that of whom it names.
pub(crate) fn push_identity(message: &mut MessageBuilder, role: Role, identity: &Identity) {
    let (kind, data) = identity.to_payload();
    let repr = IdRepr::new(kind, &data);
    message.push(&match role {
        Role::Initiator => Payload::IdInitiator(repr),
        Role::Responder => Payload::IdResponder(repr),
    });
}

impl AuthContext<'_> {
    /// Our proof that we are `connection.local_id`. `peer` is what the peer has proved; `None` if
    /// it has not had its turn.
    ///
    /// # Errors
    /// Nothing to prove it with, named for the operator.
    pub(crate) fn prove(
        &self,
        connection: &Connection,
        peer: Option<&Proven>,
    ) -> Result<Proof, IkeError> {
        let Some(peer) = peer else {
            return self.propose(connection);
        };
        let mut proof = self.prove_with(connection, Some(&peer.remote_id), &peer.requested)?;
        if peer.keys.is_some() {
            // RFC 8784 §3: empty, to say that it was used.
            proof.notifies.push((NotifyType::PPK_IDENTITY, Vec::new()));
        }
        Ok(proof)
    }

    /// Our proof as initiator, to a peer that has proved nothing yet.
    fn propose(&self, connection: &Connection) -> Result<Proof, IkeError> {
        let expected = connection.remote_id.exact();
        let requested = &self.transcript.announced.requested;
        let plain = || {
            let mut proof = self.prove_with(connection, expected, requested)?;
            proof.request = request(&*self.core.crypto, &[connection]);
            Ok(proof)
        };
        let Some(ppk) = self.proposed_ppk(connection)? else {
            return plain();
        };
        let keys = self.mix(ppk)?;
        let mixed = AuthContext {
            keys: &keys,
            ..*self
        };
        let mut proof = mixed.prove_with(connection, expected, requested)?;
        proof.request = request(&*self.core.crypto, &[connection]);
        let identity = (NotifyType::PPK_IDENTITY, ppk::identity(ppk));
        proof.notifies.push(identity);
        let required = connection.auth.ppk.as_ref().is_some_and(|p| p.required);
        if !required {
            // RFC 8784 §3: so that a peer without this PPK can go on.
            proof
                .notifies
                .push((NotifyType::NO_PPK_AUTH, plain()?.data));
        }
        Ok(proof)
    }

    fn prove_with(
        &self,
        connection: &Connection,
        remote_id: Option<&Identity>,
        requested: &Requested,
    ) -> Result<Proof, IkeError> {
        match &connection.auth.local {
            LocalAuth::Psk => self.prove_by_psk(&connection.local_id, remote_id),
            LocalAuth::PublicKey {
                credentials,
                policy,
            } => self.prove_by_signature(connection, credentials, policy, requested),
        }
    }

    /// Judges AUTH and what belongs to it, of the peer that calls itself `id` (its IDi or IDr, as
    /// received) for `connection`, whose `remote_id` it matches.
    ///
    /// # Errors
    /// [`PeerError::Authentication`], with a reason for the operator.
    pub(crate) fn verify(
        &self,
        connection: &Connection,
        id: &IdRepr<'_>,
        payloads: &Payloads<'_>,
    ) -> Result<Proven, IkeError> {
        let remote_id = identity(id)?;
        let wanted = match &connection.auth.remote {
            RemoteAuth::Psk => "a pre-shared key",
            RemoteAuth::PublicKey(_) => "a signature",
        };
        let wrong = |how: String| {
            let name = &connection.name;
            denied(format!(
                "{remote_id} {how}, connection {name} wants {wanted}"
            ))
        };
        // RFC 7296 §2.16: without AUTH the initiator asks for EAP.
        let mut auth = payloads
            .auth
            .ok_or_else(|| wrong("asks for EAP".to_owned()))?;
        if !connection.auth.remote.takes(auth.method) {
            return Err(wrong(format!("authenticates by {}", auth.method)));
        }
        let keys = match self.use_ppk(connection, payloads)? {
            Outcome::Plain => None,
            Outcome::Mixed(keys) => Some(keys),
            Outcome::Fallback(data) => {
                auth.data = data;
                None
            }
        };
        let context = AuthContext {
            keys: keys.as_ref().unwrap_or(self.keys),
            ..*self
        };
        match &connection.auth.remote {
            RemoteAuth::Psk => {
                context.verify_psk(&connection.local_id, &remote_id, id, auth.data)?;
            }
            RemoteAuth::PublicKey(remote) => {
                context.verify_signature(connection, remote, &remote_id, (id, auth), payloads)?;
            }
        }
        Ok(Proven {
            remote_id,
            keys,
            requested: Requested::from_payloads(payloads),
        })
    }

    /// What the AUTH payload of the side with `role` covers.
    fn covered<'a>(&'a self, role: Role, id_body: &'a [u8]) -> AuthInput<'a> {
        self.transcript.covered(role, self.keys, id_body)
    }

    fn peer_role(&self) -> Role {
        match self.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        }
    }
}

impl RemoteAuth {
    /// Whether a peer may authenticate by `method`, whatever else is wanted of it.
    pub(crate) fn takes(&self, method: AuthMethod) -> bool {
        let shared_key = method == AuthMethod::SHARED_KEY;
        match self {
            Self::Psk => shared_key,
            Self::PublicKey(_) => !shared_key,
        }
    }
}

/// The identity in an ID payload.
///
/// # Errors
/// [`PeerError::Authentication`] if it is of no type that we know.
pub(crate) fn identity(repr: &IdRepr<'_>) -> Result<Identity, IkeError> {
    Identity::from_payload(repr.kind, repr.data)
        .map_err(|error| denied(format!("identity of type {}: {error}", repr.kind)))
}

/// Authentication fails because of this.
pub(crate) fn denied(reason: String) -> IkeError {
    PeerError::Authentication(reason).into()
}
