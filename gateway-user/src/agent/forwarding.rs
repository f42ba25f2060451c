//! The steps of the IKE forwarding API.
//!
//! The cluster core is the authority over the table and mirrors it into the map before the answer is
//! given; what is answered is read from the map, so it is what the next packet meets.

mod answers;
mod entries;
mod packets;

use std::net::IpAddr;

use gateway_common::abi::{ANY_MESSAGE_ID, Address, NegotiationKey, NegotiationValue};
use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use gateway_node::PinError;
use serde_json::Value;

use super::Agent;
use super::answers::told;
use super::pages::{cookie, invalid};
use crate::api::model::{MessageId, Refusal, RefusalKind, Step};
use crate::clock;
use crate::steering::TableError;

impl Agent {
    /// Carries out a step of the IKE forwarding API.
    pub(super) fn forwarding_step(&mut self, step: &Step) -> Result<Value, Refusal> {
        match step {
            // The answer to this one is given beside the loop.
            Step::List(query) => self.entries(query)?().and_then(told),
            Step::Create(entry) => self
                .create_entry(entry, RefusalKind::Conflict)
                .and_then(told),
            Step::Change(entry) => self.change_entry(entry).and_then(told),
            Step::Remove(entry) => self.remove_entry(entry).and_then(told),
            Step::Cookie(query) => self.cookie_info(query).and_then(told),
            Step::Reserve(wish) => self.reserve_cookie(wish.dry_run).and_then(told),
            Step::Release(wish) => self.release_cookie(wish).and_then(told),
            Step::ReceivePacket(packet) => self.classify_packet(packet).and_then(told),
            Step::HaOwnership(entry) => self.ha_ownership(entry).and_then(told),
            Step::CookieResolution(packet) => self.resolve_cookie(packet).and_then(told),
            Step::TableSearch(key) => self.search_table(key).and_then(told),
            Step::OwnershipCheck(key) => self.check_ownership(key).and_then(told),
            Step::LocalHandling(packet) => self.handle_locally(packet).and_then(told),
            Step::RemoteForward(packet) => self.forward_remotely(packet).and_then(told),
            Step::TakeOwnership(entry) | Step::EntryCreation(entry) => {
                self.only_here(entry.member)?;
                self.create_entry(entry, RefusalKind::Precondition)
                    .and_then(told)
            }
            Step::InitiateNegotiation(initiation) => self.initiate_here(initiation).and_then(told),
            Step::TableVerification(key) => self.verify_table(key).and_then(told),
            Step::SaSync => self.sa_sync().and_then(told),
        }
    }

    /// The member with a sync address.
    fn member_at(&self, address: IpAddr) -> Result<MemberId, Refusal> {
        let mut members = self.config.cluster.members.iter();
        members
            .find(|(_, member)| member.sync_address == address)
            .map(|(id, _)| *id)
            .ok_or_else(|| {
                invalid(format!(
                    "{address} is no member's address on the sync network: see /api/v1/members"
                ))
            })
    }

    fn sync_address(&self, member: MemberId) -> Option<String> {
        let found = self.config.cluster.members.get(&member);
        found.map(|member| member.sync_address.to_string())
    }

    /// A step that is about this member alone names no other.
    fn only_here(&self, wanted: Option<IpAddr>) -> Result<(), Refusal> {
        match wanted {
            Some(address) if self.member_at(address)? != self.config.cluster.local => {
                Err(invalid(format!(
                    "this step makes entries of this member, not of {address}: use packet-tracking"
                )))
            }
            _ => Ok(()),
        }
    }

    /// What a packet with this key meets in the map.
    fn look(&self, key: &NegotiationKey) -> Result<Option<NegotiationValue>, Refusal> {
        let found = self.steering.tables().negotiation(key).map_err(table)?;
        let now = clock::now().as_nanos();
        Ok(found.filter(|value| value.expires_ns > now))
    }

    /// Slot of the established IKE SA with our cookie of this key.
    fn established(&self, key: &NegotiationKey) -> Option<Slot> {
        let ours = key.peer == Address::UNSPECIFIED;
        let ownership = self.node.cluster().ownership();
        ours.then(|| ownership.ike_sa(key.cookie)).flatten()
    }
}

/// The key in the map.
fn map_key(
    text: &str,
    message_id: MessageId,
    peer: Option<IpAddr>,
) -> Result<NegotiationKey, Refusal> {
    let cookie = cookie(text)?;
    if cookie == [0; 8] {
        return Err(invalid("a cookie is never zero (RFC 7296 §3.1)".into()));
    }
    if let Some(peer) = peer.filter(IpAddr::is_unspecified) {
        return Err(invalid(format!(
            "{peer} is no peer's address: leave `peer` out if the cookie is ours"
        )));
    }
    Ok(NegotiationKey {
        cookie,
        message_id: match message_id {
            MessageId::Any => ANY_MESSAGE_ID,
            MessageId::Number(number) => number.to_be_bytes(),
        },
        peer: peer.map_or(Address::UNSPECIFIED, Address::from),
    })
}

/// A key as text: `COOKIE:MESSAGE_ID`.
fn key_of_text(text: &str, peer: Option<IpAddr>) -> Result<NegotiationKey, Refusal> {
    let wrong = || {
        invalid(format!(
            "{text:?} is no key: 16 hexadecimal digits, a colon, and a number or \"any\""
        ))
    };
    let (cookie, message_id) = text.split_once(':').ok_or_else(wrong)?;
    let digits = !message_id.is_empty() && message_id.bytes().all(|o| o.is_ascii_digit());
    let message_id = match message_id {
        "any" => MessageId::Any,
        number if digits => match number.parse() {
            Ok(number) if number < u32::MAX => MessageId::Number(number),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    map_key(cookie, message_id, peer)
}

fn message_id(key: &NegotiationKey) -> MessageId {
    if key.message_id == ANY_MESSAGE_ID {
        MessageId::Any
    } else {
        MessageId::Number(u32::from_be_bytes(key.message_id))
    }
}

fn peer(key: &NegotiationKey) -> Option<IpAddr> {
    (key.peer != Address::UNSPECIFIED).then(|| IpAddr::from(key.peer))
}

fn text_of_key(key: &NegotiationKey) -> String {
    format!("{}:{}", super::pages::hex(key.cookie), message_id(key))
}

fn conflict(reason: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Conflict, reason)
}

fn not_found(reason: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::NotFound, reason)
}

fn precondition(reason: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Precondition, reason)
}

/// An entry by hand that is not written.
fn pinning(error: PinError) -> Refusal {
    conflict(error.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn table(error: TableError) -> Refusal {
    conflict(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cookie_and_message_id() {
        let key = key_of_text("00000000000000ab:7", None).unwrap();
        assert_eq!((key.cookie[7], key.message_id), (0xab, [0, 0, 0, 7]));
        assert_eq!(text_of_key(&key), "00000000000000ab:7");
        for nobody in ["::", "0.0.0.0"] {
            let peer = Some(nobody.parse().unwrap());
            assert!(key_of_text("00000000000000ab:7", peer).is_err(), "{nobody}");
        }
        let peer = "192.0.2.1".parse().unwrap();
        let key = key_of_text("00000000000000AB:any", Some(peer)).unwrap();
        assert_eq!(text_of_key(&key), "00000000000000ab:any");
        assert_eq!(super::peer(&key), Some(peer));
        for wrong in [
            "",
            "00000000000000ab",
            "00000000000000ab:",
            "00000000000000ab:+1",
            "00000000000000ab:4294967295",
            "0000000000000000:1",
            "ab:1",
        ] {
            assert!(key_of_text(wrong, None).is_err(), "{wrong}");
        }
    }
}
