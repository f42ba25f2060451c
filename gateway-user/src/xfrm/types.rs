//! SAs and policies as values.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};
use gateway_ike::crypto::Encryption;
use gateway_ike::mark::Mark;
use gateway_ike::output::Quota;
use gateway_ike::secret::SecretBytes;
use serde::{Serialize, Serializer};

use super::error::XfrmError;
use super::replay::{Move, Position, Seen};
use super::selector::PolicySelector;

/// What identifies an ESP SA in the kernel, on the wire SPI and destination alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SaId {
    /// SPI, network order.
    #[serde(serialize_with = "hex_spi")]
    pub spi: [u8; 4],
    /// Outer destination address.
    pub dst: IpAddr,
    /// The mark that its packets have to have: the kernel finds it by no other.
    #[serde(serialize_with = "mark_text", skip_serializing_if = "is_unmarked")]
    pub mark: Mark,
}

impl SaId {
    /// Of an SA whose packets have whatever mark.
    pub const fn new(spi: [u8; 4], dst: IpAddr) -> Self {
        Self {
            spi,
            dst,
            mark: Mark::NONE,
        }
    }
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x} to {}", u32::from_be_bytes(self.spi), self.dst)?;
        write_mark(self.mark, f)
    }
}

fn write_mark(mark: Mark, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if mark.is_none() {
        return Ok(());
    }
    write!(f, " mark {mark}")
}

fn mark_text<S: Serializer>(mark: &Mark, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(mark)
}

fn is_unmarked(mark: &Mark) -> bool {
    mark.is_none()
}

fn hex_spi<S: Serializer>(spi: &[u8; 4], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:08x}", u32::from_be_bytes(*spi)))
}

/// An ESP SA in tunnel mode (RFC 4303), as it is installed.
#[derive(Clone, Debug)]
pub struct Sa {
    /// SPI and outer destination.
    pub id: SaId,
    /// Outer source address, of the family of the destination.
    pub src: IpAddr,
    /// Links the SA to the templates of policies; not 0.
    pub reqid: u32,
    /// Algorithm.
    pub encryption: Encryption,
    /// Key ‖ salt, or encryption key ‖ integrity key: [`Encryption::keymat_len`] octets.
    pub key: SecretBytes,
    /// UDP encapsulation, or native ESP.
    pub encapsulation: Option<Encapsulation>,
    /// Sequence numbers.
    pub replay: Replay,
    /// What the SA writes into the mark of the packets that it produces: (value, mask).
    pub output_mark: Option<(u32, u32)>,
    /// XFRM interface id, 0 = none.
    pub if_id: u32,
    /// Seconds after installation at which the kernel deletes the SA; 0 = never.
    pub hard_lifetime_seconds: u64,
    /// How much it may carry.
    pub quota: Quota,
    /// Where it starts. Ignored when an installed SA is updated.
    pub start: Position,
    /// Packets between two replay events, and none by the clock; 0 = the kernel's defaults
    /// (`net.core.xfrm_aevent_*`). Ignored when an installed SA is updated.
    pub event_every: u32,
}

/// UDP encapsulation of ESP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Encapsulation {
    /// UDP source port.
    pub src_port: u16,
    /// UDP destination port.
    pub dst_port: u16,
}

/// Sequence numbers of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Replay {
    /// Anti-replay window in packets, 0 (off) to [`Replay::MAX_WINDOW`]; at least 1 with ESN.
    /// Outbound SAs have no window: 0, or with ESN anything from 1.
    pub window: u32,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
}

impl Replay {
    /// The widest window that the kernel keeps.
    pub const MAX_WINDOW: u32 = 4096;
}

/// An SA as the kernel reports it. There is no key in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SaState {
    /// SPI and outer destination.
    pub id: SaId,
    /// Outer source address.
    pub src: IpAddr,
    /// Links the SA to the templates of policies.
    pub reqid: u32,
    /// UDP encapsulation, if any.
    pub encapsulation: Option<Encapsulation>,
    /// Window and kind of sequence numbers.
    pub replay: Replay,
    /// Output mark: (value, mask).
    pub output_mark: Option<(u32, u32)>,
    /// XFRM interface id, 0 = none.
    pub if_id: u32,
    /// Seconds after installation at which the kernel deletes the SA; 0 = never.
    pub hard_lifetime_seconds: u64,
    /// How much it may carry.
    #[serde(skip)]
    pub quota: Quota,
    /// Packets that were transformed.
    pub packets: u64,
    /// Octets of these packets.
    pub bytes: u64,
    /// Last sequence number sent; 64 bits with ESN.
    pub sequence_out: u64,
    /// Highest sequence number received; 64 bits with ESN.
    pub sequence_in: u64,
    /// Packets that the anti-replay window refused.
    pub replays: u32,
    /// Packets left of the window.
    pub outside_window: u32,
    /// Packets whose integrity check failed.
    pub integrity_failures: u32,
    /// Installed at, Unix seconds.
    pub added_at: u64,
    /// First used at, Unix seconds; 0 = never.
    pub first_used_at: u64,
    /// Last used at, Unix seconds; `None`: never, or the kernel does not say (before 6.2).
    pub last_used_at: Option<u64>,
    /// What of the anti-replay window was received.
    #[serde(skip)]
    pub seen: Seen,
    /// Tells keys apart without being one.
    #[serde(skip)]
    pub key: KeyCheck,
}

impl SaState {
    /// Where it stands.
    pub fn position(&self) -> Position {
        Position {
            sequence_out: self.sequence_out,
            sequence_in: self.sequence_in,
            seen: self.seen.clone(),
        }
    }
}

/// From the SHA-256 of an SA's keys: two SAs with the same have the same keys. Nothing of a key, at
/// least 160 random bits, can be found from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCheck([u8; 16]);

impl KeyCheck {
    /// Of all keys of this SA.
    pub(super) fn of(sa: &Sa) -> Self {
        let (cipher, integrity) = sa.keys();
        let check = Self::default().and(false, cipher);
        match sa.encryption.integrity() {
            Some(_) => check.and(true, integrity),
            None => check,
        }
    }

    /// With one more key, for encryption or for integrity. The order does not matter: the kernel
    /// has its own.
    #[must_use]
    pub(super) fn and(mut self, integrity: bool, key: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[u8::from(integrity)]);
        context.update(key);
        for (octet, other) in self.0.iter_mut().zip(context.finish().as_ref()) {
            *octet ^= other;
        }
        self
    }
}

/// Which packets a policy sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Direction {
    /// Received and delivered to this host.
    In = 0,
    /// Sent by this host, or forwarded and about to leave.
    Out = 1,
    /// Received and to be forwarded.
    Fwd = 2,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Fwd => "fwd",
        })
    }
}

/// What identifies a policy in the kernel. The priority is *not* part of it: of two policies with
/// one key the second is refused or replaces the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PolicyKey {
    /// Which packets.
    pub direction: Direction,
    /// Which flows.
    pub selector: PolicySelector,
    /// XFRM interface id, 0 = none.
    pub if_id: u32,
    /// The mark that its packets have to have.
    #[serde(serialize_with = "mark_text", skip_serializing_if = "is_unmarked")]
    pub mark: Mark,
}

impl PolicyKey {
    /// Priority of a tunnel policy: that of its selector, and of two with the same one the marked
    /// one is the stronger, because the other matches its packets, too.
    pub fn priority(&self) -> u32 {
        self.selector.priority() - u32::from(!self.mark.is_none())
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.direction, self.selector)?;
        if self.if_id != 0 {
            write!(f, " if_id {}", self.if_id)?;
        }
        write_mark(self.mark, f)
    }
}

/// A policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Policy {
    /// Its identity.
    pub key: PolicyKey,
    /// Smaller is stronger.
    pub priority: u32,
    /// What happens to its packets.
    pub action: Action,
    /// `XFRM_POLICY_ICMP`: also applies to ICMP errors about its flows, which otherwise leave in
    /// clear because their own source address is in no selector.
    pub icmp: bool,
}

/// What happens to the packets of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Out: through an SA that matches the template. In and fwd: only if it came through one.
    Protect(Template),
    /// As they are. In and fwd: only if they came through no SA.
    Bypass,
    /// Dropped, counted in `XfrmOutPolBlock` or `XfrmInPolBlock`.
    Block,
}

/// An ESP tunnel that a policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Template {
    /// Outer source address.
    pub src: IpAddr,
    /// Outer destination address.
    pub dst: IpAddr,
    /// The SA's reqid; 0 = any.
    pub reqid: u32,
}

/// One request to a [`super::SaKernel`].
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// See [`super::SaKernel::install_sa`].
    NewSa(&'a Sa),
    /// See [`super::SaKernel::update_sa`].
    UpdateSa(&'a Sa),
    /// See [`super::SaKernel::delete_sa`].
    DeleteSa(&'a SaId),
    /// See [`super::SaKernel::move_sa`].
    MoveSa(&'a Move),
    /// Replay events of this SA from now on come every so many packets.
    Pace(&'a SaId, u32),
    /// See [`super::SaKernel::install_policy`].
    NewPolicy(&'a Policy),
    /// See [`super::SaKernel::update_policy`].
    UpdatePolicy(&'a Policy),
    /// See [`super::SaKernel::delete_policy`].
    DeletePolicy(&'a PolicyKey),
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewSa(sa) => write!(f, "install SA {}", sa.id),
            Self::UpdateSa(sa) => write!(f, "update SA {}", sa.id),
            Self::DeleteSa(id) => write!(f, "delete SA {id}"),
            Self::MoveSa(to) => write!(f, "move SA {}", to.id),
            Self::Pace(id, _) => write!(f, "set the replay events of SA {id}"),
            Self::NewPolicy(policy) => write!(f, "install policy {}", policy.key),
            Self::UpdatePolicy(policy) => write!(f, "update policy {}", policy.key),
            Self::DeletePolicy(key) => write!(f, "delete policy {key}"),
        }
    }
}

impl Request<'_> {
    /// Whether it costs the kernel about as much as an acknowledgement: only the last of several
    /// such ones asks for one.
    pub(super) const fn is_light(&self) -> bool {
        matches!(self, Self::MoveSa(_) | Self::Pace(..))
    }
}

impl Sa {
    /// The key for encryption, with its salt, and the one for integrity.
    pub(super) fn keys(&self) -> (&[u8], &[u8]) {
        let key = self.key.expose();
        // The length has been checked, see below; with any other the kernel says no.
        let integrity = self.encryption.integrity_key_len().min(key.len());
        key.split_at(key.len() - integrity)
    }

    /// Refuses what XFRM would misunderstand or answer with a bare EINVAL.
    pub(super) fn check(&self) -> Result<(), XfrmError> {
        let fail = |why: &str| Err(XfrmError::Unsupported(format!("SA {}: {why}", self.id)));
        // RFC 4303 §2.1: 0 is for local use, 1 to 255 are reserved by IANA.
        if u32::from_be_bytes(self.id.spi) < 256 {
            return fail("reserved SPI");
        }
        if self.id.dst.is_ipv4() != self.src.is_ipv4() {
            return fail("outer addresses of different families");
        }
        if self.key.len() != self.encryption.keymat_len() {
            return fail("key material of the wrong length");
        }
        if self.reqid == 0 {
            return fail("reqid 0 would match every policy");
        }
        if self.replay.window > Replay::MAX_WINDOW {
            return fail("anti-replay window above 4096 packets");
        }
        if self.replay.esn && self.replay.window == 0 {
            return fail("extended sequence numbers need an anti-replay window");
        }
        Ok(())
    }
}
