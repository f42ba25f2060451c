//! The outstanding request in a record: its octets, and what its response will need.
//!
//! Nonces, offers and public values are in the octets, which the owner of the keys can open; only
//! private values and what happened meanwhile stand beside them.

use gateway_common::slot::Slot;

use super::decode::Fields;
use super::encode::socket;
use super::tlv::{Reader, Writer};
use super::{FollowUp, RecordError, request_kind};
use crate::crypto::KeyExchangeMethod;
use crate::output::Path;
use crate::secret::SecretBytes;

/// A request of ours that waits for its response. Whoever resumes the IKE SA sends the same octets
/// again (RFC 7296 §2.1) and can make use of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutstandingRequest {
    /// Its Message ID.
    pub message_id: u32,
    /// The request, without non-ESP marker. One in fragments (RFC 7383): all of its messages, one
    /// after the other.
    pub bytes: Box<[u8]>,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An empty INFORMATIONAL: is the peer alive? (RFC 7296 §2.4)
    Liveness,
    /// Deletes the IKE SA (RFC 7296 §1.4.1).
    CloseIke,
    /// Deletes CHILD_SAs, named by our inbound SPIs, network order.
    CloseChildren(Vec<[u8; 4]>),
    /// Makes a CHILD_SA, or the successor of one (RFC 7296 §1.3.1, §1.3.3).
    Child(ChildOffer),
    /// Makes the successor of the IKE SA (RFC 7296 §1.3.2).
    RekeyIke(IkeOffer),
    /// Is the peer where it says to be? With the COOKIE2, and where it was sent (RFC 4555 §3.7).
    VerifyPath {
        /// What the peer has to copy.
        cookie: [u8; 16],
        /// The path that it proves.
        path: Path,
    },
    /// UPDATE_SA_ADDRESSES of ours, as original initiator (RFC 4555 §3.5).
    UpdateAddresses {
        /// What the peer has to copy.
        cookie: [u8; 16],
        /// The path that is to be used.
        path: Path,
    },
    /// Sends the peer to another gateway (RFC 5685 §5).
    Redirect,
    /// Tells the peer our Message IDs; with the nonce of it (RFC 6311 §5).
    SyncMessageIds([u8; 4]),
}

/// A key exchange of which the peer's half is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyExchangeState {
    /// Which.
    pub method: KeyExchangeMethod,
    /// What [`crate::crypto::KeyExchange::export`] gave.
    pub private: SecretBytes,
}

/// The peer's rekeying of what we are rekeying (RFC 7296 §2.8.1, §2.8.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival<S> {
    /// Our SPI of the SA that the peer's exchange made.
    pub spi: S,
    /// The lower one of that exchange's nonces.
    pub lowest_nonce: Vec<u8>,
}

/// An offered CHILD_SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildOffer {
    /// Its configured name.
    pub name: String,
    /// Our inbound SPI, network order.
    pub spi_in: [u8; 4],
    /// Our inbound SPI of the CHILD_SA that it replaces.
    pub rekeys: Option<[u8; 4]>,
    /// Its own key exchange, if it offers one; with additional ones, the one that is under way.
    pub ke: Option<KeyExchangeState>,
    /// The peer rekeyed the same CHILD_SA meanwhile.
    pub rival: Option<Rival<[u8; 4]>>,
    /// SPIs of the peer's that it deleted meanwhile and that we do not know: perhaps that of this
    /// CHILD_SA, whose response is late.
    pub deleted: Vec<[u8; 4]>,
    /// CREATE_CHILD_SA is answered, and the request is one of the IKE_FOLLOWUP_KE exchanges after it
    /// (RFC 9370 §2.2.4).
    pub follow_up: Option<Box<FollowUp>>,
}

/// An offered successor of the IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeOffer {
    /// Our SPI of it, network order.
    pub spi: [u8; 8],
    /// Its key exchange; with additional ones, the one that is under way.
    pub ke: KeyExchangeState,
    /// The peer rekeyed the IKE SA meanwhile.
    pub rival: Option<Rival<[u8; 8]>>,
    /// As [`ChildOffer::follow_up`].
    pub follow_up: Option<Box<FollowUp>>,
}

impl OutstandingRequest {
    pub(super) fn encode(&self) -> SecretBytes {
        let mut out = Writer::with_capacity(self.bytes.len() + 256);
        out.tlv(request_kind::MESSAGE_ID, &[&self.message_id.to_be_bytes()]);
        out.tlv(request_kind::BYTES, &[&self.bytes]);
        let mut purpose = |purpose: u8| out.tlv(request_kind::PURPOSE, &[&[purpose]]);
        match &self.purpose {
            Purpose::Liveness => purpose(1),
            Purpose::CloseIke => purpose(2),
            Purpose::CloseChildren(spis) => {
                purpose(3);
                out.tlv(request_kind::SPIS, &[spis.as_flattened()]);
            }
            Purpose::Child(offer) => {
                // Releases without additional key exchanges must not take one for the other.
                purpose(if offer.follow_up.is_some() { 10 } else { 4 });
                encode_child_offer(&mut out, offer);
                encode_follow_up(&mut out, offer.follow_up.as_deref());
            }
            Purpose::RekeyIke(offer) => {
                purpose(if offer.follow_up.is_some() { 11 } else { 5 });
                encode_follow_up(&mut out, offer.follow_up.as_deref());
                out.tlv(request_kind::SPIS, &[&offer.spi]);
                encode_ke(&mut out, &offer.ke);
                encode_rival(&mut out, offer.rival.as_ref());
            }
            Purpose::SyncMessageIds(nonce) => {
                purpose(6);
                out.tlv(request_kind::NONCE, &[nonce]);
            }
            Purpose::VerifyPath { cookie, path } => {
                purpose(7);
                encode_check(&mut out, cookie, *path);
            }
            Purpose::UpdateAddresses { cookie, path } => {
                purpose(8);
                encode_check(&mut out, cookie, *path);
            }
            Purpose::Redirect => purpose(9),
        }
        out.finish()
    }
}

fn encode_check(out: &mut Writer, cookie: &[u8], path: Path) {
    out.tlv(request_kind::NONCE, &[cookie]);
    let (local, remote) = (socket(path.local), socket(path.remote));
    out.tlv(request_kind::PATH, &[&local, &remote]);
}

fn encode_child_offer(out: &mut Writer, offer: &ChildOffer) {
    out.tlv(request_kind::NAME, &[offer.name.as_bytes()]);
    out.tlv(request_kind::SPIS, &[&offer.spi_in]);
    if let Some(spi) = &offer.rekeys {
        out.tlv(request_kind::REKEYS, &[spi]);
    }
    if let Some(ke) = &offer.ke {
        encode_ke(out, ke);
    }
    encode_rival(out, offer.rival.as_ref());
    if !offer.deleted.is_empty() {
        out.tlv(request_kind::DELETED, &[offer.deleted.as_flattened()]);
    }
}

fn encode_follow_up(out: &mut Writer, follow_up: Option<&FollowUp>) {
    if let Some(follow_up) = follow_up {
        out.tlv(request_kind::FOLLOW_UP, &[follow_up.encode().expose()]);
    }
}

fn encode_ke(out: &mut Writer, ke: &KeyExchangeState) {
    let method = ke.method.transform_id().to_be_bytes();
    out.tlv(request_kind::KEY_EXCHANGE, &[&method, ke.private.expose()]);
}

fn encode_rival<const N: usize>(out: &mut Writer, rival: Option<&Rival<[u8; N]>>) {
    if let Some(rival) = rival {
        out.tlv(request_kind::RIVAL, &[&rival.spi, &rival.lowest_nonce]);
    }
}

impl OutstandingRequest {
    /// Types that this release does not know are left out: the response could not be understood
    /// with half of what it needs, and a newer release says so with a new purpose.
    /// `connection` and `slot` are those of the IKE SA.
    pub(super) fn decode(
        reader: Reader<'_>,
        (connection, slot): (&str, Slot),
    ) -> Result<Self, RecordError> {
        let (mut fields, []) = Fields::read(reader, [])?;
        let message_id = fields.take(request_kind::MESSAGE_ID, NAME, Reader::u32)?;
        let bytes = fields.take(request_kind::BYTES, NAME, |r| Ok(r.rest().into()))?;
        let follow_up = |fields: &mut Fields<'_>| {
            let decode = |r: &mut Reader<'_>| FollowUp::decode(r, (connection, slot));
            let follow_up = fields.take(request_kind::FOLLOW_UP, NAME, decode)?;
            Ok(Some(Box::new(follow_up)))
        };
        let purpose = match fields.take(request_kind::PURPOSE, NAME, Reader::u8)? {
            1 => Purpose::Liveness,
            2 => Purpose::CloseIke,
            3 => Purpose::CloseChildren(spis(&mut fields, request_kind::SPIS)?),
            4 => Purpose::Child(child_offer(&mut fields)?),
            5 => Purpose::RekeyIke(ike_offer(&mut fields)?),
            6 => Purpose::SyncMessageIds(fields.take(request_kind::NONCE, NAME, Reader::array)?),
            7 => {
                let (cookie, path) = check(&mut fields)?;
                Purpose::VerifyPath { cookie, path }
            }
            8 => {
                let (cookie, path) = check(&mut fields)?;
                Purpose::UpdateAddresses { cookie, path }
            }
            9 => Purpose::Redirect,
            10 => Purpose::Child(ChildOffer {
                follow_up: follow_up(&mut fields)?,
                ..child_offer(&mut fields)?
            }),
            11 => Purpose::RekeyIke(IkeOffer {
                follow_up: follow_up(&mut fields)?,
                ..ike_offer(&mut fields)?
            }),
            _ => return Err(RecordError::Value(NAME)),
        };
        Ok(Self {
            message_id,
            bytes,
            purpose,
        })
    }
}

/// What an error calls all of it.
const NAME: &str = "outstanding request";

fn check(fields: &mut Fields<'_>) -> Result<([u8; 16], Path), RecordError> {
    let cookie = fields.take(request_kind::NONCE, NAME, Reader::array)?;
    let path = fields.take(request_kind::PATH, NAME, super::decode::path)?;
    Ok((cookie, path))
}

fn child_offer(fields: &mut Fields<'_>) -> Result<ChildOffer, RecordError> {
    Ok(ChildOffer {
        name: fields.take(request_kind::NAME, NAME, Reader::text)?,
        spi_in: fields.take(request_kind::SPIS, NAME, Reader::array)?,
        rekeys: fields.maybe(request_kind::REKEYS, NAME, Reader::array)?,
        ke: fields.maybe(request_kind::KEY_EXCHANGE, NAME, key_exchange)?,
        rival: fields.maybe(request_kind::RIVAL, NAME, rival)?,
        deleted: spis(fields, request_kind::DELETED)?,
        follow_up: None,
    })
}

fn ike_offer(fields: &mut Fields<'_>) -> Result<IkeOffer, RecordError> {
    Ok(IkeOffer {
        spi: fields.take(request_kind::SPIS, NAME, Reader::array)?,
        ke: fields.take(request_kind::KEY_EXCHANGE, NAME, key_exchange)?,
        rival: fields.maybe(request_kind::RIVAL, NAME, rival)?,
        follow_up: None,
    })
}

fn spis(fields: &mut Fields<'_>, kind: u16) -> Result<Vec<[u8; 4]>, RecordError> {
    let read = |reader: &mut Reader<'_>| match reader.rest().as_chunks() {
        (spis, []) => Ok(spis.to_vec()),
        _ => Err(RecordError::Value(NAME)),
    };
    Ok(fields.maybe(kind, NAME, read)?.unwrap_or_default())
}

fn key_exchange(reader: &mut Reader<'_>) -> Result<KeyExchangeState, RecordError> {
    let id = reader.u16()?;
    Ok(KeyExchangeState {
        method: KeyExchangeMethod::from_transform_id(id).ok_or(RecordError::Value(NAME))?,
        private: SecretBytes::from(reader.rest()),
    })
}

fn rival<const N: usize>(reader: &mut Reader<'_>) -> Result<Rival<[u8; N]>, RecordError> {
    Ok(Rival {
        spi: reader.array()?,
        lowest_nonce: reader.rest().to_vec(),
    })
}
