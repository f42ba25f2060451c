//! Proposals (RFC 7296 §3.3.1).

use super::transform::malformed;
use super::{EncodeError, Malformation, PayloadType, Transform, TransformPacket, WireError};

/// Octets of a proposal's fixed fields.
const FIXED_LEN: usize = 8;

const MORE_PROPOSALS: u8 = 2;

code_points! {
    /// Security Protocol Identifiers (RFC 7296 §3.3.1).
    ProtocolId(u8) {
        /// In notifications about no SA.
        NONE = 0,
        /// IKE.
        IKE = 1,
        /// Authentication Header.
        AH = 2,
        /// Encapsulating Security Payload.
        ESP = 3,
    }
}

/// A view of one proposal, from its "Last Substruc" field on.
#[derive(Clone, Copy, Debug)]
pub struct ProposalPacket<'a> {
    fixed: &'a [u8; FIXED_LEN],
    spi: &'a [u8],
    transforms: &'a [u8],
}

impl<'a> ProposalPacket<'a> {
    /// Cuts the first proposal off `bytes`. Its Last Substruc field must say whether it is the last
    /// one in there.
    pub fn split_checked(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        let fixed: &[u8; FIXED_LEN] = bytes
            .first_chunk()
            .ok_or(malformed(Malformation::TooShort))?;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let (whole, rest) = bytes
            .split_at_checked(length)
            .ok_or(malformed(Malformation::InnerLength))?;
        let inside = whole
            .get(FIXED_LEN..)
            .ok_or(malformed(Malformation::InnerLength))?;
        let (spi, transforms) = inside
            .split_at_checked(usize::from(fixed[6]))
            .ok_or(malformed(Malformation::SpiSize))?;
        let expected = if rest.is_empty() { 0 } else { MORE_PROPOSALS };
        if fixed[0] != expected {
            return Err(malformed(Malformation::LastSubstructure));
        }
        let packet = Self {
            fixed,
            spi,
            transforms,
        };
        Ok((packet, rest))
    }

    /// Proposal Num.
    pub fn number(&self) -> u8 {
        self.fixed[4]
    }

    /// Protocol ID.
    pub fn protocol(&self) -> ProtocolId {
        ProtocolId(self.fixed[5])
    }

    /// Num Transforms, as the sender says.
    pub fn transform_count(&self) -> u8 {
        self.fixed[7]
    }

    /// The sender's SPI, 0–255 octets.
    pub fn spi(&self) -> &'a [u8] {
        self.spi
    }

    /// The transforms, not yet checked.
    pub fn transforms(&self) -> &'a [u8] {
        self.transforms
    }
}

/// A proposal: one protocol, and for each type of transform the alternatives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// In an offer 1, 2, 3, …; in an answer that of the chosen one.
    pub number: u8,
    /// IKE, AH, ESP, or something to skip.
    pub protocol: ProtocolId,
    /// The sender's SPI: none in the initial IKE SA, 8 octets when an IKE SA is rekeyed, 4 for AH
    /// and ESP. Other sizes are kept, for the negotiation to skip; at most 255 octets.
    pub spi: Vec<u8>,
    /// At most 255, in the order of the packet.
    pub transforms: Vec<Transform>,
}

impl Proposal {
    /// The SPI if the protocol is ESP and it has four octets.
    pub fn esp_spi(&self) -> Option<[u8; 4]> {
        match self.protocol {
            ProtocolId::ESP => self.spi.as_slice().try_into().ok(),
            _ => None,
        }
    }

    /// The SPI if the protocol is IKE and it has eight octets.
    pub fn ike_spi(&self) -> Option<[u8; 8]> {
        match self.protocol {
            ProtocolId::IKE => self.spi.as_slice().try_into().ok(),
            _ => None,
        }
    }

    /// Fails if the transforms are broken or their number is not what the packet says.
    pub fn parse(packet: &ProposalPacket<'_>) -> Result<Self, WireError> {
        let mut transforms = Vec::new();
        let mut rest = packet.transforms();
        while !rest.is_empty() {
            if transforms.len() >= usize::from(packet.transform_count()) {
                return Err(malformed(Malformation::Count));
            }
            let (transform, tail) = TransformPacket::split_checked(rest)?;
            transforms.push(Transform::parse(&transform)?);
            rest = tail;
        }
        if transforms.len() != usize::from(packet.transform_count()) {
            return Err(malformed(Malformation::Count));
        }
        Ok(Self {
            number: packet.number(),
            protocol: packet.protocol(),
            spi: packet.spi().to_vec(),
            transforms,
        })
    }

    /// Octets of the proposal.
    pub fn buffer_len(&self) -> usize {
        let transforms: usize = self.transforms.iter().map(Transform::buffer_len).sum();
        FIXED_LEN + self.spi.len() + transforms
    }

    /// Appends the proposal; `last` says whether it is the payload's last one. Fails if SPI,
    /// transforms or the whole are too many for their fields.
    pub fn encode(&self, last: bool, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let refused = EncodeError::OutOfRange(PayloadType::SA);
        let length = u16::try_from(self.buffer_len()).map_err(|_| refused)?;
        let spi_size = u8::try_from(self.spi.len()).map_err(|_| refused)?;
        let count = u8::try_from(self.transforms.len()).map_err(|_| refused)?;
        out.extend_from_slice(&[if last { 0 } else { MORE_PROPOSALS }, 0]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[self.number, self.protocol.0, spi_size, count]);
        out.extend_from_slice(&self.spi);
        for (index, transform) in self.transforms.iter().enumerate() {
            transform.encode(index + 1 == self.transforms.len(), out)?;
        }
        Ok(())
    }
}
