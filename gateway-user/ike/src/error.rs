//! What can go wrong, split by blame, and the one place where it becomes a NOTIFY.

use crate::crypto::{CryptoError, KeyExchangeMethod};
use crate::proposal::NoProposalChosen;
use crate::selector::TsUnacceptable;
use crate::wire::{Blame, EncodeError, NotifyRepr, NotifyType, ProtocolId, WireError};

/// Why a request cannot be granted. `Display` is one line for the operator: the cause, what was
/// offered and what we would have taken. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IkeError {
    /// The peer broke the protocol.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Both sides are right, and their configurations do not meet.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// We cannot, for now.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// The peer broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// A payload is malformed, missing, comes twice, or is critical and unknown.
    #[error("malformed message: {0}")]
    Wire(#[from] WireError),
    /// The payloads are well formed and do not belong together.
    #[error("malformed message: {0}")]
    Syntax(&'static str),
    /// A key exchange value that no honest peer computes (RFC 6989 §2).
    #[error("malformed message: invalid key exchange value")]
    KeyExchangeValue,
    /// Somebody changed an address that the peer protects (RFC 4555 §3.9).
    #[error("the peer allows no NAT, and its packets do not come from where it sent them")]
    UnexpectedNat,
    /// The peer could not prove who it is, or we do not want to know it (RFC 7296 §2.21.2).
    #[error("authentication failed: {0}")]
    Authentication(String),
}

/// Both sides are right, and their configurations do not meet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No proposal is acceptable.
    #[error("no proposal chosen: the peer offers {offered}; configured: {configured}")]
    NoProposalChosen {
        /// What the peer offered.
        offered: String,
        /// What we would have taken.
        configured: String,
    },
    /// The KE payload is of another method than the chosen proposal (RFC 7296 §1.2, §1.3).
    #[error("key exchange method {got} instead of {}; the peer may retry", wanted.transform_id())]
    InvalidKePayload {
        /// Transform id in the KE payload, 0 if there is none.
        got: u16,
        /// What the peer shall use.
        wanted: KeyExchangeMethod,
    },
    /// Nothing of the proposed traffic is configured (RFC 7296 §2.9).
    #[error(
        "traffic selectors unacceptable: the peer proposes {offered}; configured: {configured}"
    )]
    TsUnacceptable {
        /// What the peer proposed.
        offered: String,
        /// What is configured.
        configured: String,
    },
    /// The CHILD_SA to be rekeyed does not exist (RFC 7296 §2.25).
    #[error("there is no CHILD_SA with outbound SPI {:08x}", u32::from_be_bytes(*spi))]
    ChildSaNotFound {
        /// The SPI as the peer named it: its inbound, our outbound.
        spi: [u8; 4],
    },
    /// What was asked for collides with what we are doing (RFC 7296 §2.25).
    #[error("not now: {0}")]
    TemporaryFailure(&'static str),
    /// An IKE SA with or without CHILD_SA, which the connection excludes (RFC 6023).
    #[error("{0}")]
    Childless(&'static str),
    /// No more CHILD_SAs on this IKE SA (RFC 7296 §1.3).
    #[error("no additional CHILD_SAs: {0}")]
    NoAdditionalSas(&'static str),
    /// An additional key exchange that belongs to nothing that we know, or no longer (RFC 9370
    /// §2.2.4).
    #[error("no CREATE_CHILD_SA exchange waits for this additional key exchange (any more)")]
    StateNotFound,
}

/// We cannot, for now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// The kernel refused the SA pair or its policies, or did not answer.
    #[error("the kernel did not install the CHILD_SA: {0}")]
    Kernel(String),
    /// The cryptographic library failed.
    #[error("cryptographic failure: {0}")]
    Crypto(CryptoError),
    /// A message cannot be put on the wire.
    #[error("cannot encode the answer: {0}")]
    Encode(#[from] EncodeError),
    /// Random draws gave no free SPI.
    #[error("no free SPI found")]
    NoSpi,
    /// The Message IDs of this IKE SA are used up (RFC 7296 §2.2).
    #[error("no Message ID left")]
    NoMessageId,
    /// The configuration lacks what is needed.
    #[error("the configuration does not allow it: {0}")]
    Configuration(&'static str),
}

impl From<NoProposalChosen> for PolicyError {
    fn from(error: NoProposalChosen) -> Self {
        Self::NoProposalChosen {
            offered: error.offered,
            configured: error.accepted,
        }
    }
}

impl From<TsUnacceptable> for PolicyError {
    fn from(error: TsUnacceptable) -> Self {
        Self::TsUnacceptable {
            offered: error.proposed,
            configured: error.configured,
        }
    }
}

impl From<WireError> for IkeError {
    fn from(error: WireError) -> Self {
        Self::Peer(PeerError::Wire(error))
    }
}

impl From<EncodeError> for IkeError {
    fn from(error: EncodeError) -> Self {
        Self::Local(LocalError::Encode(error))
    }
}

impl From<CryptoError> for IkeError {
    fn from(error: CryptoError) -> Self {
        match error {
            CryptoError::InvalidPublicValue => Self::Peer(PeerError::KeyExchangeValue),
            other => Self::Local(LocalError::Crypto(other)),
        }
    }
}

impl IkeError {
    /// Whether the error ends the IKE SA once its NOTIFY is sent, without any DELETE.
    ///
    /// RFC 7296 §2.21.2: in IKE_AUTH "UNSUPPORTED_CRITICAL_PAYLOAD, INVALID_SYNTAX, and
    /// AUTHENTICATION_FAILED notifications are the only ones to cause the IKE SA to be deleted or
    /// not created"; §2.21.3: afterwards only INVALID_SYNTAX is. RFC 6989 §2.5 counts invalid key
    /// exchange values to the latter.
    pub(crate) fn is_fatal(&self, in_ike_auth: bool) -> bool {
        match notify_type(self) {
            NotifyType::INVALID_SYNTAX | NotifyType::AUTHENTICATION_FAILED => true,
            NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD => in_ike_auth,
            _ => false,
        }
    }
}

/// A NOTIFY that carries an error (RFC 7296 §3.10.1), with the octets it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ErrorNotify {
    kind: NotifyType,
    spi: Option<[u8; 4]>,
    data: Vec<u8>,
}

impl ErrorNotify {
    /// The payload.
    pub(crate) fn repr(&self) -> NotifyRepr<'_> {
        match &self.spi {
            // RFC 7296 §3.10: with an SPI, the Protocol ID says which kind of SA it names.
            Some(spi) => NotifyRepr {
                protocol: ProtocolId::ESP,
                spi,
                kind: self.kind,
                data: &self.data,
            },
            None => NotifyRepr::new(self.kind, &self.data),
        }
    }
}

/// The NOTIFY that tells the peer of `error`.
pub(crate) fn notify_for(error: &IkeError) -> ErrorNotify {
    let (spi, data) = match error {
        IkeError::Peer(PeerError::Wire(error)) => (None, error.blame().notify_data()),
        IkeError::Policy(PolicyError::InvalidKePayload { wanted, .. }) => {
            (None, wanted.transform_id().to_be_bytes().to_vec())
        }
        IkeError::Policy(PolicyError::ChildSaNotFound { spi }) => (Some(*spi), Vec::new()),
        _ => (None, Vec::new()),
    };
    ErrorNotify {
        kind: notify_type(error),
        spi,
        data,
    }
}

fn notify_type(error: &IkeError) -> NotifyType {
    match error {
        IkeError::Peer(PeerError::Wire(error)) => match error.blame() {
            // Octets that are not even authentic get no answer and never come here.
            Blame::Silence => NotifyType::INVALID_SYNTAX,
            blame => blame.notify_type().unwrap_or(NotifyType::INVALID_SYNTAX),
        },
        IkeError::Peer(PeerError::Syntax(_) | PeerError::KeyExchangeValue) => {
            NotifyType::INVALID_SYNTAX
        }
        IkeError::Peer(PeerError::UnexpectedNat) => NotifyType::UNEXPECTED_NAT_DETECTED,
        // RFC 6023 §3 names no error of its own; strongSwan answers the same.
        IkeError::Policy(PolicyError::Childless(_)) => NotifyType::INVALID_SYNTAX,
        IkeError::Peer(PeerError::Authentication(_)) => NotifyType::AUTHENTICATION_FAILED,
        IkeError::Policy(PolicyError::NoProposalChosen { .. }) => NotifyType::NO_PROPOSAL_CHOSEN,
        IkeError::Policy(PolicyError::InvalidKePayload { .. }) => NotifyType::INVALID_KE_PAYLOAD,
        IkeError::Policy(PolicyError::TsUnacceptable { .. }) => NotifyType::TS_UNACCEPTABLE,
        IkeError::Policy(PolicyError::ChildSaNotFound { .. }) => NotifyType::CHILD_SA_NOT_FOUND,
        IkeError::Policy(PolicyError::NoAdditionalSas(_)) => NotifyType::NO_ADDITIONAL_SAS,
        IkeError::Policy(PolicyError::TemporaryFailure(_)) => NotifyType::TEMPORARY_FAILURE,
        IkeError::Policy(PolicyError::StateNotFound) => NotifyType::STATE_NOT_FOUND,
        // RFC 7296 §3.10.1: a request "cannot be completed at this time due to a temporary
        // condition"; the peer tries again. NO_ADDITIONAL_SAS would tell it not to.
        IkeError::Local(_) => NotifyType::TEMPORARY_FAILURE,
    }
}
