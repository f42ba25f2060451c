//! Certificates, CRLs and names, as peers and files have them.

use std::sync::Arc;

use gateway_ike::identity::Identity;
use gateway_ike::signature::SignatureScheme;
use gateway_ike::x509::path::{Revocation, Validation};
use gateway_ike::x509::{Certificate, Crl, Name};

use gateway_ike::testing::Toy;

/// Whatever can be parsed can be written, compared and validated; nothing is valid that nobody
/// signed.
pub(super) fn certificate(data: &[u8]) {
    let Ok(certificate) = Certificate::from_der(data) else {
        return;
    };
    assert_eq!(certificate.der(), data);
    let _ = format!("{certificate} {certificate:?}");
    check_name(certificate.subject());
    check_name(certificate.issuer());
    let toy = Toy::new(1);
    let subject = Identity::Dn(certificate.subject().der().to_vec());
    assert!(certificate.names(&toy, &subject));
    assert!(!certificate.names(&toy, &Identity::KeyId(vec![0])));
    let (from, to) = certificate.validity();
    let authorities = [Arc::new(certificate.clone())];
    for now in [from, to, from / 2 + to / 2] {
        let mut validation = Validation {
            crypto: &toy,
            now,
            authorities: &[],
            crls: &[],
            revocation: Revocation::Strict,
        };
        let others = [certificate.clone(), certificate.clone()];
        assert!(validation.check(&certificate, &others).is_err());
        validation.authorities = &authorities;
        // A trusted authority may be a peer itself.
        let trusted = validation.check(&certificate, &[]).is_ok();
        assert_eq!(trusted, validation.check_end(&certificate).is_ok());
    }
}

/// A CRL with which a certificate is looked up.
pub(super) fn crl(data: &[u8]) {
    let Ok(crl) = Crl::from_der(data) else {
        return;
    };
    let _ = format!("{crl:?} {:?}", crl.updates());
    assert_eq!(crl.is_empty(), crl.len().checked_sub(1).is_none());
    check_name(crl.issuer());
}

/// An AlgorithmIdentifier, or text that may be a distinguished name.
pub(super) fn name(data: &[u8]) {
    if let Some(scheme) = SignatureScheme::from_algorithm_identifier(data) {
        let _ = scheme.to_string();
    }
    if let Ok(name) = Name::from_der(data) {
        check_name(&name);
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(name) = text.parse::<Name>() {
        check_name(&name);
    }
}

/// What is written reads back as a name that is equal, one way and the other.
fn check_name(name: &Name) {
    assert!(name.matches(name));
    if name.is_empty() {
        return;
    }
    let text = name.to_string();
    assert!(!text.contains(char::is_control));
    let again: Name = text.parse().expect("what was written can be read");
    assert!(name.matches(&again) && again.matches(name), "{text}");
    let der = Name::from_der(again.der()).expect("what was encoded can be decoded");
    assert_eq!(der, again);
}
