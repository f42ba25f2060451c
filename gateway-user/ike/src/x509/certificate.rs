//! One certificate.

use std::fmt;

use der::asn1::BitStringRef;
use der::{Decode, Encode, Reader, SliceReader};
use x509_cert::certificate::TbsCertificate;

use super::extensions::Extensions;
use super::{AltName, MAX_CERTIFICATE_LEN, Name, X509Error, hex};
use crate::crypto::{CryptoError, CryptoProvider};
use crate::identity::Identity;
use crate::signature::{KeyKind, SignatureScheme};

/// A certificate, parsed but not verified. Two are equal when their octets are.
#[derive(Clone)]
pub struct Certificate {
    der: Box<[u8]>,
    /// Octets of `der` before `tbs`, and of `tbs`.
    tbs: (usize, usize),
    scheme: Option<SignatureScheme>,
    signature: Box<[u8]>,
    issuer: Name,
    subject: Name,
    serial: Box<[u8]>,
    /// Seconds since 1970.
    not_before: u64,
    not_after: u64,
    public_key: Box<[u8]>,
    kind: Option<KeyKind>,
    pub(super) extensions: Extensions,
}

impl Certificate {
    /// From DER.
    ///
    /// # Errors
    /// What is malformed. A certificate that is well-formed and good for nothing is no error here.
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        if der.len() > MAX_CERTIFICATE_LEN {
            return Err(X509Error::TooLong(der.len()));
        }
        let signed = Signed::from_der(der).map_err(X509Error::malformed("certificate"))?;
        let tbs =
            TbsCertificate::from_der(signed.tbs).map_err(X509Error::malformed("certificate"))?;
        let again = |what| X509Error::malformed(what);
        let inner = tbs.signature.to_der().map_err(again("algorithm"))?;
        // RFC 5280 §4.1.1.2: both MUST be the same.
        let scheme = (inner == signed.algorithm)
            .then(|| SignatureScheme::from_algorithm_identifier(signed.algorithm))
            .flatten();
        let public_key = tbs
            .subject_public_key_info
            .to_der()
            .map_err(again("public key"))?;
        Ok(Self {
            tbs: (signed.tbs_at, signed.tbs.len()),
            scheme,
            signature: signed.signature.into(),
            issuer: Name::from_sequence(&tbs.issuer).map_err(again("issuer"))?,
            subject: Name::from_sequence(&tbs.subject).map_err(again("subject"))?,
            serial: tbs.serial_number.as_bytes().into(),
            not_before: tbs.validity.not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity.not_after.to_unix_duration().as_secs(),
            kind: KeyKind::of_public_key(&public_key),
            public_key: public_key.into(),
            extensions: Extensions::parse(tbs.extensions.as_deref().unwrap_or_default()),
            der: der.into(),
        })
    }

    /// As it came.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whose it is.
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// Who signed it.
    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// Serial number, big-endian.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// First and last second of its validity, since 1970.
    pub fn validity(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// What its key is; `None` if of a kind that we do not have.
    pub fn key_kind(&self) -> Option<KeyKind> {
        self.kind
    }

    /// How it was signed; `None` if in a way that we do not accept.
    pub fn scheme(&self) -> Option<SignatureScheme> {
        self.scheme
    }

    /// Whether it is a certification authority's (basicConstraints).
    pub fn is_ca(&self) -> bool {
        self.extensions.ca.is_some_and(|ca| ca)
    }

    /// Whether subject and issuer are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.subject.matches(&self.issuer)
    }

    /// subjectAltName.
    pub fn alt_names(&self) -> &[AltName] {
        &self.extensions.alt_names
    }

    /// What CERTREQ calls the authority that this certificate is of: SHA-1 of the
    /// SubjectPublicKeyInfo (RFC 7296 §3.7).
    pub fn key_hash(&self, crypto: &dyn CryptoProvider) -> [u8; 20] {
        crypto.sha1(&[&self.public_key])
    }

    /// Whether it says that its subject is `identity`.
    ///
    /// As swanctl does: names and addresses must stand in subjectAltName, case does not matter and
    /// there are no wildcards (RFC 4945 §5.1.3.6); a distinguished name is the subject; a KEY_ID is
    /// the subjectKeyIdentifier, or the SHA-1 of the public key or its SubjectPublicKeyInfo.
    pub fn names(&self, crypto: &dyn CryptoProvider, identity: &Identity) -> bool {
        let has = |fits: &dyn Fn(&AltName) -> bool| self.alt_names().iter().any(fits);
        match identity {
            Identity::Fqdn(wanted) => {
                has(&|name| matches!(name, AltName::Dns(name) if name.eq_ignore_ascii_case(wanted)))
            }
            Identity::Rfc822(wanted) => has(
                &|name| matches!(name, AltName::Rfc822(name) if name.eq_ignore_ascii_case(wanted)),
            ),
            Identity::Ip(wanted) => has(&|name| matches!(name, AltName::Ip(ip) if ip == wanted)),
            Identity::Dn(wanted) => {
                Name::from_der(wanted).is_ok_and(|wanted| self.subject.matches(&wanted))
            }
            Identity::KeyId(wanted) => {
                self.extensions.key_id.as_deref() == Some(wanted)
                    || self.key_hash(crypto)[..] == **wanted
                    || bare_key(&self.public_key).is_some_and(|k| crypto.sha1(&[k])[..] == **wanted)
            }
        }
    }

    /// What it says its subject is, for an error message.
    pub(crate) fn names_to_string(&self) -> String {
        let mut names = vec![format!("\"{}\"", self.subject)];
        names.extend(self.alt_names().iter().take(8).map(AltName::to_string));
        names.join(", ")
    }

    /// Verifies its signature with the key of `issuer`, and nothing else.
    ///
    /// # Errors
    /// [`CryptoError::BadSignature`], [`CryptoError::Unsupported`].
    pub fn verify_signed_by(
        &self,
        crypto: &dyn CryptoProvider,
        issuer: &Self,
    ) -> Result<(), CryptoError> {
        verify(crypto, self.scheme, issuer, self.tbs(), &self.signature)
    }

    fn tbs(&self) -> &[u8] {
        let (at, len) = self.tbs;
        self.der.get(at..at + len).unwrap_or_default()
    }
}

/// Verifies what `issuer` signed. SHA-1 signatures are not accepted from anyone.
pub(super) fn verify(
    crypto: &dyn CryptoProvider,
    scheme: Option<SignatureScheme>,
    issuer: &Certificate,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), CryptoError> {
    let scheme = scheme
        .filter(|scheme| scheme.hash() != crate::signature::SignatureHash::Sha1)
        .filter(|scheme| issuer.kind.is_some_and(|kind| scheme.fits(kind)))
        .ok_or(CryptoError::Unsupported)?;
    crypto.verify_signature(scheme, &issuer.public_key, &[signed], signature)
}

/// What certificates and CRLs have in common: SEQUENCE { tbs, algorithm, signature }.
pub(super) struct Signed<'a> {
    pub(super) tbs: &'a [u8],
    pub(super) tbs_at: usize,
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(super) fn from_der(der: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(der)?;
        let (tbs, algorithm, signature) = reader.sequence(|reader| {
            let tbs = reader.tlv_bytes()?;
            let algorithm = reader.tlv_bytes()?;
            Ok((tbs, algorithm, BitStringRef::decode(reader)?))
        })?;
        let tail = algorithm.len() + usize::try_from(signature.encoded_len()?)?;
        let tbs_at = der.len().saturating_sub(tail + tbs.len());
        reader.finish(Self {
            tbs,
            tbs_at,
            algorithm,
            signature: signature.as_bytes().unwrap_or_default(),
        })
    }
}

/// The BIT STRING of a SubjectPublicKeyInfo.
fn bare_key(spki: &[u8]) -> Option<&[u8]> {
    let mut reader = SliceReader::new(spki).ok()?;
    let key = reader.sequence(|reader| {
        reader.tlv_bytes()?;
        BitStringRef::decode(reader)
    });
    key.ok()?.as_bytes()
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

/// Subject and serial number: enough to find it.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" (serial {})", self.subject, hex(&self.serial))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({self} by \"{}\")", self.issuer)
    }
}
