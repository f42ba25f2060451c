//! The words of swanctl.conf.

use std::fmt;

use super::AdditionalKes;
use crate::crypto::{AesKey, Encryption, Integrity, KeyExchangeMethod, Prf};

/// Words and their meaning. The first word of a meaning is the one that is printed.
pub(super) type Words<T> = [(&'static str, T)];

/// An encryption algorithm whose integrity algorithm is another word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Combined(Encryption),
    Cbc(AesKey),
}

pub(super) const ENCRYPTION: [(&str, Cipher); 11] = [
    ("aes128gcm16", Cipher::Combined(Encryption::AesGcm16Key128)),
    ("aes192gcm16", Cipher::Combined(Encryption::AesGcm16Key192)),
    ("aes256gcm16", Cipher::Combined(Encryption::AesGcm16Key256)),
    (
        "chacha20poly1305",
        Cipher::Combined(Encryption::ChaCha20Poly1305),
    ),
    ("aes128", Cipher::Cbc(AesKey::Bits128)),
    ("aes192", Cipher::Cbc(AesKey::Bits192)),
    ("aes256", Cipher::Cbc(AesKey::Bits256)),
    ("aes", Cipher::Cbc(AesKey::Bits128)),
    ("aes128gcm128", Cipher::Combined(Encryption::AesGcm16Key128)),
    ("aes192gcm128", Cipher::Combined(Encryption::AesGcm16Key192)),
    ("aes256gcm128", Cipher::Combined(Encryption::AesGcm16Key256)),
];
pub(super) const INTEGRITY: [(&str, Integrity); 8] = [
    ("sha256", Integrity::HmacSha256_128),
    ("sha384", Integrity::HmacSha384_192),
    ("sha512", Integrity::HmacSha512_256),
    ("sha1", Integrity::HmacSha1_96),
    ("sha", Integrity::HmacSha1_96),
    ("sha2_256", Integrity::HmacSha256_128),
    ("sha2_384", Integrity::HmacSha384_192),
    ("sha2_512", Integrity::HmacSha512_256),
];
pub(super) const PRF: [(&str, Prf); 4] = [
    ("prfsha256", Prf::HmacSha256),
    ("prfsha384", Prf::HmacSha384),
    ("prfsha512", Prf::HmacSha512),
    ("prfsha1", Prf::HmacSha1),
];
pub(super) const KE: [(&str, KeyExchangeMethod); 11] = [
    ("x25519", KeyExchangeMethod::X25519),
    ("ecp256", KeyExchangeMethod::Ecp256),
    ("ecp384", KeyExchangeMethod::Ecp384),
    ("ecp521", KeyExchangeMethod::Ecp521),
    ("modp2048", KeyExchangeMethod::Modp2048),
    ("modp3072", KeyExchangeMethod::Modp3072),
    ("modp4096", KeyExchangeMethod::Modp4096),
    ("mlkem512", KeyExchangeMethod::MlKem512),
    ("mlkem768", KeyExchangeMethod::MlKem768),
    ("mlkem1024", KeyExchangeMethod::MlKem1024),
    ("curve25519", KeyExchangeMethod::X25519),
];
pub(super) const ESN: [(&str, bool); 2] = [("noesn", false), ("esn", true)];

/// The word for an ESP suite without key exchange, beside others that have one.
pub(super) const NO_KE: &str = "modpnone";

/// The word for `value`.
pub(super) fn word<T: PartialEq>(words: &Words<T>, value: &T) -> &'static str {
    words
        .iter()
        .find(|(_, meaning)| meaning == value)
        .map_or("?", |(word, _)| word)
}

pub(super) fn meaning<T: Copy>(words: &Words<T>, word: &str) -> Option<T> {
    let found = words.iter().find(|(name, _)| *name == word);
    found.map(|(_, meaning)| *meaning)
}

/// All words, for an error message.
pub(super) fn names<T>(words: &Words<T>) -> String {
    let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    names.join(", ")
}

/// Position among the additional key exchanges and word for the method: `ke1_mlkem768`.
pub(super) fn additional(word: &str) -> Option<(usize, &str)> {
    let (number, method) = word.strip_prefix("ke")?.split_once('_')?;
    let number: usize = number.parse().ok()?;
    (1..=super::MAX_ADDITIONAL_KES)
        .contains(&number)
        .then(|| (number - 1, method))
}

pub(super) fn write_encryption(f: &mut fmt::Formatter<'_>, encryption: Encryption) -> fmt::Result {
    match encryption {
        Encryption::AesCbc(key, integrity) => write!(
            f,
            "{}-{}",
            word(&ENCRYPTION, &Cipher::Cbc(key)),
            word(&INTEGRITY, &integrity)
        ),
        combined => f.write_str(word(&ENCRYPTION, &Cipher::Combined(combined))),
    }
}

pub(super) fn write_additional(
    f: &mut fmt::Formatter<'_>,
    additional: &AdditionalKes,
) -> fmt::Result {
    for (number, method) in (1..).zip(additional.by_type()) {
        if let Some(method) = method {
            write!(f, "-ke{number}_{}", word(&KE, method))?;
        }
    }
    Ok(())
}
