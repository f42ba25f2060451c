//! Path validation (RFC 5280 §6): from a peer's certificate to an authority that we trust.

mod constraints;
mod revocation;

use std::fmt;
use std::time::Duration;

use der::DateTime;
use x509_cert::ext::pkix::KeyUsages;

pub use self::revocation::Revocation;
use super::{Certificate, Crl};
use crate::crypto::{CryptoError, CryptoProvider};

/// Most certificates in a path, both ends included.
pub const MAX_PATH_LEN: usize = 8;

/// Most signatures that are verified for one path, CRLs included: what a peer can make us do by
/// sending many certificates with the same name.
pub const MAX_SIGNATURES: u32 = 24;

/// What a path is validated with.
#[derive(Clone, Copy)]
pub struct Validation<'a> {
    /// Verifies signatures.
    pub crypto: &'a dyn CryptoProvider,
    /// Seconds since 1970.
    pub now: u64,
    /// Authorities that are trusted, directly.
    pub authorities: &'a [std::sync::Arc<Certificate>],
    /// CRLs, of whomever.
    pub crls: &'a [std::sync::Arc<Crl>],
    /// How much must be known about revocation.
    pub revocation: Revocation,
}

/// Why a certificate is not accepted. `Display` is for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathError {
    /// The certificate concerned, and who issued it.
    certificate: String,
    issuer: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// None of the authorities issued it, as far as the certificates at hand show.
    #[error(
        "was issued by \"{0}\", which is neither a trusted authority nor among the certificates sent"
    )]
    UnknownIssuer(String),
    /// Its signature is not that of the authority that it names.
    #[error("is not signed by the key of {0}")]
    BadSignature(String),
    /// SHA-1, a short key, an unknown algorithm.
    #[error("is signed in a way that is not accepted, or by a key that is not")]
    Algorithm,
    /// After its validity, which ended then.
    #[error("expired {0} ago, on {1}")]
    Expired(Ago, UnixTime),
    /// Before its validity, which begins then.
    #[error("is valid only in {0}, from {1}")]
    NotYetValid(Ago, UnixTime),
    /// A certificate that issued another one, and may not.
    #[error("is no certification authority's (basicConstraints), but issued {0}")]
    NoAuthority(String),
    /// More intermediate authorities than it allows.
    #[error("allows {0} intermediate authorities below it (pathLenConstraint), the path has more")]
    PathLen(u8),
    /// A path that is longer than [`MAX_PATH_LEN`].
    #[error("is too far from a trusted authority: more than {MAX_PATH_LEN} certificates")]
    TooLong,
    /// It may not do what it does.
    #[error("may not {0} (keyUsage)")]
    KeyUsage(&'static str),
    /// It is for other purposes.
    #[error("is not for IKE (extendedKeyUsage)")]
    ExtendedKeyUsage,
    /// Something critical that we do not process.
    #[error("has the extension {0}, which is critical and not supported, or malformed")]
    Extension(String),
    /// A name outside of what the authority may issue.
    #[error("has the name {name}, which {authority} may not issue (nameConstraints)")]
    NameConstraints {
        /// The name.
        name: String,
        /// The authority.
        authority: String,
    },
    /// It is on its authority's list.
    #[error("is revoked by {0}")]
    Revoked(String),
    /// Whether it is revoked cannot be known, and must be.
    #[error("may be revoked: {0} (revocation = strict or ifuri)")]
    RevocationUnknown(String),
    /// [`MAX_SIGNATURES`].
    #[error("leads to too many possible paths")]
    TooMuchWork,
}

impl Reason {
    /// What to do about it.
    const fn fix(&self) -> &'static str {
        match self {
            Self::UnknownIssuer(_) => {
                "have the peer send the certificates between, or add this authority to [[authority]] \
                 or remote.cacerts"
            }
            Self::BadSignature(_) => {
                "if the authority has a new key under its old name, add its new certificate"
            }
            Self::Algorithm => {
                "issue it anew, with SHA-2 and a key of RSA-2048 or more, ECDSA or Ed25519"
            }
            Self::Expired(..) => "issue a new one; or set this host's clock",
            Self::NotYetValid(..) => "set this host's clock, or that of the authority",
            Self::NoAuthority(_) => "issue peers' certificates by one with CA:TRUE",
            Self::PathLen(_) => "issue the authority's certificate with a larger pathlen",
            Self::TooLong => "trust an authority that is nearer to the peer",
            Self::KeyUsage(_) => {
                "issue it with the key usage that is missing: digitalSignature, of an authority \
                 keyCertSign"
            }
            Self::ExtendedKeyUsage => {
                "issue it without extendedKeyUsage, or with ipsecIKE, serverAuth or clientAuth"
            }
            Self::Extension(_) => "issue it without, or not as critical",
            Self::NameConstraints { .. } => "use a name that the authority may issue",
            Self::Revoked(_) => "issue a new certificate, if the peer may have one",
            Self::RevocationUnknown(_) => "put a current CRL into [[authority]] crls",
            Self::TooMuchWork => "have the peer send only what leads to its authority",
        }
    }
}

/// Seconds since 1970; shown as date and time of day, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixTime(pub u64);

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_unix_duration(Duration::from_secs(self.0)) {
            Ok(time) => write!(f, "{time}"),
            // After 9999.
            Err(_) => write!(f, "second {}", self.0),
        }
    }
}

/// A span of time in seconds, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ago(pub u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ ..120 => write!(f, "{seconds} seconds"),
            seconds @ 120..7200 => write!(f, "{} minutes", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} hours", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (certificate, issuer) = (&self.certificate, &self.issuer);
        let (reason, fix) = (&self.reason, self.reason.fix());
        match &self.reason {
            // It names the issuer itself.
            Reason::UnknownIssuer(_) => write!(f, "certificate {certificate}")?,
            _ => write!(f, "certificate {certificate} of \"{issuer}\"")?,
        }
        write!(f, " {reason} (fix: {fix})")
    }
}

impl std::error::Error for PathError {}

impl PathError {
    fn new(certificate: &Certificate, reason: Reason) -> Self {
        Self {
            certificate: certificate.to_string(),
            issuer: certificate.issuer().to_string(),
            reason,
        }
    }
}

impl Validation<'_> {
    /// Whether a peer may authenticate with `end`, given the other certificates that it sent.
    ///
    /// # Errors
    /// What is wrong with which certificate; of several tries, those of the one that came nearest
    /// to a trusted authority.
    pub fn check(&self, end: &Certificate, others: &[Certificate]) -> Result<(), PathError> {
        self.check_end(end)?;
        let mut search = Search {
            validation: *self,
            others,
            path: vec![end],
            signatures: 0,
            nearest: None,
        };
        if search.extend()? {
            return Ok(());
        }
        let (_, error) = search.nearest.unwrap_or_else(|| {
            let issuer = end.issuer().to_string();
            (0, PathError::new(end, Reason::UnknownIssuer(issuer)))
        });
        Err(error)
    }

    /// The checks of a certificate that somebody authenticates with, but for its path: all that
    /// there is to check of one that is trusted itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_end(&self, end: &Certificate) -> Result<(), PathError> {
        self.check_any(end)?;
        let wrong = |reason| Err(PathError::new(end, reason));
        // RFC 4945 §5.1.3.2.
        if !end
            .extensions
            .allows(&[KeyUsages::DigitalSignature, KeyUsages::NonRepudiation])
        {
            return wrong(Reason::KeyUsage("make signatures"));
        }
        if !end.extensions.good_for_ike {
            return wrong(Reason::ExtendedKeyUsage);
        }
        Ok(())
    }

    /// RFC 5280 §6.1.3 (a) (2), §6.1.4 (o).
    fn check_any(&self, certificate: &Certificate) -> Result<(), PathError> {
        let wrong = |reason| Err(PathError::new(certificate, reason));
        let (from, to) = certificate.validity();
        if self.now < from {
            return wrong(Reason::NotYetValid(Ago(from - self.now), UnixTime(from)));
        }
        if self.now > to {
            return wrong(Reason::Expired(Ago(self.now - to), UnixTime(to)));
        }
        match &certificate.extensions.unprocessed {
            Some(oid) => wrong(Reason::Extension(oid.clone())),
            None => Ok(()),
        }
    }

    /// RFC 5280 §6.1.4 (k) to (n): whether `authority` may have issued the last certificate of
    /// `path`.
    fn check_authority(
        &self,
        authority: &Certificate,
        path: &[&Certificate],
    ) -> Result<(), PathError> {
        self.check_any(authority)?;
        let wrong = |reason| Err(PathError::new(authority, reason));
        if !authority.is_ca() {
            let issued = path.last().map(ToString::to_string).unwrap_or_default();
            return wrong(Reason::NoAuthority(issued));
        }
        if !authority.extensions.allows(&[KeyUsages::KeyCertSign]) {
            return wrong(Reason::KeyUsage("sign certificates"));
        }
        // Self-issued certificates do not count, nor does the end.
        let between = path.iter().skip(1).filter(|c| !c.is_self_issued()).count();
        if let Some(most) = authority.extensions.path_len
            && between > usize::from(most)
        {
            return wrong(Reason::PathLen(most));
        }
        constraints::check(authority, path)
    }
}

/// The search for a path, depth first.
struct Search<'a> {
    validation: Validation<'a>,
    others: &'a [Certificate],
    path: Vec<&'a Certificate>,
    signatures: u32,
    /// The error that came at the longest path so far.
    nearest: Option<(usize, PathError)>,
}

impl<'a> Search<'a> {
    /// Whether the path can be completed.
    ///
    /// # Errors
    /// Only [`Reason::TooMuchWork`]; all others are noted and another way is tried.
    fn extend(&mut self) -> Result<bool, PathError> {
        let Some(last) = self.path.last().copied() else {
            return Ok(false);
        };
        if self.path.len() >= MAX_PATH_LEN {
            self.note(PathError::new(last, Reason::TooLong));
            return Ok(false);
        }
        let validation = self.validation;
        let mut found = false;
        for authority in validation.authorities {
            // A trusted authority's own certificate needs no other one.
            if **authority == *last {
                return Ok(true);
            }
            if authority.subject().matches(last.issuer()) {
                found = true;
                if self.step(last, authority)? {
                    return Ok(true);
                }
            }
        }
        let others = self.others;
        for other in others {
            let again = self.path.contains(&other);
            if !again && other.subject().matches(last.issuer()) {
                found = true;
                if self.step(last, other)? {
                    self.path.push(other);
                    if self.extend()? {
                        return Ok(true);
                    }
                    self.path.pop();
                }
            }
        }
        if !found {
            let issuer = last.issuer().to_string();
            self.note(PathError::new(last, Reason::UnknownIssuer(issuer)));
        }
        Ok(false)
    }

    /// Whether `authority` issued `last`, might do so, and has not taken it back.
    fn step(&mut self, last: &Certificate, authority: &Certificate) -> Result<bool, PathError> {
        self.count(last)?;
        let crypto = self.validation.crypto;
        let signed = last.verify_signed_by(crypto, authority).map_err(|error| {
            let reason = match error {
                CryptoError::Unsupported => Reason::Algorithm,
                _ => Reason::BadSignature(authority.to_string()),
            };
            PathError::new(last, reason)
        });
        let checked = signed.and_then(|()| self.validation.check_authority(authority, &self.path));
        let checked = match checked {
            Ok(()) => self.check_revocation(last, authority)?,
            Err(error) => Err(error),
        };
        if let Err(error) = checked {
            self.note(error);
            return Ok(false);
        }
        Ok(true)
    }

    /// One more signature is about to be verified.
    fn count(&mut self, certificate: &Certificate) -> Result<(), PathError> {
        self.signatures += 1;
        if self.signatures > MAX_SIGNATURES {
            return Err(PathError::new(certificate, Reason::TooMuchWork));
        }
        Ok(())
    }

    fn note(&mut self, error: PathError) {
        let here = self.path.len();
        if self.nearest.as_ref().is_none_or(|(len, _)| *len < here) {
            self.nearest = Some((here, error));
        }
    }
}
