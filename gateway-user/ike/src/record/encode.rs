//! Record → octets.

use std::net::SocketAddr;

use gateway_common::abi::Address;

use super::tlv::{Writer, nanos};
use super::{
    ChildRecord, ChildState, Contact, IkeSaRecord, PeerFollowUp, Role, VERSION, child_kind, kind,
};
use crate::crypto::{Encryption, KeyExchangeMethod};
use crate::identity::Identity;
use crate::keys::IkeKeys;
use crate::mark::Marks;
use crate::output::{ChildSa, Quota, TrafficSelector};
use crate::proposal::IkeProposal;
use crate::secret::SecretBytes;

/// A usual record with one child is about 1 KB; a larger one grows.
const USUAL_LEN: usize = 1536;

impl IkeSaRecord {
    /// The record as octets. They contain keys, so they travel only sealed.
    pub fn encode(&self) -> SecretBytes {
        let mut out = Writer::with_capacity(USUAL_LEN);
        out.raw(&[VERSION]);
        out.tlv(kind::SPIS, &[&self.local_spi, &self.remote_spi]);
        out.tlv(
            kind::ROLE,
            &[&[match self.role {
                Role::Initiator => 1,
                Role::Responder => 2,
            }]],
        );
        out.tlv(kind::SLOT, &[&[self.slot.0]]);
        out.tlv(kind::CONNECTION, &[self.connection.as_bytes()]);
        identity(&mut out, kind::LOCAL_ID, &self.local_id);
        identity(&mut out, kind::REMOTE_ID, &self.remote_id);
        let (local, remote) = (self.path.local, self.path.remote);
        out.tlv(kind::PATH, &[&socket(local), &socket(remote)]);
        out.tlv(kind::NAT, &[&[self.nat.flags()]]);
        self.encode_crypto(&mut out);
        out.tlv(
            kind::COUNTERS,
            &[
                &self.next_request.to_be_bytes(),
                &self.expected_request.to_be_bytes(),
                &self.next_iv.to_be_bytes(),
            ],
        );
        if let Some(last) = &self.last_response {
            let id = last.message_id.to_be_bytes();
            out.tlv(
                kind::LAST_RESPONSE,
                &[&id, &last.request_digest, &last.bytes],
            );
        }
        self.encode_course(&mut out);
        for child in &self.children {
            out.tlv(kind::CHILD, &[encode_child(child).expose()]);
        }
        out.unknown(&self.unknown);
        out.finish()
    }

    /// How far it has come, and what is to become of it.
    fn encode_course(&self, out: &mut Writer) {
        if let Some(outstanding) = &self.outstanding {
            out.tlv(kind::OUTSTANDING, &[outstanding.encode().expose()]);
        }
        for (set, kind) in [
            (self.replaced, kind::REPLACED),
            (self.closing, kind::CLOSING),
            (self.peer_syncs, kind::PEER_SYNCS),
        ] {
            if set {
                out.tlv(kind, &[]);
            }
        }
        if let Some(spi) = &self.predecessor {
            out.tlv(kind::PREDECESSOR, &[spi]);
        }
        if let Some(id) = self.peer_synced {
            out.tlv(kind::PEER_SYNCED, &[&id.to_be_bytes()]);
        }
        if let Some(contact) = self.contact {
            let initial = u8::from(contact == Contact::Initial);
            out.tlv(kind::CONTACT, &[&[initial]]);
        }
        for (after, kind) in [
            (self.rekey_after, kind::REKEY_AFTER),
            (self.reauth_after, kind::REAUTH_AFTER),
            (self.expires_after, kind::EXPIRES_AFTER),
            (self.closed, kind::CLOSED),
            (self.negotiated_in, kind::NEGOTIATED_IN),
        ] {
            if let Some(after) = after {
                out.tlv(kind, &[&nanos(after)]);
            }
        }
        if !self.follow_ups.is_empty() {
            let all = PeerFollowUp::encode_all(&self.follow_ups);
            out.tlv(kind::FOLLOW_UPS, &[all.expose()]);
        }
        self.transport.encode(out);
        for name in &self.wanted {
            out.tlv(kind::WANTED, &[name.as_bytes()]);
        }
        out.tlv(kind::AGE, &[&nanos(self.age)]);
    }

    fn encode_crypto(&self, out: &mut Writer) {
        encode_proposal(out, &self.proposal);
        encode_keys(out, &self.keys);
    }
}

pub(super) fn encode_keys(out: &mut Writer, keys: &IkeKeys) {
    out.tlv(kind::SK_D, &[keys.d.expose()]);
    out.tlv(kind::SK_EI, &[keys.ei.expose()]);
    out.tlv(kind::SK_ER, &[keys.er.expose()]);
    out.tlv(kind::SK_PI, &[keys.pi.expose()]);
    out.tlv(kind::SK_PR, &[keys.pr.expose()]);
}

/// The algorithms of an IKE SA.
pub(super) fn encode_proposal(out: &mut Writer, proposal: &IkeProposal) {
    let [encryption, bits] = encryption(proposal.encryption);
    out.tlv(
        kind::TRANSFORMS,
        &[
            &encryption,
            &bits,
            &proposal.prf.transform_id().to_be_bytes(),
            &proposal.ke.transform_id().to_be_bytes(),
        ],
    );
    integrity(out, kind::INTEGRITY, proposal.encryption);
    if !proposal.additional.is_empty() {
        let ids = proposal.additional.by_type();
        let ids = ids.map(|method| method.map_or(0, KeyExchangeMethod::transform_id));
        let octets = ids.map(u16::to_be_bytes);
        out.tlv(kind::ADDITIONAL_KES, &[octets.as_flattened()]);
    }
}

pub(super) fn encode_child(child: &ChildRecord) -> SecretBytes {
    let ChildSa {
        // Those of the IKE SA.
        connection: _,
        slot: _,
        name,
        spi_in,
        spi_out,
        local,
        remote,
        encap,
        encryption: algorithm,
        key_in,
        key_out,
        esn,
        replay_window,
        local_ts,
        remote_ts,
        if_id_in,
        if_id_out,
        marks,
        hard_lifetime_seconds,
        quota,
    } = &child.sa;
    let mut out = Writer::with_capacity(USUAL_LEN / 2);
    out.tlv(child_kind::NAME, &[name.as_bytes()]);
    out.tlv(child_kind::SPIS, &[spi_in, spi_out]);
    let addresses = (Address::from(*local), Address::from(*remote));
    out.tlv(
        child_kind::ADDRESSES,
        &[&addresses.0.octets, &addresses.1.octets],
    );
    if let Some((ours, theirs)) = encap {
        out.tlv(
            child_kind::ENCAP,
            &[&ours.to_be_bytes(), &theirs.to_be_bytes()],
        );
    }
    let [id, bits] = encryption(*algorithm);
    out.tlv(child_kind::TRANSFORMS, &[&id, &bits, &[u8::from(*esn)]]);
    integrity(&mut out, child_kind::INTEGRITY, *algorithm);
    out.tlv(child_kind::KEY_IN, &[key_in.expose()]);
    out.tlv(child_kind::KEY_OUT, &[key_out.expose()]);
    out.tlv(child_kind::REPLAY_WINDOW, &[&replay_window.to_be_bytes()]);
    out.tlv(child_kind::LOCAL_TS, &[&selectors(local_ts)]);
    out.tlv(child_kind::REMOTE_TS, &[&selectors(remote_ts)]);
    out.tlv(
        child_kind::IF_IDS,
        &[&if_id_in.to_be_bytes(), &if_id_out.to_be_bytes()],
    );
    out.tlv(
        child_kind::LIFETIME,
        &[&hard_lifetime_seconds.to_be_bytes()],
    );
    if *marks != Marks::default() {
        let numbers = [marks.inbound, marks.outbound, marks.set_in, marks.set_out]
            .map(|mark| [mark.value, mark.mask].map(u32::to_be_bytes));
        let numbers = numbers.as_flattened().as_flattened();
        out.tlv(child_kind::MARKS, &[&[u8::from(marks.inbound_sa)], numbers]);
    }
    if *quota != Quota::default() {
        let amounts = [
            quota.soft_bytes,
            quota.hard_bytes,
            quota.soft_packets,
            quota.hard_packets,
        ];
        out.tlv(
            child_kind::QUOTA,
            &[amounts.map(u64::to_be_bytes).as_flattened()],
        );
    }
    out.tlv(child_kind::AGE, &[&nanos(child.age)]);
    if let Some(after) = child.rekey_after {
        out.tlv(child_kind::REKEY_AFTER, &[&nanos(after)]);
    }
    match child.state {
        ChildState::Current => {}
        ChildState::Replaced => out.tlv(child_kind::STATE, &[&[1]]),
        ChildState::Closing => out.tlv(child_kind::STATE, &[&[2]]),
    }
    out.unknown(&child.unknown);
    out.finish()
}

fn identity(out: &mut Writer, kind: u16, identity: &Identity) {
    let (id_type, data) = identity.to_payload();
    out.tlv(kind, &[&[id_type.0], &data]);
}

/// Transform id and key length.
fn encryption(encryption: Encryption) -> [[u8; 2]; 2] {
    [
        encryption.transform_id().to_be_bytes(),
        encryption.key_bits().to_be_bytes(),
    ]
}

fn integrity(out: &mut Writer, kind: u16, encryption: Encryption) {
    if let Some(integrity) = encryption.integrity() {
        out.tlv(kind, &[&integrity.transform_id().to_be_bytes()]);
    }
}

pub(super) fn socket(address: SocketAddr) -> [u8; 18] {
    let mut octets = [0; 18];
    octets[..16].copy_from_slice(&Address::from(address.ip()).octets);
    octets[16..].copy_from_slice(&address.port().to_be_bytes());
    octets
}

fn selectors(list: &[TrafficSelector]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(list.len() * 37);
    for selector in list {
        octets.push(selector.protocol);
        octets.extend_from_slice(&selector.start_port.to_be_bytes());
        octets.extend_from_slice(&selector.end_port.to_be_bytes());
        octets.extend_from_slice(&Address::from(selector.start).octets);
        octets.extend_from_slice(&Address::from(selector.end).octets);
    }
    octets
}
