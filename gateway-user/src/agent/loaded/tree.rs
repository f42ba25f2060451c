//! The tree of what clients sent, by kind and name, and what a request changes in it.

use std::sync::Arc;

use aws_lc_rs::digest;
use gateway_ike::config::{Ppk, Secret};
use gateway_ike::secret::SecretBytes;
use gateway_ike::x509::Certificate;
use gateway_vici::{Item, Section, Value};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};

use crate::config::{Credentials, certificates, private_key};

/// Names of the sections of the tree.
pub(super) const CONNECTIONS: &str = "connections";
pub(super) const SHARED: &str = "shared";
pub(super) const KEYS: &str = "keys";
pub(super) const CERTIFICATES: &str = "certificates";
pub(super) const AUTHORITIES: &str = "authorities";

/// Changes a tree as a request wants it; returns what is answered beside "success".
pub(super) fn change(
    tree: &mut Section,
    command: &str,
    message: &Section,
) -> Result<Section, String> {
    let nothing = Section::new();
    match command {
        "load-conn" | "load-authority" => {
            let kind = if command == "load-conn" {
                CONNECTIONS
            } else {
                AUTHORITIES
            };
            let (name, section) = message
                .sections()
                .next()
                .ok_or_else(|| format!("{command} has no section"))?;
            put(tree, kind, name, section.clone());
        }
        "unload-conn" => remove(tree, CONNECTIONS, text(message, "name")?)?,
        "unload-authority" => remove(tree, AUTHORITIES, text(message, "name")?)?,
        "load-shared" => {
            check_shared(message)?;
            let name = match message.text("id") {
                Some(id) => id.to_owned(),
                // As strongSwan: without id it cannot be unloaded by name.
                None => message
                    .list("owners")
                    .iter()
                    .filter_map(Value::text)
                    .collect(),
            };
            put(tree, SHARED, &name, message.clone());
        }
        "unload-shared" => remove(tree, SHARED, text(message, "id")?)?,
        "load-key" => {
            let key = private_key(data(message)?).map_err(str::to_owned)?;
            let id = key_id(key.public_key());
            put(tree, KEYS, &id, message.clone());
            return Ok(nothing.with("id", id));
        }
        "unload-key" => remove(tree, KEYS, text(message, "id")?)?,
        "load-cert" => {
            let kind = message.text("type").unwrap_or_default();
            if !kind.eq_ignore_ascii_case("x509") {
                return Err(format!(
                    "a certificate of type {kind} is not supported: X.509 is; CRLs belong into \
                     [[authority]] crls"
                ));
            }
            certificates(data(message)?)?;
            let id = hex_digest(data(message)?);
            put(tree, CERTIFICATES, &id, message.clone());
        }
        "load-token" => return Err("keys on tokens are not supported: load the key".to_owned()),
        "clear-creds" => {
            for kind in [SHARED, KEYS, CERTIFICATES] {
                tree.take(kind);
            }
        }
        other => return Err(format!("{other} is not known")),
    }
    Ok(nothing)
}

/// strongSwan's name of a key: SHA-1 of the subjectPublicKey of its SubjectPublicKeyInfo, without
/// the octet that counts the unused bits (RFC 7296 §3.7 hashes the whole structure instead).
fn key_id(public_key: &[u8]) -> String {
    let parsed = SubjectPublicKeyInfo::from_der(public_key);
    let key = parsed.as_ref().map_or(public_key, |(_, info)| {
        let bits: &[u8] = &info.subject_public_key.data;
        bits
    });
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key);
    data_encoding::HEXLOWER.encode(digest.as_ref())
}

/// A name for what has none.
fn hex_digest(octets: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, octets);
    data_encoding::HEXLOWER.encode(digest.as_ref())
}

fn check_shared(message: &Section) -> Result<(), String> {
    let kind = text(message, "type")?;
    data(message)?;
    match kind.to_ascii_lowercase().as_str() {
        "ike" | "ppk" => Ok(()),
        "eap" | "xauth" | "ntlm" => Err(format!(
            "secrets of type {kind} are not supported yet: EAP and XAuth are missing, use ike or ppk"
        )),
        _ => Err(format!(
            "secrets of type {kind} are not supported: use ike or ppk"
        )),
    }
}

/// Adds the loaded keys, authorities and PPKs, and returns the pre-shared keys.
pub(super) fn add_credentials(
    tree: &Section,
    credentials: &mut Credentials,
) -> Result<Vec<Secret>, String> {
    let mut secrets = Vec::new();
    for shared in values(tree, SHARED) {
        let secret = || data(shared).map(SecretBytes::from);
        let owners = shared.list("owners").iter().filter_map(Value::text);
        if shared
            .text("type")
            .is_some_and(|kind| kind.eq_ignore_ascii_case("ppk"))
        {
            for id in owners.filter(|id| *id != "%any") {
                let id = id.to_owned();
                credentials.ppks.push(Ppk {
                    id,
                    secret: secret()?,
                });
            }
            continue;
        }
        let ids = owners.filter(|id| *id != "%any").map(|id| {
            id.parse()
                .map_err(|error| format!("the owner \"{id}\" of a secret: {error}"))
        });
        let ids = ids.collect::<Result<_, String>>()?;
        secrets.push(Secret {
            ids,
            secret: secret()?,
        });
    }
    for key in values(tree, KEYS) {
        credentials.keys.push(private_key(data(key)?)?);
    }
    for certificate in values(tree, CERTIFICATES) {
        let is_authority = |one: &Arc<Certificate>| one.is_ca();
        let found = certificates(data(certificate)?)?;
        credentials
            .authorities
            .extend(found.into_iter().filter(is_authority));
    }
    for authority in values(tree, AUTHORITIES) {
        if let Some(certificate) = authority.value("cacert") {
            let found = certificates(certificate.octets())?;
            credentials.authorities.extend(found);
        }
    }
    Ok(secrets)
}

pub(super) fn list_authorities(tree: &Section) -> Vec<Section> {
    let all = tree.section(AUTHORITIES);
    let all = all.iter().flat_map(|all| all.sections());
    let section = |(name, authority): (&str, &Section)| {
        let mut shown = Section::new();
        if let Some(certificate) = authority.value("cacert")
            && let Ok(found) = certificates(certificate.octets())
            && let Some(first) = found.first()
        {
            shown = shown.with("cacert", first.subject());
        }
        for key in ["crl_uris", "ocsp_uris"] {
            let uris = authority.list(key).iter().filter_map(Value::text);
            shown = shown.with_list(key, uris);
        }
        Section::new().with_section(name, shown)
    };
    all.map(section).collect()
}

pub(super) fn values<'a>(tree: &'a Section, kind: &str) -> impl Iterator<Item = &'a Section> {
    let all = tree.section(kind).into_iter();
    all.flat_map(|all| all.sections().map(|(_, section)| section))
}

pub(super) fn names(tree: &Section, kind: &str, list: &str) -> Section {
    let all = tree.section(kind).into_iter();
    Section::new().with_list(
        list,
        all.flat_map(|all| all.sections().map(|(name, _)| name)),
    )
}

fn put(tree: &mut Section, kind: &str, name: &str, section: Section) {
    let mut all = match tree.take(kind) {
        Some(Item::Section(all)) => all,
        _ => Section::new(),
    };
    all.replace(name, Item::Section(section));
    tree.push(kind, Item::Section(all));
}

pub(super) fn remove(tree: &mut Section, kind: &str, name: &str) -> Result<(), String> {
    let mut all = match tree.take(kind) {
        Some(Item::Section(all)) => all,
        _ => Section::new(),
    };
    let found = all.take(name).is_some();
    tree.push(kind, Item::Section(all));
    if found {
        Ok(())
    } else {
        Err(format!("\"{name}\" is not among the loaded {kind}"))
    }
}

fn text<'a>(message: &'a Section, key: &str) -> Result<&'a str, String> {
    message.text(key).ok_or_else(|| format!("{key} is missing"))
}

fn data(message: &Section) -> Result<&[u8], String> {
    let data = message.value("data").map(Value::octets);
    data.filter(|data| !data.is_empty())
        .ok_or_else(|| "data is missing or empty".to_owned())
}

/// For the log: names, never values.
pub(super) fn subject(message: &Section) -> String {
    let named = message.text("id").or_else(|| message.text("name"));
    let section = || message.sections().next().map(|(name, _)| name);
    named
        .or_else(section)
        .map_or_else(String::new, |name| format!(" {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(id: &str, secret: &str, owners: &[&str]) -> Section {
        Section::new()
            .with("id", id)
            .with("type", "ike")
            .with("data", secret)
            .with_list("owners", owners)
    }

    #[test]
    fn secrets_come_and_go_by_name() {
        let mut tree = Section::new();
        let mut load = |command: &str, message: &Section| change(&mut tree, command, message);
        load("load-shared", &shared("a", "one", &["x", "%any"])).unwrap();
        load("load-shared", &shared("b", "two", &[])).unwrap();
        load("load-shared", &shared("a", "three", &["x"])).unwrap();
        load("unload-shared", &Section::new().with("id", "b")).unwrap();
        let error = load("unload-shared", &Section::new().with("id", "b")).unwrap_err();
        assert_eq!(error, "\"b\" is not among the loaded shared");
        assert_eq!(names(&tree, SHARED, "keys").list("keys"), ["a".into()]);
        let secrets = add_credentials(&tree, &mut Credentials::default()).unwrap();
        assert_eq!(secrets.len(), 1);
        assert_eq!(secrets[0].ids.len(), 1);
        assert_eq!(secrets[0].secret.expose(), b"three");
    }

    /// An Ed25519 key's subjectPublicKey is the key itself, and the last 32 octets of the structure.
    #[test]
    fn a_key_is_named_by_its_subject_public_key() {
        let mut info = vec![
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        let key = [7; 32];
        info.extend(key);
        let wanted = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &key);
        assert_eq!(
            key_id(&info),
            data_encoding::HEXLOWER.encode(wanted.as_ref())
        );
        assert_eq!(key_id(&info).len(), 40);
    }

    #[test]
    fn ppks_are_told_from_pre_shared_keys() {
        let mut tree = Section::new();
        let mut ppk = shared("p", "quantum", &["site"]);
        ppk.replace("type", Item::Value("ppk".into()));
        change(&mut tree, "load-shared", &ppk).unwrap();
        let mut credentials = Credentials::default();
        assert!(add_credentials(&tree, &mut credentials).unwrap().is_empty());
        assert_eq!(credentials.ppks[0].id, "site");
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_changes_nothing() {
        let mut tree = Section::new();
        let mut eap = shared("e", "x", &[]);
        eap.replace("type", Item::Value("eap".into()));
        let refused = [
            (
                "load-shared",
                eap,
                "secrets of type eap are not supported yet",
            ),
            (
                "load-shared",
                shared("s", "", &[]),
                "data is missing or empty",
            ),
            (
                "load-key",
                Section::new().with("data", "x"),
                "the private key in it",
            ),
            (
                "load-cert",
                Section::new().with("type", "X509_CRL"),
                "a certificate of type X509_CRL",
            ),
            (
                "load-token",
                Section::new(),
                "keys on tokens are not supported",
            ),
            ("load-conn", Section::new(), "load-conn has no section"),
        ];
        for (command, message, wanted) in refused {
            let error = change(&mut tree, command, &message).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
        assert!(tree.is_empty());
    }
}
