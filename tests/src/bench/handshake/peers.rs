//! How peers and responder authenticate.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use gateway_ike::config::{Authentication, Credential, LocalAuth, RemoteAuth, RemotePublicKey};
use gateway_ike::crypto::CryptoProvider;
use gateway_ike::secret::SecretBytes;
use gateway_ike::signature::SigningKey;
use gateway_ike::x509::Certificate;
use gateway_user::crypto::AwsLc;
use rcgen::{KeyPair, RsaKeySize};

use super::driver::{Peers, peer_name};
use crate::lab::Authority;

/// What all peers have as pre-shared key.
pub(super) const SECRET: &str = "lab secret of the bench";

/// How both sides authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Auth {
    Psk,
    Ecdsa256,
    Rsa2048,
}

impl Auth {
    /// The word in reports.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Psk => "psk",
            Self::Ecdsa256 => "ecdsa-256",
            Self::Rsa2048 => "rsa-2048",
        }
    }

    fn key(self) -> Result<KeyPair> {
        Ok(match self {
            Self::Psk | Self::Ecdsa256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
            Self::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        })
    }
}

/// Peers with a pre-shared key.
pub(super) struct Psk;

impl Peers for Psk {
    fn authentication(&self, _: usize) -> Authentication {
        Authentication::default()
    }

    fn secret(&self) -> Option<SecretBytes> {
        Some(SecretBytes::from(SECRET.as_bytes()))
    }
}

/// Peers with a certificate each, and one key for all: making keys is no part of a handshake.
pub(super) struct Certified {
    key: Arc<dyn SigningKey>,
    certificates: Vec<Arc<Certificate>>,
    authority: Arc<Certificate>,
}

impl Certified {
    /// `count` certificates, and in `folder` what the responder needs: `ca.pem`, `gw.pem`,
    /// `gw.key`.
    pub(super) fn issue(auth: Auth, count: usize, folder: &Path) -> Result<Self> {
        let root = Authority::new("Lab CA")?;
        root.equip(folder, &[("gw", &auth.key()?)])?;
        let key = auth.key()?;
        let certificate = |(serial, number)| -> Result<Arc<Certificate>> {
            let issued = root.issue(&peer_name(number), serial, &key)?;
            Ok(Arc::new(Certificate::from_der(issued.der())?))
        };
        let signing = AwsLc.signing_key(&SecretBytes::from(key.serialized_der()));
        Ok(Self {
            certificates: (1..)
                .zip(0..count)
                .map(certificate)
                .collect::<Result<_>>()?,
            key: signing.map_err(|_| anyhow!("the peers' key cannot be used"))?,
            authority: Arc::new(Certificate::from_der(root.der()).context("the authority")?),
        })
    }
}

impl Peers for Certified {
    fn authentication(&self, number: usize) -> Authentication {
        Authentication {
            local: LocalAuth::PublicKey {
                credentials: vec![Credential {
                    chain: vec![Arc::clone(&self.certificates[number])],
                    key: Arc::clone(&self.key),
                }],
                policy: gateway_ike::config::SignaturePolicy::default(),
            },
            remote: RemoteAuth::PublicKey(RemotePublicKey {
                authorities: vec![Arc::clone(&self.authority)],
                ..RemotePublicKey::default()
            }),
            ..Authentication::default()
        }
    }

    fn secret(&self) -> Option<SecretBytes> {
        None
    }
}
