//! Requests as netlink messages.
//!
//! Everything is written straight into one [`Zeroizing`] buffer that never moves while it holds a
//! key: a growing `Vec` would leave copies in freed memory.

use std::net::IpAddr;

use gateway_ike::crypto::{Encryption, Integrity};
use gateway_ike::mark::Mark;
use ipnet::IpNet;
use zerocopy::{Immutable, IntoBytes};
use zeroize::{Zeroize, Zeroizing};

use super::replay::Position;
use super::selector::PolicySelector;
use super::types::{Action, Policy, PolicyKey, Replay, Request, Sa, SaId, Template};
use super::uapi::{
    AeventId, AlgoHead, AlgoIcvHead, EncapTmpl, IPPROTO_ESP, Id, LifetimeCfg, NlAttr, NlMsgHdr,
    ReplayEsnHead, ReplayState, Selector, UDP_ENCAP_ESPINUDP, UserPolicyId, UserPolicyInfo,
    UserSaId, UserSaInfo, UserTmpl, XFRM_AE_ETHR, XFRM_AE_RTHR, XFRM_INF, XFRM_MODE_TUNNEL,
    XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_FLAG_ICMP, XFRM_STATE_AF_UNSPEC,
    XFRM_STATE_ESN, XfrmAddress, attr, msg,
};

/// The most octets that one request takes: an SA with a window of 4,096 packets.
pub(super) const MAX_REQUEST: usize = 1536;

const ACKED: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const CREATE: u16 = ACKED | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = ACKED | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
/// `xfrm_new_ae` insists on NLM_F_REPLACE.
const MOVE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_REPLACE) as u16;
const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;

/// Messages one after the other, as they go into one `send`.
pub(super) struct Batch {
    bytes: Zeroizing<Vec<u8>>,
    capacity: usize,
    // Where the message that is being written begins.
    start: usize,
}

impl Batch {
    /// Room for `capacity` octets.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(capacity)),
            capacity,
            start: 0,
        }
    }

    /// The messages.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether another request fits for sure.
    pub(super) fn has_room(&self) -> bool {
        self.capacity - self.bytes.len() >= MAX_REQUEST
    }

    /// Wipes it for the next batch.
    pub(super) fn clear(&mut self) {
        // Only what was used: wiping all of the capacity would cost more than a request.
        self.bytes.as_mut_slice().zeroize();
        self.bytes.clear();
    }

    /// Appends a request, to be acknowledged under `seq`, or a [`Request::is_light`] one only if
    /// `acked`: refusals are answered in any case. The caller has asked [`Self::has_room`].
    pub(super) fn push(&mut self, request: &Request<'_>, seq: u32, acked: bool) {
        match *request {
            Request::NewSa(sa) => self.sa(msg::NEWSA, CREATE, sa, seq),
            Request::UpdateSa(sa) => self.sa(msg::UPDSA, REPLACE, sa, seq),
            Request::DeleteSa(id) => {
                self.begin(msg::DELSA, ACKED, seq);
                self.put(&sa_id(id));
                self.mark(id.mark);
                self.end();
            }
            Request::MoveSa(to) => {
                self.begin_replay(&to.id, acked, seq);
                self.replay_state(to.replay, &to.position);
                self.end();
            }
            Request::Pace(id, packets) => {
                self.begin_replay(id, acked, seq);
                self.attribute(attr::REPLAY_THRESH, |batch| batch.put(&packets));
                self.end();
            }
            Request::NewPolicy(policy) => self.policy(msg::NEWPOLICY, CREATE, policy, seq),
            Request::UpdatePolicy(policy) => self.policy(msg::UPDPOLICY, REPLACE, policy, seq),
            Request::DeletePolicy(key) => self.delete_policy(key, seq),
        }
    }

    /// Appends a request for one SA.
    pub(super) fn push_query(&mut self, id: &SaId, seq: u32) {
        self.begin(msg::GETSA, libc::NLM_F_REQUEST as u16, seq);
        self.put(&sa_id(id));
        self.mark(id.mark);
        self.end();
    }

    /// Appends a request for the sequence numbers of one SA.
    pub(super) fn push_replay_query(&mut self, id: &SaId, seq: u32) {
        self.begin(msg::GETAE, libc::NLM_F_REQUEST as u16, seq);
        self.put(&aevent_id(id, XFRM_AE_RTHR | XFRM_AE_ETHR));
        self.mark(id.mark);
        self.end();
    }

    /// Appends a request for all SAs or policies (`kind` is `GETSA` or `GETPOLICY`).
    pub(super) fn push_dump(&mut self, kind: u16, seq: u32) {
        self.begin(kind, DUMP, seq);
        match kind {
            msg::GETSA => self.put(&UserSaId::default()),
            _ => self.put(&UserPolicyId::default()),
        }
        self.end();
    }

    fn begin(&mut self, kind: u16, flags: u16, seq: u32) {
        self.start = self.bytes.len();
        self.put(&NlMsgHdr {
            len: 0,
            kind,
            flags,
            seq,
            pid: 0,
        });
    }

    fn end(&mut self) {
        let len = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
        self.align();
    }

    fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) {
        let octets = value.as_bytes();
        debug_assert!(self.bytes.len() + octets.len() <= self.capacity);
        self.bytes.extend_from_slice(octets);
    }

    fn align(&mut self) {
        let aligned = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(aligned, 0);
    }

    fn attribute(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.put(&NlAttr { len: 0, kind });
        write(self);
        let len = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.align();
    }

    /// The keys, and what they are for.
    fn algorithms(&mut self, sa: &Sa) {
        let icv_bits = sa.encryption.icv_len() as u32 * 8;
        let (cipher_key, integrity_key) = sa.keys();
        let key_bits = |key: &[u8]| key.len() as u32 * 8;
        let Some(integrity) = sa.encryption.integrity() else {
            self.attribute(attr::ALG_AEAD, |batch| {
                batch.put(&AlgoIcvHead {
                    name: name(cipher_name(sa.encryption)),
                    key_bits: key_bits(cipher_key),
                    icv_bits,
                });
                batch.put(cipher_key);
            });
            return;
        };
        // With the older attribute the kernel would cut SHA-256 to 96 bits.
        self.attribute(attr::ALG_AUTH_TRUNC, |batch| {
            batch.put(&AlgoIcvHead {
                name: name(integrity_name(integrity)),
                key_bits: key_bits(integrity_key),
                icv_bits,
            });
            batch.put(integrity_key);
        });
        self.attribute(attr::ALG_CRYPT, |batch| {
            batch.put(&AlgoHead {
                name: name(cipher_name(sa.encryption)),
                key_bits: key_bits(cipher_key),
            });
            batch.put(cipher_key);
        });
    }

    fn sa(&mut self, kind: u16, flags: u16, sa: &Sa, seq: u32) {
        self.begin(kind, flags, seq);
        self.put(&sa_info(sa));
        self.algorithms(sa);
        if let Some(encapsulation) = sa.encapsulation {
            self.attribute(attr::ENCAP, |batch| {
                batch.put(&EncapTmpl {
                    kind: UDP_ENCAP_ESPINUDP,
                    sport: encapsulation.src_port.to_be_bytes(),
                    dport: encapsulation.dst_port.to_be_bytes(),
                    ..EncapTmpl::default()
                });
            });
        }
        if needs_esn_state(sa.replay) || sa.start != Position::default() {
            self.replay_state(sa.replay, &sa.start);
        }
        if sa.event_every != 0 {
            self.attribute(attr::REPLAY_THRESH, |batch| batch.put(&sa.event_every));
            // Whatever the sysctl says; a timer cannot be switched off later.
            self.attribute(attr::ETIMER_THRESH, |batch| batch.put(&0u32));
        }
        if let Some((value, mask)) = sa.output_mark {
            self.attribute(attr::SET_MARK, |batch| batch.put(&value));
            self.attribute(attr::SET_MARK_MASK, |batch| batch.put(&mask));
        }
        self.if_id(sa.if_id);
        self.mark(sa.id.mark);
        self.end();
    }

    fn begin_replay(&mut self, id: &SaId, acked: bool, seq: u32) {
        let flags = if acked { MOVE | ACKED } else { MOVE };
        self.begin(msg::NEWAE, flags, seq);
        self.put(&aevent_id(id, 0));
        self.mark(id.mark);
    }

    fn replay_state(&mut self, replay: Replay, position: &Position) {
        let (sent, received) = position.fitted(replay);
        if !needs_esn_state(replay) {
            self.attribute(attr::REPLAY_VAL, |batch| {
                batch.put(&ReplayState {
                    oseq: sent as u32,
                    seq: received as u32,
                    bitmap: position.seen.word(0),
                });
            });
            return;
        }
        let words = replay.window.div_ceil(32);
        self.attribute(attr::REPLAY_ESN_VAL, |batch| {
            batch.put(&ReplayEsnHead {
                bmp_len: words,
                oseq: sent as u32,
                seq: received as u32,
                oseq_hi: (sent >> 32) as u32,
                seq_hi: (received >> 32) as u32,
                replay_window: replay.window,
            });
            for index in 0..words as usize {
                batch.put(&position.seen.word(index));
            }
        });
    }

    fn if_id(&mut self, if_id: u32) {
        if if_id != 0 {
            self.attribute(attr::IF_ID, |batch| batch.put(&if_id));
        }
    }

    /// Without it the kernel looks for what has no mark, or installs such.
    fn mark(&mut self, mark: Mark) {
        if !mark.is_none() {
            self.attribute(attr::MARK, |batch| batch.put(&[mark.value, mark.mask]));
        }
    }

    fn policy(&mut self, kind: u16, flags: u16, policy: &Policy, seq: u32) {
        self.begin(kind, flags, seq);
        self.put(&policy_info(policy));
        if let Action::Protect(template) = policy.action {
            self.attribute(attr::TMPL, |batch| batch.put(&user_template(&template)));
        }
        self.if_id(policy.key.if_id);
        self.mark(policy.key.mark);
        self.end();
    }

    fn delete_policy(&mut self, key: &PolicyKey, seq: u32) {
        self.begin(msg::DELPOLICY, ACKED, seq);
        self.put(&UserPolicyId {
            sel: selector(&key.selector),
            dir: key.direction as u8,
            ..UserPolicyId::default()
        });
        self.if_id(key.if_id);
        self.mark(key.mark);
        self.end();
    }
}

/// Names of the kernel's crypto API.
pub(super) const fn cipher_name(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::AesGcm16Key128 | Encryption::AesGcm16Key192 | Encryption::AesGcm16Key256 => {
            "rfc4106(gcm(aes))"
        }
        Encryption::ChaCha20Poly1305 => "rfc7539esp(chacha20,poly1305)",
        Encryption::AesCbc(..) => "cbc(aes)",
    }
}

pub(super) const fn integrity_name(integrity: Integrity) -> &'static str {
    match integrity {
        Integrity::HmacSha1_96 => "hmac(sha1)",
        Integrity::HmacSha256_128 => "hmac(sha256)",
        Integrity::HmacSha384_192 => "hmac(sha384)",
        Integrity::HmacSha512_256 => "hmac(sha512)",
    }
}

/// A window above 32 packets does not fit the old replay state, and ESN has only the new one.
fn needs_esn_state(replay: Replay) -> bool {
    replay.esn || replay.window > 32
}

/// XFRM_INF stands for no limit; the kernel would take 0 at its word.
const fn limit(amount: u64) -> u64 {
    if amount == 0 { XFRM_INF } else { amount }
}

fn sa_info(sa: &Sa) -> UserSaInfo {
    UserSaInfo {
        // An all-zero selector with AF_UNSPEC: the policies select, and inner packets may be of
        // the other family than the outer ones.
        sel: Selector::default(),
        id: esp_id(sa.id.dst, sa.id.spi),
        saddr: address(sa.src),
        lft: LifetimeCfg {
            hard_add_expires_seconds: sa.hard_lifetime_seconds,
            soft_byte_limit: limit(sa.quota.soft_bytes),
            hard_byte_limit: limit(sa.quota.hard_bytes),
            soft_packet_limit: limit(sa.quota.soft_packets),
            hard_packet_limit: limit(sa.quota.hard_packets),
            ..LifetimeCfg::default()
        },
        reqid: sa.reqid,
        family: family(sa.id.dst),
        mode: XFRM_MODE_TUNNEL,
        // The kernel refuses both this and REPLAY_ESN_VAL.
        replay_window: if needs_esn_state(sa.replay) {
            0
        } else {
            sa.replay.window as u8
        },
        flags: XFRM_STATE_AF_UNSPEC | if sa.replay.esn { XFRM_STATE_ESN } else { 0 },
        ..UserSaInfo::default()
    }
}

/// The fixed part of a policy, also for a socket's own.
pub(super) fn policy_info(policy: &Policy) -> UserPolicyInfo {
    UserPolicyInfo {
        sel: selector(&policy.key.selector),
        priority: policy.priority,
        dir: policy.key.direction as u8,
        action: match policy.action {
            Action::Block => XFRM_POLICY_BLOCK,
            Action::Protect(_) | Action::Bypass => XFRM_POLICY_ALLOW,
        },
        flags: if policy.icmp {
            XFRM_POLICY_FLAG_ICMP
        } else {
            0
        },
        ..UserPolicyInfo::default()
    }
}

fn user_template(template: &Template) -> UserTmpl {
    UserTmpl {
        // SPI 0: any SA with this reqid.
        id: esp_id(template.dst, [0; 4]),
        family: family(template.dst),
        saddr: address(template.src),
        reqid: template.reqid,
        mode: XFRM_MODE_TUNNEL,
        aalgos: u32::MAX,
        ealgos: u32::MAX,
        calgos: u32::MAX,
        ..UserTmpl::default()
    }
}

fn esp_id(dst: IpAddr, spi: [u8; 4]) -> Id {
    Id {
        daddr: address(dst),
        spi,
        proto: IPPROTO_ESP,
        pad: [0; 3],
    }
}

fn sa_id(id: &SaId) -> UserSaId {
    UserSaId {
        daddr: address(id.dst),
        spi: id.spi,
        family: family(id.dst),
        proto: IPPROTO_ESP,
        pad: 0,
    }
}

fn aevent_id(id: &SaId, flags: u32) -> AeventId {
    AeventId {
        sa_id: sa_id(id),
        flags,
        ..AeventId::default()
    }
}

fn selector(selector: &PolicySelector) -> Selector {
    Selector {
        daddr: network(selector.dst),
        saddr: network(selector.src),
        dport: selector.dst_port.value.to_be_bytes(),
        dport_mask: selector.dst_port.mask.to_be_bytes(),
        sport: selector.src_port.value.to_be_bytes(),
        sport_mask: selector.src_port.mask.to_be_bytes(),
        family: family(selector.dst.addr()),
        prefixlen_d: selector.dst.prefix_len(),
        prefixlen_s: selector.src.prefix_len(),
        proto: selector.protocol,
        ..Selector::default()
    }
}

fn network(network: IpNet) -> XfrmAddress {
    address(network.network())
}

fn family(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u16,
        IpAddr::V6(_) => libc::AF_INET6 as u16,
    }
}

fn address(address: IpAddr) -> XfrmAddress {
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(v4) => octets[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => octets = v6.octets(),
    }
    octets
}

fn name(text: &str) -> [u8; 64] {
    let mut name = [0; 64];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}
