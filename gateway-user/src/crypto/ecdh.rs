//! X25519 (RFC 8031) and the random ECP groups (RFC 5903).

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin};
use gateway_ike::crypto::{CryptoError, KeyExchange, KeyExchangeMethod};
use gateway_ike::secret::SecretBytes;

/// SEC 1 tag of an uncompressed point. A KE payload carries x ‖ y without it (RFC 5903 §7).
const UNCOMPRESSED: u8 = 4;

/// A private key and its public half. The library scrubs the private key when it frees it.
pub(super) struct Ecdh {
    method: KeyExchangeMethod,
    private: PrivateKey,
    public: Vec<u8>,
}

fn algorithm(method: KeyExchangeMethod) -> Result<&'static agreement::Algorithm, CryptoError> {
    match method {
        KeyExchangeMethod::X25519 => Ok(&agreement::X25519),
        KeyExchangeMethod::Ecp256 => Ok(&agreement::ECDH_P256),
        KeyExchangeMethod::Ecp384 => Ok(&agreement::ECDH_P384),
        KeyExchangeMethod::Ecp521 => Ok(&agreement::ECDH_P521),
        _ => Err(CryptoError::Library),
    }
}

impl Ecdh {
    pub(super) fn generate(method: KeyExchangeMethod) -> Result<Self, CryptoError> {
        let private = PrivateKey::generate(algorithm(method)?).map_err(|_| CryptoError::Library)?;
        Self::new(method, private)
    }

    /// From octets as [`KeyExchange::export`] gives them out. Refuses an ECP value outside 1..n
    /// (RFC 5903 §7); X25519 takes any, because it clamps at use (RFC 7748 §5).
    pub(super) fn import(
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Self, CryptoError> {
        if private.len() != method.shared_len() {
            return Err(CryptoError::WrongLength);
        }
        let private = PrivateKey::from_private_key(algorithm(method)?, private.expose())
            .map_err(|_| CryptoError::Library)?;
        Self::new(method, private)
    }

    fn new(method: KeyExchangeMethod, private: PrivateKey) -> Result<Self, CryptoError> {
        let public = private
            .compute_public_key()
            .map_err(|_| CryptoError::Library)?;
        let public = match method {
            KeyExchangeMethod::X25519 => public.as_ref(),
            _ => public
                .as_ref()
                .strip_prefix(&[UNCOMPRESSED])
                .ok_or(CryptoError::Library)?,
        };
        if public.len() != method.public_len() {
            return Err(CryptoError::Library);
        }
        Ok(Self {
            method,
            public: public.to_vec(),
            private,
        })
    }
}

impl KeyExchange for Ecdh {
    fn method(&self) -> KeyExchangeMethod {
        self.method
    }

    fn public_value(&self) -> &[u8] {
        &self.public
    }

    fn agree(&self, answer: &[u8]) -> Result<SecretBytes, CryptoError> {
        // RFC 8031 §3.1: any other length is an error. Checked here because the library would
        // also take other encodings (SubjectPublicKeyInfo, compressed points).
        if answer.len() != self.method.public_len() {
            return Err(CryptoError::InvalidPublicValue);
        }
        let encoded = match self.method {
            KeyExchangeMethod::X25519 => answer.to_vec(),
            _ => [&[UNCOMPRESSED], answer].concat(),
        };
        // The library checks that the point is on the curve (RFC 6989 §2.3) and that the X25519
        // result is not all zeros (RFC 8031 §5). Its ECDH result is the x coordinate, as RFC 5903
        // §9 has it.
        agreement::agree(
            &self.private,
            UnparsedPublicKey::new(algorithm(self.method)?, encoded),
            CryptoError::InvalidPublicValue,
            |secret| {
                if secret.len() != self.method.shared_len()
                    || secret.iter().all(|&octet| octet == 0)
                {
                    return Err(CryptoError::InvalidPublicValue);
                }
                Ok(SecretBytes::from(secret))
            },
        )
    }

    /// # Panics
    ///
    /// If the library cannot give out a key that it made or took in itself.
    fn export(&self) -> SecretBytes {
        match self.method {
            KeyExchangeMethod::X25519 => {
                let seed: Result<Curve25519SeedBin<'static>, _> = self.private.as_be_bytes();
                SecretBytes::from(seed.expect("X25519 seeds can be exported").as_ref())
            }
            _ => {
                let scalar: Result<EcPrivateKeyBin<'static>, _> = self.private.as_be_bytes();
                SecretBytes::from(scalar.expect("ECDH scalars can be exported").as_ref())
            }
        }
    }
}
