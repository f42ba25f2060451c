//! What a responder knows between IKE_SA_INIT and IKE_AUTH, for another member that goes on with it.

use std::fmt;
use std::time::Duration;

use gateway_common::slot::Slot;

use super::decode::{Fields, keys, nat, path, proposal};
use super::encode::{encode_keys, encode_proposal, socket};
use super::tlv::{Reader, Writer, nanos};
use super::{NatState, RecordError, TransportState, VERSION, kind, negotiation_kind};
use crate::keys::IkeKeys;
use crate::output::Path;
use crate::proposal::IkeProposal;
use crate::secret::SecretBytes;

/// A half-open IKE SA that a peer has begun (RFC 7296 §1.2): IKE_SA_INIT is answered, and nothing has
/// come since. Times are ages, because members share no clock.
#[derive(Clone, PartialEq, Eq)]
pub struct NegotiationRecord {
    /// Our SPI, network order.
    pub local_spi: [u8; 8],
    /// The peer's.
    pub remote_spi: [u8; 8],
    /// Its slot.
    pub slot: Slot,
    /// Where the request came from.
    pub path: Path,
    /// Whether there is a NAT on the way.
    pub nat: NatState,
    /// The algorithms.
    pub proposal: IkeProposal,
    /// The keys that follow from the first key exchange.
    pub keys: IkeKeys,
    /// What both sides have announced.
    pub transport: TransportState,
    /// Time since the request came.
    pub age: Duration,
    /// Time until it is given up.
    pub remaining: Duration,
    /// The peer's IKE_SA_INIT request that was answered.
    pub request: Box<[u8]>,
    /// Our response.
    pub response: Box<[u8]>,
}

/// Without the keys.
impl fmt::Debug for NegotiationRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NegotiationRecord")
            .field("local_spi", &self.local_spi)
            .field("remote_spi", &self.remote_spi)
            .field("slot", &self.slot)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl NegotiationRecord {
    /// The record as octets. They contain keys, so they travel only sealed.
    pub fn encode(&self) -> SecretBytes {
        let mut out = Writer::with_capacity(1024 + self.request.len() + self.response.len());
        out.raw(&[VERSION]);
        out.tlv(kind::SPIS, &[&self.local_spi, &self.remote_spi]);
        out.tlv(kind::SLOT, &[&[self.slot.0]]);
        let (local, remote) = (self.path.local, self.path.remote);
        out.tlv(kind::PATH, &[&socket(local), &socket(remote)]);
        out.tlv(kind::NAT, &[&[self.nat.flags()]]);
        encode_proposal(&mut out, &self.proposal);
        encode_keys(&mut out, &self.keys);
        self.transport.encode(&mut out);
        out.tlv(kind::AGE, &[&nanos(self.age)]);
        out.tlv(negotiation_kind::REMAINING, &[&nanos(self.remaining)]);
        out.tlv(negotiation_kind::REQUEST, &[&self.request]);
        out.tlv(negotiation_kind::RESPONSE, &[&self.response]);
        out.finish()
    }

    /// Reads what [`NegotiationRecord::encode`] wrote. What a newer release has added is ignored.
    ///
    /// # Errors
    /// [`RecordError`]; nothing of the octets is in it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let (mut fields, [addresses]) = Fields::read(reader, [kind::PEER_ADDRESS])?;
        let (local_spi, remote_spi) =
            fields.take(kind::SPIS, "SPIs", |r| Ok((r.array()?, r.array()?)))?;
        let proposal = proposal(&mut fields)?;
        let message = |r: &mut Reader<'_>| Ok(r.rest().into());
        Ok(Self {
            local_spi,
            remote_spi,
            slot: fields.take(kind::SLOT, "slot", |r| r.u8().map(Slot))?,
            path: fields.take(kind::PATH, "path", path)?,
            nat: fields.take(kind::NAT, "NAT state", nat)?,
            keys: keys(&mut fields, proposal)?,
            proposal,
            transport: TransportState::decode(&mut fields, addresses)?,
            age: fields.take(kind::AGE, "age", Reader::duration)?,
            remaining: fields.take(
                negotiation_kind::REMAINING,
                "remaining time",
                Reader::duration,
            )?,
            request: fields.take(negotiation_kind::REQUEST, "request", message)?,
            response: fields.take(negotiation_kind::RESPONSE, "response", message)?,
        })
    }
}
