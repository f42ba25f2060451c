//! Who a certificate says that its holder is.

use gateway_common::member::MemberId;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

const SCHEME: &str = "gateway://";

/// A member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster: String,
    /// Which member.
    pub member: MemberId,
}

/// Why a certificate identifies nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not X.509.
    #[error("not an X.509 certificate")]
    Malformed,
    /// No `gateway://` URI among the subject alternative names, or more than one.
    #[error("the certificate was not made by `gatewayctl pki`: it has {0} gateway:// names")]
    Names(usize),
    /// The name is none of ours.
    #[error("the certificate's name {0:?} does not identify a cluster member")]
    Name(String),
}

/// Whether `name` can be the name of a cluster: 1 to 64 of `A-Z a-z 0-9 . _ -`.
pub fn is_cluster_name(name: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

impl Identity {
    /// As it stands in the certificate.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/member/{}", self.cluster, self.member)
    }

    /// Whom a certificate identifies. The certificate itself has to be verified elsewhere.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] unless it has exactly one name of ours, and that is a member's.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, certificate) =
            parse_x509_certificate(certificate).map_err(|_| IdentityError::Malformed)?;
        Self::parse(name(&certificate)?)
    }

    fn parse(uri: &str) -> Result<Self, IdentityError> {
        let refuse = || IdentityError::Name(uri.to_owned());
        let rest = uri.strip_prefix(SCHEME).ok_or_else(refuse)?;
        let (cluster, member) = rest.split_once("/member/").ok_or_else(refuse)?;
        let id = member.parse().ok().and_then(MemberId::new);
        let identity = Self {
            cluster: cluster.to_owned(),
            member: id.ok_or_else(refuse)?,
        };
        // Only the one spelling counts.
        if !is_cluster_name(cluster) || identity.uri() != uri {
            return Err(refuse());
        }
        Ok(identity)
    }
}

/// The name of a cluster's authority.
pub(super) fn ca_uri(cluster: &str) -> String {
    format!("{SCHEME}{cluster}/ca")
}

/// The cluster whose authority a certificate is.
pub(super) fn ca_cluster(certificate: &X509Certificate<'_>) -> Result<String, IdentityError> {
    let uri = name(certificate)?;
    let cluster = uri
        .strip_prefix(SCHEME)
        .and_then(|rest| rest.strip_suffix("/ca"))
        .filter(|cluster| is_cluster_name(cluster));
    match cluster {
        Some(cluster) => Ok(cluster.to_owned()),
        None => Err(IdentityError::Name(uri.to_owned())),
    }
}

/// The one name of ours that a certificate has.
fn name<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, IdentityError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Malformed)?;
    let names = extension.iter().flat_map(|e| &e.value.general_names);
    let ours: Vec<&str> = names
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        })
        .collect();
    match ours.as_slice() {
        [one] => Ok(one),
        other => Err(IdentityError::Names(other.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        let good = Identity {
            cluster: "hq.example-1".into(),
            member: MemberId::new(63).unwrap(),
        };
        assert_eq!(Identity::parse(&good.uri()), Ok(good));
        for bad in [
            "gateway://hq/member/0",
            "gateway://hq/member/64",
            "gateway://hq/member/01",
            "gateway://hq/member/+1",
            "gateway://hq/member/1/",
            "gateway:///member/1",
            "gateway://h q/member/1",
            "gateway://a/member/1/member/1",
            "gateway://hq/ca",
            "https://hq/member/1",
        ] {
            assert!(Identity::parse(bad).is_err(), "{bad}");
        }
    }
}
