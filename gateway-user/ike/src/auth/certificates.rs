//! CERT and CERTREQ payloads (RFC 7296 §3.6, §3.7).

use crate::config::{Connection, Credential, RemoteAuth, RemotePublicKey, SendCert};
use crate::crypto::CryptoProvider;
use crate::error::IkeError;
use crate::identity::Identity;
use crate::wire::{CertEncoding, CertReqRepr, MessageBuilder, Payload, Payloads};
use crate::x509::Certificate;
use crate::x509::path::Validation;

use super::{AuthContext, denied};

/// Most certificates of a peer that are looked at.
const MAX_CERTIFICATES: usize = 8;

/// Most authorities that a CERTREQ of ours names. With more it names none, which means any.
const MAX_AUTHORITIES: usize = 32;

/// What a peer's CERTREQ payloads ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requested {
    /// Whether they ask for X.509 certificates.
    asked: bool,
    /// SHA-1 of the authorities' SubjectPublicKeyInfo; empty: any will do.
    authorities: Vec<[u8; 20]>,
}

impl Requested {
    /// A certificate of the peer's own counts as a question: as initiator libreswan asks for none
    /// unless `rightca` is set, and cannot do without.
    pub(super) fn from_payloads(payloads: &Payloads<'_>) -> Self {
        let requests = &payloads.cert_requests;
        let x509 = |encoding| encoding == CertEncoding::X509_SIGNATURE;
        Self {
            asked: requests.iter().any(|request| x509(request.encoding))
                || payloads.certs.iter().any(|cert| x509(cert.encoding)),
            authorities: requests
                .iter()
                .flat_map(CertReqRepr::hashes)
                .copied()
                .collect(),
        }
    }

    /// Whether `credential` leads to one of the authorities, as far as we can tell: it does if the
    /// peer named none.
    pub(super) fn likes(
        &self,
        crypto: &dyn CryptoProvider,
        credential: &Credential,
        known: &[std::sync::Arc<Certificate>],
    ) -> bool {
        let wanted = |c: &Certificate| self.authorities.contains(&c.key_hash(crypto));
        let is_issuer = |c: &Certificate| {
            let mut chain = credential.chain.iter();
            chain.any(|below| below.issuer().matches(c.subject()))
        };
        self.authorities.is_empty()
            || credential.chain.iter().any(|c| wanted(c))
            || known.iter().any(|c| is_issuer(c) && wanted(c))
    }

    pub(super) fn send(&self, policy: SendCert) -> bool {
        match policy {
            SendCert::Always => true,
            SendCert::IfAsked => self.asked,
            SendCert::Never => false,
        }
    }
}

/// The authorities that our CERTREQ names; `None` if none of `connections` wants certificates of
/// its peers.
pub(super) fn request(
    crypto: &dyn CryptoProvider,
    connections: &[&Connection],
) -> Option<Vec<[u8; 20]>> {
    let wanting = connections
        .iter()
        .filter_map(|connection| match &connection.auth.remote {
            RemoteAuth::PublicKey(remote) => Some(remote),
            RemoteAuth::Psk => None,
        });
    let mut hashes: Option<Vec<[u8; 20]>> = None;
    for remote in wanting {
        let hashes = hashes.get_or_insert_default();
        for authority in &remote.authorities {
            let hash = authority.key_hash(crypto);
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
    }
    hashes.map(|hashes| match hashes.len() {
        0..=MAX_AUTHORITIES => hashes,
        _ => Vec::new(),
    })
}

/// Appends a CERTREQ payload.
pub(super) fn push_request(message: &mut MessageBuilder, authorities: &[[u8; 20]]) {
    message.push(&Payload::CertReq(CertReqRepr {
        encoding: CertEncoding::X509_SIGNATURE,
        authorities: authorities.as_flattened(),
    }));
}

impl AuthContext<'_> {
    /// The certificate with whose key the peer has to sign: validated, and naming `remote_id`.
    pub(super) fn peer_certificate(
        &self,
        connection: &Connection,
        remote: &RemotePublicKey,
        remote_id: &Identity,
        payloads: &Payloads<'_>,
    ) -> Result<Certificate, IkeError> {
        let mut sent = certificates(payloads, remote_id)?.into_iter();
        let crypto = &*self.core.crypto;
        let now = self.core.unix_time(self.now).ok_or_else(|| {
            let why = "the time of day is not known (fix: set this host's clock)";
            denied(format!(
                "no certificate of {remote_id} can be checked: {why}"
            ))
        })?;
        let validation = Validation {
            crypto,
            now,
            authorities: &remote.authorities,
            crls: &self.core.crls,
            revocation: remote.revocation,
        };
        let Some(end) = sent.next() else {
            return self.known_certificate(connection, remote, remote_id, validation, payloads);
        };
        let others: Vec<Certificate> = sent.collect();
        let judged = if remote.certificates.iter().any(|known| **known == end) {
            validation.check_end(&end)
        } else if remote.authorities.is_empty() && !remote.certificates.is_empty() {
            return Err(denied(format!(
                "{remote_id} sent certificate {end} of \"{}\", and connection {} takes none but \
                 those in remote.certs (fix: add it there, or its authority to remote.cacerts)",
                end.issuer(),
                connection.name
            )));
        } else {
            validation.check(&end, &others)
        };
        judged.map_err(|error| denied(format!("{remote_id}: {error}")))?;
        if !end.names(crypto, remote_id) {
            return Err(denied(format!(
                "{remote_id} is not in the certificate that was sent, {end} of \"{}\", which is for {} \
                 (fix: one of these as the peer's identity, or a certificate with \
                 {remote_id} in subjectAltName)",
                end.issuer(),
                end.names_to_string()
            )));
        }
        Ok(end)
    }

    /// A certificate that we have already: the peer sent none.
    fn known_certificate(
        &self,
        connection: &Connection,
        remote: &RemotePublicKey,
        remote_id: &Identity,
        validation: Validation<'_>,
        payloads: &Payloads<'_>,
    ) -> Result<Certificate, IkeError> {
        let mut known = remote.certificates.iter();
        let known = known.find(|known| known.names(&*self.core.crypto, remote_id));
        let Some(known) = known else {
            let instead = payloads.certs.first().map_or_else(
                || "no certificate".to_owned(),
                |cert| {
                    format!(
                        "{} instead of a certificate, which is not supported",
                        cert.encoding
                    )
                },
            );
            return Err(denied(format!(
                "{remote_id} sent {instead}, and connection {} has none for it in remote.certs (fix: \
                 have the peer send its own, in strongSwan send_cert = always, or add it there)",
                connection.name
            )));
        };
        let judged = validation.check_end(known);
        judged.map_err(|error| denied(format!("{remote_id}: {error}")))?;
        Ok((**known).clone())
    }
}

/// The X.509 certificates among the CERT payloads, that of the peer first (RFC 7296 §3.6).
fn certificates(
    payloads: &Payloads<'_>,
    remote_id: &Identity,
) -> Result<Vec<Certificate>, IkeError> {
    let x509 = |cert: &&crate::wire::CertRepr<'_>| cert.encoding == CertEncoding::X509_SIGNATURE;
    let mut parsed: Vec<Certificate> = Vec::new();
    for cert in payloads.certs.iter().filter(x509) {
        if parsed.len() == MAX_CERTIFICATES {
            return Err(denied(format!(
                "{remote_id} sent more than {MAX_CERTIFICATES} certificates (fix: have it send only \
                 what leads to its authority)"
            )));
        }
        match Certificate::from_der(cert.data) {
            Ok(certificate) => parsed.push(certificate),
            // One that cannot be read helps nobody, but only the first one has to be there.
            Err(error) if parsed.is_empty() => {
                return Err(denied(format!(
                    "{remote_id} sent a certificate that is no good: {error} (fix: issue it anew)"
                )));
            }
            Err(_) => {}
        }
    }
    Ok(parsed)
}
