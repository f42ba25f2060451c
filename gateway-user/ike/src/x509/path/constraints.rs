//! Name constraints (RFC 5280 §4.2.1.10, §6.1.3 (b), (c)).

use std::net::IpAddr;

use der::Encode;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;

use super::{PathError, Reason};
use crate::x509::{AltName, Certificate, Name};

/// Whether every name in `path` is one that `authority` may issue. Self-issued certificates are
/// exempt, but for the end.
///
/// Constraints of a type that we do not process are refused if the certificate has names of other
/// types than identities have (RFC 5280: "process the constraint or reject the certificate").
pub(super) fn check(authority: &Certificate, path: &[&Certificate]) -> Result<(), PathError> {
    let Some(constraints) = &authority.extensions.name_constraints else {
        return Ok(());
    };
    let excluded = constraints.excluded_subtrees.as_deref().unwrap_or_default();
    let permitted = constraints
        .permitted_subtrees
        .as_deref()
        .unwrap_or_default();
    // RFC 5280 §4.2.1.10: "minimum MUST be zero, and maximum MUST be absent".
    let odd = |tree: &GeneralSubtree| tree.minimum != 0 || tree.maximum.is_some();
    if excluded.iter().chain(permitted).any(odd) {
        let oid = "2.5.29.30".to_owned();
        return Err(PathError::new(authority, Reason::Extension(oid)));
    }
    for (index, certificate) in path.iter().enumerate() {
        if index > 0 && certificate.is_self_issued() {
            continue;
        }
        let refused = |name: String| {
            let authority = authority.to_string();
            Err(PathError::new(
                certificate,
                Reason::NameConstraints { name, authority },
            ))
        };
        if certificate.extensions.other_alt_names
            && excluded
                .iter()
                .chain(permitted)
                .any(|tree| !is_processed(tree))
        {
            return refused("of a type that is constrained and not supported".to_owned());
        }
        for name in names(certificate) {
            let within = |tree: &GeneralSubtree| within(&name, &tree.base);
            let constrained = permitted.iter().any(|tree| same_type(&name, &tree.base));
            if excluded.iter().any(within) || (constrained && !permitted.iter().any(within)) {
                return refused(name.to_string());
            }
        }
    }
    Ok(())
}

/// The subject, if it is not empty, and all alternative names.
fn names(certificate: &Certificate) -> impl Iterator<Item = AltName> + '_ {
    let subject = Some(certificate.subject()).filter(|name| !name.is_empty());
    subject
        .cloned()
        .map(AltName::Directory)
        .into_iter()
        .chain(certificate.alt_names().iter().cloned())
}

fn is_processed(tree: &GeneralSubtree) -> bool {
    matches!(
        tree.base,
        GeneralName::DnsName(_)
            | GeneralName::Rfc822Name(_)
            | GeneralName::IpAddress(_)
            | GeneralName::DirectoryName(_)
    )
}

fn same_type(name: &AltName, base: &GeneralName) -> bool {
    matches!(
        (name, base),
        (AltName::Dns(_), GeneralName::DnsName(_))
            | (AltName::Rfc822(_), GeneralName::Rfc822Name(_))
            | (AltName::Ip(_), GeneralName::IpAddress(_))
            | (AltName::Directory(_), GeneralName::DirectoryName(_))
    )
}

fn within(name: &AltName, base: &GeneralName) -> bool {
    match (name, base) {
        (AltName::Dns(name), GeneralName::DnsName(base)) => is_subdomain(name, base.as_str()),
        (AltName::Rfc822(name), GeneralName::Rfc822Name(base)) => {
            let base = base.as_str();
            match name.rsplit_once('@') {
                // A mailbox, all mailboxes of a host, or of all hosts in a domain.
                _ if base.contains('@') => name.eq_ignore_ascii_case(base),
                Some((_, host)) if base.starts_with('.') => {
                    is_subdomain(host, base) && host.len() > base.len()
                }
                Some((_, host)) => host.eq_ignore_ascii_case(base),
                None => false,
            }
        }
        (AltName::Ip(address), GeneralName::IpAddress(range)) => {
            in_range(*address, range.as_bytes())
        }
        (AltName::Directory(name), GeneralName::DirectoryName(base)) => {
            let base = base.to_der().ok().and_then(|der| Name::from_der(&der).ok());
            base.is_some_and(|base| name.starts_with(&base))
        }
        _ => false,
    }
}

/// Whether `name` is `base` with any number of labels in front.
fn is_subdomain(name: &str, base: &str) -> bool {
    let base = base.strip_prefix('.').unwrap_or(base);
    let (name, base) = (name.to_ascii_lowercase(), base.to_ascii_lowercase());
    match name.strip_suffix(&base) {
        Some(front) => base.is_empty() || front.is_empty() || front.ends_with('.'),
        None => false,
    }
}

/// `range` is address ‖ mask.
fn in_range(address: IpAddr, range: &[u8]) -> bool {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    if range.len() != octets.len() * 2 {
        return false;
    }
    let (base, mask) = range.split_at(octets.len());
    octets
        .iter()
        .zip(base)
        .zip(mask)
        .all(|((octet, base), mask)| octet & mask == base & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        assert!(is_subdomain("gw.Example.org", "example.ORG"));
        assert!(is_subdomain("example.org", "example.org"));
        assert!(is_subdomain("gw.example.org", ".example.org"));
        assert!(!is_subdomain("gwexample.org", "example.org"));
        assert!(!is_subdomain("example.org.evil", "example.org"));
        assert!(is_subdomain("anything", ""));
    }

    #[test]
    fn ranges() {
        let range = [10, 1, 0, 0, 255, 255, 0, 0];
        assert!(in_range("10.1.2.3".parse().unwrap(), &range));
        assert!(!in_range("10.2.2.3".parse().unwrap(), &range));
        assert!(!in_range("2001:db8::1".parse().unwrap(), &range));
    }
}
