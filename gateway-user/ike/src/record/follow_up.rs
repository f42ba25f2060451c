//! What CREATE_CHILD_SA has settled before its additional key exchanges (RFC 9370 §2.2.4).

use std::time::Duration;

use gateway_common::slot::Slot;

use super::decode::{Fields, decode_child, key_exchange_method, proposal};
use super::encode::{encode_child, encode_proposal};
use super::tlv::{Reader, Writer, nanos};
use super::{ChildRecord, ChildState, RecordError, follow_up_kind as kind};
use crate::crypto::KeyExchangeMethod;
use crate::output::ChildSa;
use crate::proposal::{IkeProposal, MAX_ADDITIONAL_KES};
use crate::secret::SecretBytes;

/// An SA that CREATE_CHILD_SA has settled but for its keys, which depend on the IKE_FOLLOWUP_KE
/// exchanges as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowUp {
    /// What comes of it.
    pub settled: Settled,
    /// What its keys are made of so far.
    pub inputs: KeyInputs,
    /// The additional key exchanges that are not complete, in order.
    pub pending: Vec<KeyExchangeMethod>,
}

/// What the keys of an SA that CREATE_CHILD_SA makes depend on, beside the IKE SA's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInputs {
    /// Ni and Nr of CREATE_CHILD_SA.
    pub nonces: (Vec<u8>, Vec<u8>),
    /// SK(0), if there is one, and those of the additional key exchanges so far, in order.
    pub shared: Vec<SecretBytes>,
}

/// All of a new SA but its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// A CHILD_SA.
    Child {
        /// With zeros in the place of its keys.
        sa: Box<ChildSa>,
        /// Our inbound SPI of the CHILD_SA that it replaces.
        rekeys: Option<[u8; 4]>,
    },
    /// A successor of the IKE SA.
    Ike {
        /// Our SPI of it.
        local_spi: [u8; 8],
        /// The peer's SPI of it.
        remote_spi: [u8; 8],
        /// Its algorithms.
        proposal: IkeProposal,
    },
}

/// What the peer makes by additional key exchanges, while we wait for the next of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFollowUp {
    /// The content of our last ADDITIONAL_KEY_EXCHANGE, by which the next request is known.
    pub link: [u8; 8],
    /// For how long that is waited for.
    pub left: Duration,
    /// How far it has come.
    pub follow_up: FollowUp,
}

/// What an error calls all of it.
const NAME: &str = "additional key exchange";

impl KeyInputs {
    /// The lower one of the nonces, which decides collisions (RFC 7296 §2.8.1, §2.8.2).
    pub(crate) fn lowest_nonce(&self) -> &[u8] {
        (&self.nonces.0).min(&self.nonces.1)
    }
}

impl FollowUp {
    /// The IKE SA has moved to another slot.
    pub(crate) fn move_to_slot(&mut self, slot: Slot) {
        if let Settled::Child { sa, .. } = &mut self.settled {
            sa.slot = slot;
        }
    }

    pub(super) fn encode(&self) -> SecretBytes {
        let mut out = Writer::with_capacity(1024);
        self.encode_into(&mut out);
        out.finish()
    }

    fn encode_into(&self, out: &mut Writer) {
        out.tlv(kind::NONCE_I, &[&self.inputs.nonces.0]);
        out.tlv(kind::NONCE_R, &[&self.inputs.nonces.1]);
        for shared in &self.inputs.shared {
            out.tlv(kind::SHARED, &[shared.expose()]);
        }
        let pending = self.pending.iter();
        let pending: Vec<_> = pending.map(|m| m.transform_id().to_be_bytes()).collect();
        out.tlv(kind::PENDING, &[pending.as_flattened()]);
        match &self.settled {
            Settled::Child { sa, rekeys } => {
                let child = ChildRecord {
                    sa: (**sa).clone(),
                    age: Duration::ZERO,
                    rekey_after: None,
                    state: ChildState::Current,
                    unknown: Vec::new(),
                };
                out.tlv(kind::CHILD, &[encode_child(&child).expose()]);
                if let Some(spi) = rekeys {
                    out.tlv(kind::REKEYS, &[spi]);
                }
            }
            Settled::Ike {
                local_spi,
                remote_spi,
                proposal,
            } => {
                out.tlv(kind::IKE_SPIS, &[local_spi, remote_spi]);
                encode_proposal(out, proposal);
            }
        }
    }

    /// `within` are connection and slot of the IKE SA.
    pub(super) fn decode(
        reader: &mut Reader<'_>,
        within: (&str, Slot),
    ) -> Result<Self, RecordError> {
        let (mut fields, [shared]) = Fields::read(Reader(reader.rest()), [kind::SHARED])?;
        Self::from_fields(&mut fields, shared, within)
    }

    fn from_fields(
        fields: &mut Fields<'_>,
        shared: Vec<Reader<'_>>,
        (connection, slot): (&str, Slot),
    ) -> Result<Self, RecordError> {
        let octets = |r: &mut Reader<'_>| Ok(r.rest().to_vec());
        let nonce_i = fields.take(kind::NONCE_I, NAME, octets)?;
        let nonce_r = fields.take(kind::NONCE_R, NAME, octets)?;
        let pending: Vec<_> = fields.take(kind::PENDING, NAME, methods)?;
        if shared.len() + pending.len() > 1 + MAX_ADDITIONAL_KES {
            return Err(RecordError::Value(NAME));
        }
        let settled = match fields.optional(kind::CHILD) {
            Some(child) => Settled::Child {
                sa: Box::new(decode_child(child, connection, slot)?.sa),
                rekeys: fields.maybe(kind::REKEYS, NAME, Reader::array)?,
            },
            None => {
                let spis = |r: &mut Reader<'_>| Ok((r.array()?, r.array()?));
                let (local_spi, remote_spi) = fields.take(kind::IKE_SPIS, NAME, spis)?;
                Settled::Ike {
                    local_spi,
                    remote_spi,
                    proposal: proposal(fields)?,
                }
            }
        };
        let shared = shared.into_iter();
        Ok(Self {
            settled,
            inputs: KeyInputs {
                nonces: (nonce_i, nonce_r),
                shared: shared.map(|mut r| SecretBytes::from(r.rest())).collect(),
            },
            pending,
        })
    }
}

fn methods(reader: &mut Reader<'_>) -> Result<Vec<KeyExchangeMethod>, RecordError> {
    let mut methods = Vec::new();
    while !reader.is_empty() {
        methods.push(key_exchange_method(reader.u16()?)?);
    }
    Ok(methods)
}

impl PeerFollowUp {
    /// All of them, one after the other.
    pub(super) fn encode_all(all: &[Self]) -> SecretBytes {
        let mut out = Writer::default();
        for one in all {
            let mut value = Writer::with_capacity(1024);
            value.tlv(kind::LINK, &[&one.link]);
            value.tlv(kind::LEFT, &[&nanos(one.left)]);
            one.follow_up.encode_into(&mut value);
            out.tlv(0, &[value.finish().expose()]);
        }
        out.finish()
    }

    pub(super) fn decode_all(
        reader: &mut Reader<'_>,
        within: (&str, Slot),
    ) -> Result<Vec<Self>, RecordError> {
        let mut all = Vec::new();
        while !reader.is_empty() {
            let (_, value) = reader.tlv()?;
            let (mut fields, [shared]) = Fields::read(value, [kind::SHARED])?;
            all.push(Self {
                link: fields.take(kind::LINK, NAME, Reader::array)?,
                left: fields.take(kind::LEFT, NAME, Reader::duration)?,
                follow_up: FollowUp::from_fields(&mut fields, shared, within)?,
            });
        }
        Ok(all)
    }
}
