//! The IKEv2 wire format (RFC 7296 §3, the fragment header of RFC 7383).
//!
//! One file per payload, each with two types. `…Packet<'a>` is a view of octets whose
//! `new_checked` has verified every length and count that its accessors rely on, so that no
//! accessor can fail or panic afterwards. `…Repr` is the parsed value: `parse` takes a packet,
//! `buffer_len` says how many octets the value takes, `encode` appends exactly those.
//!
//! The way in: [`Message::parse`], then [`EncryptedPacket::open`] if the message has an Encrypted
//! payload, then [`Payloads::parse`]. The way out: [`MessageBuilder`], ended by `finish`, `seal` or
//! `seal_within`.
//!
//! # Guarantees
//!
//! Nothing here panics, whatever the octets. Allocation is bounded by the length of the datagram:
//! counts in the packet are checked against the octets that are really there, never used to
//! reserve memory. The largest value, an SA payload of nothing but small transforms, takes at most
//! sixteen times the octets it came from.
//!
//! # Limits
//!
//! [`MAX_MESSAGE_LEN`] octets in a message, [`MAX_PAYLOADS`] payloads in a chain,
//! [`MAX_PROPOSALS`] proposals in an SA payload.

#[macro_use]
mod code_point;

mod auth;
mod builder;
mod cert;
mod chain;
mod delete;
mod encap;
mod encrypted;
mod error;
mod fragment;
mod header;
mod id;
mod ke;
mod message;
mod nonce;
mod notify;
mod notify_type;
mod opaque;
mod payload;
mod payloads;
mod proposal;
mod sa;
mod transform;
mod ts;
mod vendor;

pub use auth::{AuthMethod, AuthPacket, AuthRepr};
pub use builder::MessageBuilder;
pub use cert::{CertEncoding, CertPacket, CertRepr, CertReqRepr};
pub use chain::{Chain, GENERIC_HEADER_LEN, MAX_PAYLOADS, PayloadType, RawPayload};
pub use delete::{DeletePacket, DeleteRepr};
pub use encap::{Encapsulated, NAT_KEEPALIVE, NON_ESP_MARKER, PORT_IKE, PORT_NAT_T};
pub use encrypted::{EncryptedPacket, Opened};
pub use error::{Blame, EncodeError, Malformation, WireError};
pub use fragment::{FragmentPacket, FragmentRepr, messages};
pub use header::{ExchangeType, HEADER_LEN, HeaderPacket, HeaderRepr, MAX_MESSAGE_LEN};
pub use id::{IdPacket, IdRepr, IdType};
pub use ke::{KePacket, KeRepr};
pub use message::{Body, Message};
pub use nonce::{NONCE_MAX_LEN, NONCE_MIN_LEN, NoncePacket, NonceRepr};
pub use notify::{NotifyPacket, NotifyRepr};
pub use notify_type::NotifyType;
pub use opaque::OpaqueRepr;
pub use payload::Payload;
pub use payloads::Payloads;
pub use proposal::{Proposal, ProposalPacket, ProtocolId};
pub use sa::{MAX_PROPOSALS, SaPacket, SaRepr};
pub use transform::{Attribute, AttributeValue, Transform, TransformPacket, TransformType};
pub use ts::{TsPacket, TsRepr, TsType};
pub use vendor::VendorIdRepr;

#[cfg(test)]
mod tests;
