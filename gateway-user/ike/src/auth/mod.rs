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

mod psk;
mod transcript;

use gateway_common::time::Instant;

pub(crate) use self::transcript::{Announced, Transcript};
use crate::config::Connection;
use crate::crypto::Prf;
use crate::endpoint::core::Core;
use crate::error::{IkeError, PeerError};
use crate::identity::Identity;
use crate::keys::{AuthInput, IkeKeys};
use crate::record::Role;
use crate::wire::{AuthMethod, AuthRepr, IdRepr, MessageBuilder, NotifyRepr, Payload, Payloads};

/// What an authentication is made with.
#[derive(Clone, Copy)]
pub(crate) struct AuthContext<'a> {
    pub(crate) core: &'a Core,
    #[expect(dead_code, reason = "certificates have a validity")]
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
    /// The keys to go on with, if others than so far (RFC 8784).
    pub(crate) keys: Option<IkeKeys>,
}

/// Our proof: the payloads that IKE_AUTH has for it, besides IDi or IDr.
pub(crate) struct Proof {
    /// DER, ours first.
    certificates: Vec<Vec<u8>>,
    method: AuthMethod,
    data: Vec<u8>,
    /// Status notifications and their data.
    notifies: Vec<(crate::wire::NotifyType, Vec<u8>)>,
}

impl Proof {
    fn new(method: AuthMethod, data: Vec<u8>) -> Self {
        Self {
            certificates: Vec::new(),
            method,
            data,
            notifies: Vec::new(),
        }
    }

    /// Appends CERT payloads, AUTH and notifications. ID payloads come before, by
    /// [`push_identity`].
    pub(crate) fn push_onto(&self, message: &mut MessageBuilder) {
        for data in &self.certificates {
            message.push(&Payload::Cert(crate::wire::CertRepr {
                encoding: crate::wire::CertEncoding::X509_SIGNATURE,
                data,
            }));
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
        let expected = connection.remote_id.exact();
        let remote_id = peer.map(|peer| &peer.remote_id).or(expected);
        self.prove_by_psk(&connection.local_id, remote_id)
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
        // RFC 7296 §2.16: without AUTH the initiator asks for EAP.
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
        self.verify_psk(&connection.local_id, &remote_id, id, auth.data)?;
        Ok(Proven {
            remote_id,
            keys: None,
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
