//! Signatures: RFC 7427, and the older methods of RFC 7296 §3.8 and RFC 4754.

use super::certificates::Requested;
use super::{AuthContext, Proof, denied};
use crate::config::{Connection, Credential, RemoteAuth, RemotePublicKey, SignaturePolicy};
use crate::crypto::{CryptoError, CryptoProvider};
use crate::error::IkeError;
use crate::identity::Identity;
use crate::keys::AuthInput;
use crate::signature::{SignatureHash, SignatureScheme};
use crate::wire::{AuthMethod, AuthRepr, IdRepr, Payloads};
use crate::x509::Certificate;

impl AuthContext<'_> {
    /// Our signature, and the certificates to go with it.
    pub(super) fn prove_by_signature(
        &self,
        connection: &Connection,
        credentials: &[Credential],
        policy: &SignaturePolicy,
        requested: &Requested,
    ) -> Result<Proof, IkeError> {
        let announced = &self.transcript.announced.hashes;
        let known = match &connection.auth.remote {
            RemoteAuth::PublicKey(remote) => &remote.authorities[..],
            RemoteAuth::Psk => &[],
        };
        let usable = credentials.iter().filter_map(|credential| {
            Some((credential, policy.choose(&*credential.key, announced)?))
        });
        // `min_by_key` takes the first of equals, which is the one configured first.
        let chosen = usable
            .min_by_key(|(credential, _)| !requested.likes(&*self.core.crypto, credential, known));
        let (credential, scheme) = chosen
            .ok_or_else(|| nothing_to_sign_with(connection, credentials, policy, announced))?;
        let (kind, data) = connection.local_id.to_payload();
        let id_body = IdRepr::new(kind, &data).rest_of_payload();
        let covered = self.covered(self.role, &id_body);
        let signature = with_signed_octets(&*self.core.crypto, self.prf, covered, |octets| {
            credential.key.sign(scheme, octets)
        })?;
        let (method, data) = encode(scheme, announced.is_empty(), signature);
        let mut proof = Proof::new(method, data);
        if requested.send(connection.auth.send_cert) {
            let chain = credential.chain.iter();
            proof.certificates = chain
                .map(|certificate| certificate.der().to_vec())
                .collect();
        }
        Ok(proof)
    }

    /// Judges the peer's certificate and signature; `id` is its ID payload as received.
    pub(super) fn verify_signature(
        &self,
        connection: &Connection,
        remote: &RemotePublicKey,
        remote_id: &Identity,
        (id, auth): (&IdRepr<'_>, AuthRepr<'_>),
        payloads: &Payloads<'_>,
    ) -> Result<(), IkeError> {
        let (schemes, signature) = decode(auth).ok_or_else(|| {
            denied(format!(
                "{remote_id} signed in a way that is not supported, {} (fix: RSA, ECDSA or \
                     Ed25519 with SHA-2 at the peer)",
                auth.method
            ))
        })?;
        let end = self.peer_certificate(connection, remote, remote_id, payloads)?;
        let kind = end
            .key_kind()
            .filter(|kind| remote.policy.permits_key(*kind))
            .ok_or_else(|| {
                let kind = end.key_kind();
                let kind = kind.map_or_else(|| "another kind".to_owned(), |kind| kind.to_string());
                let policy = &remote.policy;
                denied(format!(
                    "{remote_id} has a key of {kind} in its certificate {end}, remote.auth is \
                     {policy} (fix: a certificate with such a key, or another remote.auth)"
                ))
            })?;
        let id_body = id.rest_of_payload();
        for scheme in schemes.into_iter().filter(|scheme| scheme.fits(kind)) {
            let covered = self.covered(self.peer_role(), &id_body);
            let verified = with_signed_octets(&*self.core.crypto, self.prf, covered, |octets| {
                let crypto = &*self.core.crypto;
                crypto.verify_signature(scheme, end.public_key(), octets, signature)
            });
            match verified {
                Ok(()) if remote.policy.permits(scheme) => return Ok(()),
                Ok(()) => {
                    let policy = &remote.policy;
                    return Err(denied(format!(
                        "{remote_id} signed by {scheme}, remote.auth is {policy} (fix: either side's \
                         hashes)"
                    )));
                }
                Err(CryptoError::BadSignature | CryptoError::Unsupported) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(bad_signature(remote_id, auth.method, &end))
    }
}

/// Hands the octets that AUTH covers (RFC 7296 §2.15) to `then`.
fn with_signed_octets<T>(
    crypto: &dyn CryptoProvider,
    prf: crate::crypto::Prf,
    covered: AuthInput<'_>,
    then: impl FnOnce(&[&[u8]]) -> T,
) -> T {
    let maced_id = crypto.prf(prf, covered.sk_p.expose(), &[covered.id_body]);
    then(&[
        covered.message,
        covered.peer_nonce,
        maced_id.expose(),
        covered.int_auth,
    ])
}

/// Method and data of the AUTH payload for a signature.
fn encode(scheme: SignatureScheme, old: bool, signature: Vec<u8>) -> (AuthMethod, Vec<u8>) {
    let method = match scheme {
        SignatureScheme::EcdsaFixed(SignatureHash::Sha384) => AuthMethod::ECDSA_P384_SHA384,
        SignatureScheme::EcdsaFixed(SignatureHash::Sha512) => AuthMethod::ECDSA_P521_SHA512,
        SignatureScheme::EcdsaFixed(_) => AuthMethod::ECDSA_P256_SHA256,
        SignatureScheme::RsaPkcs1(_) if old => AuthMethod::RSA_DIGITAL_SIGNATURE,
        _ => AuthMethod::DIGITAL_SIGNATURE,
    };
    if method != AuthMethod::DIGITAL_SIGNATURE {
        return (method, signature);
    }
    // RFC 7427 §3: length of the AlgorithmIdentifier, itself, the signature.
    let algorithm = scheme.algorithm_identifier().unwrap_or_default();
    let mut data = Vec::with_capacity(1 + algorithm.len() + signature.len());
    data.push(u8::try_from(algorithm.len()).unwrap_or(u8::MAX));
    data.extend_from_slice(algorithm);
    data.extend_from_slice(&signature);
    (method, data)
}

/// Schemes that the AUTH payload may mean, and the signature.
fn decode(auth: AuthRepr<'_>) -> Option<(Vec<SignatureScheme>, &[u8])> {
    use SignatureHash::{Sha1, Sha256, Sha384, Sha512};
    let schemes = match auth.method {
        AuthMethod::DIGITAL_SIGNATURE => {
            let (len, rest) = auth.data.split_first()?;
            let (algorithm, signature) = rest.split_at_checked(usize::from(*len))?;
            let scheme = SignatureScheme::from_algorithm_identifier(algorithm)?;
            // SHA-1 came with the old method only (RFC 8247 §3.2: MUST NOT).
            return (scheme.hash() != Sha1).then(|| (vec![scheme], signature));
        }
        // The hash stands in the signature itself; whether SHA-1 may be used is asked afterwards,
        // so that the operator can be told.
        AuthMethod::RSA_DIGITAL_SIGNATURE => [Sha1, Sha256, Sha384, Sha512]
            .map(SignatureScheme::RsaPkcs1)
            .to_vec(),
        AuthMethod::ECDSA_P256_SHA256 => vec![SignatureScheme::EcdsaFixed(Sha256)],
        AuthMethod::ECDSA_P384_SHA384 => vec![SignatureScheme::EcdsaFixed(Sha384)],
        AuthMethod::ECDSA_P521_SHA512 => vec![SignatureScheme::EcdsaFixed(Sha512)],
        _ => return None,
    };
    Some((schemes, auth.data))
}

fn bad_signature(remote_id: &Identity, method: AuthMethod, end: &Certificate) -> IkeError {
    denied(format!(
        "the signature of {remote_id} ({method}) is not by the key of its certificate {end} of \
         \"{}\" (fix: the private key that belongs to it, at the peer)",
        end.issuer()
    ))
}

fn nothing_to_sign_with(
    connection: &Connection,
    credentials: &[Credential],
    policy: &SignaturePolicy,
    announced: &[SignatureHash],
) -> IkeError {
    let list = |items: Vec<String>| match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(", "),
    };
    let keys = list(
        credentials
            .iter()
            .map(|c| c.key.kind().to_string())
            .collect(),
    );
    let hashes = list(announced.iter().map(ToString::to_string).collect());
    denied(format!(
        "{} has no key that it may sign with for this peer: keys {keys}; local.auth is {policy}; \
         hashes that the peer announced: {hashes}",
        connection.local_id
    ))
}
