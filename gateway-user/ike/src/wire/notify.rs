//! The Notify payload (RFC 7296 §3.10).

use super::{EncodeError, Malformation, NotifyType, PayloadType, ProtocolId, WireError};

const FIXED_LEN: usize = 4;

/// A view of a Notify payload's body.
#[derive(Clone, Copy, Debug)]
pub struct NotifyPacket<'a> {
    fixed: &'a [u8; FIXED_LEN],
    spi: &'a [u8],
    data: &'a [u8],
}

impl<'a> NotifyPacket<'a> {
    /// Fails if the SPI runs over the end.
    pub fn new_checked(body: &'a [u8]) -> Result<Self, WireError> {
        let malformed = |cause| WireError::Malformed {
            kind: PayloadType::NOTIFY,
            cause,
        };
        let (fixed, rest): (&[u8; FIXED_LEN], _) = body
            .split_first_chunk()
            .ok_or(malformed(Malformation::TooShort))?;
        let (spi, data) = rest
            .split_at_checked(usize::from(fixed[1]))
            .ok_or(malformed(Malformation::SpiSize))?;
        Ok(Self { fixed, spi, data })
    }

    /// Protocol of the SA that the notification is about.
    pub fn protocol(&self) -> ProtocolId {
        ProtocolId(self.fixed[0])
    }

    /// Notify Message Type.
    pub fn kind(&self) -> NotifyType {
        NotifyType(u16::from_be_bytes([self.fixed[2], self.fixed[3]]))
    }

    /// SPI, 0–255 octets.
    pub fn spi(&self) -> &'a [u8] {
        self.spi
    }

    /// Notification Data.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

/// A notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyRepr<'a> {
    /// [`ProtocolId::NONE`] when there is no SPI; ignored then on receipt (RFC 7296 §3.10).
    pub protocol: ProtocolId,
    /// The SA it is about, at most 255 octets; empty for the IKE SA itself.
    pub spi: &'a [u8],
    /// What it says.
    pub kind: NotifyType,
    /// More about it.
    pub data: &'a [u8],
}

impl<'a> NotifyRepr<'a> {
    /// A notification about no particular CHILD_SA.
    pub const fn new(kind: NotifyType, data: &'a [u8]) -> Self {
        Self {
            protocol: ProtocolId::NONE,
            spi: &[],
            kind,
            data,
        }
    }

    /// A notification about an ESP SA, such as REKEY_SA or CHILD_SA_NOT_FOUND.
    pub const fn esp(kind: NotifyType, spi: &'a [u8; 4]) -> Self {
        Self {
            protocol: ProtocolId::ESP,
            spi,
            kind,
            data: &[],
        }
    }

    /// Never fails beyond [`NotifyPacket::new_checked`]: what a type requires of its SPI and data
    /// is judged where the notification is used, since unknown status types must be ignored.
    pub fn parse(packet: &NotifyPacket<'a>) -> Result<Self, WireError> {
        Ok(Self {
            protocol: packet.protocol(),
            spi: packet.spi(),
            kind: packet.kind(),
            data: packet.data(),
        })
    }

    /// The SPI, if it is one of an ESP SA.
    pub fn esp_spi(&self) -> Option<[u8; 4]> {
        match self.protocol {
            ProtocolId::ESP => self.spi.try_into().ok(),
            _ => None,
        }
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        FIXED_LEN + self.spi.len() + self.data.len()
    }

    /// Appends the body. Fails if the SPI is longer than 255 octets.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let spi_size = u8::try_from(self.spi.len())
            .map_err(|_| EncodeError::OutOfRange(PayloadType::NOTIFY))?;
        out.extend_from_slice(&[self.protocol.0, spi_size]);
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(self.spi);
        out.extend_from_slice(self.data);
        Ok(())
    }
}
