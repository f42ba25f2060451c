//! `[[connection]]` and its children.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, LocalAuth, RemoteAuth, SendCert, one};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Connection {
    /// Its name, which also gives the slot in which this gateway initiates it.
    pub(in crate::config) name: String,
    /// VIPs that it may use; empty: all of them.
    #[serde(default)]
    pub(in crate::config) local_addrs: Vec<String>,
    /// The peer's addresses or networks, "%any"; empty: any.
    #[serde(default)]
    pub(in crate::config) remote_addrs: Vec<String>,
    /// IKE proposals, like "aes256gcm16-prfsha384-ecp256" or "aes128-sha256-modp2048", with "-ke1_mlkem768"
    /// for an additional key exchange, also when it is rekeyed; empty: a good choice.
    #[serde(default)]
    pub(in crate::config) proposals: Vec<String>,
    /// Age at which the IKE SA is rekeyed, less up to `rand_time` at random; 0 leaves it to the peer. 4h unless
    /// given.
    pub(in crate::config) rekey_time: Option<DurationText>,
    /// An IKE SA that could not be rekeyed is deleted so long after `rekey_time`. A tenth of it unless given.
    pub(in crate::config) over_time: Option<DurationText>,
    /// Up to so much of `rekey_time` is taken off at random. As `over_time` unless given.
    pub(in crate::config) rand_time: Option<DurationText>,
    /// A peer that was silent for so long is asked whether it is alive; 0 = never, the default.
    pub(in crate::config) dpd_delay: Option<DurationText>,
    /// Age at which the IKE SA is replaced by one that is authenticated anew; 0 = never, the default.
    pub(in crate::config) reauth_time: Option<DurationText>,
    /// How often all `remote_addrs` are tried when this gateway initiates by order; 0 = for ever.
    #[serde(default = "one")]
    pub(in crate::config) keyingtries: u32,
    /// What a new IKE SA does to older ones of the same two identities.
    #[serde(default)]
    pub(in crate::config) unique: Unique,
    /// Whether IKE messages that make IP datagrams larger than `fragment_size` go in fragments (RFC 7383).
    #[serde(default)]
    pub(in crate::config) fragmentation: Fragmentation,
    /// The largest IP datagram of an IKE message, in octets.
    #[serde(default = "default_fragment_size")]
    pub(in crate::config) fragment_size: u32,
    /// ESP in UDP though there is no NAT.
    #[serde(default)]
    pub(in crate::config) encap: bool,
    /// While this gateway is behind a NAT, a keepalive is sent so often; 0 = never. 20s unless given.
    pub(in crate::config) keepalive: Option<DurationText>,
    /// The peer may change its address (RFC 4555).
    #[serde(default = "yes")]
    pub(in crate::config) mobike: bool,
    /// Whether an IKE SA may begin without a CHILD_SA (RFC 6023).
    #[serde(default)]
    pub(in crate::config) childless: Childless,
    /// Peers that can be redirected are sent to this gateway, by address or domain name (RFC 5685).
    pub(in crate::config) redirect_to: Option<String>,
    /// Whether the peer may redirect this gateway.
    #[serde(default = "yes")]
    pub(in crate::config) follow_redirects: bool,
    /// When certificates of ours are sent.
    #[serde(default)]
    pub(in crate::config) send_cert: SendCert,
    /// The post-quantum pre-shared key that is used beside the authentication, when this gateway initiates: the
    /// id of a `[[ppk]]`.
    pub(in crate::config) ppk_id: Option<String>,
    /// A peer that uses no post-quantum pre-shared key is refused.
    #[serde(default)]
    pub(in crate::config) ppk_required: bool,
    /// A Unix socket, as absolute path, of the service that decides whether a peer that has proved who it is and
    /// begins an IKE SA is let in; see gateway-authorize(7). It is not asked about what this gateway begins.
    pub(in crate::config) authorize: Option<PathBuf>,
    /// After so long without its answer the peer is refused, at the latest when `ike.half_open_timeout` has
    /// passed. 10s unless given.
    pub(in crate::config) authorize_timeout: Option<DurationText>,
    /// How this gateway authenticates.
    #[serde(default)]
    pub(in crate::config) local: LocalAuth,
    /// How the peer has to authenticate.
    #[serde(default)]
    pub(in crate::config) remote: RemoteAuth,
    /// Its CHILD_SAs, by name.
    #[serde(default)]
    pub(in crate::config) children: BTreeMap<String, Child>,
}

/// What a new IKE SA does to older ones of the same two identities.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Unique {
    /// They are never touched.
    Never,
    /// They are deleted if the peer makes initial contact.
    #[default]
    No,
    /// The new one is refused.
    Keep,
    /// They are deleted.
    Replace,
}

/// Whether IKE messages go in fragments (RFC 7383).
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Fragmentation {
    /// If the peer can.
    #[default]
    Yes,
    /// The peer's are taken, ours are not sent.
    Accept,
    /// As "yes".
    Force,
    /// Neither.
    No,
}

/// Whether an IKE SA may begin without CHILD_SA (RFC 6023).
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Childless {
    /// If the peer wants to.
    #[default]
    Allow,
    /// When this gateway initiates, if the peer can.
    Prefer,
    /// Only so.
    Force,
    /// Not at all.
    Never,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Child {
    /// Networks on our side, like "10.1.0.0/16", or "dynamic", the tunnel's own address on our side (the
    /// VIP); with "[tcp/443]" behind them if need be.
    pub(in crate::config) local_ts: Vec<String>,
    /// Networks on the peer's side. "dynamic" is the peer's address, as it is seen here: a peer behind a
    /// NAT that calls itself by its inner address does not fit, and needs that one named.
    pub(in crate::config) remote_ts: Vec<String>,
    /// ESP proposals, like "aes128gcm16", or with a group for PFS "aes256gcm16-x25519", and with "-ke1_mlkem768"
    /// for an additional key exchange, which the first CHILD_SA of an IKE SA has as little as PFS; empty:
    /// a good choice.
    #[serde(default)]
    pub(in crate::config) esp_proposals: Vec<String>,
    /// Packets that may come late; 0 = no protection against replays (not with extended sequence numbers).
    #[schemars(range(min = 0, max = 4_096))]
    #[serde(default = "default_replay_window")]
    pub(in crate::config) replay_window: u32,
    /// Only "no" is taken: a NIC that does ESP counts sequence numbers by itself.
    #[serde(default)]
    pub(in crate::config) hw_offload: HwOffload,
    /// Age at which the CHILD_SA is rekeyed, less up to `rand_time` at random; 0 leaves it to the peer. 1h
    /// unless given.
    pub(in crate::config) rekey_time: Option<DurationText>,
    /// Age at which the CHILD_SA ends. A tenth more than `rekey_time` unless given.
    pub(in crate::config) life_time: Option<DurationText>,
    /// Up to so much of `rekey_time` is taken off at random. The difference to `life_time` unless given.
    pub(in crate::config) rand_time: Option<DurationText>,
    /// XFRM interface id of the inbound SA and policies; 0 = none.
    #[serde(default)]
    pub(in crate::config) if_id_in: u32,
    /// XFRM interface id of the outbound SA and policies; 0 = none.
    #[serde(default)]
    pub(in crate::config) if_id_out: u32,
    /// Mark that packets have after decryption, like "42" or "0x2a/0xff"; others are dropped. Tells apart
    /// tunnels with the same networks; the bits 0x3ff00 are the gateway's own.
    pub(in crate::config) mark_in: Option<String>,
    /// Mark that packets have to have to be encrypted.
    pub(in crate::config) mark_out: Option<String>,
    /// Whether the inbound SA looks at `mark_in`, too, so that packets have to have it before they are
    /// decrypted.
    #[serde(default)]
    pub(in crate::config) mark_in_sa: bool,
    /// Mark that decrypted packets get; "%same" is that of `mark_in`.
    pub(in crate::config) set_mark_in: Option<String>,
    /// Mark that encrypted packets get, under a mask that leaves out 0x3ff00, like "42/0xfffc00ff"; "%same" is
    /// that of `mark_out`.
    pub(in crate::config) set_mark_out: Option<String>,
    /// What makes this gateway initiate it.
    #[serde(default)]
    pub(in crate::config) start_action: StartAction,
    /// What happens when the peer closes it.
    #[serde(default)]
    pub(in crate::config) close_action: CloseAction,
    /// What happens to it when the peer is dead.
    #[serde(default)]
    pub(in crate::config) dpd_action: DpdAction,
    /// Octets after which it is rekeyed, less up to `rand_bytes` at random. No bound unless given.
    pub(in crate::config) rekey_bytes: Option<u64>,
    /// Up to so much of `rekey_bytes` is taken off at random.
    pub(in crate::config) rand_bytes: Option<u64>,
    /// Octets after which it is dropped. A tenth more than `rekey_bytes` unless given.
    pub(in crate::config) life_bytes: Option<u64>,
    /// Packets after which it is rekeyed, less up to `rand_packets` at random. No bound unless given.
    pub(in crate::config) rekey_packets: Option<u64>,
    /// Up to so much of `rekey_packets` is taken off at random.
    pub(in crate::config) rand_packets: Option<u64>,
    /// Packets after which it is dropped. A tenth more than `rekey_packets` unless given.
    pub(in crate::config) life_packets: Option<u64>,
}

/// Whether a NIC does the ESP.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum HwOffload {
    /// The kernel does it.
    #[default]
    No,
    /// Refused.
    Yes,
    /// Refused.
    Auto,
    /// Refused.
    Crypto,
    /// Refused.
    Packet,
}

/// What makes us initiate a CHILD_SA.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum StartAction {
    /// The peer initiates it, or `gatewayctl initiate`.
    #[default]
    None,
    /// The first packet, at whichever member it arrives; it is lost.
    Trap,
    /// The member that owns the connection's slot, as soon as it does.
    Start,
}

/// What happens when the peer closes a CHILD_SA.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum CloseAction {
    /// Nothing.
    #[default]
    None,
    /// As "none", where `start_action` is "trap", which stands for ever.
    Trap,
    /// A new one is initiated.
    Start,
}

/// What happens to a CHILD_SA whose peer is dead.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum DpdAction {
    /// It is deleted.
    #[default]
    Clear,
    /// As "clear", where `start_action` is "trap", which stands for ever.
    Trap,
    /// It is initiated again under a new IKE SA.
    Restart,
}

fn default_fragment_size() -> u32 {
    1280
}

fn yes() -> bool {
    true
}

fn default_replay_window() -> u32 {
    32
}
