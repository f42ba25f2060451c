//! Files with certificates, CRLs and private keys, relative to the configuration file.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_ike::crypto::CryptoProvider;
use gateway_ike::secret::SecretBytes;
use gateway_ike::signature::SigningKey;
use gateway_ike::x509::{Certificate, Crl};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::{Zeroize, Zeroizing};

use super::error::ConfigError;
use super::raw::Source;
use crate::crypto::AwsLc;

const CERTIFICATE: &str = "a file with certificates in PEM, or one in DER";
const CRL: &str = "a file with a CRL in PEM or DER";
const KEY: &str = "a file with an unencrypted private key in PEM or DER (PKCS#8, PKCS#1 or SEC 1): RSA \
                   with at least 2048 bits, ECDSA on P-256, P-384 or P-521, Ed25519";

/// Where relative names begin.
#[derive(Clone, Copy)]
pub(super) struct Folder<'a>(pub(super) &'a Path);

impl Folder<'_> {
    pub(super) fn path(self, file: &Path) -> PathBuf {
        self.0.join(file)
    }

    /// The certificates in a file, in its order; at least one.
    pub(super) fn certificates(
        self,
        key: &str,
        source: &Source,
    ) -> Result<Vec<Arc<Certificate>>, ConfigError> {
        let (octets, path) = match source {
            Source::File(file) => {
                let path = self.path(file);
                (read(key, &path, CERTIFICATE)?, path)
            }
            Source::Octets(octets) => (Zeroizing::new(octets.clone()), "certificate".into()),
        };
        certificates(&octets).map_err(|why| problem(key, &path, &why, CERTIFICATE))
    }

    /// The private key in a file that nobody but its owner can read.
    pub(super) fn private_key(
        self,
        key: &str,
        file: &Path,
    ) -> Result<Arc<dyn SigningKey>, ConfigError> {
        let path = self.path(file);
        let octets = read(key, &path, KEY)?;
        let wrong = |why: &str| problem(key, &path, why, KEY);
        let mode = std::fs::metadata(&path)
            .map_err(|error| wrong(&error.to_string()))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            let why = format!(
                "others than its owner can read or write it (mode {:04o})",
                mode & 0o7777
            );
            let fix = format!("a private key with mode 0600: chmod 600 {}", path.display());
            return Err(problem(key, &path, &why, &fix));
        }
        private_key(&octets).map_err(wrong)
    }
}

/// The certificates in PEM, or the one in DER; at least one.
///
/// # Errors
/// Why there is none, in words.
pub fn certificates(octets: &[u8]) -> Result<Vec<Arc<Certificate>>, String> {
    let ders: Vec<Vec<u8>> = if is_pem(octets) {
        CertificateDer::pem_slice_iter(octets)
            .map(|der| der.map(|der| der.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?
    } else {
        vec![octets.to_vec()]
    };
    if ders.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let parse = |der: &Vec<u8>| Certificate::from_der(der).map(Arc::new);
    ders.iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

/// A private key in PEM or DER.
///
/// # Errors
/// Why it cannot be used, in words.
pub fn private_key(octets: &[u8]) -> Result<Arc<dyn SigningKey>, &'static str> {
    let der = if is_pem(octets) {
        if find(octets, b"ENCRYPTED") {
            return Err("the key is encrypted");
        }
        let mut der =
            PrivateKeyDer::from_pem_slice(octets).map_err(|_| "there is no private key in it")?;
        let secret = SecretBytes::from(der.secret_der());
        der.zeroize();
        secret
    } else {
        SecretBytes::from(octets)
    };
    AwsLc
        .signing_key(&der)
        .map_err(|_| "the private key in it cannot be used")
}

/// Reads a CRL.
///
/// # Errors
/// Why it cannot be used, in words.
pub fn read_crl(path: &Path) -> Result<Crl, String> {
    let octets = std::fs::read(path).map_err(|error| error.to_string())?;
    if !is_pem(&octets) {
        return Crl::from_der(&octets).map_err(|error| error.to_string());
    }
    let der = CertificateRevocationListDer::from_pem_slice(&octets)
        .map_err(|_| "there is no CRL in it".to_owned())?;
    Crl::from_der(&der).map_err(|error| error.to_string())
}

/// The CRL in a file, which has to be good when the configuration is read.
pub(super) fn check_crl(key: &str, path: &Path) -> Result<(), ConfigError> {
    read_crl(path)
        .map(drop)
        .map_err(|why| problem(key, path, &why, CRL))
}

fn read(key: &str, path: &Path, allowed: &str) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| problem(key, path, &error.to_string(), allowed))
}

fn problem(key: &str, path: &Path, why: &str, allowed: &str) -> ConfigError {
    ConfigError::new(key, format!("{}: {why}", path.display()), allowed)
}

fn is_pem(octets: &[u8]) -> bool {
    find(octets, b"-----BEGIN ")
}

fn find(octets: &[u8], wanted: &[u8]) -> bool {
    octets.windows(wanted.len()).any(|window| window == wanted)
}
