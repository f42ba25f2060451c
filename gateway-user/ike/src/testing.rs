//! Reproducible [`CryptoProvider`]s for tests and simulations. Never for keys that protect
//! anything: whoever knows the seed knows them all.

mod toy;

pub use self::toy::Toy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::crypto::{CryptoError, CryptoProvider, Encryption, KeyExchange, KeyExchangeMethod, Prf};
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

    /// Imports the next block as private value. (It is outside 1..n of ECP-256 with probability
    /// 2^-32; then this fails like any library failure would, reproducibly.)
    fn key_exchange(&self, method: KeyExchangeMethod) -> Result<Box<dyn KeyExchange>, CryptoError> {
        self.inner
            .import_key_exchange(method, &SecretBytes::from(&self.block()[..]))
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
        iv: &[u8; 8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.inner.seal(encryption, keymat, iv, aad, buffer)
    }

    fn open(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8; 8],
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_lc::AwsLc;

    #[test]
    fn same_seed_same_answers() {
        for method in [KeyExchangeMethod::X25519, KeyExchangeMethod::Ecp256] {
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
