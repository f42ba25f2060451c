//! ML-KEM (FIPS 203).

use aws_lc_rs::kem::{
    Algorithm, Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_512, ML_KEM_768, ML_KEM_1024,
};
use gateway_ike::crypto::{CryptoError, KeyExchange, KeyExchangeAnswer, KeyExchangeMethod};
use gateway_ike::secret::SecretBytes;

/// The initiator's side: a decapsulation key, and the encapsulation key in it.
pub(super) struct Kem {
    method: KeyExchangeMethod,
    private: DecapsulationKey,
    public: Vec<u8>,
}

fn algorithm(method: KeyExchangeMethod) -> Result<&'static Algorithm, CryptoError> {
    match method {
        KeyExchangeMethod::MlKem512 => Ok(&ML_KEM_512),
        KeyExchangeMethod::MlKem768 => Ok(&ML_KEM_768),
        KeyExchangeMethod::MlKem1024 => Ok(&ML_KEM_1024),
        _ => Err(CryptoError::Library),
    }
}

/// Octets behind the encapsulation key in a decapsulation key: its hash, and the secret for implicit
/// rejection (FIPS 203 §7.1).
const TRAILER: usize = 64;

impl Kem {
    pub(super) fn generate(method: KeyExchangeMethod) -> Result<Self, CryptoError> {
        let private = DecapsulationKey::generate(algorithm(method)?);
        let private = private.map_err(|_| CryptoError::Library)?;
        let public = private.encapsulation_key();
        let public = public.and_then(|key| key.key_bytes());
        Ok(Self {
            method,
            public: public.map_err(|_| CryptoError::Library)?.as_ref().to_vec(),
            private,
        })
    }

    /// From octets as [`KeyExchange::export`] gives them out.
    pub(super) fn import(
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Self, CryptoError> {
        let octets = private.expose();
        // FIPS 203 §7.1: dk = dk_PKE ‖ ek ‖ H(ek) ‖ z.
        let end = octets.len().checked_sub(TRAILER);
        let start = end.and_then(|end| end.checked_sub(method.public_len()));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(CryptoError::WrongLength);
        };
        let private = DecapsulationKey::new(algorithm(method)?, octets);
        Ok(Self {
            method,
            private: private.map_err(|_| CryptoError::WrongLength)?,
            public: octets[start..end].to_vec(),
        })
    }
}

impl KeyExchange for Kem {
    fn method(&self) -> KeyExchangeMethod {
        self.method
    }

    fn public_value(&self) -> &[u8] {
        &self.public
    }

    fn agree(&self, answer: &[u8]) -> Result<SecretBytes, CryptoError> {
        if answer.len() != self.method.answer_len() {
            return Err(CryptoError::InvalidPublicValue);
        }
        let shared = self.private.decapsulate(Ciphertext::from(answer));
        let shared = shared.map_err(|_| CryptoError::Library)?;
        Ok(SecretBytes::from(shared.as_ref()))
    }

    /// # Panics
    ///
    /// If the library cannot give out a key that it made or took in itself.
    fn export(&self) -> SecretBytes {
        let octets = self.private.key_bytes();
        SecretBytes::from(octets.expect("ML-KEM keys can be exported").as_ref())
    }
}

/// The responder's side: encapsulation. The library refuses keys whose coefficients are out of range
/// (FIPS 203 §7.2).
pub(super) fn answer(
    method: KeyExchangeMethod,
    peer: &[u8],
) -> Result<KeyExchangeAnswer, CryptoError> {
    if peer.len() != method.public_len() {
        return Err(CryptoError::InvalidPublicValue);
    }
    let (public, shared) = EncapsulationKey::new(algorithm(method)?, peer)
        .map_err(|_| CryptoError::InvalidPublicValue)?
        .encapsulate()
        .map_err(|_| CryptoError::InvalidPublicValue)?;
    Ok(KeyExchangeAnswer {
        public: public.as_ref().to_vec(),
        shared: SecretBytes::from(shared.as_ref()),
    })
}
