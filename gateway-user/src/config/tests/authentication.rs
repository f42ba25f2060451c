//! Certificates and keys from files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use gateway_ike::config::{LocalAuth, RemoteAuth, SendCert};
use gateway_ike::x509::path::Revocation;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, SerialNumber,
};
use tempfile::TempDir;

use super::*;

/// A folder with an authority, a certificate for gw.example.org and its key.
struct Folder(TempDir);

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Folder {
    fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        let mut ca = params("ca.example.org");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params("gw.example.org").signed_by(&key, &*ca).unwrap();
        folder.write("ca.pem", ca.pem().as_bytes(), 0o644);
        folder.write("ca.der", ca.der(), 0o644);
        folder.write("gw.pem", (certificate.pem() + &ca.pem()).as_bytes(), 0o644);
        folder.write("gw.key", key.serialize_pem().as_bytes(), 0o600);
        folder.write("gw.key.der", key.serialized_der(), 0o600);
        let other = KeyPair::generate().unwrap();
        folder.write("other.key", other.serialize_pem().as_bytes(), 0o600);
        folder.write("open.key", key.serialize_pem().as_bytes(), 0o640);
        let sealed = key
            .serialize_pem()
            .replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE");
        folder.write("sealed.key", sealed.as_bytes(), 0o600);
        let crl = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2025, 1, 1),
            next_update: rcgen::date_time_ymd(2125, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = crl.signed_by(&ca).unwrap();
        folder.write("ca.crl", crl.pem().unwrap().as_bytes(), 0o644);
        folder
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The good file with certificates, and `from` replaced by `to`.
    fn load(&self, from: &str, to: &str) -> Result<Config, String> {
        let text =
            GOOD.replace(
                "local = { id = \"gw.example.org\" }",
                "send_cert = \"always\"\nppk_id = \"quantum\"\n\
                 local = { auth = \"pubkey\", id = \"gw.example.org\", certs = [\"gw.pem\"] }",
            )
            .replace(
                "remote = { id = \"site-a.example.org\" }",
                "remote = { auth = \"ecdsa-256-sha256\", id = \"CN=*\", revocation = \"strict\" }",
            ) + "[[private]]\nfile = \"gw.key\"\n\
               [[authority]]\ncacert = \"ca.pem\"\ncrls = [\"ca.crl\"]\n\
               [[ppk]]\nid = \"quantum\"\nsecret = \"0x00ff\"\n";
        assert!(text.contains(from), "{from}");
        let file = self.0.path().join("gateway.toml");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Config::load(&file).map_err(|error| error.to_string())
    }
}

#[test]
fn certificates_are_read() {
    let folder = Folder::new();
    for (from, to) in [
        ("gw.key", "gw.key"),
        ("gw.key", "gw.key.der"),
        ("ca.pem", "ca.der"),
        (
            "auth = \"pubkey\", id = \"gw.example.org\"",
            "auth = \"ecdsa\"",
        ),
    ] {
        let config = folder.load(from, to).unwrap();
        let auth = &config.connections[0].auth;
        let LocalAuth::PublicKey { credentials, .. } = &auth.local else {
            panic!("a pre-shared key");
        };
        assert_eq!(credentials[0].chain.len(), 2);
        let RemoteAuth::PublicKey(remote) = &auth.remote else {
            panic!("a pre-shared key");
        };
        assert_eq!(remote.authorities.len(), 1);
        assert_eq!(remote.policy.to_string(), "ecdsa-256-sha256");
        assert_eq!(remote.revocation, Revocation::Strict);
        assert_eq!(auth.send_cert, SendCert::Always);
        assert_eq!(config.crl_files, [folder.0.path().join("ca.crl")]);
        let ppk = auth.ppk.as_ref().unwrap();
        assert_eq!((ppk.id.as_deref(), ppk.required), (Some("quantum"), false));
    }
    let default = folder
        .load(
            "auth = \"pubkey\", id = \"gw.example.org\"",
            "auth = \"pubkey\"",
        )
        .unwrap();
    let id = default.connections[0].local_id.to_string();
    assert!(id.contains("CN=gw.example.org"), "{id}");
}

#[test]
fn what_is_wrong_is_named() {
    let folder = Folder::new();
    for (from, to, words) in [
        (
            "file = \"gw.key\"",
            "file = \"none.key\"",
            &["private[0].file", "none.key", "No such file"][..],
        ),
        (
            "file = \"gw.key\"",
            "file = \"open.key\"",
            &["open.key", "mode 0640", "chmod 600"],
        ),
        (
            "file = \"gw.key\"",
            "file = \"sealed.key\"",
            &["sealed.key", "encrypted"],
        ),
        ("file = \"gw.key\"", "file = \"ca.pem\"", &["ca.pem"]),
        (
            "file = \"gw.key\"",
            "file = \"other.key\"",
            &["local.certs[0]", "no [[private]]"],
        ),
        (
            "certs = [\"gw.pem\"]",
            "certs = [\"gw.key\"]",
            &["no certificate in it"],
        ),
        (
            "certs = [\"gw.pem\"]",
            "certs = []",
            &["local.certs", "is empty"],
        ),
        (
            "auth = \"pubkey\"",
            "auth = \"rsa\"",
            &["local.certs[0]", "ECDSA P-256"],
        ),
        (
            "auth = \"pubkey\"",
            "auth = \"certificate\"",
            &["local.auth", "certificate", "psk"],
        ),
        (
            "auth = \"pubkey\"",
            "auth = \"psk\"",
            &["local.certs", "auth is \"psk\""],
        ),
        (
            "id = \"gw.example.org\", certs",
            "id = \"other\", certs",
            &["local.id", "gw.example.org"],
        ),
        (
            "cacert = \"ca.pem\"",
            "cacert = \"gw.pem\"",
            &["authority[0].cacert", "no certification authority"],
        ),
        (
            "cacert = \"ca.pem\"\n",
            "",
            &["remote.cacerts", "no [[authority]]"],
        ),
        (
            "crls = [\"ca.crl\"]",
            "crls = [\"ca.pem\"]",
            &["crls[0]", "no CRL"],
        ),
        (
            "ppk_id = \"quantum\"",
            "ppk_id = \"other\"",
            &["ppk_id", "no [[ppk]]"],
        ),
        ("\"CN=*\"", "\"X=*\"", &["remote.id", "type of attribute"]),
    ] {
        let error = folder.load(from, to).expect_err(to);
        for word in words {
            assert!(error.contains(word), "{to}: {error}");
        }
    }
}

#[test]
fn a_file_with_secrets_in_it_is_its_owner_s_alone() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("gateway.toml");
    let load = |text: &str, mode: u32| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let exposed = Config::load(&file).unwrap().exposed;
        exposed.map_or(Ok(()), |finding| Err(finding.to_string()))
    };
    assert!(GOOD.contains("[[secret]]"), "the good file has a secret");
    load(GOOD, 0o600).unwrap();
    for mode in [0o644, 0o640, 0o602] {
        let error = load(GOOD, mode).unwrap_err();
        assert!(error.contains("secret[0].secret"), "{error}");
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        assert!(error.contains("chmod 600"), "{error}");
    }
    // Without one it may be read by all.
    let key = folder.path().join("psk");
    fs::write(&key, "of a file").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let elsewhere: String = GOOD
        .lines()
        .map(|line| match line.split_once('=') {
            Some((name, _)) if name.trim() == "secret" => "secret_file = \"psk\"\n".to_owned(),
            _ => format!("{line}\n"),
        })
        .collect();
    load(&elsewhere, 0o644).unwrap();
    let ppk = format!("{elsewhere}\n[[ppk]]\nid = \"q\"\nsecret = \"0x00ff\"\n");
    let error = load(&ppk, 0o644).unwrap_err();
    assert!(error.contains("ppk[0].secret"), "{error}");
}

/// When a package is removed, systemd passes on no credentials, and keys may be gone.
#[test]
fn what_is_to_be_removed_is_known_without_secrets() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("gateway.toml");
    let text: String = GOOD
        .lines()
        .map(|line| match line.split_once('=') {
            Some((name, _)) if name.trim() == "secret" => {
                "secret_file = \"credential:psk\"\n".to_owned()
            }
            _ => format!("{line}\n"),
        })
        .collect();
    fs::write(&file, &text).unwrap();
    assert!(Config::load(&file).is_err(), "there is no such credential");
    let left = Config::load_for_removal(&file).unwrap();
    let whole = Config::parse(GOOD).unwrap();
    assert_eq!(left.cluster.vips, whole.cluster.vips);
    assert_eq!(left.interfaces.public, whole.interfaces.public);
    assert_eq!(left.bpffs, whole.bpffs);
    assert!(left.connections.is_empty() && left.secrets.is_empty());
    fs::write(&file, text.replace("[sync]", "[sink]")).unwrap();
    assert!(Config::load_for_removal(&file).is_err());
}
