//! The engine's cryptographic provider on top of aws-lc-rs.
//!
//! This module depends on nothing else of this crate: the tests of gateway-ike compile its source
//! in, because depending on gateway-user would make the eBPF toolchain a prerequisite of theirs.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest, hmac, rand};
use gateway_ike::crypto::{
    CryptoError, CryptoProvider, Encryption, KeyExchange, KeyExchangeMethod, Prf,
};
use gateway_ike::secret::SecretBytes;
use gateway_ike::signature::{SignatureScheme, SigningKey};
use zeroize::Zeroizing;

mod key_exchange;
mod signature;

use key_exchange::AwsLcKeyExchange;
use signature::AwsLcSigningKey;

/// Octets of an AES-GCM nonce: the salt and the explicit IV (RFC 4106 §4, RFC 5282 §4).
const NONCE_LEN: usize = 12;

/// The aws-lc-rs library. Has no state of its own: the library's generator is per thread and
/// reseeds itself, also after a fork.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

impl CryptoProvider for AwsLc {
    /// # Panics
    ///
    /// If the operating system has no entropy to give: going on with predictable keys would be
    /// worse than stopping.
    fn random(&self, out: &mut [u8]) {
        rand::fill(out).expect("the operating system's random number generator works");
    }

    fn key_exchange(&self, method: KeyExchangeMethod) -> Result<Box<dyn KeyExchange>, CryptoError> {
        Ok(Box::new(AwsLcKeyExchange::generate(method)?))
    }

    fn import_key_exchange(
        &self,
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Box<dyn KeyExchange>, CryptoError> {
        Ok(Box::new(AwsLcKeyExchange::import(method, private)?))
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> SecretBytes {
        let algorithm = match prf {
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
        };
        // One-shot into our own buffer: `Context::sign` would leave the result behind in a `Tag`
        // that nobody scrubs. The input may itself be secret (g^ir), hence `Zeroizing`.
        let input = Zeroizing::new(data.concat());
        let mut output = vec![0; prf.output_len()];
        hmac::sign_to_buffer(&hmac::Key::new(algorithm, key), &input, &mut output)
            .expect("the buffer has the length of the tag");
        SecretBytes::new(output)
    }

    fn seal(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8; 8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let (key, nonce) = aead(encryption, keymat, iv)?;
        key.seal_in_place_append_tag(nonce, Aad::from(aad), buffer)
            .map_err(|_| CryptoError::Library)
    }

    fn open(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8; 8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let (key, nonce) = aead(encryption, keymat, iv)?;
        let len = key
            .open_in_place(nonce, Aad::from(aad), buffer)
            .map_err(|_| CryptoError::IntegrityFailed)?
            .len();
        buffer.truncate(len);
        Ok(())
    }

    fn signing_key(&self, der: &SecretBytes) -> Result<Arc<dyn SigningKey>, CryptoError> {
        Ok(Arc::new(AwsLcSigningKey::from_der(der.expose())?))
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: &[u8],
        message: &[&[u8]],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        signature::verify(scheme, public_key, message, signature)
    }

    fn sha1(&self, data: &[&[u8]]) -> [u8; 20] {
        hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, data)
    }

    fn sha256(&self, data: &[&[u8]]) -> [u8; 32] {
        hash(&digest::SHA256, data)
    }
}

/// Key and nonce from key ‖ salt and the explicit IV.
fn aead(
    encryption: Encryption,
    keymat: &[u8],
    iv: &[u8; 8],
) -> Result<(LessSafeKey, Nonce), CryptoError> {
    let algorithm = match encryption {
        Encryption::AesGcm16Key128 => &AES_128_GCM,
        Encryption::AesGcm16Key256 => &AES_256_GCM,
    };
    if keymat.len() != encryption.keymat_len() {
        return Err(CryptoError::WrongLength);
    }
    let (key, salt) = keymat.split_at(keymat.len() - encryption.salt_len());
    let mut nonce = [0; NONCE_LEN];
    nonce[..salt.len()].copy_from_slice(salt);
    nonce[salt.len()..].copy_from_slice(iv);
    let key = UnboundKey::new(algorithm, key).map_err(|_| CryptoError::Library)?;
    Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce)))
}

/// Digest of `data`, concatenated. `N` is the algorithm's output length.
fn hash<const N: usize>(algorithm: &'static digest::Algorithm, data: &[&[u8]]) -> [u8; N] {
    let mut context = digest::Context::new(algorithm);
    for part in data {
        context.update(part);
    }
    let mut out = [0; N];
    out.copy_from_slice(context.finish().as_ref());
    out
}
