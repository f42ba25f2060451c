//! What can be wrong with octets from the network, and who is told.

use super::{NotifyType, PayloadType};
use crate::crypto::CryptoError;

/// Why a message, or a part of it, was refused. Its `Display` is the cause for one log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer octets than an IKE header has.
    #[error("{0} octets are too few for an IKE header")]
    HeaderTruncated(usize),
    /// Another major version than 2 (RFC 7296 §2.5).
    #[error("unsupported IKE major version {0}")]
    MajorVersion(u8),
    /// The Length field and the datagram disagree.
    #[error("the IKE header says {header} octets, the datagram has {datagram}")]
    MessageLength {
        /// The header's Length field.
        header: u32,
        /// Octets that came.
        datagram: usize,
    },
    /// An initiator SPI of zero (RFC 7296 §3.1: it MUST NOT be zero).
    #[error("the initiator's SPI is zero")]
    ZeroInitiatorSpi,
    /// A payload's generic header runs over the end, or its length does, or is below 4.
    #[error("payload {kind} has a bad length: {length} with {available} octets left")]
    PayloadLength {
        /// Type of the payload.
        kind: PayloadType,
        /// Its Payload Length field, 0 if not even that was there.
        length: u16,
        /// Octets left in the message, the generic header included.
        available: usize,
    },
    /// Octets follow the last payload.
    #[error("{0} octets after the last payload")]
    TrailingOctets(usize),
    /// More payloads than [`MAX_PAYLOADS`](super::MAX_PAYLOADS).
    #[error("more payloads than accepted in one message")]
    TooManyPayloads,
    /// The Encrypted payload, or a fragment, is not the last one, or stands inside another.
    #[error("payload {0} at a place where it must not be")]
    Misplaced(PayloadType),
    /// A payload that we do not know has its critical bit set (RFC 7296 §2.5).
    #[error("unknown critical payload {0}")]
    UnsupportedCriticalPayload(PayloadType),
    /// The inside of a payload is wrong.
    #[error("payload {kind}: {cause}")]
    Malformed {
        /// Type of the payload.
        kind: PayloadType,
        /// What is wrong with it.
        cause: Malformation,
    },
    /// A second payload of a type of which a message has at most one.
    #[error("more than one payload {0}")]
    Duplicate(PayloadType),
    /// A payload that the exchange needs is not there.
    #[error("no payload {0}")]
    Missing(PayloadType),
    /// The Encrypted payload is shorter than IV, padding length and integrity check value.
    #[error("an Encrypted payload of {0} octets is too short")]
    EncryptedTooShort(usize),
    /// The Encrypted payload did not verify.
    #[error("Encrypted payload: {0}")]
    Crypto(#[from] CryptoError),
}

/// What is wrong inside a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformation {
    /// Fixed fields run over the end of the payload.
    #[error("too short")]
    TooShort,
    /// Longer than its fields say.
    #[error("octets left over")]
    LeftOver,
    /// A length inside the payload runs over its end or below its minimum.
    #[error("a length field is wrong")]
    InnerLength,
    /// A count does not fit what is there.
    #[error("a count does not match")]
    Count,
    /// "Last Substruc" disagrees with what follows.
    #[error("the last-substructure field is wrong")]
    LastSubstructure,
    /// Nothing where at least one element is required.
    #[error("empty")]
    Empty,
    /// The SPI has a size that its protocol does not have.
    #[error("wrong SPI size")]
    SpiSize,
    /// The length of the data is out of range for its type.
    #[error("data of a wrong length")]
    DataLength,
    /// A range ends before it begins.
    #[error("a range ends before it begins")]
    ReversedRange,
    /// A number outside its range.
    #[error("a number out of range")]
    Number,
    /// Pad Length is greater than what was decrypted.
    #[error("more padding than data")]
    Padding,
}

/// What the sender of a refused request is told (RFC 7296 §2.21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nothing: the message is not authentic, or not even an IKE message.
    Silence,
    /// INVALID_MAJOR_VERSION, without data.
    InvalidMajorVersion,
    /// UNSUPPORTED_CRITICAL_PAYLOAD with the payload type as its one octet of data.
    UnsupportedCriticalPayload(PayloadType),
    /// INVALID_SYNTAX, without data. Only in an encrypted response: RFC 7296 §3.10.1 asks for the
    /// message id and the checksum to be good first.
    InvalidSyntax,
}

impl WireError {
    /// Who is told what. The caller decides whether an answer may be sent at all.
    pub const fn blame(self) -> Blame {
        match self {
            Self::HeaderTruncated(_)
            | Self::MessageLength { .. }
            | Self::ZeroInitiatorSpi
            | Self::EncryptedTooShort(_)
            | Self::Crypto(_) => Blame::Silence,
            // Only a higher version is answered (RFC 7296 §2.5): IKEv1 would not understand it.
            Self::MajorVersion(version) if version < 2 => Blame::Silence,
            Self::MajorVersion(_) => Blame::InvalidMajorVersion,
            Self::UnsupportedCriticalPayload(kind) => Blame::UnsupportedCriticalPayload(kind),
            Self::PayloadLength { .. }
            | Self::TrailingOctets(_)
            | Self::TooManyPayloads
            | Self::Misplaced(_)
            | Self::Malformed { .. }
            | Self::Duplicate(_)
            | Self::Missing(_) => Blame::InvalidSyntax,
        }
    }
}

impl Blame {
    /// The notification, if there is one.
    pub const fn notify_type(self) -> Option<NotifyType> {
        match self {
            Self::Silence => None,
            Self::InvalidMajorVersion => Some(NotifyType::INVALID_MAJOR_VERSION),
            Self::UnsupportedCriticalPayload(_) => Some(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD),
            Self::InvalidSyntax => Some(NotifyType::INVALID_SYNTAX),
        }
    }

    /// The notification's data.
    pub fn notify_data(self) -> Vec<u8> {
        match self {
            Self::UnsupportedCriticalPayload(kind) => vec![kind.0],
            Self::Silence | Self::InvalidMajorVersion | Self::InvalidSyntax => Vec::new(),
        }
    }
}

/// Why a value cannot be put on the wire. Never caused by the peer alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message would exceed [`MAX_MESSAGE_LEN`](super::MAX_MESSAGE_LEN).
    #[error("the message would be longer than 65535 octets")]
    MessageTooLong,
    /// More payloads than [`MAX_PAYLOADS`](super::MAX_PAYLOADS).
    #[error("more payloads than accepted in one message")]
    TooManyPayloads,
    /// A field of this payload cannot hold its value.
    #[error("payload {0} cannot hold its value")]
    OutOfRange(PayloadType),
    /// The IVs under this key are used up.
    #[error("no IV left under this key")]
    NoIv,
    /// The cryptographic library refused.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}
