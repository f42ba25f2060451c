//! Certificates for the lab's peers and the gateway.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::cluster::GATEWAY_ID;

/// One who issues certificates that hold for a day.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A self-signed one with a key of its own.
    ///
    /// # Errors
    /// The library cannot make it.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self(issuer))
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The same, as DER.
    pub fn der(&self) -> &[u8] {
        self.0.der()
    }

    /// A certificate for `key`, which names `name` as its FQDN.
    ///
    /// # Errors
    /// `name` is no FQDN.
    pub fn issue(&self, name: &str, serial: u64, key: &KeyPair) -> Result<Certificate> {
        let mut params = params(name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Ok(params.signed_by(key, &*self.0)?)
    }

    /// Writes its own certificate as `ca.pem` into the gateway's `folder`, and `name.pem` and
    /// `name.key` for each of these keys of the gateway's.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn equip(&self, folder: &Path, keys: &[(&str, &KeyPair)]) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("ca.pem"), self.pem())?;
        for (serial, (name, key)) in (1000..).zip(keys) {
            let certificate = self.issue(GATEWAY_ID, serial, key)?;
            fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
            secret_file(&folder.join(format!("{name}.key")), &key.serialize_pem())?;
        }
        Ok(())
    }

    /// The list of those certificates that are revoked, as PEM.
    ///
    /// # Errors
    /// The library cannot make it.
    pub fn revoke(&self, serials: &[u64]) -> Result<String> {
        let now = OffsetDateTime::now_utc();
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - Duration::from_secs(60),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::from_secs(60),
            next_update: now + Duration::from_secs(86_400),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.0)?.pem()?)
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Lab");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(3600);
    params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    params
}

/// Writes a file that only its owner may read, as gateway and peer want their keys to be.
///
/// # Errors
/// It cannot be written.
pub fn secret_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o600),
    )?)
}
