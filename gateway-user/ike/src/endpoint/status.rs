//! What operators see of live IKE SAs.

use std::net::SocketAddr;

use gateway_common::{slot::Slot, time::Instant};

use crate::mark::Marks;
use crate::output::TrafficSelector;

/// An established IKE SA. Names no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaStatus {
    /// Name of the connection.
    pub connection: String,
    /// Our IKE SPI, network order.
    pub local_spi: [u8; 8],
    /// The peer's IKE SPI, network order.
    pub remote_spi: [u8; 8],
    /// Its slot.
    pub slot: Slot,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Our identity as text.
    pub local_id: String,
    /// The peer's identity as text.
    pub remote_id: String,
    /// Negotiated transforms, `AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519`.
    pub proposal: String,
    /// When IKE_AUTH (or the rekey that made it) completed.
    pub established_at: Instant,
    /// Whether a NAT was found on either side.
    pub nat: bool,
    /// Whether we are its original initiator (RFC 7296 §2.2).
    pub initiator: bool,
    /// When we rekey it; `None`: never.
    pub rekey_at: Option<Instant>,
    /// When we replace it by one that is authenticated anew; `None`: never.
    pub reauth_at: Option<Instant>,
    /// Its CHILD_SAs.
    pub children: Vec<ChildStatus>,
}

/// A CHILD_SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildStatus {
    /// Name of the child.
    pub name: String,
    /// Inbound SPI, network order.
    pub spi_in: [u8; 4],
    /// Outbound SPI, network order.
    pub spi_out: [u8; 4],
    /// Negotiated transforms, `AES_GCM_16-128`.
    pub proposal: String,
    /// Our side's selectors.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side's selectors.
    pub remote_ts: Vec<TrafficSelector>,
    /// Marks of its packets.
    pub marks: Marks,
    /// Whether ESP goes in UDP.
    pub encap: bool,
    /// When the kernel confirmed it.
    pub installed_at: Instant,
    /// When we rekey it; `None`: never.
    pub rekey_at: Option<Instant>,
    /// When it ends.
    pub expires_at: Instant,
}
