//! How the sides of a connection authenticate: `local`, `remote`, `ppk_id`, and the tables
//! `[[private]]`, `[[authority]]` and `[[ppk]]`.

use std::path::PathBuf;
use std::sync::Arc;

use gateway_ike::config::{
    Authentication, Credential, LocalAuth, Ppk, PpkPolicy, RemoteAuth, RemotePublicKey, SendCert,
    SignaturePolicy,
};
use gateway_ike::identity::Identity;
use gateway_ike::signature::SigningKey;
use gateway_ike::x509::Certificate;
use gateway_ike::x509::path::Revocation;

use super::error::ConfigError;
use super::files::{self, Folder};
use super::swanctl::Credentials;
use super::{authorization, connection, raw};
use crate::crypto::AwsLc;

const AUTH: &str = "\"psk\", or \"pubkey\", \"rsa\", \"rsa/pss\", \"ecdsa\" or \"ed25519\", with the \
                    fewest bits and hashes behind it, like \"rsa-3072-sha256\"";

/// What connections choose from.
pub(super) struct Store<'a> {
    folder: Folder<'a>,
    pub(super) keys: Vec<Arc<dyn SigningKey>>,
    pub(super) authorities: Vec<Arc<Certificate>>,
    pub(super) crls: Vec<PathBuf>,
    pub(super) ppks: Vec<Ppk>,
}

impl<'a> Store<'a> {
    /// Of what has been read already.
    pub(super) fn loaded(folder: Folder<'a>, credentials: &Credentials) -> Self {
        Self {
            folder,
            keys: credentials.keys.clone(),
            authorities: credentials.authorities.clone(),
            crls: Vec::new(),
            ppks: credentials.ppks.clone(),
        }
    }

    pub(super) fn read(
        folder: Folder<'a>,
        private: &[raw::Private],
        authority: &[raw::Authority],
        ppk: Vec<raw::Ppk>,
    ) -> Result<Self, ConfigError> {
        let keys = private.iter().enumerate().map(|(index, private)| {
            folder.private_key(&format!("private[{index}].file"), &private.file)
        });
        let mut store = Self {
            folder,
            keys: keys.collect::<Result<_, _>>()?,
            authorities: Vec::new(),
            crls: Vec::new(),
            ppks: check_ppks(folder, ppk)?,
        };
        for (index, authority) in authority.iter().enumerate() {
            if let Some(file) = &authority.cacert {
                let key = format!("authority[{index}].cacert");
                store
                    .authorities
                    .extend(store.authority(&key, &raw::Source::File(file.clone()))?);
            }
            for (number, file) in authority.crls.iter().enumerate() {
                let path = folder.path(file);
                files::check_crl(&format!("authority[{index}].crls[{number}]"), &path)?;
                store.crls.push(path);
            }
        }
        Ok(store)
    }

    /// The certificates of authorities in a file.
    fn authority(
        &self,
        key: &str,
        file: &raw::Source,
    ) -> Result<Vec<Arc<Certificate>>, ConfigError> {
        let found = self.folder.certificates(key, file)?;
        match found.iter().find(|certificate| !certificate.is_ca()) {
            None => Ok(found),
            Some(other) => Err(ConfigError::new(
                key,
                format!("{file}: {other} is no certification authority's"),
                "certificates with basicConstraints CA:TRUE; a peer's own goes to remote.certs",
            )),
        }
    }

    pub(super) fn authentication(
        &self,
        key: &str,
        raw: &raw::Connection,
    ) -> Result<Authentication, ConfigError> {
        Ok(Authentication {
            local: self.local(&format!("{key}.local"), &raw.local)?,
            remote: self.remote(&format!("{key}.remote"), &raw.remote)?,
            send_cert: match raw.send_cert {
                raw::SendCert::Ifasked => SendCert::IfAsked,
                raw::SendCert::Always => SendCert::Always,
                raw::SendCert::Never => SendCert::Never,
            },
            ppk: self.ppk(key, raw)?,
            authorization: authorization::check(key, raw)?,
        })
    }

    fn local(&self, key: &str, raw: &raw::LocalAuth) -> Result<LocalAuth, ConfigError> {
        let Some(policy) = policy(&format!("{key}.auth"), &raw.auth)? else {
            unused(key, "certs", raw.certs.is_empty())?;
            return Ok(LocalAuth::Psk);
        };
        let mut credentials = Vec::new();
        for (index, file) in raw.certs.iter().enumerate() {
            let key = format!("{key}.certs[{index}]");
            let chain = self.folder.certificates(&key, file)?;
            let mine = chain.first().map(|certificate| certificate.public_key());
            let found = self.keys.iter().find(|key| Some(key.public_key()) == mine);
            let Some(found) = found.cloned() else {
                return Err(ConfigError::new(
                    key,
                    format!("{file}: no [[private]] has the key of its first certificate"),
                    "the certificate of a key in [[private]], what leads to its authority behind it",
                ));
            };
            if !policy.permits_key(found.kind()) {
                return Err(ConfigError::new(
                    key,
                    format!("{file} has a key of {}, auth is \"{policy}\"", found.kind()),
                    "a certificate whose key auth allows",
                ));
            }
            credentials.push(Credential { chain, key: found });
        }
        if credentials.is_empty() {
            return Err(ConfigError::new(
                format!("{key}.certs"),
                "is empty",
                "at least one file with a certificate of ours, if auth is not \"psk\"",
            ));
        }
        Ok(LocalAuth::PublicKey {
            credentials,
            policy,
        })
    }

    fn remote(&self, key: &str, raw: &raw::RemoteAuth) -> Result<RemoteAuth, ConfigError> {
        let Some(policy) = policy(&format!("{key}.auth"), &raw.auth)? else {
            unused(key, "certs", raw.certs.is_empty())?;
            unused(key, "cacerts", raw.cacerts.is_empty())?;
            return Ok(RemoteAuth::Psk);
        };
        let mut certificates = Vec::new();
        for (index, file) in raw.certs.iter().enumerate() {
            let key = format!("{key}.certs[{index}]");
            certificates.extend(self.folder.certificates(&key, file)?);
        }
        let mut authorities = Vec::new();
        for (index, file) in raw.cacerts.iter().enumerate() {
            authorities.extend(self.authority(&format!("{key}.cacerts[{index}]"), file)?);
        }
        // As swanctl: whoever names certificates or authorities wants those and no others.
        if authorities.is_empty() && certificates.is_empty() {
            authorities.clone_from(&self.authorities);
        }
        if authorities.is_empty() && certificates.is_empty() {
            return Err(ConfigError::new(
                format!("{key}.cacerts"),
                "is empty, and there is no [[authority]]",
                "certificates of authorities in remote.cacerts or [[authority]] cacert, or the \
                 peer's own in remote.certs",
            ));
        }
        Ok(RemoteAuth::PublicKey(RemotePublicKey {
            certificates,
            authorities,
            policy,
            revocation: match raw.revocation {
                raw::Revocation::Strict => Revocation::Strict,
                raw::Revocation::Ifuri => Revocation::IfUri,
                raw::Revocation::Relaxed => Revocation::Relaxed,
            },
        }))
    }

    fn ppk(&self, key: &str, raw: &raw::Connection) -> Result<Option<PpkPolicy>, ConfigError> {
        let id = raw.ppk_id.clone();
        if let Some(id) = &id
            && !self.ppks.iter().any(|ppk| ppk.id == *id)
        {
            return Err(ConfigError::new(
                format!("{key}.ppk_id"),
                format!("is \"{id}\", and no [[ppk]] has that id"),
                "the id of a [[ppk]]",
            ));
        }
        if raw.ppk_required && self.ppks.is_empty() {
            return Err(ConfigError::new(
                format!("{key}.ppk_required"),
                "is true, and there is no [[ppk]]",
                "at least one [[ppk]]",
            ));
        }
        // As responder any PPK that we have will do, without ppk_id.
        let any = !self.ppks.is_empty();
        Ok(any.then_some(PpkPolicy {
            id,
            required: raw.ppk_required,
        }))
    }
}

/// Our identity, if the file does not say: the first certificate's subject.
pub(super) fn default_id(auth: &Authentication) -> Option<Identity> {
    let certificate = first_certificate(auth)?;
    Some(Identity::Dn(certificate.subject().der().to_vec()))
}

/// Whether each of our certificates is for `local_id`: peers would refuse others.
pub(super) fn check_local_id(
    key: &str,
    auth: &Authentication,
    local_id: &Identity,
) -> Result<(), ConfigError> {
    let LocalAuth::PublicKey { credentials, .. } = &auth.local else {
        return Ok(());
    };
    let certificates = credentials.iter().filter_map(|c| c.chain.first());
    for certificate in certificates {
        if !certificate.names(&AwsLc, local_id) {
            let names = certificate.alt_names().iter().map(ToString::to_string);
            let mut names: Vec<String> = names.collect();
            names.push(format!("\"{}\"", certificate.subject()));
            return Err(ConfigError::new(
                format!("{key}.local.id"),
                format!("{local_id} is not in the certificate {certificate}"),
                format!("what it is for: {}", names.join(", ")),
            ));
        }
    }
    Ok(())
}

fn first_certificate(auth: &Authentication) -> Option<&Arc<Certificate>> {
    match &auth.local {
        LocalAuth::PublicKey { credentials, .. } => credentials.first()?.chain.first(),
        LocalAuth::Psk => None,
    }
}

/// `None` for pre-shared keys.
fn policy(key: &str, text: &str) -> Result<Option<SignaturePolicy>, ConfigError> {
    if text == "psk" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error| ConfigError::new(key, format!("is \"{text}\": {error}"), AUTH))
}

fn unused(key: &str, name: &str, absent: bool) -> Result<(), ConfigError> {
    if absent {
        return Ok(());
    }
    Err(ConfigError::new(
        format!("{key}.{name}"),
        "is there, but auth is \"psk\"",
        "certificates only where auth is \"pubkey\" or the like",
    ))
}

fn check_ppks(folder: Folder<'_>, raw: Vec<raw::Ppk>) -> Result<Vec<Ppk>, ConfigError> {
    let mut found: Vec<Ppk> = Vec::new();
    for (index, ppk) in raw.into_iter().enumerate() {
        let key = format!("ppk[{index}]");
        if ppk.id.is_empty() || ppk.id.len() > 255 || found.iter().any(|other| other.id == ppk.id) {
            return Err(ConfigError::new(
                format!("{key}.id"),
                "is empty, longer than 255 octets, or that of another [[ppk]]",
                "an id of its own for every [[ppk]]",
            ));
        }
        found.push(Ppk {
            id: ppk.id,
            secret: connection::secret(&key, folder, ppk.secret, ppk.secret_file)?,
        });
    }
    Ok(found)
}
