//! A provider that costs almost nothing: for simulations of thousands of clusters, and for fuzzers,
//! which reach what lies behind the slow part.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::crypto::{
    CryptoError, CryptoProvider, Encryption, KeyExchange, KeyExchangeAnswer, KeyExchangeMethod, Prf,
};
use crate::secret::SecretBytes;
use crate::signature::{KeyKind, SignatureScheme, SigningKey};

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
        Self {
            method,
            private,
            public: public_value(&private, method.public_len()),
        }
    }
}

/// The value, and zeros up to the length that the real one has.
fn public_value(private: &[u8; 32], len: usize) -> Vec<u8> {
    let mut public = vec![0; len];
    public[..8].copy_from_slice(&power(3, exponent(private)).to_le_bytes());
    public
}

/// The other side's value in as many octets as the real one has, raised to ours.
fn shared(private: &[u8; 32], peer: &[u8], len: usize) -> Result<SecretBytes, CryptoError> {
    let (octets, rest) = peer
        .split_first_chunk()
        .filter(|_| peer.len() == len)
        .ok_or(CryptoError::InvalidPublicValue)?;
    let value = u64::from_le_bytes(*octets);
    if !(2..MODULUS).contains(&value) || rest.iter().any(|&octet| octet != 0) {
        return Err(CryptoError::InvalidPublicValue);
    }
    let shared = power(value, exponent(private));
    let octets: [u8; 32] = digest(2, &[&shared.to_le_bytes()]);
    Ok(SecretBytes::from(&octets[..]))
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

    fn agree(&self, answer: &[u8]) -> Result<SecretBytes, CryptoError> {
        shared(&self.private, answer, self.method.answer_len())
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

    fn answer_key_exchange(
        &self,
        method: KeyExchangeMethod,
        peer: &[u8],
    ) -> Result<KeyExchangeAnswer, CryptoError> {
        let mut private = [0; 32];
        self.random(&mut private);
        Ok(KeyExchangeAnswer {
            public: public_value(&private, method.answer_len()),
            shared: shared(&private, peer, method.public_len())?,
        })
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
        iv: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let blocks = buffer.len().is_multiple_of(encryption.block_len());
        if !blocks || !fits(encryption, keymat, iv) {
            return Err(CryptoError::WrongLength);
        }
        encipher(keymat, iv, buffer);
        let icv = icv(encryption, keymat, iv, aad, buffer);
        buffer.extend_from_slice(&icv);
        Ok(())
    }

    fn open(
        &self,
        encryption: Encryption,
        keymat: &[u8],
        iv: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        if !fits(encryption, keymat, iv) {
            return Err(CryptoError::WrongLength);
        }
        let text = buffer
            .len()
            .checked_sub(encryption.icv_len())
            .filter(|text| text.is_multiple_of(encryption.block_len()))
            .ok_or(CryptoError::IntegrityFailed)?;
        if icv(encryption, keymat, iv, aad, &buffer[..text]) != buffer[text..] {
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

fn fits(encryption: Encryption, keymat: &[u8], iv: &[u8]) -> bool {
    keymat.len() == encryption.keymat_len() && iv.len() == encryption.iv_len()
}

/// As many octets as the real one has.
fn icv(encryption: Encryption, keymat: &[u8], iv: &[u8], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut out = vec![0; encryption.icv_len()];
    squeeze(absorb(7, &[keymat, iv, aad, text]), &mut out);
    out
}

/// Its own inverse.
fn encipher(keymat: &[u8], iv: &[u8], buffer: &mut [u8]) {
    let mut stream = vec![0; buffer.len()];
    squeeze(absorb(6, &[keymat, iv]), &mut stream);
    for (octet, mask) in buffer.iter_mut().zip(&stream) {
        *octet ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_iv_and_context_open() {
        let toy = Toy::new(1);
        for encryption in Encryption::all() {
            let (key, iv) = (
                vec![1; encryption.keymat_len()],
                vec![3; encryption.iv_len()],
            );
            let clear = b"some octets that are three blocks of sixteen each".to_vec();
            let clear = &clear[..48];
            let mut sealed = clear.to_vec();
            toy.seal(encryption, &key, &iv, b"aad", &mut sealed)
                .unwrap();
            assert_eq!(sealed.len(), clear.len() + encryption.icv_len());
            let (other_key, other_iv) = (vec![2; key.len()], vec![4; iv.len()]);
            for (key, iv, aad) in [
                (&other_key, &iv, "aad"),
                (&key, &other_iv, "aad"),
                (&key, &iv, "add"),
            ] {
                let mut copy = sealed.clone();
                let opened = toy.open(encryption, key, iv, aad.as_bytes(), &mut copy);
                assert_eq!(opened, Err(CryptoError::IntegrityFailed));
            }
            for bit in 0..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let opened = toy.open(encryption, &key, &iv, b"aad", &mut changed);
                assert_eq!(opened, Err(CryptoError::IntegrityFailed));
            }
            toy.open(encryption, &key, &iv, b"aad", &mut sealed)
                .unwrap();
            assert_eq!(sealed, clear);
        }
    }

    #[test]
    fn both_sides_agree_and_an_export_does_too() {
        let toy = Toy::new(2);
        for method in KeyExchangeMethod::ALL {
            let ours = toy.key_exchange(method).unwrap();
            assert_eq!(ours.public_value().len(), method.public_len());
            let answer = toy
                .answer_key_exchange(method, ours.public_value())
                .unwrap();
            assert_eq!(answer.public.len(), method.answer_len());
            assert_eq!(ours.agree(&answer.public).unwrap(), answer.shared);
            let again = toy.import_key_exchange(method, &ours.export()).unwrap();
            assert_eq!(again.agree(&answer.public).unwrap(), answer.shared);
            assert!(ours.agree(&vec![0; method.answer_len()]).is_err());
            assert!(ours.agree(&answer.public[1..]).is_err());
        }
    }

    #[test]
    fn parts_count_and_not_how_they_are_cut() {
        let toy = Toy::new(3);
        assert_eq!(toy.sha256(&[b"ab", b"c"]), toy.sha256(&[b"abc"]));
        assert_ne!(toy.sha256(&[b"abc"]), toy.sha256(&[b"abc\0"]));
    }
}
