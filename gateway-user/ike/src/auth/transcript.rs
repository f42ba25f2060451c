//! What the AUTH payloads of one IKE SA cover (RFC 7296 §2.15), and what was said before them.

use super::certificates::{Requested, push_request, request};
use crate::config::{Connection, LocalAuth, RemoteAuth};
use crate::crypto::CryptoProvider;
use crate::keys::{AuthInput, IkeKeys};
use crate::record::Role;
use crate::signature::SignatureHash;
use crate::wire::{MessageBuilder, NotifyRepr, NotifyType, Payload, Payloads};

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
pub(crate) struct Announced {
    /// SIGNATURE_HASH_ALGORITHMS, those that we have; empty without it (RFC 7427 §4).
    pub(crate) hashes: Vec<SignatureHash>,
    /// CERTREQ: only a responder sends it here.
    pub(super) requested: Requested,
    /// USE_PPK, and we said it too (RFC 8784 §3).
    pub(crate) ppk: bool,
}

impl Announced {
    /// From the payloads of the peer's IKE_SA_INIT message. `ppk`: whether ours has USE_PPK.
    pub(crate) fn from_init(payloads: &Payloads<'_>, ppk: bool) -> Self {
        let hashes = payloads.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS);
        let (ids, _) = hashes
            .map_or(&[][..], |notify| notify.data)
            .as_chunks::<2>();
        let mut known = Vec::new();
        for id in ids {
            if let Some(hash) = SignatureHash::from_id(u16::from_be_bytes(*id))
                && !known.contains(&hash)
            {
                known.push(hash);
            }
        }
        Self {
            hashes: known,
            requested: Requested::from_payloads(payloads),
            ppk: ppk && payloads.has_notify(NotifyType::USE_PPK),
        }
    }
}

/// Appends to our part of IKE_SA_INIT what authentication needs: the hashes that we verify
/// (RFC 7427 §4), USE_PPK (RFC 8784 §3), and as responder CERTREQ. `connections` are those that it
/// may come to be about; `peer` is the request that is answered, `None` in a request.
///
/// Returns whether USE_PPK is among it.
pub(crate) fn announce(
    message: &mut MessageBuilder,
    crypto: &dyn CryptoProvider,
    connections: &[&Connection],
    peer: Option<&Payloads<'_>>,
) -> bool {
    let asked = |kind| peer.is_none_or(|peer| peer.has_notify(kind));
    let signs = |connection: &&Connection| {
        matches!(connection.auth.remote, RemoteAuth::PublicKey(_))
            || matches!(connection.auth.local, LocalAuth::PublicKey { .. })
    };
    if asked(NotifyType::SIGNATURE_HASH_ALGORITHMS) && connections.iter().any(signs) {
        let ids = SignatureHash::ANNOUNCED.map(|hash| hash.id().to_be_bytes());
        message.push(&Payload::Notify(NotifyRepr::new(
            NotifyType::SIGNATURE_HASH_ALGORITHMS,
            ids.as_flattened(),
        )));
    }
    let ppk = asked(NotifyType::USE_PPK) && connections.iter().any(|c| c.auth.ppk.is_some());
    if ppk {
        message.push(&Payload::Notify(NotifyRepr::new(NotifyType::USE_PPK, &[])));
    }
    if peer.is_some()
        && let Some(authorities) = request(crypto, connections)
    {
        push_request(message, &authorities);
    }
    ppk
}
