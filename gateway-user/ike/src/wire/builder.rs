//! Builds messages.

use super::encrypted::int_auth_content;
use super::{
    EncodeError, FragmentRepr, GENERIC_HEADER_LEN, HEADER_LEN, HeaderRepr, MAX_MESSAGE_LEN,
    MAX_PAYLOADS, Payload, PayloadType,
};
use crate::crypto::{CryptoError, CryptoProvider, Encryption};

/// Chains payloads, fixes their Next Payload and length fields, and ends as a message in clear
/// ([`finish`](Self::finish)), with an Encrypted payload ([`seal`](Self::seal)) or in fragments
/// ([`seal_within`](Self::seal_within)).
///
/// The first error is kept and returned at the end, so that payloads can be pushed without looking.
#[derive(Clone, Debug)]
pub struct MessageBuilder {
    header: HeaderRepr,
    first: PayloadType,
    /// Where the last payload's Next Payload field is.
    last: Option<usize>,
    count: usize,
    /// The chain.
    payloads: Vec<u8>,
    error: Option<EncodeError>,
}

impl MessageBuilder {
    /// A message without payloads.
    pub const fn new(header: HeaderRepr) -> Self {
        Self {
            header,
            first: PayloadType::NONE,
            last: None,
            count: 0,
            payloads: Vec::new(),
            error: None,
        }
    }

    /// Its header.
    pub const fn header(&self) -> &HeaderRepr {
        &self.header
    }

    /// Appends a payload. Its critical bit is clear, as RFC 7296 §3.2 asks of all payloads that it
    /// defines.
    pub fn push(&mut self, payload: &Payload<'_>) -> &mut Self {
        if self.error.is_none() {
            self.error = self.try_push(payload).err();
        }
        self
    }

    /// As [`push`](Self::push), to build in one expression.
    #[must_use]
    pub fn with(mut self, payload: &Payload<'_>) -> Self {
        self.push(payload);
        self
    }

    fn try_push(&mut self, payload: &Payload<'_>) -> Result<(), EncodeError> {
        if self.count >= MAX_PAYLOADS {
            return Err(EncodeError::TooManyPayloads);
        }
        let kind = payload.payload_type();
        if kind == PayloadType::NONE || kind.is_encrypted() {
            return Err(EncodeError::OutOfRange(kind));
        }
        let length = u16::try_from(GENERIC_HEADER_LEN + payload.buffer_len())
            .map_err(|_| EncodeError::MessageTooLong)?;
        let at = self.payloads.len();
        if HEADER_LEN + at + usize::from(length) > MAX_MESSAGE_LEN {
            return Err(EncodeError::MessageTooLong);
        }
        let [high, low] = length.to_be_bytes();
        self.payloads.extend_from_slice(&[0, 0, high, low]);
        payload.encode(&mut self.payloads)?;
        match self.last.and_then(|last| self.payloads.get_mut(last)) {
            Some(next) => *next = kind.0,
            None => self.first = kind,
        }
        self.last = Some(at);
        self.count += 1;
        Ok(())
    }

    /// The message in clear.
    ///
    /// # Errors
    /// The first thing that went wrong while payloads were pushed.
    pub fn finish(self) -> Result<Vec<u8>, EncodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let length = message_length(HEADER_LEN + self.payloads.len())?;
        let mut message = Vec::with_capacity(HEADER_LEN + self.payloads.len());
        message.extend_from_slice(&self.header.encode(self.first, length));
        message.extend_from_slice(&self.payloads);
        Ok(message)
    }

    /// What IntAuth covers of the message that [`seal`](Self::seal) makes: the message as if it were
    /// not encrypted, lengths adjusted (RFC 9242 §3.3.2).
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn int_auth_content(&self) -> Result<Vec<u8>, EncodeError> {
        if let Some(error) = &self.error {
            return Err(*error);
        }
        let header = self.header.encode(PayloadType::SK, 0);
        let associated = [&header[..], &[self.first.0, 0, 0, 0]].concat();
        Ok(int_auth_content(&associated, &self.payloads))
    }

    /// The message with all payloads inside an Encrypted payload (RFC 7296 §3.14, RFC 5282 §3).
    ///
    /// `keymat` is that of the direction. `iv` must never repeat under a key: the caller counts.
    /// Algorithms whose IVs must be unpredictable get a random one instead.
    ///
    /// # Errors
    /// As [`finish`](Self::finish), and [`EncodeError::Crypto`].
    pub fn seal(
        self,
        crypto: &dyn CryptoProvider,
        encryption: Encryption,
        keymat: &[u8],
        iv: u64,
    ) -> Result<Vec<u8>, EncodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut message = Vec::new();
        let sealer = Sealer {
            crypto,
            encryption,
            keymat,
            header: self.header,
        };
        sealer.append(&mut message, None, self.first, self.payloads, iv)?;
        Ok(message)
    }

    /// As [`seal`](Self::seal), in fragments (RFC 7383) if the message would have more than `limit`
    /// octets: then the messages stand one after the other, see [`messages`](super::messages). Each
    /// takes an IV.
    ///
    /// # Errors
    /// As [`seal`](Self::seal); [`EncodeError::NoIv`] if there are not enough IVs.
    pub fn seal_within(
        self,
        crypto: &dyn CryptoProvider,
        encryption: Encryption,
        keymat: &[u8],
        limit: usize,
        mut iv: impl FnMut() -> Option<u64>,
    ) -> Result<Vec<u8>, EncodeError> {
        let whole = HEADER_LEN + sealed_payload_len(encryption, self.payloads.len(), 0);
        if whole <= limit || self.error.is_some() {
            let iv = iv().ok_or(EncodeError::NoIv)?;
            return self.seal(crypto, encryption, keymat, iv);
        }
        let block = encryption.block_len();
        let empty = HEADER_LEN + sealed_payload_len(encryption, 0, FRAGMENT_LEN) - block;
        let room = limit.saturating_sub(empty) / block * block;
        // One octet is Pad Length.
        let chunk = room.saturating_sub(1).max(SMALLEST_CHUNK);
        let total = u16::try_from(self.payloads.len().div_ceil(chunk))
            .map_err(|_| EncodeError::MessageTooLong)?;
        let sealer = Sealer {
            crypto,
            encryption,
            keymat,
            header: self.header,
        };
        let mut messages = Vec::with_capacity(usize::from(total) * limit);
        for (number, content) in (1..).zip(self.payloads.chunks(chunk)) {
            let iv = iv().ok_or(EncodeError::NoIv)?;
            // RFC 7383 §2.5: the first inner payload's type in the first fragment, then zero.
            let first = if number == 1 {
                self.first
            } else {
                PayloadType::NONE
            };
            let fragment = FragmentRepr { number, total };
            sealer.append(&mut messages, Some(fragment), first, content.to_vec(), iv)?;
        }
        Ok(messages)
    }
}

/// Octets of Fragment Number and Total Fragments.
const FRAGMENT_LEN: usize = 4;

/// A fragment carries at least so many octets, however small the limit: 65,535 of them hold any
/// message, and no limit makes them useless.
const SMALLEST_CHUNK: usize = 64;

/// Octets of an SK or SKF payload (`fields` before the IV) that seals `content` octets.
fn sealed_payload_len(encryption: Encryption, content: usize, fields: usize) -> usize {
    let padded = (content + 1).next_multiple_of(encryption.block_len());
    GENERIC_HEADER_LEN + fields + encryption.iv_len() + padded + encryption.icv_len()
}

/// What all fragments of a message have in common.
struct Sealer<'a> {
    crypto: &'a dyn CryptoProvider,
    encryption: Encryption,
    keymat: &'a [u8],
    header: HeaderRepr,
}

impl Sealer<'_> {
    /// Appends one message: header, SK or SKF payload with `content`, whose first inner payload is
    /// `first`.
    fn append(
        &self,
        out: &mut Vec<u8>,
        fragment: Option<FragmentRepr>,
        first: PayloadType,
        content: Vec<u8>,
        iv: u64,
    ) -> Result<(), EncodeError> {
        let (kind, fields) = match fragment {
            Some(_) => (PayloadType::SKF, FRAGMENT_LEN),
            None => (PayloadType::SK, 0),
        };
        let payload = sealed_payload_len(self.encryption, content.len(), fields);
        let length = message_length(HEADER_LEN + payload)?;
        let [high, low] = u16::try_from(payload)
            .map_err(|_| EncodeError::MessageTooLong)?
            .to_be_bytes();
        let start = out.len();
        out.reserve(HEADER_LEN + payload);
        out.extend_from_slice(&self.header.encode(kind, length));
        out.extend_from_slice(&[first.0, 0, high, low]);
        if let Some(fragment) = fragment {
            fragment.encode(out);
        }
        let iv = initialization_vector(self.crypto, self.encryption, iv);
        let mut sealed = content;
        pad(&mut sealed, self.encryption.block_len());
        let associated = out.get(start..).unwrap_or_default();
        self.crypto
            .seal(self.encryption, self.keymat, &iv, associated, &mut sealed)?;
        out.extend_from_slice(&iv);
        out.extend_from_slice(&sealed);
        if out.len() - start != HEADER_LEN + payload {
            return Err(EncodeError::Crypto(CryptoError::WrongLength));
        }
        Ok(())
    }
}

/// Appends Padding and Pad Length (RFC 7296 §3.14): as little as the algorithm needs.
fn pad(payloads: &mut Vec<u8>, block_len: usize) {
    let length = payloads.len() + 1;
    let padding = length.next_multiple_of(block_len) - length;
    payloads.resize(payloads.len() + padding, 0);
    // Less than a block.
    payloads.push(u8::try_from(padding).unwrap_or_default());
}

/// The counter for combined-mode algorithms (RFC 5282 §3.1), something that nobody can predict for
/// the others (RFC 7296 §3.14, RFC 3602 §2.1).
fn initialization_vector(
    crypto: &dyn CryptoProvider,
    encryption: Encryption,
    counter: u64,
) -> Vec<u8> {
    if encryption.is_combined_mode() {
        return counter.to_be_bytes().to_vec();
    }
    let mut iv = vec![0; encryption.iv_len()];
    crypto.random(&mut iv);
    iv
}

fn message_length(octets: usize) -> Result<u32, EncodeError> {
    if octets > MAX_MESSAGE_LEN {
        return Err(EncodeError::MessageTooLong);
    }
    u32::try_from(octets).map_err(|_| EncodeError::MessageTooLong)
}
