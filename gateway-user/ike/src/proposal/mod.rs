//! Cipher suites: what is configured, what a peer offers, what is chosen (RFC 7296 §2.7, §3.3,
//! RFC 9370 §2.2.1).

use std::fmt;

use crate::crypto::{AesKey, Encryption, Integrity, KeyExchangeMethod, Prf};

mod additional;
mod names;
mod offer;
mod parse;
mod select;
mod words;

pub use additional::{AdditionalKes, MAX_ADDITIONAL_KES};
use names::{encryption_names, esn_name, ke_name, prf_name};
pub(crate) use offer::{agreed_esp, agreed_ike};
pub use offer::{offer_esp, offer_ike};
pub use parse::ProposalError;
pub use select::{Chosen, EspExchange, NoProposalChosen, select_esp, select_ike};

/// One suite for an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IkeProposal {
    /// Transform types 1 and 3.
    pub encryption: Encryption,
    /// Transform type 2.
    pub prf: Prf,
    /// Transform type 4.
    pub ke: KeyExchangeMethod,
    /// Transform types 6 to 12.
    pub additional: AdditionalKes,
}

/// One suite for an ESP CHILD_SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EspProposal {
    /// Transform types 1 and 3.
    pub encryption: Encryption,
    /// Transform type 4: perfect forward secrecy for CHILD_SAs made by CREATE_CHILD_SA. The first
    /// one, made by IKE_AUTH, never has a key exchange of its own (RFC 7296 §1.2).
    pub ke: Option<KeyExchangeMethod>,
    /// Transform types 6 to 12; only beside a [`Self::ke`].
    pub additional: AdditionalKes,
    /// Transform type 5: extended sequence numbers.
    pub esn: bool,
}

/// Key exchange methods of the defaults, cheapest first.
const DEFAULT_KES: [KeyExchangeMethod; 7] = [
    KeyExchangeMethod::X25519,
    KeyExchangeMethod::Ecp256,
    KeyExchangeMethod::Ecp384,
    KeyExchangeMethod::Ecp521,
    KeyExchangeMethod::Modp2048,
    KeyExchangeMethod::Modp3072,
    KeyExchangeMethod::Modp4096,
];

const DEFAULT_COMBINED: [Encryption; 3] = [
    Encryption::AesGcm16Key128,
    Encryption::AesGcm16Key256,
    Encryption::ChaCha20Poly1305,
];

/// AES-CBC with the integrity algorithms of RFC 8221 and RFC 8247, but for SHA-1.
fn default_cbc() -> Vec<Encryption> {
    [AesKey::Bits128, AesKey::Bits256]
        .into_iter()
        .flat_map(|key| {
            [
                Integrity::HmacSha256_128,
                Integrity::HmacSha384_192,
                Integrity::HmacSha512_256,
            ]
            .map(|integrity| Encryption::AesCbc(key, integrity))
        })
        .collect()
}

impl IkeProposal {
    /// What a connection without `proposals` accepts, most preferred first: combined-mode
    /// algorithms before AES-CBC, and X25519 with AES-128 first because they cost the least.
    /// Nothing with SHA-1, and no additional key exchanges: those are asked for by name.
    pub fn defaults() -> Vec<Self> {
        let mut all = Vec::new();
        for encryptions in [DEFAULT_COMBINED.to_vec(), default_cbc()] {
            for encryption in encryptions {
                for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
                    all.extend(DEFAULT_KES.map(|ke| Self {
                        encryption,
                        prf,
                        ke,
                        additional: AdditionalKes::NONE,
                    }));
                }
            }
        }
        all
    }

    /// Whether there is SHA-1 in it, which an operator should be warned of.
    pub fn uses_sha1(&self) -> bool {
        self.prf == Prf::HmacSha1 || self.encryption.integrity() == Some(Integrity::HmacSha1_96)
    }

    /// As an operator reads it in strongSwan's logs:
    /// `AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519`.
    pub fn iana(&self) -> String {
        let mut names = encryption_names(self.encryption);
        names.push(prf_name(self.prf).to_owned());
        names.push(ke_name(self.ke).to_owned());
        names.extend(additional_names(&self.additional));
        names.join("/")
    }
}

impl EspProposal {
    /// What a child without `esp_proposals` accepts, most preferred first: combined-mode algorithms
    /// before AES-CBC, with a key exchange of its own before without one, without extended sequence
    /// numbers before with them.
    pub fn defaults() -> Vec<Self> {
        let mut all = Vec::new();
        for encryptions in [DEFAULT_COMBINED.to_vec(), default_cbc()] {
            for ke in DEFAULT_KES.into_iter().map(Some).chain([None]) {
                for &encryption in &encryptions {
                    all.extend([false, true].map(|esn| Self {
                        encryption,
                        ke,
                        additional: AdditionalKes::NONE,
                        esn,
                    }));
                }
            }
        }
        all
    }

    /// Whether there is SHA-1 in it, which an operator should be warned of.
    pub fn uses_sha1(&self) -> bool {
        self.encryption.integrity() == Some(Integrity::HmacSha1_96)
    }

    /// As an operator reads it in strongSwan's logs: `AES_GCM_16-128/CURVE_25519/NO_EXT_SEQ`.
    pub fn iana(&self) -> String {
        let mut names = encryption_names(self.encryption);
        names.extend(self.ke.map(|ke| ke_name(ke).to_owned()));
        names.extend(additional_names(&self.additional));
        names.push(esn_name(self.esn).to_owned());
        names.join("/")
    }
}

/// `KE1_ML_KEM_768`.
fn additional_names(additional: &AdditionalKes) -> impl Iterator<Item = String> + '_ {
    let numbered = (1..).zip(additional.by_type());
    numbered.filter_map(|(number, method)| {
        method.map(|method| format!("KE{number}_{}", ke_name(method)))
    })
}

/// In the syntax of swanctl.conf, which [`IkeProposal::parse`] reads.
impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        words::write_encryption(f, self.encryption)?;
        write!(
            f,
            "-{}-{}",
            words::word(&words::PRF, &self.prf),
            words::word(&words::KE, &self.ke),
        )?;
        words::write_additional(f, &self.additional)
    }
}

/// In the syntax of swanctl.conf, which [`EspProposal::parse`] reads. `noesn` is not written.
impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        words::write_encryption(f, self.encryption)?;
        if let Some(ke) = &self.ke {
            write!(f, "-{}", words::word(&words::KE, ke))?;
        }
        words::write_additional(f, &self.additional)?;
        if self.esn {
            f.write_str("-esn")?;
        }
        Ok(())
    }
}
