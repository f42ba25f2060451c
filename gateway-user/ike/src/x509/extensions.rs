//! Certificate extensions (RFC 5280 §4.2): what we process, and whether there is anything critical
//! that we do not.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, NameConstraints, SubjectAltName,
    SubjectKeyIdentifier,
};

use super::Name;

const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const AUTHORITY_INFO_ACCESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");

/// Extended key usages that are good for IKE. RFC 4945 §5.1.3.12 has the first two; the obsolete
/// one of IKEv1's days and the TLS ones are what authorities put in in practice, and what other
/// implementations take.
const IKE_USAGES: [ObjectIdentifier; 5] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.17"), // id-kp-ipsecIKE
    ObjectIdentifier::new_unwrap("2.5.29.37.0"),        // anyExtendedKeyUsage
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.8.2.2"),  // iKEIntermediate
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"),  // id-kp-serverAuth
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"),  // id-kp-clientAuth
];

/// A name in subjectAltName, of those that are identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AltName {
    /// dNSName.
    Dns(String),
    /// rfc822Name.
    Rfc822(String),
    /// iPAddress.
    Ip(IpAddr),
    /// directoryName.
    Directory(Name),
}

impl fmt::Display for AltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Rfc822(name) => write!(f, "{}", name.escape_default()),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Directory(name) => write!(f, "\"{name}\""),
        }
    }
}

/// The extensions of a certificate.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    /// basicConstraints: whether it may issue certificates.
    pub(super) ca: Option<bool>,
    /// basicConstraints: how many intermediate authorities may follow.
    pub(super) path_len: Option<u8>,
    pub(super) key_usage: Option<KeyUsage>,
    /// extendedKeyUsage has one that is good for IKE, or is absent.
    pub(super) good_for_ike: bool,
    pub(super) alt_names: Vec<AltName>,
    /// subjectAltName has names of types that are no identities: name constraints could be about
    /// them.
    pub(super) other_alt_names: bool,
    pub(super) key_id: Option<Box<[u8]>>,
    pub(super) name_constraints: Option<Box<NameConstraints>>,
    /// It says where its revocation can be looked up.
    pub(super) names_revocation: bool,
    /// Critical, and we do not process it, or it cannot be parsed, or it comes twice: its OID.
    pub(super) unprocessed: Option<String>,
}

impl Extensions {
    pub(super) fn parse(list: &[Extension]) -> Self {
        let mut found = Self {
            good_for_ike: true,
            ..Self::default()
        };
        let mut seen = BTreeSet::new();
        for extension in list {
            let oid = extension.extn_id;
            let once = seen.insert(oid);
            let processed = once && found.take(oid, extension.extn_value.as_bytes()).is_some();
            // One of those that decide is as good as critical when it is malformed.
            let decides = [
                BASIC_CONSTRAINTS,
                KEY_USAGE,
                NAME_CONSTRAINTS,
                EXTENDED_KEY_USAGE,
            ];
            if !processed && (extension.critical || !once || decides.contains(&oid)) {
                found.unprocessed.get_or_insert_with(|| oid.to_string());
            }
        }
        found
    }

    /// `None` if it is not one of ours, or malformed.
    fn take(&mut self, oid: ObjectIdentifier, value: &[u8]) -> Option<()> {
        match oid {
            SUBJECT_KEY_IDENTIFIER => {
                let id = SubjectKeyIdentifier::from_der(value).ok()?;
                self.key_id = Some(id.0.as_bytes().into());
            }
            KEY_USAGE => self.key_usage = Some(KeyUsage::from_der(value).ok()?),
            SUBJECT_ALT_NAME => {
                for name in SubjectAltName::from_der(value).ok()?.0 {
                    match alt_name(&name) {
                        Some(name) => self.alt_names.push(name),
                        None => self.other_alt_names = true,
                    }
                }
            }
            BASIC_CONSTRAINTS => {
                let constraints = BasicConstraints::from_der(value).ok()?;
                self.ca = Some(constraints.ca);
                self.path_len = constraints.path_len_constraint;
            }
            NAME_CONSTRAINTS => {
                self.name_constraints = Some(Box::new(NameConstraints::from_der(value).ok()?));
            }
            EXTENDED_KEY_USAGE => {
                let usages = ExtendedKeyUsage::from_der(value).ok()?.0;
                self.good_for_ike = usages.iter().any(|usage| IKE_USAGES.contains(usage));
            }
            CRL_DISTRIBUTION_POINTS => self.names_revocation = true,
            AUTHORITY_INFO_ACCESS => {
                let access = x509_cert::ext::pkix::AuthorityInfoAccessSyntax::from_der(value);
                self.names_revocation |= access.ok()?.0.iter().any(|a| a.access_method == OCSP);
            }
            // We ask for no particular policy, so any will do (RFC 5280 §6.1.1 (c), (e)).
            CERTIFICATE_POLICIES => {}
            _ => return None,
        }
        Some(())
    }

    /// Whether keyUsage, if there is one, has any of `usages`.
    pub(super) fn allows(&self, usages: &[KeyUsages]) -> bool {
        let Some(key_usage) = self.key_usage else {
            return true;
        };
        usages.iter().any(|usage| key_usage.0.contains(*usage))
    }
}

fn alt_name(name: &GeneralName) -> Option<AltName> {
    Some(match name {
        GeneralName::DnsName(name) => AltName::Dns(name.as_str().to_owned()),
        GeneralName::Rfc822Name(name) => AltName::Rfc822(name.as_str().to_owned()),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            AltName::Ip(
                v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
                    .ok()?,
            )
        }
        GeneralName::DirectoryName(name) => {
            AltName::Directory(Name::from_der(&name.to_der().ok()?).ok()?)
        }
        _ => return None,
    })
}
