//! Whether a certificate is revoked (RFC 5280 §6.3), and what to do if nobody knows.

use super::{PathError, Reason, Search, UnixTime};
use crate::x509::{Certificate, Crl};

/// How much must be known about revocation; swanctl's `revocation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// A certificate is accepted only if a current CRL of its authority does not have it.
    Strict,
    /// As strict for certificates that say where revocation can be looked up; else relaxed.
    IfUri,
    /// A certificate is accepted unless a CRL of its authority has it, even a stale one.
    #[default]
    Relaxed,
}

impl Search<'_> {
    /// Looks `certificate` up in the CRLs of `authority`, which issued it.
    ///
    /// # Errors
    /// The outer one if there was too much work, the inner one if it may not be accepted.
    pub(super) fn check_revocation(
        &mut self,
        certificate: &Certificate,
        authority: &Certificate,
    ) -> Result<Result<(), PathError>, PathError> {
        let validation = self.validation;
        let wrong = |reason| Ok(Err(PathError::new(certificate, reason)));
        let mut current = false;
        let mut problem = None;
        for crl in validation.crls {
            if !crl.issuer().matches(authority.subject()) {
                continue;
            }
            self.count(certificate)?;
            if let Err(why) = crl.verify(validation.crypto, authority) {
                problem = Some(format!("the CRL of \"{}\" {why}", crl.issuer()));
                continue;
            }
            if crl.revokes(certificate.serial()) {
                let made = UnixTime(crl.updates().0);
                return wrong(Reason::Revoked(format!(
                    "{authority}, in its CRL of {made}"
                )));
            }
            if crl.is_stale(validation.now) {
                problem.get_or_insert_with(|| {
                    let why = out_of_date(crl, validation.now);
                    format!("the CRL of {authority} is out of date: {why}")
                });
            } else {
                current = true;
            }
        }
        let needed = match validation.revocation {
            Revocation::Strict => true,
            Revocation::IfUri => certificate.extensions.names_revocation,
            Revocation::Relaxed => false,
        };
        if needed && !current {
            let problem = problem.unwrap_or_else(|| format!("there is no CRL of {authority}"));
            return wrong(Reason::RevocationUnknown(problem));
        }
        Ok(Ok(()))
    }
}

/// Why a CRL that is stale is.
fn out_of_date(crl: &Crl, now: u64) -> String {
    match crl.updates() {
        (made, _) if now < made => format!("it is of {}, by this host's clock", UnixTime(made)),
        (_, Some(next)) => format!("a newer one was due on {}", UnixTime(next)),
        (_, None) => "it does not say when the next one is due".to_owned(),
    }
}
