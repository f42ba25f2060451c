//! A whole message.

use super::{
    Chain, EncryptedPacket, FragmentPacket, HEADER_LEN, HeaderPacket, HeaderRepr, MAX_MESSAGE_LEN,
    PayloadType, WireError,
};

/// What follows the header.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// Payloads in clear.
    Clear(Chain<'a>),
    /// An Encrypted payload. Payloads in clear before it, which no exchange has, are not looked
    /// into, though the integrity check covers them.
    Encrypted(EncryptedPacket<'a>),
    /// A fragment of an Encrypted payload (RFC 7383): which, and what is sealed in it. The integrity
    /// check covers both.
    Fragment(FragmentPacket<'a>, EncryptedPacket<'a>),
}

/// A message whose header and payload lengths have been checked.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    header: HeaderRepr,
    body: Body<'a>,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes one datagram, without non-ESP marker. The Length field must be that of the datagram:
    /// octets after the message would be covered by nothing.
    ///
    /// # Errors
    /// Those of [`HeaderRepr::parse`] and [`Chain::new_checked`]; [`WireError::MessageLength`].
    /// Nothing is authentic yet: of an existing IKE SA's messages, any error means silence
    /// (RFC 7296 §2.21).
    /// After [`WireError::MajorVersion`], [`HeaderPacket`] has what the answer needs.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let packet = HeaderPacket::new_checked(bytes)?;
        let header = HeaderRepr::parse(&packet)?;
        let length = usize::try_from(packet.length()).unwrap_or(usize::MAX);
        if length != bytes.len() || length > MAX_MESSAGE_LEN {
            return Err(WireError::MessageLength {
                header: packet.length(),
                datagram: bytes.len(),
            });
        }
        let payloads = bytes.get(HEADER_LEN..).unwrap_or_default();
        let chain = Chain::new_checked(packet.next_payload(), payloads)?;
        let last = chain.clone().last();
        let body = match last {
            Some(raw) if raw.kind == PayloadType::SK => {
                Body::Encrypted(EncryptedPacket::new(bytes, raw.next, raw.body))
            }
            Some(raw) if raw.kind == PayloadType::SKF => {
                let fragment = FragmentPacket::new_checked(raw.body)?;
                let sealed = EncryptedPacket::new(bytes, raw.next, fragment.sealed());
                Body::Fragment(fragment, sealed)
            }
            _ => Body::Clear(chain),
        };
        Ok(Self {
            header,
            body,
            bytes,
        })
    }

    /// The header.
    pub const fn header(&self) -> &HeaderRepr {
        &self.header
    }

    /// What follows it.
    pub const fn body(&self) -> &Body<'a> {
        &self.body
    }

    /// The whole message, header included.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
