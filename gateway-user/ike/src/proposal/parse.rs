//! The notation of swanctl.conf: words joined by `-`, several words of a kind are alternatives.

use std::str::FromStr;

use super::words::{self, Cipher, ENCRYPTION, ESN, INTEGRITY, KE, NO_KE, PRF, meaning, names};
use super::{AdditionalKes, EspProposal, IkeProposal, MAX_ADDITIONAL_KES};
use crate::crypto::{Encryption, Integrity, KeyExchangeMethod, Prf};

/// Suites that one text may stand for.
const MAX_SUITES: usize = 4096;

/// A proposal in the configuration that we cannot use. The text says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// No word at all, or nothing between two hyphens.
    #[error("proposal \"{proposal}\" has an empty word; expected for example \"{example}\"")]
    Empty {
        /// The whole text.
        proposal: String,
        /// A good one.
        example: &'static str,
    },
    /// A word that we do not know in this kind of proposal.
    #[error("proposal \"{proposal}\": \"{word}\" {problem}; allowed are {allowed}")]
    Word {
        /// The whole text.
        proposal: String,
        /// The word.
        word: String,
        /// What is wrong with it.
        problem: &'static str,
        /// All words that may stand here.
        allowed: String,
    },
    /// An algorithm of a kind that the proposal needs is not there.
    #[error("proposal \"{proposal}\" names no {missing}; add one of {allowed}")]
    Missing {
        /// The whole text.
        proposal: String,
        /// What kind of algorithm.
        missing: &'static str,
        /// The words for that kind.
        allowed: String,
    },
    /// Words that do not go together.
    #[error("proposal \"{proposal}\": {problem}")]
    Together {
        /// The whole text.
        proposal: String,
        /// What does not go with what, and what to write instead.
        problem: &'static str,
    },
    /// Too many alternatives.
    #[error(
        "proposal \"{proposal}\" stands for more than {MAX_SUITES} suites; name fewer alternatives"
    )]
    TooMany {
        /// The whole text.
        proposal: String,
    },
    /// One suite was wanted, and the text stands for several.
    #[error("proposal \"{proposal}\" stands for {count} suites where one is expected")]
    Several {
        /// The whole text.
        proposal: String,
        /// How many.
        count: usize,
    },
}

/// For which kind of SA a text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Ike,
    Esp,
}

/// The words of a text by kind, each once, in the order of the text.
struct Found<'a> {
    proposal: &'a str,
    protocol: For,
    ciphers: Vec<Cipher>,
    integrities: Vec<Integrity>,
    prfs: Vec<Prf>,
    kes: Vec<Option<KeyExchangeMethod>>,
    additional: [Vec<Option<KeyExchangeMethod>>; MAX_ADDITIONAL_KES],
    esns: Vec<bool>,
}

/// Adds a meaning, once. Whether there is one.
fn collect<T: PartialEq>(meaning: Option<T>, found: &mut Vec<T>) -> bool {
    let Some(meaning) = meaning else {
        return false;
    };
    if !found.contains(&meaning) {
        found.push(meaning);
    }
    true
}

impl<'a> Found<'a> {
    fn read(proposal: &'a str, protocol: For) -> Result<Self, ProposalError> {
        let mut found = Self {
            proposal,
            protocol,
            ciphers: Vec::new(),
            integrities: Vec::new(),
            prfs: Vec::new(),
            kes: Vec::new(),
            additional: Default::default(),
            esns: Vec::new(),
        };
        for word in proposal.trim().split('-') {
            let word = word.to_ascii_lowercase();
            if word.is_empty() {
                return Err(ProposalError::Empty {
                    proposal: proposal.to_owned(),
                    example: match protocol {
                        For::Ike => "aes128gcm16-prfsha256-x25519",
                        For::Esp => "aes128gcm16-x25519",
                    },
                });
            }
            if !found.take(&word) {
                return Err(found.unusable(word));
            }
        }
        Ok(found)
    }

    /// Whether the word may stand here.
    fn take(&mut self, word: &str) -> bool {
        let common = collect(meaning(&ENCRYPTION, word), &mut self.ciphers)
            || collect(meaning(&INTEGRITY, word), &mut self.integrities)
            || collect(meaning(&KE, word).map(Some), &mut self.kes)
            || self.take_additional(word);
        common
            || match self.protocol {
                For::Ike => collect(meaning(&PRF, word), &mut self.prfs),
                For::Esp => {
                    collect(meaning(&ESN, word), &mut self.esns)
                        || collect((word == NO_KE).then_some(None), &mut self.kes)
                }
            }
    }

    fn take_additional(&mut self, word: &str) -> bool {
        let Some((at, method)) = words::additional(word) else {
            return false;
        };
        let method = match method {
            "none" => Some(None),
            method => meaning(&KE, method).map(Some),
        };
        collect(method, &mut self.additional[at])
    }

    fn unusable(&self, word: String) -> ProposalError {
        let elsewhere = match self.protocol {
            For::Ike if meaning(&ESN, &word).is_some() => Some("is for ESP only"),
            For::Esp if meaning(&PRF, &word).is_some() => Some("is for IKE only"),
            _ => None,
        };
        let mut allowed = vec![names(&ENCRYPTION), names(&INTEGRITY)];
        if self.protocol == For::Ike {
            allowed.push(names(&PRF));
        }
        allowed.push(names(&KE));
        allowed.push("ke1_ to ke7_ before a key exchange method or none".to_owned());
        if self.protocol == For::Esp {
            allowed.push(names(&ESN));
            allowed.push(NO_KE.to_owned());
        }
        ProposalError::Word {
            proposal: self.proposal.to_owned(),
            problem: elsewhere.unwrap_or_else(|| problem(&word)),
            word,
            allowed: allowed.join(", "),
        }
    }

    fn require<T>(
        &self,
        found: &[T],
        missing: &'static str,
        allowed: String,
    ) -> Result<(), ProposalError> {
        if found.is_empty() {
            return Err(ProposalError::Missing {
                proposal: self.proposal.to_owned(),
                missing,
                allowed,
            });
        }
        Ok(())
    }

    fn together<T>(&self, problem: &'static str) -> Result<T, ProposalError> {
        Err(ProposalError::Together {
            proposal: self.proposal.to_owned(),
            problem,
        })
    }

    /// Encryption algorithms, AES-CBC with each of the integrity algorithms.
    fn encryptions(&self) -> Result<Vec<Encryption>, ProposalError> {
        self.require(&self.ciphers, "encryption algorithm", names(&ENCRYPTION))?;
        let is_cbc = |cipher: &Cipher| matches!(cipher, Cipher::Cbc(_));
        let any_cbc = self.ciphers.iter().any(is_cbc);
        if any_cbc && !self.ciphers.iter().all(is_cbc) {
            // RFC 7296 §3.3: they cannot stand in one proposal.
            return self.together(
                "AES-CBC and combined-mode algorithms have to be two proposals, \
                 for example \"aes128gcm16-…\" and \"aes128-sha256-…\"",
            );
        }
        if any_cbc {
            self.require(&self.integrities, "integrity algorithm", names(&INTEGRITY))?;
        }
        let all = self.ciphers.iter().flat_map(|cipher| match cipher {
            Cipher::Combined(encryption) => vec![*encryption],
            Cipher::Cbc(key) => {
                let with = |integrity: &Integrity| Encryption::AesCbc(*key, *integrity);
                self.integrities.iter().map(with).collect()
            }
        });
        Ok(all.collect())
    }

    /// PRFs; without a word for one, those of the hashes that are named for integrity.
    fn prfs(&self) -> Result<Vec<Prf>, ProposalError> {
        if self.prfs.is_empty() {
            self.require(&self.integrities, "PRF", names(&PRF))?;
        }
        let implied = self.integrities.iter().map(|integrity| match integrity {
            Integrity::HmacSha1_96 => Prf::HmacSha1,
            Integrity::HmacSha256_128 => Prf::HmacSha256,
            Integrity::HmacSha384_192 => Prf::HmacSha384,
            Integrity::HmacSha512_256 => Prf::HmacSha512,
        });
        Ok(match self.prfs.as_slice() {
            [] => implied.collect(),
            named => named.to_vec(),
        })
    }

    fn additional(&self) -> Result<Vec<AdditionalKes>, ProposalError> {
        self.bound(self.additional.iter().map(Vec::len))?;
        let all = AdditionalKes::combinations(&self.additional);
        if all.is_empty() {
            return self.together(
                "the additional key exchanges have to be different from each other (RFC 9370)",
            );
        }
        Ok(all)
    }

    /// Refuses texts that stand for too many suites.
    fn bound(&self, alternatives: impl IntoIterator<Item = usize>) -> Result<(), ProposalError> {
        let count = alternatives
            .into_iter()
            .fold(1, |all: usize, one| all.saturating_mul(one.max(1)));
        if count > MAX_SUITES {
            return Err(ProposalError::TooMany {
                proposal: self.proposal.to_owned(),
            });
        }
        Ok(())
    }
}

/// Why a word of swanctl's vocabulary that is not ours cannot be used.
fn problem(word: &str) -> &'static str {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| word.starts_with(prefix));
    if starts(&[
        "sha",
        "md5",
        "aesxcbc",
        "aescmac",
        "aes128gmac",
        "aes256gmac",
    ]) {
        "is not an integrity algorithm that this gateway has"
    } else if starts(&["prf"]) {
        "is not a PRF that this gateway has"
    } else if starts(&[
        "aes", "3des", "chacha20", "camellia", "null", "des", "cast", "blowfish",
    ]) {
        "is not an encryption algorithm that this gateway has"
    } else if starts(&[
        "modp", "ecp", "x448", "curve", "ke", "mlkem", "ntru", "newhope",
    ]) {
        "is not a key exchange method that this gateway has"
    } else {
        "is not a known algorithm"
    }
}

fn only<T>(mut suites: Vec<T>, proposal: &str) -> Result<T, ProposalError> {
    match (suites.pop(), suites.len()) {
        (Some(suite), 0) => Ok(suite),
        (_, others) => Err(ProposalError::Several {
            proposal: proposal.to_owned(),
            count: others + 1,
        }),
    }
}

impl IkeProposal {
    /// Reads `aes256gcm16-prfsha384-ecp256-ke1_mlkem768` or `aes128-sha256-modp2048`. Several words
    /// of a kind are alternatives, so that one text stands for all combinations, most preferred
    /// first; `default` stands for [`IkeProposal::defaults`]. Without a PRF, an integrity algorithm
    /// names that too, as in swanctl.conf.
    pub fn parse(text: &str) -> Result<Vec<Self>, ProposalError> {
        if text.trim().eq_ignore_ascii_case("default") {
            return Ok(Self::defaults());
        }
        let found = Found::read(text, For::Ike)?;
        let encryptions = found.encryptions()?;
        let prfs = found.prfs()?;
        if !found.prfs.is_empty()
            && !found.integrities.is_empty()
            && encryptions.iter().all(|e| e.is_combined_mode())
        {
            return found.together(
                "combined-mode algorithms take no integrity algorithm; leave it or the PRF out",
            );
        }
        found.require(&found.kes, "key exchange method", names(&KE))?;
        let kes: Vec<_> = found.kes.iter().copied().flatten().collect();
        let additional = found.additional()?;
        found.bound([encryptions.len(), prfs.len(), kes.len(), additional.len()])?;
        let mut suites = Vec::new();
        for &encryption in &encryptions {
            for &prf in &prfs {
                for &ke in &kes {
                    suites.extend(additional.iter().map(|&additional| Self {
                        encryption,
                        prf,
                        ke,
                        additional,
                    }));
                }
            }
        }
        Ok(suites)
    }
}

impl EspProposal {
    /// Reads `aes128gcm16`, `aes256-sha256-x25519-esn`. Several words of a kind are alternatives, so
    /// that one text stands for all combinations, most preferred first; `default` stands for
    /// [`EspProposal::defaults`]. Without `esn` and `noesn` it means `noesn`; `modpnone` beside key
    /// exchange methods makes them optional.
    pub fn parse(text: &str) -> Result<Vec<Self>, ProposalError> {
        if text.trim().eq_ignore_ascii_case("default") {
            return Ok(Self::defaults());
        }
        let mut found = Found::read(text, For::Esp)?;
        let encryptions = found.encryptions()?;
        if !found.integrities.is_empty() && encryptions.iter().all(|e| e.is_combined_mode()) {
            return found.together("combined-mode algorithms take no integrity algorithm");
        }
        let additional = found.additional()?;
        if found.kes.is_empty() {
            found.kes.push(None);
        }
        if found.kes.contains(&None) && additional != [AdditionalKes::NONE] {
            return found.together("an additional key exchange needs a first one beside it");
        }
        if found.esns.is_empty() {
            found.esns.push(false);
        }
        let lengths = [
            encryptions.len(),
            found.kes.len(),
            additional.len(),
            found.esns.len(),
        ];
        found.bound(lengths)?;
        let mut suites = Vec::new();
        for &encryption in &encryptions {
            for &ke in &found.kes {
                for &additional in &additional {
                    suites.extend(found.esns.iter().map(|&esn| Self {
                        encryption,
                        ke,
                        additional,
                        esn,
                    }));
                }
            }
        }
        Ok(suites)
    }
}

/// Exactly one suite; see [`IkeProposal::parse`].
impl FromStr for IkeProposal {
    type Err = ProposalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        only(Self::parse(text)?, text)
    }
}

/// Exactly one suite; see [`EspProposal::parse`].
impl FromStr for EspProposal {
    type Err = ProposalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        only(Self::parse(text)?, text)
    }
}
