//! How the two sides of a connection authenticate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::Authorization;
use crate::secret::SecretBytes;
use crate::signature::{KeyKind, SignatureHash, SignatureScheme, SigningKey};
use crate::x509::Certificate;
use crate::x509::path::Revocation;

/// How the two sides of a connection authenticate; each may do it in another way. Default: with a
/// pre-shared key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// How we do.
    pub local: LocalAuth,
    /// How the peer has to.
    pub remote: RemoteAuth,
    /// When our certificates are sent.
    pub send_cert: SendCert,
    /// A post-quantum pre-shared key beside that (RFC 8784).
    pub ppk: Option<PpkPolicy>,
    /// Who is asked about a peer that has authenticated; `None`: whoever does is let in.
    pub authorization: Option<Authorization>,
}

/// How we authenticate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalAuth {
    /// With the pre-shared key for the two identities.
    #[default]
    Psk,
    /// With a signature.
    PublicKey {
        /// Certificates to choose from; at least one.
        credentials: Vec<Credential>,
        /// Which signatures to make.
        policy: SignaturePolicy,
    },
}

/// How the peer has to authenticate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RemoteAuth {
    /// With the pre-shared key for the two identities.
    #[default]
    Psk,
    /// With a signature.
    PublicKey(RemotePublicKey),
}

/// What a peer that authenticates with a signature needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemotePublicKey {
    /// Peers' own certificates that are trusted as they are; swanctl's `certs`.
    pub certificates: Vec<Arc<Certificate>>,
    /// Authorities whose peers are trusted; swanctl's `cacerts`.
    pub authorities: Vec<Arc<Certificate>>,
    /// Which signatures are accepted.
    pub policy: SignaturePolicy,
    /// How much must be known about revocation.
    pub revocation: Revocation,
}

/// A certificate of ours with its private key.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Ours first, then what leads to the authority; never empty.
    pub chain: Vec<Arc<Certificate>>,
    /// The private key of the first.
    pub key: Arc<dyn SigningKey>,
}

impl PartialEq for Credential {
    /// The certificate says which key it is.
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Eq for Credential {}

/// When our certificates are sent; swanctl's `send_cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendCert {
    /// If the peer asks for any.
    #[default]
    IfAsked,
    /// Unasked, too.
    Always,
    /// Never: the peer has them.
    Never,
}

/// Post-quantum pre-shared keys of a connection (RFC 8784).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PpkPolicy {
    /// The one that we use as initiator, and the only one that we accept as responder; `None`: as
    /// responder any that we have.
    pub id: Option<String>,
    /// Whether there is no going without.
    pub required: bool,
}

/// A post-quantum pre-shared key.
#[derive(Clone, Debug)]
pub struct Ppk {
    /// What PPK_IDENTITY calls it.
    pub id: String,
    /// The key, at least 256 bits of entropy (RFC 8784 §6).
    pub secret: SecretBytes,
}

/// Which keys and signatures may be used in IKE_AUTH: swanctl's `auth = pubkey…`. Default:
/// everything but SHA-1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignaturePolicy {
    /// Only keys of this type.
    key: Option<KeyType>,
    /// Only keys with as many bits.
    bits: usize,
    /// Only these hashes; empty: all but SHA-1. Does not concern Ed25519.
    hashes: Vec<SignatureHash>,
    /// Padding of our own RSA signatures; of the peer's only [`Padding::Pss`] is a condition.
    padding: Padding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyType {
    Rsa,
    Ecdsa,
    Ed25519,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Padding {
    /// RSASSA-PSS (RFC 8247 §3.2: MUST), if nothing else is said.
    #[default]
    Either,
    Pss,
    Pkcs1,
}

/// Text that is no [`SignaturePolicy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is unknown here")]
pub struct PolicyTextError(String);

/// Reads `pubkey`, `rsa`, `rsa/pss`, `ecdsa` or `ed25519`, with the fewest bits and the hashes
/// that may be used behind it: `rsa-3072-sha256-sha384`, `pubkey-sha256`. `ike:` may stand before
/// it. As in swanctl, `rsa` with hashes makes PKCS#1 v1.5 signatures and `rsa/pss` PSS ones; without
/// either it is PSS.
impl FromStr for SignaturePolicy {
    type Err = PolicyTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix("ike:").unwrap_or(text);
        let mut words = text.split('-');
        let kind = words.next().unwrap_or_default();
        let (key, padding) = match kind {
            "pubkey" => (None, Padding::Either),
            "rsa" => (Some(KeyType::Rsa), Padding::Either),
            "rsa/pss" => (Some(KeyType::Rsa), Padding::Pss),
            "ecdsa" => (Some(KeyType::Ecdsa), Padding::Either),
            "ed25519" => (Some(KeyType::Ed25519), Padding::Either),
            _ => return Err(PolicyTextError(kind.to_owned())),
        };
        let mut policy = Self {
            key,
            padding,
            ..Self::default()
        };
        for word in words {
            match word {
                "sha1" => policy.hashes.push(SignatureHash::Sha1),
                "sha256" => policy.hashes.push(SignatureHash::Sha256),
                "sha384" => policy.hashes.push(SignatureHash::Sha384),
                "sha512" => policy.hashes.push(SignatureHash::Sha512),
                bits if key.is_some() && policy.bits == 0 && policy.hashes.is_empty() => {
                    policy.bits = bits.parse().map_err(|_| PolicyTextError(bits.to_owned()))?;
                }
                other => return Err(PolicyTextError(other.to_owned())),
            }
        }
        if kind == "rsa" && !policy.hashes.is_empty() {
            policy.padding = Padding::Pkcs1;
        }
        Ok(policy)
    }
}

/// As [`SignaturePolicy::from_str`] reads it.
impl fmt::Display for SignaturePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.key, self.padding) {
            (None, _) => "pubkey",
            (Some(KeyType::Rsa), Padding::Pss) => "rsa/pss",
            (Some(KeyType::Rsa), _) => "rsa",
            (Some(KeyType::Ecdsa), _) => "ecdsa",
            (Some(KeyType::Ed25519), _) => "ed25519",
        })?;
        if self.bits > 0 {
            write!(f, "-{}", self.bits)?;
        }
        for hash in &self.hashes {
            write!(
                f,
                "-sha{}",
                match hash {
                    SignatureHash::Sha1 => 1,
                    SignatureHash::Sha256 | SignatureHash::Identity => 256,
                    SignatureHash::Sha384 => 384,
                    SignatureHash::Sha512 => 512,
                }
            )?;
        }
        Ok(())
    }
}

impl SignaturePolicy {
    /// Whether signatures may be made with such keys.
    pub fn permits_key(&self, kind: KeyKind) -> bool {
        let right_type = match self.key {
            None => true,
            Some(KeyType::Rsa) => matches!(kind, KeyKind::Rsa(_)),
            Some(KeyType::Ed25519) => kind == KeyKind::Ed25519,
            Some(KeyType::Ecdsa) => !matches!(kind, KeyKind::Rsa(_) | KeyKind::Ed25519),
        };
        right_type && kind.bits() >= self.bits
    }

    /// Whether the peer may sign like this.
    pub fn permits(&self, scheme: SignatureScheme) -> bool {
        let padding = match scheme {
            SignatureScheme::RsaPkcs1(_) => self.padding != Padding::Pss,
            _ => true,
        };
        padding && self.permits_hash(scheme.hash())
    }

    fn permits_hash(&self, hash: SignatureHash) -> bool {
        match hash {
            SignatureHash::Identity => true,
            SignatureHash::Sha1 => self.hashes.contains(&hash),
            _ => self.hashes.is_empty() || self.hashes.contains(&hash),
        }
    }

    /// How we sign with `key` for a peer that announced `announced` (RFC 7427 §4): nothing means
    /// that it knows the old methods only.
    pub fn choose(
        &self,
        key: &dyn SigningKey,
        announced: &[SignatureHash],
    ) -> Option<SignatureScheme> {
        if !self.permits_key(key.kind()) {
            return None;
        }
        let hashes = [
            SignatureHash::Sha256,
            SignatureHash::Sha384,
            SignatureHash::Sha512,
        ];
        let wanted: &[SignatureHash] = if self.hashes.is_empty() {
            &hashes
        } else {
            &self.hashes
        };
        let known =
            |scheme: &SignatureScheme| announced.contains(&scheme.hash()) && key.supports(*scheme);
        let new = match key.kind() {
            KeyKind::Ed25519 => Some(SignatureScheme::Ed25519).filter(known),
            KeyKind::Rsa(_) if self.padding == Padding::Pkcs1 => wanted
                .iter()
                .copied()
                .map(SignatureScheme::RsaPkcs1)
                .find(known),
            KeyKind::Rsa(_) => wanted
                .iter()
                .copied()
                .map(SignatureScheme::RsaPss)
                .find(known),
            _ => wanted
                .iter()
                .copied()
                .map(SignatureScheme::Ecdsa)
                .find(known),
        };
        new.or_else(|| {
            let old = match key.kind() {
                KeyKind::Rsa(_) if !announced.is_empty() || self.padding == Padding::Pss => None,
                // RFC 7296 §3.8: "Implementations can use the certificates received from a given
                // peer as a hint"; SHA-1, the default of old, is not one of ours.
                KeyKind::Rsa(_) => Some(SignatureScheme::RsaPkcs1(SignatureHash::Sha256)),
                KeyKind::EcdsaP256 => Some(SignatureScheme::EcdsaFixed(SignatureHash::Sha256)),
                KeyKind::EcdsaP384 => Some(SignatureScheme::EcdsaFixed(SignatureHash::Sha384)),
                KeyKind::EcdsaP521 => Some(SignatureScheme::EcdsaFixed(SignatureHash::Sha512)),
                KeyKind::Ed25519 => None,
            };
            old.filter(|scheme| key.supports(*scheme) && self.permits_hash(scheme.hash()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_lc::AwsLc;
    use crate::crypto::CryptoProvider;
    use SignatureHash::{Identity, Sha1, Sha256, Sha384, Sha512};

    fn policy(text: &str) -> SignaturePolicy {
        text.parse().unwrap()
    }

    #[test]
    fn text() {
        for good in [
            "pubkey",
            "pubkey-sha256",
            "rsa",
            "rsa-2048",
            "rsa-3072-sha256-sha512",
            "rsa/pss",
            "rsa/pss-sha384",
            "ecdsa-256",
            "ecdsa-sha384",
            "ed25519",
            "rsa-sha1",
        ] {
            assert_eq!(policy(good).to_string(), good);
        }
        assert_eq!(policy("ike:rsa-sha256"), policy("rsa-sha256"));
        for bad in [
            "",
            "psk",
            "rsa-sha2",
            "rsa-sha256-2048",
            "pubkey-2048",
            "dsa",
            "rsa-",
        ] {
            bad.parse::<SignaturePolicy>().unwrap_err();
        }
    }

    #[test]
    fn what_is_accepted_of_a_peer() {
        let (pkcs1, pss) = (SignatureScheme::RsaPkcs1, SignatureScheme::RsaPss);
        assert!(policy("pubkey").permits(pkcs1(Sha256)));
        assert!(!policy("pubkey").permits(pkcs1(Sha1)));
        assert!(policy("rsa-sha1").permits(pkcs1(Sha1)));
        assert!(!policy("rsa-sha1").permits(pkcs1(Sha256)));
        assert!(!policy("rsa/pss").permits(pkcs1(Sha256)));
        assert!(policy("rsa-sha256").permits(pss(Sha256)));
        assert!(!policy("rsa-sha384").permits(pss(Sha256)));
        assert!(policy("ed25519-sha256").permits(SignatureScheme::Ed25519));
        assert!(!policy("rsa-3072").permits_key(KeyKind::Rsa(2048)));
        assert!(policy("rsa-2048").permits_key(KeyKind::Rsa(2048)));
        assert!(!policy("rsa").permits_key(KeyKind::EcdsaP256));
        assert!(!policy("ecdsa").permits_key(KeyKind::Ed25519));
        assert!(!policy("ecdsa-384").permits_key(KeyKind::EcdsaP256));
    }

    #[test]
    fn what_we_sign_with() {
        let generate = |algorithm| {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let der = SecretBytes::from(pair.serialized_der());
            AwsLc.signing_key(&der).unwrap()
        };
        let rsa = generate(&rcgen::PKCS_RSA_SHA256);
        let p384 = generate(&rcgen::PKCS_ECDSA_P384_SHA384);
        let ed = generate(&rcgen::PKCS_ED25519);
        let all = [Sha1, Sha256, Sha384, Sha512, Identity];
        for (text, key, announced, expected) in [
            (
                "pubkey",
                &rsa,
                &all[..],
                Some(SignatureScheme::RsaPss(Sha256)),
            ),
            (
                "pubkey",
                &rsa,
                &[Sha512],
                Some(SignatureScheme::RsaPss(Sha512)),
            ),
            (
                "rsa-sha256",
                &rsa,
                &all,
                Some(SignatureScheme::RsaPkcs1(Sha256)),
            ),
            (
                "rsa-sha384-sha256",
                &rsa,
                &all,
                Some(SignatureScheme::RsaPkcs1(Sha384)),
            ),
            (
                "rsa/pss-sha384",
                &rsa,
                &all,
                Some(SignatureScheme::RsaPss(Sha384)),
            ),
            ("pubkey", &rsa, &[Sha1], None),
            // Peers of before RFC 7427.
            ("pubkey", &rsa, &[], Some(SignatureScheme::RsaPkcs1(Sha256))),
            ("rsa/pss", &rsa, &[], None),
            (
                "pubkey",
                &p384,
                &[],
                Some(SignatureScheme::EcdsaFixed(Sha384)),
            ),
            ("pubkey", &ed, &[], None),
            ("pubkey", &p384, &all, Some(SignatureScheme::Ecdsa(Sha384))),
            // It lacks the hash of the curve, so the old method that needs none announced.
            (
                "pubkey",
                &p384,
                &[Sha256],
                Some(SignatureScheme::EcdsaFixed(Sha384)),
            ),
            ("pubkey", &ed, &all, Some(SignatureScheme::Ed25519)),
            ("pubkey", &ed, &[Sha256], None),
            ("ecdsa", &rsa, &all, None),
        ] {
            let chosen = policy(text).choose(&**key, announced);
            assert_eq!(chosen, expected, "{text} {} {announced:?}", key.kind());
        }
    }
}
