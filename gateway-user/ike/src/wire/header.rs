//! The IKE header (RFC 7296 §3.1).

use super::{PayloadType, WireError};

/// Octets of the IKE header.
pub const HEADER_LEN: usize = 28;

/// The longest message we build or accept, in octets: no UDP datagram is longer.
pub const MAX_MESSAGE_LEN: usize = 65_535;

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;
const VERSION_2_0: u8 = 0x20;

code_points! {
    /// IKEv2 Exchange Types (RFC 7296 §3.1).
    ExchangeType(u8) {
        /// RFC 7296 §1.2.
        IKE_SA_INIT = 34,
        /// RFC 7296 §1.2.
        IKE_AUTH = 35,
        /// RFC 7296 §1.3.
        CREATE_CHILD_SA = 36,
        /// RFC 7296 §1.4.
        INFORMATIONAL = 37,
        /// RFC 5723.
        IKE_SESSION_RESUME = 38,
        /// RFC 9242.
        IKE_INTERMEDIATE = 43,
        /// RFC 9370.
        IKE_FOLLOWUP_KE = 44,
    }
}

/// A view of a message's header. Says nothing about version or payloads, so that a message of
/// another major version can still be answered.
#[derive(Clone, Copy, Debug)]
pub struct HeaderPacket<'a>(&'a [u8; HEADER_LEN]);

impl<'a> HeaderPacket<'a> {
    /// Fails with [`WireError::HeaderTruncated`] below 28 octets; octets after them are ignored.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        bytes
            .first_chunk()
            .map(Self)
            .ok_or(WireError::HeaderTruncated(bytes.len()))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.0[at + i])
    }

    /// The initiator's SPI.
    pub fn initiator_spi(&self) -> [u8; 8] {
        self.array(0)
    }

    /// The responder's SPI; zero in the first message.
    pub fn responder_spi(&self) -> [u8; 8] {
        self.array(8)
    }

    /// Type of the first payload.
    pub fn next_payload(&self) -> PayloadType {
        PayloadType(self.0[16])
    }

    /// Major version, 0–15.
    pub fn major_version(&self) -> u8 {
        self.0[17] >> 4
    }

    /// Minor version, 0–15; to be ignored (RFC 7296 §2.5).
    pub fn minor_version(&self) -> u8 {
        self.0[17] & 0x0f
    }

    /// Exchange type.
    pub fn exchange(&self) -> ExchangeType {
        ExchangeType(self.0[18])
    }

    /// Flags as they are.
    pub fn flags(&self) -> u8 {
        self.0[19]
    }

    /// Whether the sender is the original initiator of the IKE SA.
    pub fn is_from_initiator(&self) -> bool {
        self.flags() & FLAG_INITIATOR != 0
    }

    /// Whether this is a response.
    pub fn is_response(&self) -> bool {
        self.flags() & FLAG_RESPONSE != 0
    }

    /// Message id.
    pub fn message_id(&self) -> u32 {
        u32::from_be_bytes(self.array(20))
    }

    /// Length of the message, header included, as the sender says.
    pub fn length(&self) -> u32 {
        u32::from_be_bytes(self.array(24))
    }
}

/// What a header says, apart from the fields that follow from the rest of the message (Next
/// Payload, Length). Reserved flags, the "higher version" flag and the minor version are ignored
/// on receipt and sent as zero (RFC 7296 §2.5, §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeaderRepr {
    /// The initiator's SPI, never zero.
    pub initiator_spi: [u8; 8],
    /// The responder's SPI; zero in the first message.
    pub responder_spi: [u8; 8],
    /// Exchange type.
    pub exchange: ExchangeType,
    /// The Initiator flag: the sender is the original initiator of the IKE SA.
    pub from_initiator: bool,
    /// The Response flag.
    pub response: bool,
    /// Message id.
    pub message_id: u32,
}

impl HeaderRepr {
    /// Fails with [`WireError::MajorVersion`] or [`WireError::ZeroInitiatorSpi`].
    pub fn parse(packet: &HeaderPacket<'_>) -> Result<Self, WireError> {
        if packet.major_version() != 2 {
            return Err(WireError::MajorVersion(packet.major_version()));
        }
        if packet.initiator_spi() == [0; 8] {
            return Err(WireError::ZeroInitiatorSpi);
        }
        Ok(Self {
            initiator_spi: packet.initiator_spi(),
            responder_spi: packet.responder_spi(),
            exchange: packet.exchange(),
            from_initiator: packet.is_from_initiator(),
            response: packet.is_response(),
            message_id: packet.message_id(),
        })
    }

    /// The header of the response to this request.
    #[must_use]
    pub const fn to_response(self) -> Self {
        Self {
            from_initiator: !self.from_initiator,
            response: true,
            ..self
        }
    }

    /// Always 28.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// The octets, with the two fields that depend on what follows: the first payload's type and
    /// the length of the whole message.
    pub fn encode(&self, next_payload: PayloadType, length: u32) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&self.initiator_spi);
        bytes[8..16].copy_from_slice(&self.responder_spi);
        bytes[16] = next_payload.0;
        bytes[17] = VERSION_2_0;
        bytes[18] = self.exchange.0;
        if self.from_initiator {
            bytes[19] |= FLAG_INITIATOR;
        }
        if self.response {
            bytes[19] |= FLAG_RESPONSE;
        }
        bytes[20..24].copy_from_slice(&self.message_id.to_be_bytes());
        bytes[24..].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}
