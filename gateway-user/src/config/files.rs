//! Files with certificates, CRLs and private keys, relative to the configuration file.

use std::os::unix::fs::MetadataExt;
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
        let path = self.secret_path(key, file)?;
        let octets = read(key, &path, KEY)?;
        private_key(&octets).map_err(|why| problem(key, &path, why, KEY))
    }

    /// Where a file with a secret is, which nobody but its owner may read. `credential:NAME` is what
    /// systemd keeps for this unit.
    pub(super) fn secret_path(self, key: &str, file: &Path) -> Result<PathBuf, ConfigError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        secret_path(key, self.0, file, credentials.as_deref())
    }

    /// The same of a file that is read when it is needed: a configuration can be checked before it is
    /// there.
    pub(super) fn later_secret_path(self, key: &str, file: &Path) -> Result<PathBuf, ConfigError> {
        let path = self.path(file);
        match path.try_exists() {
            Ok(false) if !is_credential(file) => Ok(path),
            _ => self.secret_path(key, file),
        }
    }
}

fn is_credential(file: &Path) -> bool {
    file.to_str()
        .is_some_and(|file| file.starts_with(CREDENTIAL))
}

/// A path with this prefix names a credential of systemd (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL: &str = "credential:";

fn secret_path(
    key: &str,
    folder: &Path,
    file: &Path,
    credentials: Option<&Path>,
) -> Result<PathBuf, ConfigError> {
    if let Some(name) = file.to_str().and_then(|file| file.strip_prefix(CREDENTIAL)) {
        return credential(key, name, credentials);
    }
    let path = folder.join(file);
    check_private(key, &path)?;
    Ok(path)
}

/// What holds a secret is its owner's alone, who is root or runs this.
pub(super) fn check_private(key: &str, path: &Path) -> Result<(), ConfigError> {
    let about = std::fs::metadata(path)
        .map_err(|error| problem(key, path, &error.to_string(), "a file that can be read"))?;
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let why = format!("others than its owner can read or write it (mode {mode:04o})");
        let fix = format!("mode 0600: chmod 600 {}", path.display());
        return Err(problem(key, path, &why, &fix));
    }
    if about.uid() != 0 && about.uid() != rustix::process::geteuid().as_raw() {
        let why = format!("it belongs to user {}", about.uid());
        let fix = format!("a file of root's: chown root {}", path.display());
        return Err(problem(key, path, &why, &fix));
    }
    Ok(())
}

/// systemd lets nobody but the unit read them, by means that their mode does not show.
fn credential(key: &str, name: &str, folder: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(ConfigError::new(
            key,
            format!("\"{CREDENTIAL}{name}\" names no credential"),
            "a name without slash, as in the unit's LoadCredential=NAME:FILE",
        ));
    }
    let missing = |why: &str| {
        let fix = format!(
            "LoadCredential={name}:FILE or LoadCredentialEncrypted={name}:FILE in the unit \
             (systemctl edit gatewayd), and to be started by it"
        );
        ConfigError::new(key, format!("\"{CREDENTIAL}{name}\": {why}"), fix)
    };
    let Some(folder) = folder else {
        return Err(missing("$CREDENTIALS_DIRECTORY is not set"));
    };
    let path = folder.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(missing("systemd has passed on no such credential"))
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

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_that_others_can_read_are_refused_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("psk");
        write(&file, "hush").unwrap();
        let path = |mode| {
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            secret_path(
                "secret[0].secret_file",
                folder.path(),
                Path::new("psk"),
                None,
            )
        };
        for good in [0o600, 0o400] {
            assert_eq!(path(good).unwrap(), file);
        }
        for bad in [0o640, 0o604, 0o620, 0o602] {
            let error = path(bad).unwrap_err().to_string();
            let fix = format!("chmod 600 {}", file.display());
            assert!(error.contains("secret[0].secret_file"), "{error}");
            assert!(error.contains(&fix) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn credentials_are_those_that_systemd_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, credentials: Option<&Path>| {
            secret_path("k", Path::new("/etc/gateway"), Path::new(name), credentials)
        };
        let file = folder.path().join("psk");
        write(&file, "hush").unwrap();
        // systemd grants access by a list of users, which shows in the mode as the group's.
        set_permissions(&file, Permissions::from_mode(0o440)).unwrap();
        assert_eq!(of("credential:psk", Some(folder.path())).unwrap(), file);
        for (name, credentials, says) in [
            ("credential:psk", None, "$CREDENTIALS_DIRECTORY is not set"),
            (
                "credential:none",
                Some(folder.path()),
                "LoadCredential=none:FILE",
            ),
            ("credential:", Some(folder.path()), "names no credential"),
            (
                "credential:../psk",
                Some(folder.path()),
                "names no credential",
            ),
            ("credential:..", Some(folder.path()), "names no credential"),
        ] {
            let error = of(name, credentials).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
    }
}
