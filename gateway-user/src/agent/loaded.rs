//! What was loaded over VICI, beside the configuration file.
//!
//! It is the cluster's, not one member's: every change goes to all members over the sync channel, and
//! a member that comes gets all of it, because any of them may have to answer the next peer. It is
//! kept in memory alone; when all members are down it is gone, as strongSwan's is. Of two sets the one
//! with the higher version counts, so that changes should be made on one member at a time.

use std::sync::Arc;

use aws_lc_rs::digest;
use gateway_common::member::MemberId;
use gateway_ike::config::{Connection, LocalAuth, Ppk, RemoteAuth, Secret};
use gateway_ike::secret::SecretBytes;
use gateway_ike::x509::Certificate;
use gateway_node::Configuration;
use gateway_vici::{Item, Packet, Section, Value};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};

use super::Agent;
use super::guard::guard;
use crate::clock;
use crate::config::{Credentials, certificates, private_key, swanctl_connection};
use crate::vici::Call;

/// Names of the sections of [`Loaded::tree`].
const CONNECTIONS: &str = "connections";
const SHARED: &str = "shared";
const KEYS: &str = "keys";
const CERTIFICATES: &str = "certificates";
const AUTHORITIES: &str = "authorities";

/// All that was loaded.
#[derive(Default)]
pub(super) struct Loaded {
    /// Changes so far, and the member that made the last one.
    version: (u64, u8),
    /// What clients sent, by kind and name.
    tree: Section,
    /// The connections in it, checked.
    pub(super) connections: Vec<Arc<Connection>>,
    /// Of this member, and not sent to the others yet.
    fresh: bool,
}

/// What a tree amounts to.
struct Parts {
    connections: Vec<Arc<Connection>>,
    secrets: Vec<Secret>,
    ppks: Vec<Ppk>,
}

type Answer = Result<Vec<Section>, String>;

impl Agent {
    /// The file's connections, then the loaded ones.
    pub(super) fn all_connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.config
            .connections
            .iter()
            .chain(&self.loaded.connections)
    }

    /// Carries out a request about what is loaded.
    pub(super) fn answer_vici(&mut self, call: Call) {
        let answer = self.load(&call.command, &call.message);
        // A client that has gone needs no answer.
        let _ = call.reply.send(answer);
    }

    fn load(&mut self, command: &str, message: &Section) -> Answer {
        let tree = &self.loaded.tree;
        match command {
            "get-conns" => return Ok(vec![names(tree, CONNECTIONS, "conns")]),
            "get-shared" => return Ok(vec![names(tree, SHARED, "keys")]),
            "get-keys" => return Ok(vec![names(tree, KEYS, "keys")]),
            "get-authorities" => return Ok(vec![names(tree, AUTHORITIES, "authorities")]),
            "list-certs" => return Ok(self.list_certificates()),
            "list-authorities" => return Ok(list_authorities(tree)),
            "reload-settings" => return self.reload().map(|_| Vec::new()),
            _ => {}
        }
        let mut tree = tree.clone();
        let answer = change(&mut tree, command, message)?;
        self.may_load(command, message)?;
        self.take_tree(tree)?;
        let (changes, _) = self.loaded.version;
        self.loaded.version = (changes + 1, self.config.cluster.local.get());
        self.loaded.fresh = true;
        tracing::info!("{command}{}", subject(message));
        Ok(vec![answer])
    }

    /// The file's connections are the file's.
    fn may_load(&self, command: &str, message: &Section) -> Result<(), String> {
        if command != "load-conn" {
            return Ok(());
        }
        let name = message.sections().next().map(|(name, _)| name);
        let mut file = self.config.connections.iter();
        match name {
            Some(name) if file.any(|connection| connection.name == name) => Err(format!(
                "connections.{name} is in the gateway's configuration file: change it there, or give \
                 this one another name"
            )),
            _ => Ok(()),
        }
    }

    /// Checks a tree as a whole and puts it in the place of the one before.
    fn take_tree(&mut self, tree: Section) -> Result<(), String> {
        let packet = Packet::Response(tree);
        packet.encode().map_err(|error| {
            format!("{error}: so much cannot be shared with the other members; put connections into the configuration file instead")
        })?;
        let Packet::Response(tree) = packet else {
            return Ok(());
        };
        let parts = self.parts(&tree)?;
        self.loaded.tree = tree;
        self.apply(parts);
        Ok(())
    }

    fn parts(&self, tree: &Section) -> Result<Parts, String> {
        let mut credentials = self.config.credentials.clone();
        let secrets = add_credentials(tree, &mut credentials)?;
        let vips = &self.config.cluster.vips;
        let mut connections = Vec::new();
        for (name, section) in tree
            .section(CONNECTIONS)
            .iter()
            .flat_map(|all| all.sections())
        {
            let connection = swanctl_connection(name, section, vips, &credentials);
            let connection = connection.map_err(|error| error.to_string())?;
            connections.push(Arc::new(connection));
        }
        Ok(Parts {
            connections,
            secrets,
            ppks: credentials.ppks,
        })
    }

    /// The node, the block policies and the faces go by the file and these from now on.
    fn apply(&mut self, parts: Parts) {
        self.loaded.connections = parts.connections;
        let mut secrets = self.config.secrets.clone();
        secrets.extend(parts.secrets);
        let configuration = Configuration {
            connections: self.all_connections().cloned().collect(),
            secrets,
            ppks: parts.ppks,
        };
        self.node.configure(clock::now(), configuration);
        let connections: Vec<Arc<Connection>> = self.all_connections().cloned().collect();
        if let Err(error) = guard(&mut self.tunnels, &self.config, &connections) {
            tracing::error!("policies for packets without SA: {error}");
        }
        self.hear_acquires();
        self.prepare_algorithms();
    }

    /// The file has changed: what is loaded is checked against it anew, and what does not go with it
    /// any more is dropped.
    pub(super) fn apply_loaded(&mut self) {
        let tree = self.fitting(&self.loaded.tree);
        match self.parts(&tree) {
            Ok(parts) => {
                self.loaded.tree = tree;
                self.apply(parts);
            }
            Err(error) => tracing::error!("what is loaded does not go with the file: {error}"),
        }
    }

    /// Without the connections that are not right, or that the file has, too.
    fn fitting(&self, tree: &Section) -> Section {
        let mut kept = tree.clone();
        let mut credentials = self.config.credentials.clone();
        if let Err(error) = add_credentials(tree, &mut credentials) {
            tracing::error!("what was loaded is dropped: {error}");
            return Section::new();
        }
        let vips = &self.config.cluster.vips;
        for (name, section) in tree
            .section(CONNECTIONS)
            .iter()
            .flat_map(|all| all.sections())
        {
            let in_file = self.config.connections.iter().any(|c| c.name == name);
            let outcome = swanctl_connection(name, section, vips, &credentials);
            let problem = match outcome {
                Ok(_) if in_file => "the configuration file has it now".to_owned(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            tracing::error!("loaded connection {name} is dropped: {problem}");
            let _ = remove(&mut kept, CONNECTIONS, name);
        }
        kept
    }

    /// The other members get what is new. Called before anything that may need it there.
    pub(super) fn share_loaded(&mut self) {
        if !std::mem::take(&mut self.loaded.fresh) {
            return;
        }
        let (changes, member) = self.loaded.version;
        let Ok(tree) = Packet::Response(self.loaded.tree.clone()).encode() else {
            return;
        };
        let mut octets = zeroize::Zeroizing::new(changes.to_be_bytes().to_vec());
        octets.push(member);
        octets.extend_from_slice(tree.get(4..).unwrap_or_default());
        self.node.share(clock::now(), &octets);
    }

    /// Another member has loaded something.
    pub(super) fn take_loaded(&mut self, from: MemberId, octets: &[u8]) {
        let Some((changes, rest)) = octets.split_first_chunk::<8>() else {
            return;
        };
        let Some((member, tree)) = rest.split_first() else {
            return;
        };
        let version = (u64::from_be_bytes(*changes), *member);
        if version <= self.loaded.version {
            return;
        }
        let outcome = match Packet::parse(tree) {
            Ok(Packet::Response(tree)) => self.take_tree(tree),
            _ => Err("it cannot be read: do versions differ?".to_owned()),
        };
        match outcome {
            Ok(()) => {
                self.loaded.version = version;
                // For members that come later.
                self.node.keep_shared(octets);
                tracing::info!(member = %from, "has loaded: {} connections", self.loaded.connections.len());
            }
            Err(error) => {
                tracing::error!(member = %from, "has loaded what cannot be used here: {error}");
            }
        }
    }

    fn list_certificates(&self) -> Vec<Section> {
        let mut found: Vec<(Arc<Certificate>, bool)> = Vec::new();
        let mut add = |certificate: &Arc<Certificate>, own: bool| {
            if found
                .iter()
                .all(|(known, _)| known.der() != certificate.der())
            {
                found.push((Arc::clone(certificate), own));
            }
        };
        for connection in self.all_connections() {
            if let LocalAuth::PublicKey { credentials, .. } = &connection.auth.local {
                for credential in credentials {
                    for (index, certificate) in credential.chain.iter().enumerate() {
                        add(certificate, index == 0);
                    }
                }
            }
            if let RemoteAuth::PublicKey(remote) = &connection.auth.remote {
                remote.certificates.iter().for_each(|one| add(one, false));
                remote.authorities.iter().for_each(|one| add(one, false));
            }
        }
        self.config
            .credentials
            .authorities
            .iter()
            .for_each(|one| add(one, false));
        for value in values(&self.loaded.tree, CERTIFICATES) {
            if let Some(data) = value.value("data") {
                for certificate in certificates(data.octets()).unwrap_or_default() {
                    add(&certificate, false);
                }
            }
        }
        let section = |(certificate, own): (Arc<Certificate>, bool)| {
            let flag = if certificate.is_ca() { "CA" } else { "NONE" };
            let section = Section::new().with("type", "X509").with("flag", flag);
            let section = section.with_some("has_privkey", own.then_some("yes"));
            section.with_octets("data", certificate.der())
        };
        found.into_iter().map(section).collect()
    }
}

/// Changes a tree as a request wants it; returns what is answered beside "success".
fn change(tree: &mut Section, command: &str, message: &Section) -> Result<Section, String> {
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
fn add_credentials(tree: &Section, credentials: &mut Credentials) -> Result<Vec<Secret>, String> {
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

fn list_authorities(tree: &Section) -> Vec<Section> {
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

fn values<'a>(tree: &'a Section, kind: &str) -> impl Iterator<Item = &'a Section> {
    let all = tree.section(kind).into_iter();
    all.flat_map(|all| all.sections().map(|(_, section)| section))
}

fn names(tree: &Section, kind: &str, list: &str) -> Section {
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

fn remove(tree: &mut Section, kind: &str, name: &str) -> Result<(), String> {
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
fn subject(message: &Section) -> String {
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
