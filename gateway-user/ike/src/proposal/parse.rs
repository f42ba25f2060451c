//! The notation of swanctl.conf: words joined by `-`, several words of a kind are alternatives.

use std::str::FromStr;

use super::{EspProposal, IkeProposal};
use crate::crypto::{Encryption, KeyExchangeMethod, Prf};

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
    /// One suite was wanted, and the text stands for several.
    #[error("proposal \"{proposal}\" stands for {count} suites where one is expected")]
    Several {
        /// The whole text.
        proposal: String,
        /// How many.
        count: usize,
    },
}

/// Words and their meaning. The first word of a meaning is the one that is printed.
type Words<T> = [(&'static str, T)];

pub(super) const ENCRYPTION: [(&str, Encryption); 4] = [
    ("aes128gcm16", Encryption::AesGcm16Key128),
    ("aes256gcm16", Encryption::AesGcm16Key256),
    ("aes128gcm128", Encryption::AesGcm16Key128),
    ("aes256gcm128", Encryption::AesGcm16Key256),
];
pub(super) const PRF: [(&str, Prf); 2] = [
    ("prfsha256", Prf::HmacSha256),
    ("prfsha384", Prf::HmacSha384),
];
pub(super) const KE: [(&str, KeyExchangeMethod); 3] = [
    ("x25519", KeyExchangeMethod::X25519),
    ("ecp256", KeyExchangeMethod::Ecp256),
    ("curve25519", KeyExchangeMethod::X25519),
];
const ESN: [(&str, bool); 2] = [("noesn", false), ("esn", true)];

/// The word for `value`.
pub(super) fn word<T: PartialEq>(words: &Words<T>, value: &T) -> &'static str {
    words
        .iter()
        .find(|(_, meaning)| meaning == value)
        .map_or("?", |(word, _)| word)
}

/// If `word` is one of `words`, adds its meaning to `found`, once.
fn collect<T: Copy + PartialEq>(word: &str, words: &Words<T>, found: &mut Vec<T>) -> bool {
    let Some((_, meaning)) = words.iter().find(|(name, _)| *name == word) else {
        return false;
    };
    if !found.contains(meaning) {
        found.push(*meaning);
    }
    true
}

fn names<T>(words: &Words<T>) -> String {
    let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    names.join(", ")
}

/// Why a word of swanctl's vocabulary that is not ours cannot be used.
fn problem(word: &str) -> &'static str {
    let integrity = ["sha1", "sha256", "sha384", "sha512", "aesxcbc", "aescmac"];
    let is_integrity = |word: &str| {
        integrity
            .iter()
            .any(|name| word == *name || word.strip_prefix(*name) == Some("_96"))
    };
    if is_integrity(word) {
        "is an integrity algorithm, which AES-GCM does not take (for a PRF write prfsha256)"
    } else if word.starts_with("prf") {
        "is not a PRF that can be used here"
    } else if ["aes", "3des", "chacha20", "camellia", "null"]
        .iter()
        .any(|name| word.starts_with(name))
    {
        "is not an encryption algorithm that this gateway has"
    } else if ["modp", "ecp", "x448", "curve", "ke1_", "mlkem"]
        .iter()
        .any(|name| word.starts_with(name))
    {
        "is not a key exchange method that this gateway has"
    } else {
        "is not a known algorithm"
    }
}

/// Lower-case words of `text`; an error if one is empty.
fn split(text: &str, example: &'static str) -> Result<Vec<String>, ProposalError> {
    let words: Vec<String> = text
        .trim()
        .split('-')
        .map(str::to_ascii_lowercase)
        .collect();
    if words.iter().any(String::is_empty) {
        return Err(ProposalError::Empty {
            proposal: text.to_owned(),
            example,
        });
    }
    Ok(words)
}

fn require<T>(
    found: &[T],
    proposal: &str,
    missing: &'static str,
    allowed: String,
) -> Result<(), ProposalError> {
    if found.is_empty() {
        return Err(ProposalError::Missing {
            proposal: proposal.to_owned(),
            missing,
            allowed,
        });
    }
    Ok(())
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
    /// Reads `aes256gcm16-prfsha384-ecp256`. Several words of a kind are alternatives, so that one
    /// text stands for all combinations, most preferred first; `default` stands for
    /// [`IkeProposal::defaults`].
    pub fn parse(text: &str) -> Result<Vec<Self>, ProposalError> {
        if text.trim().eq_ignore_ascii_case("default") {
            return Ok(Self::defaults());
        }
        let (mut encryptions, mut prfs, mut kes) = (Vec::new(), Vec::new(), Vec::new());
        for word in split(text, "aes128gcm16-prfsha256-x25519")? {
            if !(collect(&word, &ENCRYPTION, &mut encryptions)
                || collect(&word, &PRF, &mut prfs)
                || collect(&word, &KE, &mut kes))
            {
                let esn = ESN.iter().any(|(name, _)| *name == word);
                return Err(ProposalError::Word {
                    proposal: text.to_owned(),
                    problem: if esn {
                        "is for ESP only"
                    } else {
                        problem(&word)
                    },
                    word,
                    allowed: [names(&ENCRYPTION), names(&PRF), names(&KE)].join(", "),
                });
            }
        }
        require(
            &encryptions,
            text,
            "encryption algorithm",
            names(&ENCRYPTION),
        )?;
        require(&prfs, text, "PRF", names(&PRF))?;
        require(&kes, text, "key exchange method", names(&KE))?;
        let mut suites = Vec::new();
        for &encryption in &encryptions {
            for &prf in &prfs {
                suites.extend(kes.iter().map(|&ke| Self {
                    encryption,
                    prf,
                    ke,
                }));
            }
        }
        Ok(suites)
    }
}

impl EspProposal {
    /// Reads `aes128gcm16`, `aes256gcm16-x25519-esn`. Several words of a kind are alternatives, so
    /// that one text stands for all combinations, most preferred first; `default` stands for
    /// [`EspProposal::defaults`]. Without `esn` and `noesn` it means `noesn`.
    pub fn parse(text: &str) -> Result<Vec<Self>, ProposalError> {
        if text.trim().eq_ignore_ascii_case("default") {
            return Ok(Self::defaults());
        }
        let (mut encryptions, mut kes, mut esns) = (Vec::new(), Vec::new(), Vec::new());
        for word in split(text, "aes128gcm16-x25519")? {
            if !(collect(&word, &ENCRYPTION, &mut encryptions)
                || collect(&word, &KE, &mut kes)
                || collect(&word, &ESN, &mut esns))
            {
                let prf = PRF.iter().any(|(name, _)| *name == word);
                return Err(ProposalError::Word {
                    proposal: text.to_owned(),
                    problem: if prf {
                        "is for IKE only"
                    } else {
                        problem(&word)
                    },
                    word,
                    allowed: [names(&ENCRYPTION), names(&KE), names(&ESN)].join(", "),
                });
            }
        }
        require(
            &encryptions,
            text,
            "encryption algorithm",
            names(&ENCRYPTION),
        )?;
        let kes: Vec<_> = if kes.is_empty() {
            vec![None]
        } else {
            kes.into_iter().map(Some).collect()
        };
        if esns.is_empty() {
            esns.push(false);
        }
        let mut suites = Vec::new();
        for &encryption in &encryptions {
            for &ke in &kes {
                suites.extend(esns.iter().map(|&esn| Self {
                    encryption,
                    ke,
                    esn,
                }));
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
