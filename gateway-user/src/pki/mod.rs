//! The cluster's own certificate authority: `gatewayctl pki init` and `gatewayctl pki issue`.
//!
//! ```text
//! gatewayctl pki init  --dir /root/pki --cluster hq
//! gatewayctl pki issue --dir /root/pki --member 1 --sync-address 10.99.0.1 --out /etc/gateway/pki
//! ```
//!
//! The authority's key (`ca.key`) stays where it was made; a member gets `ca.crt`, `member.crt` and
//! `member.key`. A member is identified by the URI `gateway://<cluster>/member/<id>` in its
//! certificate, and may be spoken to at the address that stands beside it.

mod files;
mod identity;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gateway_common::member::MemberId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

pub use identity::{Identity, IdentityError, is_cluster_name};

/// Default validity of the authority: ten years.
pub const CA_DAYS: u32 = 3653;
/// Default validity of a member's certificate: two years.
pub const MEMBER_DAYS: u32 = 731;
/// The longest validity that can be asked for: a hundred years.
pub const MAX_DAYS: u32 = 36_525;

/// File names within the folders.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// The authority's private key, mode 0600.
pub const CA_KEY: &str = "ca.key";
/// A member's certificate.
pub const MEMBER_CERTIFICATE: &str = "member.crt";
/// A member's private key, mode 0600.
pub const MEMBER_KEY: &str = "member.key";

/// Certificates are valid from this long ago: the members' clocks may differ.
const BACKDATED: Duration = Duration::HOUR;

/// What [`init`] has to know.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Cluster name, `cluster.name` in the members' configuration: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub cluster: String,
    /// Validity in days, 1..=[`MAX_DAYS`].
    pub days: u32,
    /// Overwrite an authority that is there. Certificates that it issued become worthless.
    pub force: bool,
}

/// What [`issue`] has to know.
#[derive(Clone, Debug)]
pub struct IssueOptions {
    /// `id` of the member.
    pub member: MemberId,
    /// Refuse an authority of another cluster than this one; `None` takes whatever it is of.
    pub cluster: Option<String>,
    /// Its `sync_address`.
    pub sync_address: IpAddr,
    /// Validity in days, 1..=[`MAX_DAYS`]; ends with that of the authority.
    pub days: u32,
    /// Overwrite files that are there.
    pub force: bool,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// All files.
    pub files: Vec<PathBuf>,
    /// When the new certificate expires.
    pub not_after: OffsetDateTime,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file is in the way.
    #[error("{} exists already; --force overwrites it", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "read", "write" or "create".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A name that fits into no URI.
    #[error("cluster name {0:?}: 1 to 64 of the characters A-Z a-z 0-9 . _ - are allowed")]
    ClusterName(String),
    /// A validity out of range.
    #[error("validity of {0} days: 1 to {MAX_DAYS} are allowed")]
    Days(u32),
    /// What is in the folder is not an authority made by `pki init`.
    #[error("{}: {reason}", path.display())]
    NotAnAuthority {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no random numbers.
    #[error("no random numbers")]
    Random,
    /// The cryptographic library refused.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// Makes the authority of a cluster: `ca.key` (mode 0600) and `ca.crt` in `dir`, which is created
/// with mode 0700 if need be. ECDSA with P-256.
///
/// # Errors
///
/// [`PkiError`]; without `force`, files that exist are never touched.
pub fn init(dir: &Path, options: &InitOptions) -> Result<Written, PkiError> {
    if !is_cluster_name(&options.cluster) {
        return Err(PkiError::ClusterName(options.cluster.clone()));
    }
    let (key_path, certificate_path) = (dir.join(CA_KEY), dir.join(CA_CERTIFICATE));
    let files = [key_path.clone(), certificate_path.clone()];
    files::check_absent(&files, options.force)?;
    let mut params = params(
        &format!("gateway cluster {} CA", options.cluster),
        options.days,
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&identity::ca_uri(&options.cluster))?];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    files::create_dir(dir)?;
    files::write_secret(&key_path, key.serialize_pem(), options.force)?;
    files::write_public(&certificate_path, &certificate.pem(), options.force)?;
    Ok(Written {
        files: files.to_vec(),
        not_after: params.not_after,
    })
}

/// Makes a member's `member.key` (mode 0600) and `member.crt` in `out`, with the authority in `dir`,
/// and copies `ca.crt` beside them.
///
/// # Errors
///
/// [`PkiError`]; without `force`, files that exist are never touched (an identical `ca.crt` is no
/// obstacle).
pub fn issue(dir: &Path, out: &Path, options: &IssueOptions) -> Result<Written, PkiError> {
    let authority = Authority::read(dir)?;
    if let Some(expected) = options
        .cluster
        .as_ref()
        .filter(|c| **c != authority.cluster)
    {
        return Err(PkiError::NotAnAuthority {
            path: dir.join(CA_CERTIFICATE),
            reason: format!("is of cluster {}, not of {expected}", authority.cluster),
        });
    }
    let (key_path, certificate_path) = (out.join(MEMBER_KEY), out.join(MEMBER_CERTIFICATE));
    let ca_path = out.join(CA_CERTIFICATE);
    files::check_absent(&[key_path.clone(), certificate_path.clone()], options.force)?;
    let copy_ca = !files::holds(&ca_path, &authority.pem);
    if copy_ca {
        files::check_absent(std::slice::from_ref(&ca_path), options.force)?;
    }
    let identity = Identity {
        cluster: authority.cluster.clone(),
        member: options.member,
    };
    let common_name = format!("{} member {}", identity.cluster, identity.member);
    let mut params = params(&common_name, options.days)?;
    params.not_after = params.not_after.min(authority.not_after);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    let address = SanType::IpAddress(options.sync_address);
    params.subject_alt_names = vec![uri(&identity.uri())?, address];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &authority.issuer)?;
    files::create_dir(out)?;
    files::write_secret(&key_path, key.serialize_pem(), options.force)?;
    files::write_public(&certificate_path, &certificate.pem(), options.force)?;
    if copy_ca {
        files::write_public(&ca_path, &authority.pem, options.force)?;
    }
    Ok(Written {
        files: vec![key_path, certificate_path, ca_path],
        not_after: params.not_after,
    })
}

/// Makes a key that members and witness share: 64 hexadecimal digits in `out`, mode 0600.
///
/// # Errors
///
/// [`PkiError`]; without `force`, a file that exists is never touched.
pub fn witness_key(out: &Path, force: bool) -> Result<(), PkiError> {
    let mut octets = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *octets).map_err(|_| PkiError::Random)?;
    files::check_absent(&[out.to_path_buf()], force)?;
    let text = data_encoding::HEXLOWER.encode(&*octets);
    files::write_secret(out, format!("{text}\n"), force)
}

fn params(common_name: &str, days: u32) -> Result<CertificateParams, PkiError> {
    if days == 0 || days > MAX_DAYS {
        return Err(PkiError::Days(days));
    }
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(i64::from(days));
    Ok(params)
}

fn uri(text: &str) -> Result<SanType, PkiError> {
    Ok(SanType::URI(text.try_into()?))
}

/// What `pki init` made.
struct Authority {
    cluster: String,
    pem: String,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn read(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join(CA_CERTIFICATE);
        let refuse = |path: &Path, reason: String| PkiError::NotAnAuthority {
            path: path.to_path_buf(),
            reason,
        };
        let pem = files::read(&path)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| refuse(&path, format!("no PEM certificate: {error}")))?;
        let (_, certificate) = parse_x509_certificate(&der)
            .map_err(|error| refuse(&path, format!("no X.509 certificate: {error}")))?;
        let cluster =
            identity::ca_cluster(&certificate).map_err(|error| refuse(&path, error.to_string()))?;
        let not_after = certificate.validity().not_after.to_datetime();
        if not_after <= OffsetDateTime::now_utc() {
            return Err(refuse(&path, format!("expired on {}", not_after.date())));
        }
        let key_path = dir.join(CA_KEY);
        let key = KeyPair::from_pem(&files::read(&key_path)?)
            .map_err(|error| refuse(&key_path, format!("no private key: {error}")))?;
        if key.subject_public_key_info() != certificate.public_key().raw {
            return Err(refuse(&key_path, "is not the key of ca.crt".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self {
            cluster,
            pem,
            not_after,
            issuer,
        })
    }
}

#[cfg(test)]
mod tests;
