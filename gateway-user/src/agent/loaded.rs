//! What was loaded over VICI, beside the configuration file.
//!
//! It is the cluster's, not one member's: every change goes to all members over the sync channel, and
//! a member that comes gets all of it, because any of them may have to answer the next peer. It is
//! kept in memory alone; when all members are down it is gone, as strongSwan's is. Of two sets the one
//! with the higher version counts, so that changes should be made on one member at a time.

mod tree;

use std::sync::Arc;

use gateway_common::member::MemberId;
use gateway_ike::config::{Connection, LocalAuth, Ppk, RemoteAuth, Secret};
use gateway_ike::x509::Certificate;
use gateway_node::Configuration;
use gateway_vici::{Packet, Section};

use self::tree::{
    AUTHORITIES, CERTIFICATES, CONNECTIONS, KEYS, SHARED, add_credentials, change,
    list_authorities, names, remove, subject, values,
};
use super::Agent;
use super::guard::guard;
use crate::clock;
use crate::config::{certificates, swanctl_connection};
use crate::vici::Call;

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
