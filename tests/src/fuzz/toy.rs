//! Cryptography for fuzzing: reproducible, fast, and protecting nothing.
//!
//! It keeps what the engine relies on (both sides agree on a secret, one changed bit is noticed)
//! and none of what makes real algorithms slow, so that a fuzzer reaches what lies behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway_ike::crypto::{
    CryptoError, CryptoProvider, Encryption, KeyExchange, KeyExchangeMethod, Prf,
};
use gateway_ike::secret::SecretBytes;
use gateway_ike::signature::{SignatureScheme, SigningKey};

/// The Mersenne prime 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

const GENERATOR: u64 = 37;

/// A provider whose randomness comes from a seed.
#[derive(Debug)]
pub struct Toy {
    seed: u64,
    counter: AtomicU64,
}

impl Toy {
    /// The same seed, asked the same questions, gives the same answers.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            counter: AtomicU64::new(0),
        }
    }
}

/// FNV-1a over all parts and their lengths. Each step is a bijection of the state, so two inputs of
/// one length that differ in one place never meet.
fn digest(domain: u64, parts: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ domain;
    let lengths = parts.iter().map(|part| part.len() as u64);
    let lengths = lengths.flat_map(u64::to_le_bytes);
    for octet in parts
        .iter()
        .flat_map(|part| part.iter().copied())
        .chain(lengths)
    {
        state = (state ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(state)
}

/// The finishing bijection of SplitMix64.
const fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// As many octets as asked for, from a state.
fn stream(state: u64) -> impl Iterator<Item = u8> {
    (1..).flat_map(move |counter: u64| mix(state.wrapping_add(mix(counter))).to_le_bytes())
}

fn power(base: u64, mut exponent: u64) -> u64 {
    let modulus = u128::from(PRIME);
    let (mut result, mut square) = (1_u128, u128::from(base) % modulus);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * square % modulus;
        }
        square = square * square % modulus;
        exponent >>= 1;
    }
    // Below 2^61.
    u64::try_from(result).unwrap_or_default()
}

struct ToyKeyExchange {
    method: KeyExchangeMethod,
    private: u64,
    public: Vec<u8>,
}

impl ToyKeyExchange {
    fn new(method: KeyExchangeMethod, private: u64) -> Self {
        let mut public = vec![0; method.public_len()];
        public[..8].copy_from_slice(&power(GENERATOR, private).to_be_bytes());
        Self {
            method,
            private,
            public,
        }
    }
}

impl KeyExchange for ToyKeyExchange {
    fn method(&self) -> KeyExchangeMethod {
        self.method
    }

    fn public_value(&self) -> &[u8] {
        &self.public
    }

    fn agree(&self, peer_public_value: &[u8]) -> Result<SecretBytes, CryptoError> {
        if peer_public_value.len() != self.method.public_len() {
            return Err(CryptoError::InvalidPublicValue);
        }
        let (value, rest) = peer_public_value
            .split_first_chunk()
            .ok_or(CryptoError::InvalidPublicValue)?;
        let value = u64::from_be_bytes(*value);
        if !(2..PRIME).contains(&value) || rest.iter().any(|&octet| octet != 0) {
            return Err(CryptoError::InvalidPublicValue);
        }
        let mut secret = vec![0; 32];
        secret[..8].copy_from_slice(&power(value, self.private).to_be_bytes());
        Ok(SecretBytes::new(secret))
    }

    fn export(&self) -> SecretBytes {
        let mut private = vec![0; 32];
        private[..8].copy_from_slice(&self.private.to_be_bytes());
        SecretBytes::new(private)
    }
}

impl CryptoProvider for Toy {
    fn random(&self, out: &mut [u8]) {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let state = digest(self.seed, &[&counter.to_be_bytes()]);
        for (octet, random) in out.iter_mut().zip(stream(state)) {
            *octet = random;
        }
    }

    fn key_exchange(&self, method: KeyExchangeMethod) -> Result<Box<dyn KeyExchange>, CryptoError> {
        let mut private = [0; 8];
        self.random(&mut private);
        let private = u64::from_be_bytes(private) % PRIME;
        Ok(Box::new(ToyKeyExchange::new(method, private)))
    }

    fn import_key_exchange(
        &self,
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Box<dyn KeyExchange>, CryptoError> {
        let private = private
            .expose()
            .first_chunk()
            .ok_or(CryptoError::WrongLength)?;
        let private = u64::from_be_bytes(*private) % PRIME;
        Ok(Box::new(ToyKeyExchange::new(method, private)))
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> SecretBytes {
        // `data` counts as concatenated: the parts' borders must not matter.
        let state = digest(u64::from(prf.transform_id()), &[key, &data.concat()]);
        SecretBytes::new(stream(state).take(prf.output_len()).collect())
    }

    fn seal(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8; 8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        if keymat.len() != encryption.keymat_len() {
            return Err(CryptoError::WrongLength);
        }
        encrypt(keymat, iv, buffer);
        let tag = tag(keymat, iv, aad, buffer);
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    fn open(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8; 8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        if keymat.len() != encryption.keymat_len() {
            return Err(CryptoError::WrongLength);
        }
        let (ciphertext, sent) = buffer
            .split_last_chunk::<16>()
            .ok_or(CryptoError::WrongLength)?;
        if *sent != tag(keymat, iv, aad, ciphertext) {
            return Err(CryptoError::IntegrityFailed);
        }
        buffer.truncate(buffer.len() - 16);
        encrypt(keymat, iv, buffer);
        Ok(())
    }

    /// Keys that only verify are all that the targets need.
    fn signing_key(&self, _der: &SecretBytes) -> Result<Arc<dyn SigningKey>, CryptoError> {
        Err(CryptoError::Unsupported)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: &[u8],
        message: &[&[u8]],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let expected: [u8; 32] = hash(
            5 + u64::from(scheme.hash().id()),
            &[public_key, &message.concat()],
        );
        (expected == *signature)
            .then_some(())
            .ok_or(CryptoError::BadSignature)
    }

    fn sha1(&self, data: &[&[u8]]) -> [u8; 20] {
        hash(1, data)
    }

    fn sha256(&self, data: &[&[u8]]) -> [u8; 32] {
        hash(2, data)
    }
}

/// Its own inverse.
fn encrypt(keymat: &[u8], iv: &[u8; 8], buffer: &mut [u8]) {
    let state = digest(3, &[keymat, iv]);
    for (octet, key) in buffer.iter_mut().zip(stream(state)) {
        *octet ^= key;
    }
}

fn tag(keymat: &[u8], iv: &[u8; 8], aad: &[u8], ciphertext: &[u8]) -> [u8; 16] {
    hash(4, &[keymat, iv, aad, ciphertext])
}

fn hash<const N: usize>(domain: u64, data: &[&[u8]]) -> [u8; N] {
    let mut octets = stream(digest(domain, &[&data.concat()]));
    std::array::from_fn(|_| octets.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree() {
        let toy = Toy::new(1);
        for method in [KeyExchangeMethod::X25519, KeyExchangeMethod::Ecp256] {
            let (a, b) = (
                toy.key_exchange(method).unwrap(),
                toy.key_exchange(method).unwrap(),
            );
            assert_ne!(a.public_value(), b.public_value());
            let secret = a.agree(b.public_value()).unwrap();
            assert_eq!(secret, b.agree(a.public_value()).unwrap());
            let again = toy.import_key_exchange(method, &a.export()).unwrap();
            assert_eq!(secret, again.agree(b.public_value()).unwrap());
            assert!(a.agree(&vec![0; method.public_len()]).is_err());
        }
    }

    #[test]
    fn opens_only_what_it_sealed() {
        let toy = Toy::new(1);
        let (keymat, iv, aad) = ([7; 20], [1; 8], b"header");
        let mut sealed = b"text".to_vec();
        let encryption = Encryption::AesGcm16Key128;
        toy.seal(encryption, &keymat, &iv, aad, &mut sealed)
            .unwrap();
        assert_eq!(sealed.len(), 4 + 16);
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                toy.open(encryption, &keymat, &iv, aad, &mut changed)
                    .is_err()
            );
        }
        toy.open(encryption, &keymat, &iv, aad, &mut sealed)
            .unwrap();
        assert_eq!(sealed, b"text");
    }

    #[test]
    fn prf_takes_its_data_as_one() {
        let toy = Toy::new(1);
        let whole = toy.prf(Prf::HmacSha256, b"key", &[b"abcd"]);
        assert_eq!(whole, toy.prf(Prf::HmacSha256, b"key", &[b"a", b"bcd"]));
        assert_ne!(whole, toy.prf(Prf::HmacSha256, b"keya", &[b"bcd"]));
        assert_eq!(toy.prf(Prf::HmacSha384, b"key", &[]).len(), 48);
    }
}
