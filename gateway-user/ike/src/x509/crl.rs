//! Certificate revocation lists (RFC 5280 §5).

use std::collections::BTreeSet;
use std::fmt;

use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::KeyUsages;

use super::certificate::{Signed, verify};
use super::{Certificate, Name, X509Error};
use crate::crypto::{CryptoError, CryptoProvider};
use crate::signature::SignatureScheme;

const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const REASON_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const INVALIDITY_DATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.24");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// A complete CRL, parsed but not verified.
#[derive(Clone)]
pub struct Crl {
    tbs: Box<[u8]>,
    scheme: Option<SignatureScheme>,
    signature: Box<[u8]>,
    issuer: Name,
    /// Seconds since 1970.
    this_update: u64,
    next_update: Option<u64>,
    serials: BTreeSet<Box<[u8]>>,
    /// Critical, and we do not process it (a delta, a part of the certificates, …): its OID.
    unprocessed: Option<String>,
}

impl Crl {
    /// From DER.
    ///
    /// # Errors
    /// What is malformed.
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        let malformed = X509Error::malformed("CRL");
        let signed = Signed::from_der(der).map_err(&malformed)?;
        let tbs = TbsCertList::from_der(signed.tbs).map_err(&malformed)?;
        let revoked = tbs.revoked_certificates.unwrap_or_default();
        let within = revoked.iter().find_map(entry_unprocessed);
        let unprocessed = unprocessed(
            tbs.crl_extensions.as_deref().unwrap_or_default(),
            &[CRL_NUMBER, AUTHORITY_KEY_IDENTIFIER],
        );
        Ok(Self {
            scheme: SignatureScheme::from_algorithm_identifier(signed.algorithm),
            signature: signed.signature.into(),
            issuer: Name::from_sequence(&tbs.issuer).map_err(&malformed)?,
            this_update: tbs.this_update.to_unix_duration().as_secs(),
            next_update: tbs
                .next_update
                .map(|time| time.to_unix_duration().as_secs()),
            serials: revoked
                .iter()
                .map(|entry| entry.serial_number.as_bytes().into())
                .collect(),
            unprocessed: unprocessed.or(within),
            tbs: signed.tbs.into(),
        })
    }

    /// Who signed it.
    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// When it was made, and when the next one will be, in seconds since 1970.
    pub fn updates(&self) -> (u64, Option<u64>) {
        (self.this_update, self.next_update)
    }

    /// Certificates in it.
    pub fn len(&self) -> usize {
        self.serials.len()
    }

    /// Whether it revokes nothing.
    pub fn is_empty(&self) -> bool {
        self.serials.is_empty()
    }

    /// Whether the certificate with this serial number is revoked.
    pub(super) fn revokes(&self, serial: &[u8]) -> bool {
        self.serials.contains(serial)
    }

    /// Whether there should be a newer one by now. One without an end has to be trusted for ever
    /// or not at all; RFC 5280 §5.1.2.5 forbids it, and it counts as stale.
    pub(super) fn is_stale(&self, now: u64) -> bool {
        now < self.this_update || self.next_update.is_none_or(|next| now > next)
    }

    /// Whether `authority` made it, and we understand all of it.
    ///
    /// # Errors
    /// Why it is of no use, for the operator.
    pub(super) fn verify(
        &self,
        crypto: &dyn CryptoProvider,
        authority: &Certificate,
    ) -> Result<(), String> {
        if let Some(oid) = &self.unprocessed {
            return Err(format!(
                "has the critical extension {oid}, which is not supported"
            ));
        }
        if !authority.extensions.allows(&[KeyUsages::CRLSign]) {
            return Err(format!("{authority} may not sign CRLs (keyUsage)"));
        }
        verify(crypto, self.scheme, authority, &self.tbs, &self.signature).map_err(|error| {
            match error {
                CryptoError::Unsupported => "is signed in a way that is not accepted".to_owned(),
                _ => format!("is not signed by {authority}"),
            }
        })
    }
}

fn unprocessed(extensions: &[Extension], known: &[ObjectIdentifier]) -> Option<String> {
    let unknown =
        |extension: &&Extension| extension.critical && !known.contains(&extension.extn_id);
    let found = extensions.iter().find(unknown)?;
    Some(found.extn_id.to_string())
}

fn entry_unprocessed(entry: &RevokedCert) -> Option<String> {
    let extensions = entry.crl_entry_extensions.as_deref().unwrap_or_default();
    unprocessed(extensions, &[REASON_CODE, INVALIDITY_DATE])
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crl(of \"{}\", {} entries)", self.issuer, self.len())
    }
}
