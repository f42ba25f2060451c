//! `linux/xfrm.h` and `linux/netlink.h`: numbers and structures, padding spelled out.
//!
//! Multi-byte fields are in host order unless their comment says network order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XFRM_MSG_*`.
pub(super) mod msg {
    pub(crate) const NEWSA: u16 = 0x10;
    pub(crate) const DELSA: u16 = 0x11;
    pub(crate) const GETSA: u16 = 0x12;
    pub(crate) const NEWPOLICY: u16 = 0x13;
    pub(crate) const DELPOLICY: u16 = 0x14;
    pub(crate) const GETPOLICY: u16 = 0x15;
    pub(crate) const ACQUIRE: u16 = 0x17;
    pub(crate) const EXPIRE: u16 = 0x18;
    pub(crate) const UPDPOLICY: u16 = 0x19;
    pub(crate) const UPDSA: u16 = 0x1a;
    pub(crate) const NEWAE: u16 = 0x1e;
    pub(crate) const GETAE: u16 = 0x1f;
}

/// `XFRMA_*`.
pub(super) mod attr {
    pub(crate) const ALG_CRYPT: u16 = 2;
    pub(crate) const ENCAP: u16 = 4;
    pub(crate) const TMPL: u16 = 5;
    pub(crate) const SA: u16 = 6;
    pub(crate) const REPLAY_VAL: u16 = 10;
    pub(crate) const REPLAY_THRESH: u16 = 11;
    pub(crate) const ETIMER_THRESH: u16 = 12;
    pub(crate) const LASTUSED: u16 = 15;
    pub(crate) const POLICY_TYPE: u16 = 16;
    pub(crate) const ALG_AEAD: u16 = 18;
    pub(crate) const ALG_AUTH_TRUNC: u16 = 20;
    pub(crate) const MARK: u16 = 21;
    pub(crate) const REPLAY_ESN_VAL: u16 = 23;
    pub(crate) const SET_MARK: u16 = 29;
    pub(crate) const SET_MARK_MASK: u16 = 30;
    pub(crate) const IF_ID: u16 = 31;
}

pub(super) const IPPROTO_ESP: u8 = 50;
pub(super) const XFRM_MODE_TUNNEL: u8 = 1;
pub(super) const XFRM_STATE_AF_UNSPEC: u8 = 32;
pub(super) const XFRM_STATE_ESN: u8 = 128;
pub(super) const XFRM_POLICY_ALLOW: u8 = 0;
pub(super) const XFRM_POLICY_BLOCK: u8 = 1;
pub(super) const XFRM_POLICY_FLAG_ICMP: u8 = 2;
pub(super) const XFRM_POLICY_TYPE_MAIN: u8 = 0;
pub(super) const XFRM_INF: u64 = u64::MAX;
pub(super) const UDP_ENCAP_ESPINUDP: u16 = 2;
/// Multicast group of `XFRM_MSG_ACQUIRE`.
pub(super) const XFRMNLGRP_ACQUIRE: u32 = 1;
/// Multicast group of `XFRM_MSG_EXPIRE`.
pub(super) const XFRMNLGRP_EXPIRE: u32 = 2;
/// Multicast group of `XFRM_MSG_NEWSA`, `_DELSA` and `_UPDSA`: keys are in its messages.
pub(super) const XFRMNLGRP_SA: u32 = 3;
/// Multicast group of `XFRM_MSG_NEWAE`.
pub(super) const XFRMNLGRP_AEVENTS: u32 = 5;
/// In a request for the replay state: also the threshold.
pub(super) const XFRM_AE_RTHR: u32 = 1;
/// In a request for the replay state: also the timer.
pub(super) const XFRM_AE_ETHR: u32 = 8;
/// In a replay event: somebody's `XFRM_MSG_NEWAE` is its cause, and no packet.
pub(super) const XFRM_AE_CU: u32 = 64;

/// `CRYPTO_MSG_NEWALG`, of `linux/cryptouser.h`.
pub(super) const CRYPTO_MSG_NEWALG: u16 = 0x10;
/// Kind of algorithm, of `linux/crypto.h`: not part of its user space interface, but of each message.
pub(super) const CRYPTO_ALG_TYPE_AEAD: u32 = 3;
/// The bits of the kind.
pub(super) const CRYPTO_ALG_TYPE_MASK: u32 = 15;
/// `CRYPTO_MAX_NAME`: octets of a name, a zero at the end included.
pub(super) const CRYPTO_MAX_NAME: usize = 64;

/// `struct crypto_user_alg`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct CryptoUserAlg {
    pub(super) name: [u8; CRYPTO_MAX_NAME],
    pub(super) driver_name: [u8; CRYPTO_MAX_NAME],
    pub(super) module_name: [u8; CRYPTO_MAX_NAME],
    pub(super) kind: u32,
    pub(super) mask: u32,
    pub(super) refcnt: u32,
    pub(super) flags: u32,
}

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct NlMsgHdr {
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    pub(super) pid: u32,
}

/// `struct nlattr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct NlAttr {
    pub(super) len: u16,
    pub(super) kind: u16,
}

/// `xfrm_address_t`: an IPv6 address, or an IPv4 address and twelve zero octets; network order.
pub(super) type XfrmAddress = [u8; 16];

/// `struct xfrm_selector`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Selector {
    pub(super) daddr: XfrmAddress,
    pub(super) saddr: XfrmAddress,
    /// Network order, as the three after it.
    pub(super) dport: [u8; 2],
    pub(super) dport_mask: [u8; 2],
    pub(super) sport: [u8; 2],
    pub(super) sport_mask: [u8; 2],
    pub(super) family: u16,
    pub(super) prefixlen_d: u8,
    pub(super) prefixlen_s: u8,
    pub(super) proto: u8,
    pub(super) pad: [u8; 3],
    pub(super) ifindex: i32,
    pub(super) user: u32,
}

/// `struct xfrm_id`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Id {
    pub(super) daddr: XfrmAddress,
    /// Network order.
    pub(super) spi: [u8; 4],
    pub(super) proto: u8,
    pub(super) pad: [u8; 3],
}

/// `struct xfrm_lifetime_cfg`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct LifetimeCfg {
    pub(super) soft_byte_limit: u64,
    pub(super) hard_byte_limit: u64,
    pub(super) soft_packet_limit: u64,
    pub(super) hard_packet_limit: u64,
    pub(super) soft_add_expires_seconds: u64,
    pub(super) hard_add_expires_seconds: u64,
    pub(super) soft_use_expires_seconds: u64,
    pub(super) hard_use_expires_seconds: u64,
}

impl Default for LifetimeCfg {
    /// No limit. A byte or packet limit of 0 would be one that is always exceeded; 0 seconds are
    /// no limit.
    fn default() -> Self {
        Self {
            soft_byte_limit: XFRM_INF,
            hard_byte_limit: XFRM_INF,
            soft_packet_limit: XFRM_INF,
            hard_packet_limit: XFRM_INF,
            soft_add_expires_seconds: 0,
            hard_add_expires_seconds: 0,
            soft_use_expires_seconds: 0,
            hard_use_expires_seconds: 0,
        }
    }
}

/// `struct xfrm_lifetime_cur`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct LifetimeCur {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) add_time: u64,
    pub(super) use_time: u64,
}

/// `struct xfrm_stats`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Stats {
    pub(super) replay_window: u32,
    pub(super) replay: u32,
    pub(super) integrity_failed: u32,
}

/// `struct xfrm_usersa_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UserSaInfo {
    pub(super) sel: Selector,
    pub(super) id: Id,
    pub(super) saddr: XfrmAddress,
    pub(super) lft: LifetimeCfg,
    pub(super) curlft: LifetimeCur,
    pub(super) stats: Stats,
    pub(super) seq: u32,
    pub(super) reqid: u32,
    pub(super) family: u16,
    pub(super) mode: u8,
    pub(super) replay_window: u8,
    pub(super) flags: u8,
    pub(super) pad: [u8; 7],
}

/// `struct xfrm_usersa_id`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UserSaId {
    pub(super) daddr: XfrmAddress,
    /// Network order.
    pub(super) spi: [u8; 4],
    pub(super) family: u16,
    pub(super) proto: u8,
    pub(super) pad: u8,
}

/// `struct xfrm_aevent_id`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct AeventId {
    pub(super) sa_id: UserSaId,
    pub(super) saddr: XfrmAddress,
    pub(super) flags: u32,
    pub(super) reqid: u32,
}

/// `struct xfrm_user_expire`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UserExpire {
    pub(super) state: UserSaInfo,
    pub(super) hard: u8,
    pub(super) pad: [u8; 7],
}

/// `struct xfrm_userpolicy_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UserPolicyInfo {
    pub(super) sel: Selector,
    pub(super) lft: LifetimeCfg,
    pub(super) curlft: LifetimeCur,
    pub(super) priority: u32,
    pub(super) index: u32,
    pub(super) dir: u8,
    pub(super) action: u8,
    pub(super) flags: u8,
    pub(super) share: u8,
    pub(super) pad: [u8; 4],
}

/// `struct xfrm_user_acquire`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UserAcquire {
    pub(super) id: Id,
    pub(super) saddr: XfrmAddress,
    pub(super) sel: Selector,
    pub(super) policy: UserPolicyInfo,
    pub(super) aalgos: u32,
    pub(super) ealgos: u32,
    pub(super) calgos: u32,
    pub(super) seq: u32,
}

/// `struct xfrm_userpolicy_id`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UserPolicyId {
    pub(super) sel: Selector,
    pub(super) index: u32,
    pub(super) dir: u8,
    pub(super) pad: [u8; 3],
}

/// `struct xfrm_user_tmpl`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UserTmpl {
    pub(super) id: Id,
    pub(super) family: u16,
    pub(super) pad1: [u8; 2],
    pub(super) saddr: XfrmAddress,
    pub(super) reqid: u32,
    pub(super) mode: u8,
    pub(super) share: u8,
    pub(super) optional: u8,
    pub(super) pad2: u8,
    pub(super) aalgos: u32,
    pub(super) ealgos: u32,
    pub(super) calgos: u32,
}

/// `struct xfrm_encap_tmpl`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct EncapTmpl {
    pub(super) kind: u16,
    /// Network order, as the next.
    pub(super) sport: [u8; 2],
    pub(super) dport: [u8; 2],
    pub(super) pad: [u8; 2],
    pub(super) oa: XfrmAddress,
}

/// Head of `struct xfrm_algo`; the key follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct AlgoHead {
    pub(super) name: [u8; 64],
    pub(super) key_bits: u32,
}

/// Head of `struct xfrm_algo_aead` and of `struct xfrm_algo_auth`; the key follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct AlgoIcvHead {
    pub(super) name: [u8; 64],
    pub(super) key_bits: u32,
    pub(super) icv_bits: u32,
}

/// Head of `struct xfrm_replay_state_esn`; `bmp_len` words of bitmap follow.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ReplayEsnHead {
    pub(super) bmp_len: u32,
    pub(super) oseq: u32,
    pub(super) seq: u32,
    pub(super) oseq_hi: u32,
    pub(super) seq_hi: u32,
    pub(super) replay_window: u32,
}

/// `struct xfrm_replay_state`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ReplayState {
    pub(super) oseq: u32,
    pub(super) seq: u32,
    pub(super) bitmap: u32,
}

/// `struct xfrm_userpolicy_type`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UserPolicyType {
    pub(super) kind: u8,
    pub(super) pad1: u8,
    pub(super) reserved1: u16,
    pub(super) reserved2: u8,
    pub(super) pad2: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        // From `pahole` on linux/xfrm.h, x86-64.
        for (size, expected) in [
            (size_of::<Selector>(), 56),
            (size_of::<Id>(), 24),
            (size_of::<LifetimeCfg>(), 64),
            (size_of::<LifetimeCur>(), 32),
            (size_of::<UserSaInfo>(), 224),
            (size_of::<UserSaId>(), 24),
            (size_of::<AeventId>(), 48),
            (size_of::<UserExpire>(), 232),
            (size_of::<UserPolicyInfo>(), 168),
            (size_of::<UserPolicyId>(), 64),
            (size_of::<UserTmpl>(), 64),
            (size_of::<EncapTmpl>(), 24),
            (size_of::<AlgoHead>(), 68),
            (size_of::<AlgoIcvHead>(), 72),
            (size_of::<ReplayEsnHead>(), 24),
            (size_of::<ReplayState>(), 12),
            (size_of::<UserPolicyType>(), 6),
        ] {
            assert_eq!(size, expected);
        }
    }
}
