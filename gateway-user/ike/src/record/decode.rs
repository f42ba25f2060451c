//! Octets → record. Total: whatever the octets, a record or an error.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use gateway_common::slot::Slot;

use super::tlv::{Reader, Unknown};
use super::{
    CachedResponse, ChildRecord, ChildState, Contact, IkeSaRecord, NatState, OutstandingRequest,
    PeerFollowUp, RecordError, Role, TransportState, VERSION, child_kind, kind,
};
use crate::crypto::{Encryption, Integrity, KeyExchangeMethod, Prf};
use crate::identity::Identity;
use crate::keys::{IkeKeys, SkD, SkE, SkP};
use crate::mark::{Mark, Marks};
use crate::output::{ChildSa, Path, Quota, TrafficSelector};
use crate::proposal::{AdditionalKes, IkeProposal, MAX_ADDITIONAL_KES};
use crate::secret::SecretBytes;
use crate::wire::IdType;

/// Values by type; each can be taken once.
pub(super) struct Fields<'a> {
    values: BTreeMap<u16, Reader<'a>>,
}

impl<'a> Fields<'a> {
    /// Sorts the TLVs of `reader`. Those of the types `lists` may come more than once and are
    /// returned in order.
    pub(super) fn read<const N: usize>(
        mut reader: Reader<'a>,
        lists: [u16; N],
    ) -> Result<(Self, [Vec<Reader<'a>>; N]), RecordError> {
        let mut values = BTreeMap::new();
        let mut listed = [const { Vec::new() }; N];
        while !reader.is_empty() {
            let (kind, value) = reader.tlv()?;
            if let Some(list) = lists.iter().zip(&mut listed).find(|(k, _)| **k == kind) {
                list.1.push(value);
            } else if values.insert(kind, value).is_some() {
                return Err(RecordError::Duplicate(kind));
            }
        }
        Ok((Self { values }, listed))
    }

    pub(super) fn optional(&mut self, kind: u16) -> Option<Reader<'a>> {
        self.values.remove(&kind)
    }

    /// Reads a mandatory value to its end.
    pub(super) fn take<T>(
        &mut self,
        kind: u16,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, RecordError>,
    ) -> Result<T, RecordError> {
        let mut reader = self.optional(kind).ok_or(RecordError::Missing(name))?;
        let value = read(&mut reader)?;
        reader.end(name)?;
        Ok(value)
    }

    /// Reads a value that may be absent.
    pub(super) fn maybe<T>(
        &mut self,
        kind: u16,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, RecordError>,
    ) -> Result<Option<T>, RecordError> {
        if self.values.contains_key(&kind) {
            self.take(kind, name, read).map(Some)
        } else {
            Ok(None)
        }
    }

    fn secret(&mut self, kind: u16, name: &'static str) -> Result<SecretBytes, RecordError> {
        self.take(kind, name, |r| Ok(SecretBytes::from(r.rest())))
    }

    /// What is left, by type.
    fn unknown(self) -> Vec<Unknown> {
        self.values
            .into_iter()
            .map(|(kind, mut value)| Unknown {
                kind,
                value: SecretBytes::from(value.rest()),
            })
            .collect()
    }
}

impl IkeSaRecord {
    /// Reads what [`IkeSaRecord::encode`] wrote, in this release or another.
    ///
    /// # Errors
    /// [`RecordError`]; nothing of the octets is in it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let lists = [kind::CHILD, kind::WANTED, kind::PEER_ADDRESS];
        let (mut fields, [children, wanted, addresses]) = Fields::read(reader, lists)?;
        let (local_spi, remote_spi) =
            fields.take(kind::SPIS, "SPIs", |r| Ok((r.array()?, r.array()?)))?;
        let slot = fields.take(kind::SLOT, "slot", |r| r.u8().map(Slot))?;
        let connection = fields.take(kind::CONNECTION, "connection", Reader::text)?;
        let children = children
            .into_iter()
            .map(|child| decode_child(child, &connection, slot))
            .collect::<Result<_, _>>()?;
        let (next_request, expected_request, next_iv) =
            fields.take(kind::COUNTERS, "counters", |r| {
                Ok((r.u32()?, r.u32()?, r.u64()?))
            })?;
        let proposal = proposal(&mut fields)?;
        Ok(Self {
            local_spi,
            remote_spi,
            role: fields.take(kind::ROLE, "role", role)?,
            slot,
            children,
            local_id: fields.take(kind::LOCAL_ID, "local identity", identity)?,
            remote_id: fields.take(kind::REMOTE_ID, "remote identity", identity)?,
            path: fields.take(kind::PATH, "path", path)?,
            nat: fields.take(kind::NAT, "NAT state", nat)?,
            keys: keys(&mut fields, proposal)?,
            proposal,
            next_iv,
            next_request,
            expected_request,
            last_response: fields
                .optional(kind::LAST_RESPONSE)
                .map(last_response)
                .transpose()?,
            outstanding: fields
                .optional(kind::OUTSTANDING)
                .map(|reader| OutstandingRequest::decode(reader, (&connection, slot)))
                .transpose()?,
            follow_ups: fields
                .maybe(kind::FOLLOW_UPS, "additional key exchanges", |r| {
                    PeerFollowUp::decode_all(r, (&connection, slot))
                })?
                .unwrap_or_default(),
            replaced: fields.optional(kind::REPLACED).is_some(),
            closing: fields.optional(kind::CLOSING).is_some(),
            predecessor: fields.maybe(kind::PREDECESSOR, "predecessor", Reader::array)?,
            peer_syncs: fields.optional(kind::PEER_SYNCS).is_some(),
            peer_synced: fields.maybe(kind::PEER_SYNCED, "synchronised id", Reader::u32)?,
            transport: TransportState::decode(&mut fields, addresses)?,
            age: fields.take(kind::AGE, "age", Reader::duration)?,
            negotiated_in: fields.maybe(
                kind::NEGOTIATED_IN,
                "time of negotiation",
                Reader::duration,
            )?,
            rekey_after: fields.maybe(kind::REKEY_AFTER, "soft lifetime", Reader::duration)?,
            reauth_after: fields.maybe(
                kind::REAUTH_AFTER,
                "time of reauthentication",
                Reader::duration,
            )?,
            expires_after: fields.maybe(kind::EXPIRES_AFTER, "hard lifetime", Reader::duration)?,
            wanted: wanted
                .into_iter()
                .map(|mut name| name.text())
                .collect::<Result<_, _>>()?,
            contact: fields.maybe(kind::CONTACT, "contact", contact)?,
            closed: fields.maybe(kind::CLOSED, "time to linger", Reader::duration)?,
            connection,
            unknown: fields.unknown(),
        })
    }
}

fn contact(reader: &mut Reader<'_>) -> Result<Contact, RecordError> {
    Ok(if flag(reader)? {
        Contact::Initial
    } else {
        Contact::Further
    })
}

pub(super) fn decode_child(
    reader: Reader<'_>,
    connection: &str,
    slot: Slot,
) -> Result<ChildRecord, RecordError> {
    let (mut fields, []) = Fields::read(reader, [])?;
    let (spi_in, spi_out) = fields.take(child_kind::SPIS, "child SPIs", |r| {
        Ok((r.array()?, r.array()?))
    })?;
    let (local, remote) = fields.take(child_kind::ADDRESSES, "child addresses", |r| {
        Ok((r.address()?, r.address()?))
    })?;
    let encap = fields
        .optional(child_kind::ENCAP)
        .map(|mut r| {
            let ports = (r.u16()?, r.u16()?);
            r.end("encapsulation ports").map(|()| ports)
        })
        .transpose()?;
    let (cipher, esn) = fields.take(child_kind::TRANSFORMS, "child algorithms", |r| {
        Ok(((r.u16()?, r.u16()?), flag(r)?))
    })?;
    let encryption = encryption(&mut fields, cipher, child_kind::INTEGRITY)?;
    let (if_id_in, if_id_out) = fields.take(child_kind::IF_IDS, "interface ids", |r| {
        Ok((r.u32()?, r.u32()?))
    })?;
    let sa = ChildSa {
        name: fields.take(child_kind::NAME, "child name", Reader::text)?,
        connection: connection.to_owned(),
        slot,
        spi_in,
        spi_out,
        local,
        remote,
        encap,
        encryption,
        key_in: keymat(&mut fields, child_kind::KEY_IN, encryption)?,
        key_out: keymat(&mut fields, child_kind::KEY_OUT, encryption)?,
        esn,
        replay_window: fields.take(child_kind::REPLAY_WINDOW, "replay window", Reader::u32)?,
        local_ts: fields.take(child_kind::LOCAL_TS, "local selectors", selectors)?,
        remote_ts: fields.take(child_kind::REMOTE_TS, "remote selectors", selectors)?,
        if_id_in,
        if_id_out,
        marks: fields
            .maybe(child_kind::MARKS, "marks", marks)?
            .unwrap_or_default(),
        hard_lifetime_seconds: fields.take(child_kind::LIFETIME, "lifetime", Reader::u64)?,
        quota: fields
            .maybe(child_kind::QUOTA, "quota", quota)?
            .unwrap_or_default(),
    };
    Ok(ChildRecord {
        sa,
        age: fields.take(child_kind::AGE, "child age", Reader::duration)?,
        rekey_after: fields.maybe(
            child_kind::REKEY_AFTER,
            "child soft lifetime",
            Reader::duration,
        )?,
        state: fields
            .maybe(child_kind::STATE, "child state", child_state)?
            .unwrap_or_default(),
        unknown: fields.unknown(),
    })
}

fn marks(reader: &mut Reader<'_>) -> Result<Marks, RecordError> {
    let inbound_sa = flag(reader)?;
    let mut mark = || Ok(Mark::new(reader.u32()?, reader.u32()?));
    Ok(Marks {
        inbound: mark()?,
        outbound: mark()?,
        set_in: mark()?,
        set_out: mark()?,
        inbound_sa,
    })
}

fn quota(reader: &mut Reader<'_>) -> Result<Quota, RecordError> {
    Ok(Quota {
        soft_bytes: reader.u64()?,
        hard_bytes: reader.u64()?,
        soft_packets: reader.u64()?,
        hard_packets: reader.u64()?,
    })
}

fn keymat(
    fields: &mut Fields<'_>,
    kind: u16,
    encryption: Encryption,
) -> Result<SecretBytes, RecordError> {
    let key = fields.secret(kind, "child key")?;
    exact(key, encryption.keymat_len(), "child key")
}

/// A key of the wrong length would only be noticed when it is first used.
fn exact(secret: SecretBytes, len: usize, name: &'static str) -> Result<SecretBytes, RecordError> {
    if secret.len() == len {
        Ok(secret)
    } else {
        Err(RecordError::Value(name))
    }
}

pub(super) fn keys(fields: &mut Fields<'_>, proposal: IkeProposal) -> Result<IkeKeys, RecordError> {
    let prf = proposal.prf.output_len();
    let encryption = proposal.encryption.keymat_len();
    let mut key = |kind, len, name| exact(fields.secret(kind, name)?, len, name);
    Ok(IkeKeys {
        d: SkD::from_secret(key(kind::SK_D, prf, "SK_d")?),
        ei: SkE::from_secret(key(kind::SK_EI, encryption, "SK_ei")?),
        er: SkE::from_secret(key(kind::SK_ER, encryption, "SK_er")?),
        pi: SkP::from_secret(key(kind::SK_PI, prf, "SK_pi")?),
        pr: SkP::from_secret(key(kind::SK_PR, prf, "SK_pr")?),
    })
}

fn role(reader: &mut Reader<'_>) -> Result<Role, RecordError> {
    match reader.u8()? {
        1 => Ok(Role::Initiator),
        2 => Ok(Role::Responder),
        _ => Err(RecordError::Value("role")),
    }
}

pub(super) fn nat(reader: &mut Reader<'_>) -> Result<NatState, RecordError> {
    let flags = reader.u8()?;
    if flags > 3 {
        return Err(RecordError::Value("NAT state"));
    }
    Ok(NatState {
        local: flags & 1 != 0,
        remote: flags & 2 != 0,
    })
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, RecordError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(RecordError::Value("flag")),
    }
}

fn child_state(reader: &mut Reader<'_>) -> Result<ChildState, RecordError> {
    match reader.u8()? {
        1 => Ok(ChildState::Replaced),
        2 => Ok(ChildState::Closing),
        _ => Err(RecordError::Value("child state")),
    }
}

fn identity(reader: &mut Reader<'_>) -> Result<Identity, RecordError> {
    let id_type = reader.u8()?;
    Identity::from_payload(IdType(id_type), reader.rest())
        .map_err(|_| RecordError::Value("identity"))
}

pub(super) fn path(reader: &mut Reader<'_>) -> Result<Path, RecordError> {
    Ok(Path::new(socket(reader)?, socket(reader)?))
}

fn socket(reader: &mut Reader<'_>) -> Result<SocketAddr, RecordError> {
    Ok(SocketAddr::new(reader.address()?, reader.u16()?))
}

/// From transform id and key length, and the integrity algorithm beside them.
fn encryption(
    fields: &mut Fields<'_>,
    cipher: (u16, u16),
    integrity: u16,
) -> Result<Encryption, RecordError> {
    let integrity = fields.maybe(integrity, "integrity algorithm", |r| {
        Integrity::from_transform_id(r.u16()?).ok_or(RecordError::Value("integrity algorithm"))
    })?;
    Encryption::all()
        .find(|one| (one.transform_id(), one.key_bits()) == cipher && one.integrity() == integrity)
        .ok_or(RecordError::Value("encryption algorithm"))
}

/// The algorithms of an IKE SA.
pub(super) fn proposal(fields: &mut Fields<'_>) -> Result<IkeProposal, RecordError> {
    let (cipher, prf, ke) = fields.take(kind::TRANSFORMS, "algorithms", |r| {
        Ok(((r.u16()?, r.u16()?), r.u16()?, r.u16()?))
    })?;
    let additional = fields.maybe(kind::ADDITIONAL_KES, "additional key exchanges", |r| {
        let mut methods = [None; MAX_ADDITIONAL_KES];
        for method in &mut methods {
            *method = match r.u16()? {
                0 => None,
                id => Some(key_exchange_method(id)?),
            };
        }
        Ok(AdditionalKes::new(methods))
    })?;
    Ok(IkeProposal {
        encryption: encryption(fields, cipher, kind::INTEGRITY)?,
        prf: Prf::from_transform_id(prf).ok_or(RecordError::Value("PRF"))?,
        ke: key_exchange_method(ke)?,
        additional: additional.unwrap_or_default(),
    })
}

pub(super) fn key_exchange_method(id: u16) -> Result<KeyExchangeMethod, RecordError> {
    KeyExchangeMethod::from_transform_id(id).ok_or(RecordError::Value("key exchange method"))
}

fn last_response(mut reader: Reader<'_>) -> Result<CachedResponse, RecordError> {
    Ok(CachedResponse {
        message_id: reader.u32()?,
        request_digest: reader.array()?,
        bytes: reader.rest().into(),
    })
}

fn selectors(reader: &mut Reader<'_>) -> Result<Vec<TrafficSelector>, RecordError> {
    let mut list = Vec::new();
    while !reader.is_empty() {
        list.push(TrafficSelector {
            protocol: reader.u8()?,
            start_port: reader.u16()?,
            end_port: reader.u16()?,
            start: reader.address()?,
            end: reader.address()?,
        });
    }
    Ok(list)
}
