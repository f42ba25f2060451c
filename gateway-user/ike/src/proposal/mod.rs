//! Cipher suites: what is configured, what a peer offers, what is chosen (RFC 7296 §2.7, §3.3).

use std::fmt;

use crate::crypto::{Encryption, KeyExchangeMethod, Prf};

mod names;
mod parse;
mod select;

use names::offer_text;
pub use parse::ProposalError;
pub use select::{Chosen, EspExchange, NoProposalChosen, select_esp, select_ike};

/// One suite for an IKE SA. All encryption algorithms are combined-mode, so there is no integrity
/// algorithm (RFC 5282 §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IkeProposal {
    /// Transform type 1.
    pub encryption: Encryption,
    /// Transform type 2.
    pub prf: Prf,
    /// Transform type 4.
    pub ke: KeyExchangeMethod,
}

/// One suite for an ESP CHILD_SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EspProposal {
    /// Transform type 1.
    pub encryption: Encryption,
    /// Transform type 4: perfect forward secrecy for CHILD_SAs made by CREATE_CHILD_SA. The first
    /// one, made by IKE_AUTH, never has a key exchange of its own (RFC 7296 §1.2).
    pub ke: Option<KeyExchangeMethod>,
    /// Transform type 5: extended sequence numbers.
    pub esn: bool,
}

impl IkeProposal {
    /// What a connection without `proposals` accepts, most preferred first: everything there is,
    /// 128-bit suites with X25519 first because they cost the least.
    pub fn defaults() -> Vec<Self> {
        let mut all = Vec::new();
        for (encryption, prf) in [
            (Encryption::AesGcm16Key128, Prf::HmacSha256),
            (Encryption::AesGcm16Key256, Prf::HmacSha384),
            (Encryption::AesGcm16Key256, Prf::HmacSha256),
            (Encryption::AesGcm16Key128, Prf::HmacSha384),
        ] {
            for ke in [KeyExchangeMethod::X25519, KeyExchangeMethod::Ecp256] {
                all.push(Self {
                    encryption,
                    prf,
                    ke,
                });
            }
        }
        all
    }

    /// As an operator reads it in strongSwan's logs:
    /// `AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519`.
    pub fn iana(&self) -> String {
        [
            encryption_name(self.encryption),
            prf_name(self.prf),
            ke_name(self.ke),
        ]
        .join("/")
    }
}

impl EspProposal {
    /// What a child without `esp_proposals` accepts, most preferred first: both key lengths, with
    /// and without a key exchange of its own, no extended sequence numbers.
    pub fn defaults() -> Vec<Self> {
        let mut all = Vec::new();
        for ke in [
            Some(KeyExchangeMethod::X25519),
            Some(KeyExchangeMethod::Ecp256),
            None,
        ] {
            for encryption in [Encryption::AesGcm16Key128, Encryption::AesGcm16Key256] {
                all.push(Self {
                    encryption,
                    ke,
                    esn: false,
                });
            }
        }
        all
    }

    /// As an operator reads it in strongSwan's logs: `AES_GCM_16-128/CURVE_25519/NO_EXT_SEQ`.
    pub fn iana(&self) -> String {
        let mut names = vec![encryption_name(self.encryption)];
        names.extend(self.ke.map(ke_name));
        names.push(esn_name(self.esn));
        names.join("/")
    }
}

/// In the syntax of swanctl.conf, which [`IkeProposal::parse`] reads.
impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}-{}",
            parse::word(&parse::ENCRYPTION, &self.encryption),
            parse::word(&parse::PRF, &self.prf),
            parse::word(&parse::KE, &self.ke),
        )
    }
}

/// In the syntax of swanctl.conf, which [`EspProposal::parse`] reads. `noesn` is not written.
impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(parse::word(&parse::ENCRYPTION, &self.encryption))?;
        if let Some(ke) = &self.ke {
            write!(f, "-{}", parse::word(&parse::KE, ke))?;
        }
        if self.esn {
            f.write_str("-esn")?;
        }
        Ok(())
    }
}

fn encryption_name(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::AesGcm16Key128 => "AES_GCM_16-128",
        Encryption::AesGcm16Key256 => "AES_GCM_16-256",
    }
}

fn prf_name(prf: Prf) -> &'static str {
    match prf {
        Prf::HmacSha256 => "PRF_HMAC_SHA2_256",
        Prf::HmacSha384 => "PRF_HMAC_SHA2_384",
    }
}

fn ke_name(ke: KeyExchangeMethod) -> &'static str {
    match ke {
        KeyExchangeMethod::X25519 => "CURVE_25519",
        KeyExchangeMethod::Ecp256 => "ECP_256",
    }
}

fn esn_name(esn: bool) -> &'static str {
    if esn { "EXT_SEQ" } else { "NO_EXT_SEQ" }
}
