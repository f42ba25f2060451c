//! Reproducible [`CryptoProvider`]s for tests and simulations. Never for keys that protect
//! anything: whoever knows the seed knows them all.

mod record;
mod toy;

pub use self::record::{FreshSa, fresh_child};
pub use self::toy::Toy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::crypto::{
    CryptoError, CryptoProvider, Encryption, KeyExchange, KeyExchangeAnswer, KeyExchangeMethod, Prf,
};
use crate::secret::SecretBytes;
use crate::signature::{SignatureScheme, SigningKey};

/// Wraps a provider: its algorithms, but random octets and private values come from
/// SHA-256(seed ‖ counter). Two instances with the same seed that are asked the same questions in
/// the same order give the same answers.
#[derive(Debug)]
pub struct Seeded<P> {
    inner: P,
    seed: u64,
    counter: AtomicU64,
}

impl<P: CryptoProvider> Seeded<P> {
    /// Algorithms from `inner`, randomness from `seed`.
    pub fn new(inner: P, seed: u64) -> Self {
        Self {
            inner,
            seed,
            counter: AtomicU64::new(0),
        }
    }

    fn block(&self) -> [u8; 32] {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        self.inner.sha256(&[
            b"gateway-ike seeded",
            &self.seed.to_be_bytes(),
            &counter.to_be_bytes(),
        ])
    }
}

impl<P: CryptoProvider> CryptoProvider for Seeded<P> {
    fn random(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            chunk.copy_from_slice(&self.block()[..chunk.len()]);
        }
    }

    /// Imports random octets as private value. (They are outside 1..n of ECP-256 with probability
    /// 2^-32; then this fails like any library failure would, reproducibly.) A private value of
    /// ML-KEM is not just any octets, so that one is not reproducible.
    fn key_exchange(&self, method: KeyExchangeMethod) -> Result<Box<dyn KeyExchange>, CryptoError> {
        match private_len(method) {
            Some(len) => {
                let mut private = vec![0; len];
                self.random(&mut private);
                if method == KeyExchangeMethod::Ecp521 {
                    private[0] &= 1;
                }
                self.inner
                    .import_key_exchange(method, &SecretBytes::new(private))
            }
            None => self.inner.key_exchange(method),
        }
    }

    fn answer_key_exchange(
        &self,
        method: KeyExchangeMethod,
        peer: &[u8],
    ) -> Result<KeyExchangeAnswer, CryptoError> {
        if method.is_kem() {
            return self.inner.answer_key_exchange(method, peer);
        }
        let ours = self.key_exchange(method)?;
        Ok(KeyExchangeAnswer {
            shared: ours.agree(peer)?,
            public: ours.public_value().to_vec(),
        })
    }

    fn import_key_exchange(
        &self,
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Box<dyn KeyExchange>, CryptoError> {
        self.inner.import_key_exchange(method, private)
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> SecretBytes {
        self.inner.prf(prf, key, data)
    }

    fn seal(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.inner.seal(encryption, keymat, iv, aad, buffer)
    }

    fn open(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.inner.open(encryption, keymat, iv, aad, buffer)
    }

    fn signing_key(&self, der: &SecretBytes) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.inner.signing_key(der)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: &[u8],
        message: &[&[u8]],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.inner
            .verify_signature(scheme, public_key, message, signature)
    }

    fn sha1(&self, data: &[&[u8]]) -> [u8; 20] {
        self.inner.sha1(data)
    }

    fn sha256(&self, data: &[&[u8]]) -> [u8; 32] {
        self.inner.sha256(data)
    }
}

/// Octets of a private value, where it is just any octets.
const fn private_len(method: KeyExchangeMethod) -> Option<usize> {
    match method {
        KeyExchangeMethod::X25519 | KeyExchangeMethod::Ecp256 => Some(32),
        KeyExchangeMethod::Ecp384 => Some(48),
        KeyExchangeMethod::Ecp521 => Some(66),
        KeyExchangeMethod::Modp2048 => Some(40),
        KeyExchangeMethod::Modp3072 => Some(56),
        KeyExchangeMethod::Modp4096 => Some(64),
        KeyExchangeMethod::MlKem512
        | KeyExchangeMethod::MlKem768
        | KeyExchangeMethod::MlKem1024 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_lc::AwsLc;

    #[test]
    fn same_seed_same_answers() {
        for method in KeyExchangeMethod::ALL.into_iter().filter(|m| !m.is_kem()) {
            let publics = [7, 7, 8].map(|seed| {
                let provider = Seeded::new(AwsLc, seed);
                let mut octets = [0; 45];
                provider.random(&mut octets);
                let exchange = provider.key_exchange(method).unwrap();
                (octets, exchange.public_value().to_vec())
            });
            assert_eq!(publics[0], publics[1]);
            assert_ne!(publics[0].0, publics[2].0);
            assert_ne!(publics[0].1, publics[2].1);
        }
    }

    #[test]
    fn answers_differ_in_time() {
        let provider = Seeded::new(AwsLc, 1);
        let (mut first, mut second) = ([0; 8], [0; 8]);
        provider.random(&mut first);
        provider.random(&mut second);
        assert_ne!(first, second);
    }
}
