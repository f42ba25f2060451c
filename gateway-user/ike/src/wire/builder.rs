//! Builds messages.

use super::encrypted::IV_LEN;
use super::{
    EncodeError, GENERIC_HEADER_LEN, HEADER_LEN, HeaderRepr, MAX_MESSAGE_LEN, MAX_PAYLOADS,
    Payload, PayloadType,
};
use crate::crypto::{CryptoProvider, Encryption};

/// Chains payloads, fixes their Next Payload and length fields, and ends as a message in clear
/// ([`finish`](Self::finish)) or with an Encrypted payload ([`seal`](Self::seal)).
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

    /// The message with all payloads inside an Encrypted payload (RFC 7296 §3.14, RFC 5282 §3).
    ///
    /// `keymat` is key ‖ salt of the direction. `iv` must never repeat under a key: the caller
    /// counts. There is no padding: the algorithms that we have need none.
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
        let body_len = IV_LEN + self.payloads.len() + 1 + encryption.icv_len();
        let total = HEADER_LEN + GENERIC_HEADER_LEN + body_len;
        let length = message_length(total)?;
        let payload_length = u16::try_from(GENERIC_HEADER_LEN + body_len)
            .map_err(|_| EncodeError::MessageTooLong)?;
        let [high, low] = payload_length.to_be_bytes();

        let mut message = Vec::with_capacity(total);
        message.extend_from_slice(&self.header.encode(PayloadType::SK, length));
        message.extend_from_slice(&[self.first.0, 0, high, low]);
        let iv = iv.to_be_bytes();
        let mut sealed = self.payloads;
        // Pad Length 0 (RFC 5282 §3: no padding is needed to align).
        sealed.push(0);
        crypto.seal(encryption, keymat, &iv, &message, &mut sealed)?;
        message.extend_from_slice(&iv);
        message.extend_from_slice(&sealed);
        if message.len() != total {
            return Err(EncodeError::Crypto(crate::crypto::CryptoError::WrongLength));
        }
        Ok(message)
    }
}

fn message_length(octets: usize) -> Result<u32, EncodeError> {
    if octets > MAX_MESSAGE_LEN {
        return Err(EncodeError::MessageTooLong);
    }
    u32::try_from(octets).map_err(|_| EncodeError::MessageTooLong)
}
