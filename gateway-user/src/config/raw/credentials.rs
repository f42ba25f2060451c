//! How both sides authenticate, and with what.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A file; or what stands in one, which clients of VICI send instead.
#[derive(Debug)]
pub(in crate::config) enum Source {
    File(PathBuf),
    Octets(Vec<u8>),
}

impl JsonSchema for Source {
    fn schema_name() -> Cow<'static, str> {
        "File".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Octets(_) => f.write_str("the certificate"),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Source;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a file")
            }

            fn visit_str<E>(self, file: &str) -> Result<Source, E> {
                Ok(Source::File(file.into()))
            }

            fn visit_bytes<E>(self, octets: &[u8]) -> Result<Source, E> {
                Ok(Source::Octets(octets.to_vec()))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// How we authenticate.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct LocalAuth {
    /// "psk", or with a signature: "pubkey", "rsa", "rsa/pss", "ecdsa", "ed25519", with the fewest bits and the
    /// hashes that are allowed behind it, like "rsa-3072-sha256".
    #[serde(default = "psk")]
    pub(in crate::config) auth: String,
    /// Our identity. Absent: the first certificate's subject, or else the first VIP.
    pub(in crate::config) id: Option<String>,
    /// Files with certificates of keys in `[[private]]`, each with what leads to its authority behind it.
    #[serde(default)]
    pub(in crate::config) certs: Vec<Source>,
}

impl Default for LocalAuth {
    fn default() -> Self {
        Self {
            auth: psk(),
            id: None,
            certs: Vec::new(),
        }
    }
}

/// How the peer has to authenticate.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RemoteAuth {
    /// As of `local`.
    #[serde(default = "psk")]
    pub(in crate::config) auth: String,
    /// The peer's identity, also "*.example.org", "*@example.org" or "C=DE, O=Example, CN=*". Absent: any.
    pub(in crate::config) id: Option<String>,
    /// Files with the peer's own certificates: no other is taken then.
    #[serde(default)]
    pub(in crate::config) certs: Vec<Source>,
    /// Files with certificates of its authorities. With neither these nor `certs`: those of `[[authority]]`.
    #[serde(default)]
    pub(in crate::config) cacerts: Vec<Source>,
    /// How much must be known about revocation.
    #[serde(default)]
    pub(in crate::config) revocation: Revocation,
}

impl Default for RemoteAuth {
    fn default() -> Self {
        Self {
            auth: psk(),
            id: None,
            certs: Vec::new(),
            cacerts: Vec::new(),
            revocation: Revocation::default(),
        }
    }
}

/// How much must be known about revocation.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Revocation {
    /// A good CRL is needed.
    Strict,
    /// A good CRL is needed if the certificate names one.
    Ifuri,
    /// Only who is known to be revoked is refused.
    #[default]
    Relaxed,
}

/// When our certificates are sent.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum SendCert {
    /// If the peer asks for them.
    #[default]
    Ifasked,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A private key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Private {
    /// A file with an unencrypted private key, PKCS#8, PKCS#1 or SEC 1; mode 0600, or `credential:NAME`.
    pub(in crate::config) file: PathBuf,
}

/// A certification authority.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Authority {
    /// A file with its certificate.
    pub(in crate::config) cacert: Option<PathBuf>,
    /// Files with its CRLs, which are read again when they change.
    #[serde(default)]
    pub(in crate::config) crls: Vec<PathBuf>,
}

/// A post-quantum pre-shared key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Ppk {
    /// Its identity, which goes over the wire: 1 to 255 octets.
    pub(in crate::config) id: String,
    /// The key itself, `0x…` in hexadecimal digits, `0s…` in base64, or as it stands; at least 256 bits of
    /// entropy.
    pub(in crate::config) secret: Option<String>,
    /// A file that holds it in one line; mode 0600, or `credential:NAME`.
    pub(in crate::config) secret_file: Option<PathBuf>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Secret {
    /// Identities of both sides that it is for; empty: all.
    #[serde(default)]
    pub(in crate::config) ids: Vec<String>,
    /// The key itself: `0x…` in hexadecimal digits, `0s…` in base64, or as it stands.
    pub(in crate::config) secret: Option<String>,
    /// A file that holds it in one line; mode 0600, or `credential:NAME`.
    pub(in crate::config) secret_file: Option<PathBuf>,
}

fn psk() -> String {
    "psk".into()
}
