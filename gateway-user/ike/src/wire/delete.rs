//! The Delete payload (RFC 7296 §3.11).

use super::{EncodeError, Malformation, PayloadType, ProtocolId, WireError};

const FIXED_LEN: usize = 4;

/// A view of a Delete payload's body.
#[derive(Clone, Copy, Debug)]
pub struct DeletePacket<'a> {
    fixed: &'a [u8; FIXED_LEN],
    spis: &'a [u8],
}

impl<'a> DeletePacket<'a> {
    /// Fails if SPI Size times Num of SPIs is not what follows.
    pub fn new_checked(body: &'a [u8]) -> Result<Self, WireError> {
        let malformed = |cause| WireError::Malformed {
            kind: PayloadType::DELETE,
            cause,
        };
        let (fixed, spis) = body
            .split_first_chunk()
            .ok_or(malformed(Malformation::TooShort))?;
        let packet = Self { fixed, spis };
        if usize::from(packet.spi_size()) * usize::from(packet.count()) != spis.len() {
            return Err(malformed(Malformation::Count));
        }
        Ok(packet)
    }

    /// Protocol of the SAs.
    pub fn protocol(&self) -> ProtocolId {
        ProtocolId(self.fixed[0])
    }

    /// Octets of one SPI.
    pub fn spi_size(&self) -> u8 {
        self.fixed[1]
    }

    /// Number of SPIs.
    pub fn count(&self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// SPIs, end to end.
    pub fn spis(&self) -> &'a [u8] {
        self.spis
    }
}

/// SAs that the sender deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteRepr<'a> {
    /// Protocol of the SAs. IKE means this IKE SA and has no SPI.
    pub protocol: ProtocolId,
    /// Octets of one SPI: 0 for IKE, 4 for AH and ESP.
    pub spi_size: u8,
    /// SPIs that the sender expects in inbound packets, end to end.
    pub spis: &'a [u8],
}

impl<'a> DeleteRepr<'a> {
    /// Deletes this IKE SA.
    pub const fn ike() -> Self {
        Self {
            protocol: ProtocolId::IKE,
            spi_size: 0,
            spis: &[],
        }
    }

    /// Deletes ESP SAs, by the sender's inbound SPIs.
    pub const fn esp(spis: &'a [[u8; 4]]) -> Self {
        Self {
            protocol: ProtocolId::ESP,
            spi_size: 4,
            spis: spis.as_flattened(),
        }
    }

    /// Fails with [`Malformation::SpiSize`] if the size is not the protocol's, and with
    /// [`Malformation::Count`] if SPIs of no octets are counted.
    pub fn parse(packet: &DeletePacket<'a>) -> Result<Self, WireError> {
        let malformed = |cause| WireError::Malformed {
            kind: PayloadType::DELETE,
            cause,
        };
        if packet.spi_size() == 0 && packet.count() != 0 {
            return Err(malformed(Malformation::Count));
        }
        let repr = Self {
            protocol: packet.protocol(),
            spi_size: packet.spi_size(),
            spis: packet.spis(),
        };
        if repr.has_valid_spi_size() {
            Ok(repr)
        } else {
            Err(malformed(Malformation::SpiSize))
        }
    }

    fn has_valid_spi_size(&self) -> bool {
        match self.protocol {
            ProtocolId::IKE => self.spi_size == 0,
            ProtocolId::AH | ProtocolId::ESP => self.spi_size == 4,
            _ => true,
        }
    }

    /// The ESP SPIs; nothing for other protocols.
    pub fn esp_spis(&self) -> impl Iterator<Item = [u8; 4]> + use<'a> {
        let list = match self.protocol {
            ProtocolId::ESP => self.spis,
            _ => &[],
        };
        list.as_chunks().0.iter().copied()
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        FIXED_LEN + self.spis.len()
    }

    /// Appends the body. Fails if size and SPIs do not fit each other.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let refused = EncodeError::OutOfRange(PayloadType::DELETE);
        let size = usize::from(self.spi_size);
        let count = self.spis.len().checked_div(size).unwrap_or(0);
        if !self.has_valid_spi_size() || count * size != self.spis.len() {
            return Err(refused);
        }
        let count = u16::try_from(count).map_err(|_| refused)?;
        out.extend_from_slice(&[self.protocol.0, self.spi_size]);
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(self.spis);
        Ok(())
    }
}
