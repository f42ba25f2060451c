//! What the AUTH payloads of one IKE SA cover (RFC 7296 §2.15), and what was said before them.

use crate::keys::{AuthInput, IkeKeys};
use crate::record::Role;
use crate::wire::Payloads;

/// IKE_SA_INIT as both sides saw it, and what followed before IKE_AUTH.
pub(crate) struct Transcript {
    /// The initiator's first message, the one that was answered: with cookie if there was one.
    pub(crate) request: Box<[u8]>,
    /// The responder's first message.
    pub(crate) response: Box<[u8]>,
    pub(crate) nonce_i: Box<[u8]>,
    pub(crate) nonce_r: Box<[u8]>,
    /// IntAuth_i | IntAuth_r | Message ID of IKE_AUTH; empty without IKE_INTERMEDIATE (RFC 9242
    /// §3.3.2).
    pub(crate) int_auth: Vec<u8>,
    /// What the peer's part of IKE_SA_INIT says about authentication.
    #[expect(dead_code, reason = "signatures depend on it")]
    pub(crate) announced: Announced,
}

impl Transcript {
    /// What the AUTH payload of the side with `role` covers; `id_body` is its ID payload without
    /// the generic header, as sent.
    pub(crate) fn covered<'a>(
        &'a self,
        role: Role,
        keys: &'a IkeKeys,
        id_body: &'a [u8],
    ) -> AuthInput<'a> {
        let (message, peer_nonce, sk_p) = match role {
            Role::Initiator => (&self.request, &self.nonce_r, &keys.pi),
            Role::Responder => (&self.response, &self.nonce_i, &keys.pr),
        };
        AuthInput {
            message,
            peer_nonce,
            sk_p,
            id_body,
            int_auth: &self.int_auth,
        }
    }
}

/// What a peer's part of IKE_SA_INIT says about authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {}

impl Announced {
    /// From the payloads of the peer's IKE_SA_INIT message.
    pub(crate) fn from_init(_payloads: &Payloads<'_>) -> Self {
        Self {}
    }
}
