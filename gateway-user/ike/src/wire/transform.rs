//! Transforms and their attributes (RFC 7296 §3.3.2, §3.3.5).

use super::{EncodeError, Malformation, PayloadType, WireError};

/// Octets of a transform's fixed fields.
const FIXED_LEN: usize = 8;

const ATTRIBUTE_HEADER_LEN: usize = 4;
const ATTRIBUTE_SHORT: u16 = 0x8000;
const KEY_LENGTH: u16 = 14;
const MORE_TRANSFORMS: u8 = 3;

code_points! {
    /// Transform Types (RFC 7296 §3.3.2).
    TransformType(u8) {
        /// Encryption algorithm.
        ENCR = 1,
        /// Pseudorandom function.
        PRF = 2,
        /// Integrity algorithm.
        INTEG = 3,
        /// Key exchange method.
        KE = 4,
        /// Extended sequence numbers: 0 no, 1 yes.
        ESN = 5,
        /// First additional key exchange (RFC 9370).
        ADDKE1 = 6,
        /// Second additional key exchange (RFC 9370).
        ADDKE2 = 7,
        /// Third additional key exchange (RFC 9370).
        ADDKE3 = 8,
        /// Fourth additional key exchange (RFC 9370).
        ADDKE4 = 9,
        /// Fifth additional key exchange (RFC 9370).
        ADDKE5 = 10,
        /// Sixth additional key exchange (RFC 9370).
        ADDKE6 = 11,
        /// Seventh additional key exchange (RFC 9370).
        ADDKE7 = 12,
    }
}

/// Fails a parse of the SA payload.
pub(super) const fn malformed(cause: Malformation) -> WireError {
    WireError::Malformed {
        kind: PayloadType::SA,
        cause,
    }
}

/// An attribute of a transform.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attribute {
    /// Attribute type, 0–32767.
    pub kind: u16,
    /// Its value.
    pub value: AttributeValue,
}

/// The two forms of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttributeValue {
    /// Type/Value: two octets.
    Short(u16),
    /// Type/Length/Value: up to 65,535 octets.
    Long(Vec<u8>),
}

impl Attribute {
    /// Key Length (14), in bits.
    pub const fn key_length(bits: u16) -> Self {
        Self {
            kind: KEY_LENGTH,
            value: AttributeValue::Short(bits),
        }
    }

    /// Cuts one attribute off.
    fn split(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let (&[a, b, c, d], rest) = bytes
            .split_first_chunk()
            .ok_or(malformed(Malformation::TooShort))?;
        let (kind, field) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if kind & ATTRIBUTE_SHORT != 0 {
            let kind = kind & !ATTRIBUTE_SHORT;
            let value = AttributeValue::Short(field);
            return Ok((Self { kind, value }, rest));
        }
        let (value, rest) = rest
            .split_at_checked(usize::from(field))
            .ok_or(malformed(Malformation::InnerLength))?;
        let value = AttributeValue::Long(value.to_vec());
        Ok((Self { kind, value }, rest))
    }

    fn buffer_len(&self) -> usize {
        match &self.value {
            AttributeValue::Short(_) => ATTRIBUTE_HEADER_LEN,
            AttributeValue::Long(value) => ATTRIBUTE_HEADER_LEN + value.len(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let refused = EncodeError::OutOfRange(PayloadType::SA);
        if self.kind & ATTRIBUTE_SHORT != 0 {
            return Err(refused);
        }
        match &self.value {
            AttributeValue::Short(value) => {
                out.extend_from_slice(&(self.kind | ATTRIBUTE_SHORT).to_be_bytes());
                out.extend_from_slice(&value.to_be_bytes());
            }
            AttributeValue::Long(value) => {
                let length = u16::try_from(value.len()).map_err(|_| refused)?;
                out.extend_from_slice(&self.kind.to_be_bytes());
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(value);
            }
        }
        Ok(())
    }
}

/// A view of one transform, from its "Last Substruc" field on.
#[derive(Clone, Copy, Debug)]
pub struct TransformPacket<'a> {
    fixed: &'a [u8; FIXED_LEN],
    attributes: &'a [u8],
}

impl<'a> TransformPacket<'a> {
    /// Cuts the first transform off `bytes`. Its Last Substruc field must say whether it is the
    /// last one in there.
    pub fn split_checked(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        let fixed: &[u8; FIXED_LEN] = bytes
            .first_chunk()
            .ok_or(malformed(Malformation::TooShort))?;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let (whole, rest) = bytes
            .split_at_checked(length)
            .ok_or(malformed(Malformation::InnerLength))?;
        let attributes = whole
            .get(FIXED_LEN..)
            .ok_or(malformed(Malformation::InnerLength))?;
        let expected = if rest.is_empty() { 0 } else { MORE_TRANSFORMS };
        if fixed[0] != expected {
            return Err(malformed(Malformation::LastSubstructure));
        }
        Ok((Self { fixed, attributes }, rest))
    }

    /// Transform Type.
    pub fn kind(&self) -> TransformType {
        TransformType(self.fixed[4])
    }

    /// Transform ID.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }

    /// Transform Attributes, not yet checked.
    pub fn attributes(&self) -> &'a [u8] {
        self.attributes
    }
}

/// A transform. Types, ids and attributes that we do not know are kept, for the negotiation to skip
/// (RFC 7296 §3.3.6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// What it is for.
    pub kind: TransformType,
    /// Which algorithm, in the registry of its type.
    pub id: u16,
    /// In the order of the packet.
    pub attributes: Vec<Attribute>,
}

impl Transform {
    /// Without attributes.
    pub const fn new(kind: TransformType, id: u16) -> Self {
        Self {
            kind,
            id,
            attributes: Vec::new(),
        }
    }

    /// With a key length in bits.
    pub fn with_key_length(kind: TransformType, id: u16, bits: u16) -> Self {
        Self {
            kind,
            id,
            attributes: vec![Attribute::key_length(bits)],
        }
    }

    /// The key length in bits, if the transform has exactly that attribute, once.
    pub fn key_length(&self) -> Option<u16> {
        match self.attributes.as_slice() {
            [
                Attribute {
                    kind: KEY_LENGTH,
                    value: AttributeValue::Short(bits),
                },
            ] => Some(*bits),
            _ => None,
        }
    }

    /// Whether all attributes are known and in their form: none, or one Key Length. A transform
    /// with another attribute must not be chosen (RFC 7296 §3.3.6).
    pub fn has_only_known_attributes(&self) -> bool {
        self.attributes.is_empty() || self.key_length().is_some()
    }

    /// Fails if an attribute runs over the end.
    pub fn parse(packet: &TransformPacket<'_>) -> Result<Self, WireError> {
        let mut attributes = Vec::new();
        let mut rest = packet.attributes();
        while !rest.is_empty() {
            let (attribute, tail) = Attribute::split(rest)?;
            attributes.push(attribute);
            rest = tail;
        }
        Ok(Self {
            kind: packet.kind(),
            id: packet.id(),
            attributes,
        })
    }

    /// Octets of the transform.
    pub fn buffer_len(&self) -> usize {
        FIXED_LEN
            + self
                .attributes
                .iter()
                .map(Attribute::buffer_len)
                .sum::<usize>()
    }

    /// Appends the transform; `last` says whether it is the proposal's last one.
    pub fn encode(&self, last: bool, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u16::try_from(self.buffer_len())
            .map_err(|_| EncodeError::OutOfRange(PayloadType::SA))?;
        out.extend_from_slice(&[if last { 0 } else { MORE_TRANSFORMS }, 0]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[self.kind.0, 0]);
        out.extend_from_slice(&self.id.to_be_bytes());
        self.attributes.iter().try_for_each(|a| a.encode(out))
    }
}
