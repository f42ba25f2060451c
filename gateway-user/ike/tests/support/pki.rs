//! Certification authorities for tests.

use std::sync::Arc;

use gateway_ike::x509::{Certificate, Crl};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// What the tests call now: 2030-01-01.
pub(crate) const NOW: u64 = 1_893_456_000;

pub(crate) fn at(offset: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(NOW).unwrap()).unwrap()
        + Duration::seconds(offset)
}

pub(crate) const DAY: i64 = 86_400;

/// An authority, root or not.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

pub(crate) fn name(cn: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, "DE");
    name.push(DnType::OrganizationName, "Example");
    name.push(DnType::CommonName, cn);
    name
}

/// Parameters valid for ten days around [`NOW`].
pub(crate) fn params(cn: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(cn);
    params.not_before = at(-10 * DAY);
    params.not_after = at(10 * DAY);
    params
}

/// Those of an authority.
pub(crate) fn ca_params(cn: &str) -> CertificateParams {
    let mut params = params(cn);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Those of a peer: a FQDN and keyUsage digitalSignature.
pub(crate) fn peer_params(fqdn: &str) -> CertificateParams {
    let mut params = params(fqdn);
    params.subject_alt_names = vec![SanType::DnsName(fqdn.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

pub(crate) fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

impl Authority {
    pub(crate) fn root(cn: &str) -> Self {
        Self::root_with(ca_params(cn))
    }

    pub(crate) fn root_with(params: CertificateParams) -> Self {
        Self(CertifiedIssuer::self_signed(params, key()).unwrap())
    }

    /// An authority below this one.
    pub(crate) fn below(&self, params: CertificateParams) -> Self {
        Self(CertifiedIssuer::signed_by(params, key(), &self.0).unwrap())
    }

    pub(crate) fn certificate(&self) -> Arc<Certificate> {
        Arc::new(parse(self.0.der()))
    }

    /// A certificate for `key`.
    pub(crate) fn issue(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        parse(params.signed_by(key, &*self.0).unwrap().der())
    }

    /// The list of `serials`, made a day ago, next one due at `next` seconds from [`NOW`].
    pub(crate) fn crl(&self, serials: &[&[u8]], next: i64) -> Arc<Crl> {
        crl(&self.0, serials, next)
    }
}

pub(crate) fn crl(issuer: &Issuer<'_, KeyPair>, serials: &[&[u8]], next: i64) -> Arc<Crl> {
    let params = CertificateRevocationListParams {
        this_update: at(-DAY),
        next_update: at(next),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: serials
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: at(-DAY),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = params.signed_by(issuer).unwrap();
    Arc::new(Crl::from_der(crl.der()).unwrap())
}

pub(crate) fn parse(der: &[u8]) -> Certificate {
    Certificate::from_der(der).unwrap()
}
