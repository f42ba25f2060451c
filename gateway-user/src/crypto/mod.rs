//! The engine's cryptographic provider on top of aws-lc.
//!
//! This module depends on nothing else of this crate: the tests of gateway-ike compile its source
//! in, because depending on gateway-user would make the eBPF toolchain a prerequisite of theirs.

use std::sync::Arc;

use aws_lc_rs::{digest, hmac, rand};
use gateway_ike::crypto::{
    CryptoError, CryptoProvider, Encryption, Integrity, KeyExchange, KeyExchangeAnswer,
    KeyExchangeMethod, Prf,
};
use gateway_ike::secret::SecretBytes;
use gateway_ike::signature::{SignatureScheme, SigningKey};
use zeroize::Zeroizing;

mod cipher;
mod ecdh;
mod kem;
mod modp;
mod signature;

use ecdh::Ecdh;
use kem::Kem;
use modp::Modp;
use signature::AwsLcSigningKey;

/// The aws-lc library. Has no state of its own: the library's generator is per thread and
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
        use KeyExchangeMethod as M;
        Ok(match method {
            M::X25519 | M::Ecp256 | M::Ecp384 | M::Ecp521 => Box::new(Ecdh::generate(method)?),
            M::Modp2048 | M::Modp3072 | M::Modp4096 => Box::new(Modp::generate(method)?),
            M::MlKem512 | M::MlKem768 | M::MlKem1024 => Box::new(Kem::generate(method)?),
        })
    }

    fn import_key_exchange(
        &self,
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Box<dyn KeyExchange>, CryptoError> {
        use KeyExchangeMethod as M;
        Ok(match method {
            M::X25519 | M::Ecp256 | M::Ecp384 | M::Ecp521 => {
                Box::new(Ecdh::import(method, private)?)
            }
            M::Modp2048 | M::Modp3072 | M::Modp4096 => Box::new(Modp::import(method, private)?),
            M::MlKem512 | M::MlKem768 | M::MlKem1024 => Box::new(Kem::import(method, private)?),
        })
    }

    fn answer_key_exchange(
        &self,
        method: KeyExchangeMethod,
        peer: &[u8],
    ) -> Result<KeyExchangeAnswer, CryptoError> {
        if method.is_kem() {
            return kem::answer(method, peer);
        }
        let ours = self.key_exchange(method)?;
        Ok(KeyExchangeAnswer {
            shared: ours.agree(peer)?,
            public: ours.public_value().to_vec(),
        })
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> SecretBytes {
        let algorithm = match prf {
            Prf::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
            Prf::HmacSha512 => hmac::HMAC_SHA512,
        };
        SecretBytes::new(hmac_of(algorithm, prf.output_len(), key, data))
    }

    fn seal(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        match encryption.integrity() {
            None => cipher::seal_combined(encryption, keymat, iv, aad, buffer),
            Some(integrity) => {
                cipher::encrypt_then_mac((encryption, integrity), keymat, iv, aad, buffer)
            }
        }
    }

    fn open(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        match encryption.integrity() {
            None => cipher::open_combined(encryption, keymat, iv, aad, buffer),
            Some(integrity) => {
                cipher::verify_then_decrypt((encryption, integrity), keymat, iv, aad, buffer)
            }
        }
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

/// HMAC of `data`, concatenated. `len` is the length of the algorithm's output.
fn hmac_of(algorithm: hmac::Algorithm, len: usize, key: &[u8], data: &[&[u8]]) -> Vec<u8> {
    // One-shot into our own buffer: `Context::sign` would leave the result behind in a `Tag`
    // that nobody scrubs. The input may itself be secret (g^ir), hence `Zeroizing`.
    let input = Zeroizing::new(data.concat());
    let mut output = vec![0; len];
    hmac::sign_to_buffer(&hmac::Key::new(algorithm, key), &input, &mut output)
        .expect("the buffer has the length of the tag");
    output
}

/// Integrity check value over `data`, concatenated: the first octets of the HMAC (RFC 4868 §2.1.2).
fn icv(integrity: Integrity, key: &[u8], data: &[&[u8]]) -> Vec<u8> {
    let algorithm = match integrity {
        Integrity::HmacSha1_96 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Integrity::HmacSha256_128 => hmac::HMAC_SHA256,
        Integrity::HmacSha384_192 => hmac::HMAC_SHA384,
        Integrity::HmacSha512_256 => hmac::HMAC_SHA512,
    };
    // The key is as long as the output.
    let mut tag = hmac_of(algorithm, integrity.key_len(), key, data);
    tag.truncate(integrity.icv_len());
    tag
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
