//! A message that a peer is about to send, open to being spoilt.

use gateway_ike::crypto::{CryptoProvider, Encryption};
use gateway_ike::wire::{HeaderRepr, Payload, PayloadType};

use crate::fuzz::input::Input;

const CRITICAL: u8 = 0x80;

/// Payloads by type, critical bit and body.
pub(crate) struct Draft {
    pub(crate) header: HeaderRepr,
    payloads: Vec<(u8, u8, Vec<u8>)>,
}

impl Draft {
    pub(crate) fn new(header: HeaderRepr, payloads: &[Payload<'_>]) -> Self {
        let payloads = payloads
            .iter()
            .map(|payload| {
                let mut body = Vec::new();
                payload.encode(&mut body).expect("an honest payload");
                (payload.payload_type().0, 0, body)
            })
            .collect();
        Self { header, payloads }
    }

    /// Spoils one thing, or mostly nothing. Whether it did.
    pub(in crate::fuzz) fn spoil(&mut self, input: &mut Input<'_>) -> bool {
        let how = input.octet();
        if how < 0xf0 || self.payloads.is_empty() {
            return false;
        }
        let at = input.index(self.payloads.len());
        match how & 7 {
            0 => drop(self.payloads.remove(at)),
            1 => self.payloads.push(self.payloads[at].clone()),
            2 => self.payloads[at].2 = input.octets().to_vec(),
            3 => self.payloads[at].0 = input.octet().max(1),
            4 => self.payloads[at].1 = CRITICAL,
            5 => self
                .payloads
                .push((input.octet().max(1), 0, input.octets().to_vec())),
            6 => self.payloads.reverse(),
            _ => {
                let position = input.index(self.payloads[at].2.len());
                let with = input.octet();
                if let Some(octet) = self.payloads[at].2.get_mut(position) {
                    *octet ^= with;
                }
            }
        }
        true
    }

    /// Type of the first payload, and the chain.
    pub(super) fn chain(&self) -> (u8, Vec<u8>) {
        let mut kinds: Vec<u8> = self.payloads.iter().map(|(kind, ..)| *kind).collect();
        kinds.push(PayloadType::NONE.0);
        let mut octets = Vec::new();
        for ((_, flags, body), next) in self.payloads.iter().zip(&kinds[1..]) {
            let length = u16::try_from(body.len() + 4).expect("small payloads");
            octets.extend_from_slice(&[*next, *flags]);
            octets.extend_from_slice(&length.to_be_bytes());
            octets.extend_from_slice(body);
        }
        (kinds[0], octets)
    }

    pub(crate) fn in_clear(&self) -> Vec<u8> {
        let (first, chain) = self.chain();
        let length = u32::try_from(28 + chain.len()).expect("a small message");
        [&self.header.encode(PayloadType(first), length)[..], &chain].concat()
    }

    pub(crate) fn sealed(
        &self,
        crypto: &dyn CryptoProvider,
        encryption: Encryption,
        keymat: &[u8],
        iv: u64,
    ) -> Vec<u8> {
        let (first, chain) = self.chain();
        let plaintext = [&chain[..], &[0]].concat();
        seal(
            crypto,
            (encryption, keymat),
            &self.header,
            iv,
            (first, &plaintext),
        )
    }
}

/// A message whose Encrypted payload holds exactly this plaintext, padding included, that begins
/// with a payload of the type `first`.
pub(crate) fn seal(
    crypto: &dyn CryptoProvider,
    (encryption, keymat): (Encryption, &[u8]),
    header: &HeaderRepr,
    iv: u64,
    (first, plaintext): (u8, &[u8]),
) -> Vec<u8> {
    let length = u16::try_from(4 + 8 + plaintext.len() + 16).expect("a small message");
    let mut octets = header
        .encode(PayloadType::SK, 28 + u32::from(length))
        .to_vec();
    octets.extend_from_slice(&[first, 0]);
    octets.extend_from_slice(&length.to_be_bytes());
    let iv = iv.to_be_bytes();
    let mut buffer = plaintext.to_vec();
    crypto
        .seal(encryption, keymat, &iv, &octets, &mut buffer)
        .expect("a key of the right length");
    octets.extend_from_slice(&iv);
    octets.extend_from_slice(&buffer);
    octets
}

/// A message whose Encrypted Fragment payload (RFC 7383 §2.5) has these numbers and holds exactly this
/// plaintext.
pub(super) fn seal_fragment(
    crypto: &dyn CryptoProvider,
    (encryption, keymat): (Encryption, &[u8]),
    header: &HeaderRepr,
    iv: u64,
    (number, total): (u16, u16),
    (first, plaintext): (u8, &[u8]),
) -> Vec<u8> {
    let length = u16::try_from(4 + 4 + 8 + plaintext.len() + 16).expect("a small message");
    let mut octets = header
        .encode(PayloadType::SKF, 28 + u32::from(length))
        .to_vec();
    octets.extend_from_slice(&[first, 0]);
    octets.extend_from_slice(&length.to_be_bytes());
    octets.extend_from_slice(&number.to_be_bytes());
    octets.extend_from_slice(&total.to_be_bytes());
    let iv = iv.to_be_bytes();
    let mut buffer = plaintext.to_vec();
    crypto
        .seal(encryption, keymat, &iv, &octets, &mut buffer)
        .expect("a key of the right length");
    octets.extend_from_slice(&iv);
    octets.extend_from_slice(&buffer);
    octets
}
