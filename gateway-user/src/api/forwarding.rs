//! Requests and answers of the IKE forwarding API.
//!
//! A key is a cookie and a message id (`cookie_plus_message_id`), with the peer's address where the
//! cookie is the peer's. Members are named by their address on the sync network.

#![allow(unused_qualifications, reason = "utoipa's derives write full paths")]

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::cluster::PeerSync;
use super::model::{IkeSaInfo, Ordered};

/// A message id, or all of a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageId {
    /// "any".
    Any,
    /// 0 is phase 1's first exchange; below 2³² - 1.
    Number(u32),
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::Number(number) => serializer.serialize_u32(*number),
        }
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = MessageId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 4294967294, or \"any\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<MessageId, E> {
                match u32::try_from(number) {
                    Ok(number) if number < u32::MAX => Ok(MessageId::Number(number)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<MessageId, E> {
                let unsigned = u64::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))?;
                self.visit_u64(unsigned)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<MessageId, E> {
                if text == "any" {
                    return Ok(MessageId::Any);
                }
                let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
                let number = text.parse().ok().filter(|_| digits);
                match number {
                    Some(number) => self.visit_u64(number),
                    None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl PartialSchema for MessageId {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Integer))
            .minimum(Some(0))
            .maximum(Some(4_294_967_294_u32));
        let word = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .enum_values(Some(["any"]));
        let one_of = OneOfBuilder::new()
            .description(Some(
                "A message id, or \"any\": all messages of the negotiation",
            ))
            .item(number)
            .item(word);
        RefOr::T(Schema::OneOf(one_of.build()))
    }
}

impl ToSchema for MessageId {
    fn name() -> Cow<'static, str> {
        "MessageId".into()
    }
}

/// Key of an entry of `SEP_my_IKE_packet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EntryKey {
    /// An IKE SPI, 16 hexadecimal digits: ours, or with `peer` the peer's.
    #[schema(pattern = "^[0-9a-fA-F]{16}$")]
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    pub cookie: String,
    /// The message id.
    #[param(value_type = MessageId)]
    pub message_id: MessageId,
    /// The peer's address, if the cookie is the peer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    pub peer: Option<IpAddr>,
}

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EntryQuery {
    /// One entry, `COOKIE:MESSAGE_ID`: 404 if it is not there. Then nothing but `peer` may be given
    /// beside it.
    pub key: Option<String>,
    /// Only those with this cookie.
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    pub cookie: Option<String>,
    /// Only those of this peer; part of `key`, if the cookie is the peer's.
    #[param(value_type = Option<String>)]
    pub peer: Option<IpAddr>,
    /// Only those of the member with this sync address.
    #[param(value_type = Option<String>)]
    pub member: Option<IpAddr>,
    /// Only those in this state.
    pub state: Option<EntryState>,
    /// The page begins after this entry: `next` of the page before.
    pub after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u16>,
}

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EntryState {
    /// IKE_SA_INIT was answered, IKE_AUTH is not complete.
    HalfOpen,
    /// Written by an operator or a program.
    Static,
}

/// An entry of `SEP_my_IKE_packet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// `COOKIE:MESSAGE_ID`.
    pub key: String,
    /// 16 hexadecimal digits.
    pub cookie: String,
    /// The message id.
    pub message_id: MessageId,
    /// The peer's address, if the cookie is the peer's.
    pub peer: Option<String>,
    /// Sync address of the member that the negotiation is handed to.
    pub member: String,
    /// Its id.
    pub member_id: u8,
    /// Whether it is this member.
    pub local: bool,
    /// The slot.
    pub slot: u8,
    /// What it stands for.
    pub state: EntryState,
    /// Seconds since it was made.
    pub age_seconds: f64,
    /// Seconds until it is a miss.
    pub expires_in_seconds: f64,
}

/// A page of entries, as they stand in this member's map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EntryPage {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// `after` of the next page; `null`: this was the last one.
    pub next: Option<String>,
}

/// A new entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// An IKE SPI, 16 hexadecimal digits: ours, or with `peer` the peer's.
    #[schema(pattern = "^[0-9a-fA-F]{16}$")]
    pub cookie: String,
    /// The message id.
    pub message_id: MessageId,
    /// The peer's address, if the cookie is the peer's.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub peer: Option<IpAddr>,
    /// Sync address of its member; absent: this one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub member: Option<IpAddr>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Another owner for an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangedEntry {
    /// An IKE SPI, 16 hexadecimal digits: ours, or with `peer` the peer's.
    #[schema(pattern = "^[0-9a-fA-F]{16}$")]
    pub cookie: String,
    /// The message id.
    pub message_id: MessageId,
    /// The peer's address, if the cookie is the peer's.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub peer: Option<IpAddr>,
    /// Sync address of the member that the negotiation is handed to.
    #[schema(value_type = String)]
    pub member: IpAddr,
    /// Also if that aborts a negotiation that is under way.
    #[serde(default)]
    pub force: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Which entry is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RemovedEntry {
    /// `COOKIE:MESSAGE_ID`.
    #[param(pattern = "^[0-9a-fA-F]{16}:([0-9]{1,10}|any)$")]
    pub key: String,
    /// The peer's address, if the cookie is the peer's.
    #[param(value_type = Option<String>)]
    pub peer: Option<IpAddr>,
    /// Also if that aborts a negotiation that is under way.
    #[serde(default)]
    pub force: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Which cookie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CookieQuery {
    /// 16 hexadecimal digits.
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    pub cookie: String,
    /// A message of its negotiations.
    #[param(value_type = Option<MessageId>)]
    pub message_id: Option<MessageId>,
}

/// Which reservation is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReleasedCookie {
    /// 16 hexadecimal digits.
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    pub cookie: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is known of a cookie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CookieInfo {
    /// 16 hexadecimal digits.
    pub cookie: String,
    /// "half-open", "established", or "reserved".
    pub phase: String,
    /// Sync address of the member that messages with this cookie go to; with `message_id`, that
    /// message. Phase 2 goes to the member of phase 1. `null`: nobody's now.
    pub cluster_peer: Option<String>,
    /// The slot.
    pub slot: u8,
    /// The peer's address, if it is known.
    pub peer: Option<String>,
    /// Message id of the first exchange: 0.
    pub phase1_msgid: u32,
    /// Message id of our next request; every negotiation of phase 2 has one of its own.
    pub phase2_msgid: Option<u32>,
    /// Message id of the next request expected from the peer.
    pub phase2_expected_msgid: Option<u32>,
    /// The established IKE SA.
    pub sa: Option<IkeSaInfo>,
}

/// A cookie that this member will not draw for anybody else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReservedCookie {
    /// 16 hexadecimal digits; the low six bits are this member's id.
    pub cookie: String,
    /// Sync address of this member.
    pub cluster_peer: String,
    /// Seconds until the reservation ends.
    pub expires_in_seconds: f64,
}

/// Whether it is only asked what would be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// A packet, in one of two forms: a whole Ethernet frame, or an IKE message with its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Packet {
    /// An Ethernet frame, hexadecimal digits.
    #[schema(max_length = 131_072, pattern = "^([0-9a-fA-F]{2})*$")]
    #[param(max_length = 16_384, pattern = "^([0-9a-fA-F]{2})*$")]
    pub frame: Option<String>,
    /// An IKE message without non-ESP marker, hexadecimal digits.
    #[schema(max_length = 131_072, pattern = "^([0-9a-fA-F]{2})*$")]
    #[param(max_length = 16_384, pattern = "^([0-9a-fA-F]{2})*$")]
    pub message: Option<String>,
    /// Where `message` comes from.
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// The VIP that `message` goes to; absent: the first one of the source's family.
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    pub destination: Option<IpAddr>,
}

/// A packet that is to be handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Injected {
    /// An IKE message without non-ESP marker, hexadecimal digits.
    #[schema(max_length = 131_072, pattern = "^([0-9a-fA-F]{2})*$")]
    pub message: String,
    /// The peer's address.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// The peer's port.
    #[serde(default = "ike_port")]
    pub source_port: u16,
    /// The VIP; absent: the first one of the source's family.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub destination: Option<IpAddr>,
    /// 500 or 4500.
    #[serde(default = "ike_port")]
    pub destination_port: u16,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

const fn ike_port() -> u16 {
    500
}

/// A look-up on a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LookUp {
    /// The map.
    pub table: String,
    /// The key.
    pub key: String,
    /// What stands there; `null`: nothing.
    pub value: Option<String>,
}

/// What the data path does with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Classified {
    /// The reason under which the frame would be counted.
    pub reason: String,
    /// "pass", "drop" or "forward".
    pub action: String,
    /// Sync address of the member that it is forwarded to, or of this one if it is passed as its own.
    pub cluster_peer: Option<String>,
    /// Whether the address of `cluster_peer` is this member's.
    pub local: bool,
    /// The look-ups, in their order.
    pub steps: Vec<LookUp>,
}

/// Cookie and message id of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    /// Our cookie, or the initiator's if we have drawn none yet.
    pub cookie: String,
    /// The message id.
    pub message_id: u32,
    /// Whether the cookie is ours.
    pub ours: bool,
    /// 1 if the exchange opens an IKE SA, else 2.
    pub phase: u8,
    /// The slot.
    pub slot: u8,
    /// Where it was found: "IKE_SA", "SEP_my_IKE_packet" or "decision-function".
    pub via: String,
    /// Sync address of the member that it goes to; `null`: nobody's now.
    pub cluster_peer: Option<String>,
}

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Found {
    /// Whether a packet with this key meets an entry.
    pub found: bool,
    /// Under the key itself.
    pub exact: Option<Entry>,
    /// Under the cookie with any message id.
    pub wildcard: Option<Entry>,
    /// Slot of the established IKE SA with this cookie.
    pub established_slot: Option<u8>,
}

/// Who manages a negotiation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ownership {
    /// Sync address of the managing member; `null`: nobody does.
    pub cluster_member_ip: Option<String>,
    /// Its id; 0: nobody.
    pub member_id: u8,
    /// Whether it is this member.
    pub local: bool,
    /// Whether it can be reached.
    pub alive: bool,
    /// The slot.
    pub slot: u8,
    /// Where it was found: "IKE_SA" or "SEP_my_IKE_packet".
    pub via: String,
}

/// Whether an entry can be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// There is none yet, and no IKE SA of the cookie is established.
    pub no_existing_entry: bool,
    /// The one that there is.
    pub entry: Option<Entry>,
    /// Slot of the established IKE SA with this cookie.
    pub established_slot: Option<u8>,
}

/// What became of an injected packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Handled {
    /// Sync address of the member that it went to.
    pub cluster_member_ip: String,
    /// Nothing was done.
    pub dry_run: bool,
}

/// A connection that this member is to bring up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Initiation {
    /// The connection's name.
    pub connection: String,
    /// Name of its child; absent: all of them.
    #[serde(default)]
    pub child: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of an initiation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Initiated {
    /// Sync address of the member that owns the connection's slot; `null`: nobody does now.
    pub cluster_member_ip: Option<String>,
    /// What was begun; `null` when it was only asked what would be.
    pub ordered: Option<Ordered>,
}

/// How SAs are synchronised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SaSync {
    /// Sync address of this member.
    pub local: String,
    /// Inbound SAs: every member of the view holds them.
    pub inbound: InboundSync,
    /// Outbound SAs: the owner of the slot sends, each member in numbers of its own.
    pub outbound: OutboundSync,
    /// The other members.
    pub members: Vec<MemberSync>,
}

/// Inbound SAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InboundSync {
    /// IKE SAs of the cluster whose records are here.
    pub ike_sas: usize,
    /// IKE SAs that this member owns.
    pub owned_ike_sas: usize,
    /// CHILD_SAs of these.
    pub owned_child_sas: usize,
    /// Whether all that was published is on every member of the view.
    pub in_sync: bool,
}

/// Outbound SAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboundSync {
    /// "sticky": one SA pair per peer, sent by the slot's owner; the other members' copies are
    /// silenced by the fence and stand in blocks of sequence numbers of their own.
    pub mode: String,
    /// Outbound SAs in `ESP_OUT`, each with its ceiling.
    pub outbound_sas: usize,
}

/// The synchronisation with a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberSync {
    /// Its sync address.
    pub sync_address: String,
    /// How it stands.
    #[serde(flatten)]
    pub sync: PeerSync,
}

/// A step of the IKE forwarding API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// [`EntryPage`].
    List(EntryQuery),
    /// [`Entry`], which must not be there yet.
    Create(NewEntry),
    /// [`Entry`].
    Change(ChangedEntry),
    /// [`Entry`], the one that is gone.
    Remove(RemovedEntry),
    /// [`CookieInfo`].
    Cookie(CookieQuery),
    /// [`ReservedCookie`].
    Reserve(DryRun),
    /// [`ReservedCookie`], the one that is free again.
    Release(ReleasedCookie),
    /// [`Classified`].
    ReceivePacket(Packet),
    /// [`Entry`], of this member, which has to be the active one of a High Availability cluster.
    HaOwnership(NewEntry),
    /// [`Resolved`]; Load Sharing only.
    CookieResolution(Packet),
    /// [`Found`].
    TableSearch(EntryKey),
    /// [`Ownership`].
    OwnershipCheck(EntryKey),
    /// [`Handled`]; the packet has to be this member's.
    LocalHandling(Injected),
    /// [`Handled`]; the packet has to be another member's.
    RemoteForward(Injected),
    /// [`Entry`]; nobody may have one.
    TakeOwnership(NewEntry),
    /// [`Initiated`].
    InitiateNegotiation(Initiation),
    /// [`Verified`].
    TableVerification(EntryKey),
    /// [`Entry`]; nobody may have one.
    EntryCreation(NewEntry),
    /// [`SaSync`].
    SaSync,
}
