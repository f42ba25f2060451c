//! A provider that sees to it that no (key, IV) pair is used twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use gateway_ike::crypto::{
    CryptoError, CryptoProvider, Encryption, KeyExchange, KeyExchangeAnswer, KeyExchangeMethod, Prf,
};
use gateway_ike::secret::SecretBytes;
use gateway_ike::signature::{SignatureScheme, SigningKey};

use gateway_ike::testing::Toy;

pub(super) struct Watch {
    inner: Toy,
    used: Mutex<BTreeSet<(Vec<u8>, Vec<u8>)>>,
}

impl Watch {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            inner: Toy::new(seed),
            used: Mutex::new(BTreeSet::new()),
        }
    }
}

impl CryptoProvider for Watch {
    fn random(&self, out: &mut [u8]) {
        self.inner.random(out);
    }

    fn key_exchange(&self, method: KeyExchangeMethod) -> Result<Box<dyn KeyExchange>, CryptoError> {
        self.inner.key_exchange(method)
    }

    fn import_key_exchange(
        &self,
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Box<dyn KeyExchange>, CryptoError> {
        self.inner.import_key_exchange(method, private)
    }

    fn answer_key_exchange(
        &self,
        method: KeyExchangeMethod,
        peer: &[u8],
    ) -> Result<KeyExchangeAnswer, CryptoError> {
        self.inner.answer_key_exchange(method, peer)
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
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            used.insert((keymat.to_vec(), iv.to_vec())),
            "IV {iv:02x?} comes twice under one key"
        );
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
