//! A provider that costs almost nothing: for simulations of thousands of clusters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::crypto::{CryptoError, CryptoProvider, Encryption, KeyExchange, KeyExchangeMethod, Prf};
use crate::secret::SecretBytes;
use crate::signature::{KeyKind, SignatureScheme, SigningKey};

/// Octets of a toy integrity check value: as many as the real one has.
const ICV: usize = 16;

/// Arithmetic that has the shape of cryptography and none of its strength: equal inputs give equal
/// outputs, different ones different outputs unless somebody tries, key exchange commutes, and
/// what was sealed under another key or IV does not open. All randomness comes from the seed.
#[derive(Debug)]
pub struct Toy {
    seed: u64,
    counter: AtomicU64,
}

impl Toy {
    /// All randomness from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            counter: AtomicU64::new(0),
        }
    }
}

/// Folded multiplication, the step of the wyhash family.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

const P0: u64 = 0xa076_1d64_78bd_642f;
const P1: u64 = 0xe703_7ed1_a0b4_28db;
const P2: u64 = 0x8ebc_6af0_9c88_c6e3;

/// Two lanes over all parts, concatenated.
fn absorb(domain: u64, parts: &[&[u8]]) -> [u64; 2] {
    let (mut a, mut b) = (P0 ^ domain, P1 ^ domain.rotate_left(32));
    let mut buffer = [0u8; 8];
    let (mut filled, mut length) = (0, 0u64);
    let mut take = |word: u64| {
        a = fold(a ^ word, P1);
        b = fold(b.wrapping_add(word) ^ P0, P2);
    };
    for octet in parts.iter().flat_map(|part| part.iter()) {
        buffer[filled] = *octet;
        filled += 1;
        length += 1;
        if filled == buffer.len() {
            take(u64::from_le_bytes(buffer));
            filled = 0;
        }
    }
    buffer[filled..].fill(0);
    take(u64::from_le_bytes(buffer));
    take(length ^ P2);
    [a, b]
}

/// As many octets as asked for, from two lanes.
fn squeeze([a, b]: [u64; 2], out: &mut [u8]) {
    for (counter, chunk) in (1u64..).zip(out.chunks_mut(8)) {
        let word = fold(
            a ^ counter.wrapping_mul(P2),
            b ^ P0.rotate_left(counter as u32),
        );
        let word = word ^ fold(b.wrapping_add(counter), P1);
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

fn digest<const N: usize>(domain: u64, parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    squeeze(absorb(domain, parts), &mut out);
    out
}

struct ToyExchange {
    method: KeyExchangeMethod,
    private: [u8; 32],
    public: Vec<u8>,
}

impl ToyExchange {
    fn new(method: KeyExchangeMethod, private: [u8; 32]) -> Self {
        let mut public = vec![0; method.public_len()];
        public[..8].copy_from_slice(&power(3, exponent(&private)).to_le_bytes());
        Self {
            method,
            private,
            public,
        }
    }
}

/// The Mersenne prime 2^61 - 1.
const MODULUS: u64 = (1 << 61) - 1;

fn exponent(private: &[u8; 32]) -> u64 {
    let [a, b] = absorb(1, &[private]);
    ((a ^ b) % (MODULUS - 1)) | 1
}

fn power(base: u64, mut exponent: u64) -> u64 {
    let multiply = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(MODULUS)) as u64;
    let (mut result, mut square) = (1, base % MODULUS);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        exponent >>= 1;
    }
    result
}

impl KeyExchange for ToyExchange {
    fn method(&self) -> KeyExchangeMethod {
        self.method
    }

    fn public_value(&self) -> &[u8] {
        &self.public
    }

    fn agree(&self, peer_public_value: &[u8]) -> Result<SecretBytes, CryptoError> {
        let octets = peer_public_value
            .first_chunk()
            .ok_or(CryptoError::InvalidPublicValue)?;
        let value = u64::from_le_bytes(*octets);
        if value == 0 || value >= MODULUS {
            return Err(CryptoError::InvalidPublicValue);
        }
        let shared = power(value, exponent(&self.private));
        let octets: [u8; 32] = digest(2, &[&shared.to_le_bytes()]);
        Ok(SecretBytes::from(&octets[..]))
    }

    fn export(&self) -> SecretBytes {
        SecretBytes::from(&self.private[..])
    }
}

impl CryptoProvider for Toy {
    fn random(&self, out: &mut [u8]) {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let lanes = absorb(3, &[&self.seed.to_le_bytes(), &counter.to_le_bytes()]);
        squeeze(lanes, out);
    }

    fn key_exchange(&self, method: KeyExchangeMethod) -> Result<Box<dyn KeyExchange>, CryptoError> {
        let mut private = [0; 32];
        self.random(&mut private);
        Ok(Box::new(ToyExchange::new(method, private)))
    }

    fn import_key_exchange(
        &self,
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Box<dyn KeyExchange>, CryptoError> {
        let private = private
            .expose()
            .try_into()
            .map_err(|_| CryptoError::WrongLength)?;
        Ok(Box::new(ToyExchange::new(method, private)))
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> SecretBytes {
        let key: [u8; 16] = digest(4, &[key]);
        let mut parts = vec![&key[..]];
        parts.extend_from_slice(data);
        let mut out = vec![0; prf.output_len()];
        squeeze(absorb(5, &parts), &mut out);
        SecretBytes::new(out)
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
        encipher(keymat, iv, buffer);
        let icv: [u8; ICV] = digest(7, &[keymat, iv, aad, buffer]);
        buffer.extend_from_slice(&icv);
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
        let text = buffer.len().checked_sub(ICV);
        let Some(text) = text.filter(|_| keymat.len() == encryption.keymat_len()) else {
            return Err(CryptoError::WrongLength);
        };
        let icv: [u8; ICV] = digest(7, &[keymat, iv, aad, &buffer[..text]]);
        if icv != buffer[text..] {
            return Err(CryptoError::IntegrityFailed);
        }
        buffer.truncate(text);
        encipher(keymat, iv, buffer);
        Ok(())
    }

    /// `der` is the SubjectPublicKeyInfo: a toy key has nothing to hide.
    fn signing_key(&self, der: &SecretBytes) -> Result<Arc<dyn SigningKey>, CryptoError> {
        Ok(Arc::new(ToySigningKey {
            kind: KeyKind::of_public_key(der.expose()).ok_or(CryptoError::Unsupported)?,
            public_key: der.expose().to_vec(),
        }))
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: &[u8],
        message: &[&[u8]],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        (toy_signature(scheme, public_key, message) == *signature)
            .then_some(())
            .ok_or(CryptoError::BadSignature)
    }

    fn sha1(&self, data: &[&[u8]]) -> [u8; 20] {
        digest(8, data)
    }

    fn sha256(&self, data: &[&[u8]]) -> [u8; 32] {
        digest(9, data)
    }
}

/// Anybody who knows the public key can make it.
fn toy_signature(scheme: SignatureScheme, public_key: &[u8], message: &[&[u8]]) -> [u8; 64] {
    let scheme = scheme.to_string();
    let mut parts = vec![scheme.as_bytes(), public_key];
    parts.extend_from_slice(message);
    digest(10, &parts)
}

/// A private key whose public half is all that there is to it.
#[derive(Debug)]
struct ToySigningKey {
    public_key: Vec<u8>,
    kind: KeyKind,
}

impl SigningKey for ToySigningKey {
    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn kind(&self) -> KeyKind {
        self.kind
    }

    fn supports(&self, scheme: SignatureScheme) -> bool {
        scheme.fits(self.kind)
    }

    fn sign(&self, scheme: SignatureScheme, message: &[&[u8]]) -> Result<Vec<u8>, CryptoError> {
        Ok(toy_signature(scheme, &self.public_key, message).to_vec())
    }
}

fn encipher(keymat: &[u8], iv: &[u8; 8], buffer: &mut [u8]) {
    let mut stream = vec![0; buffer.len()];
    squeeze(absorb(6, &[keymat, iv]), &mut stream);
    for (octet, mask) in buffer.iter_mut().zip(&stream) {
        *octet ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENCRYPTION: Encryption = Encryption::AesGcm16Key128;

    #[test]
    fn only_the_same_key_iv_and_context_open() {
        let toy = Toy::new(1);
        let (key, other) = ([1; 20], [2; 20]);
        let mut sealed = b"some octets that are more than one block".to_vec();
        let clear = sealed.clone();
        toy.seal(ENCRYPTION, &key, &[3; 8], b"aad", &mut sealed)
            .unwrap();
        assert_eq!(sealed.len(), clear.len() + 16);
        for (key, iv, aad) in [(&other, 3, "aad"), (&key, 4, "aad"), (&key, 3, "add")] {
            let mut copy = sealed.clone();
            let opened = toy.open(ENCRYPTION, key, &[iv; 8], aad.as_bytes(), &mut copy);
            assert_eq!(opened, Err(CryptoError::IntegrityFailed));
        }
        toy.open(ENCRYPTION, &key, &[3; 8], b"aad", &mut sealed)
            .unwrap();
        assert_eq!(sealed, clear);
    }

    #[test]
    fn key_exchange_commutes_and_survives_export() {
        let toy = Toy::new(2);
        for method in [KeyExchangeMethod::X25519, KeyExchangeMethod::Ecp256] {
            let a = toy.key_exchange(method).unwrap();
            let b = toy.key_exchange(method).unwrap();
            let shared = a.agree(b.public_value()).unwrap();
            assert_eq!(shared, b.agree(a.public_value()).unwrap());
            let again = toy.import_key_exchange(method, &a.export()).unwrap();
            assert_eq!(shared, again.agree(b.public_value()).unwrap());
            assert_ne!(a.public_value(), b.public_value());
        }
    }

    #[test]
    fn parts_count_and_not_how_they_are_cut() {
        let toy = Toy::new(3);
        assert_eq!(toy.sha256(&[b"ab", b"c"]), toy.sha256(&[b"abc"]));
        assert_ne!(toy.sha256(&[b"abc"]), toy.sha256(&[b"abc\0"]));
    }
}
