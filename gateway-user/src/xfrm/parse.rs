//! What the kernel sends. Total: any octets give a value, `None` or an end, never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_ike::mark::Mark;
use gateway_ike::output::Quota;
use ipnet::IpNet;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::replay::{Position, Seen, Standpoint};
use super::selector::{PolicySelector, PortMatch};
use super::types::{
    Action, Direction, Encapsulation, KeyCheck, Policy, PolicyKey, Replay, SaId, SaState, Template,
};
use super::uapi::{
    AeventId, AlgoHead, AlgoIcvHead, EncapTmpl, IPPROTO_ESP, NlAttr, NlMsgHdr, ReplayEsnHead,
    ReplayState, Selector, UserAcquire, UserExpire, UserPolicyInfo, UserPolicyType, UserSaId,
    UserSaInfo, UserTmpl, XFRM_AE_CU, XFRM_INF, XFRM_MODE_TUNNEL, XFRM_POLICY_ALLOW,
    XFRM_POLICY_BLOCK, XFRM_POLICY_FLAG_ICMP, XFRM_POLICY_TYPE_MAIN, XFRM_STATE_ESN, XfrmAddress,
    attr,
};

/// A netlink message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) header: NlMsgHdr,
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram; ends at the first that is malformed.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let (header, _) = NlMsgHdr::read_from_prefix(self.0).ok()?;
        let len = header.len as usize;
        let payload = self.0.get(size_of::<NlMsgHdr>()..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message { header, payload })
    }
}

/// Attributes as (type, value); ends at the first that is malformed.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = NlAttr::read_from_prefix(self.0).ok()?;
        let len = usize::from(header.len);
        let value = self.0.get(size_of::<NlAttr>()..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        // The two upper bits are flags (nested, byte order).
        Some((header.kind & 0x3fff, value))
    }
}

/// What an `NLMSG_ERROR` says: errno (positive, 0 = acknowledged) and the kernel's words.
pub(super) fn acknowledgement(message: &Message<'_>) -> Option<(i32, Option<String>)> {
    const NLM_F_CAPPED: u16 = 0x100;
    const NLM_F_ACK_TLVS: u16 = 0x200;
    const NLMSGERR_ATTR_MSG: u16 = 1;

    let (code, rest) = i32::read_from_prefix(message.payload).ok()?;
    let errno = code.checked_neg()?;
    if message.header.flags & NLM_F_ACK_TLVS == 0 {
        return Some((errno, None));
    }
    let (request, _) = NlMsgHdr::read_from_prefix(rest).ok()?;
    let echoed = if message.header.flags & NLM_F_CAPPED != 0 {
        size_of::<NlMsgHdr>()
    } else {
        (request.len as usize).next_multiple_of(4)
    };
    let words = Attributes(rest.get(echoed..).unwrap_or(&[]))
        .find(|&(kind, _)| kind == NLMSGERR_ATTR_MSG)
        .map(|(_, text)| {
            String::from_utf8_lossy(text)
                .trim_end_matches('\0')
                .to_owned()
        });
    Some((errno, words))
}

/// An SA; `None` if malformed or not an ESP tunnel.
pub(super) fn sa(payload: &[u8]) -> Option<SaState> {
    let (info, attributes) = UserSaInfo::read_from_prefix(payload).ok()?;
    state(&info, attributes)
}

const fn amount(limit: u64) -> u64 {
    if limit == XFRM_INF { 0 } else { limit }
}

fn state(info: &UserSaInfo, attributes: &[u8]) -> Option<SaState> {
    // SPI 0: what the kernel keeps while it waits for an SA that it has asked for.
    let larval = info.id.spi == [0; 4];
    if info.id.proto != IPPROTO_ESP || info.mode != XFRM_MODE_TUNNEL || larval {
        return None;
    }
    let mut state = SaState {
        id: sa_id(info)?,
        src: address(&info.saddr, info.family)?,
        reqid: info.reqid,
        encapsulation: None,
        replay: Replay {
            window: u32::from(info.replay_window),
            esn: info.flags & XFRM_STATE_ESN != 0,
        },
        output_mark: None,
        if_id: 0,
        hard_lifetime_seconds: info.lft.hard_add_expires_seconds,
        quota: Quota {
            soft_bytes: amount(info.lft.soft_byte_limit),
            hard_bytes: amount(info.lft.hard_byte_limit),
            soft_packets: amount(info.lft.soft_packet_limit),
            hard_packets: amount(info.lft.hard_packet_limit),
        },
        packets: info.curlft.packets,
        bytes: info.curlft.bytes,
        sequence_out: 0,
        sequence_in: 0,
        replays: info.stats.replay,
        outside_window: info.stats.replay_window,
        integrity_failures: info.stats.integrity_failed,
        added_at: info.curlft.add_time,
        first_used_at: info.curlft.use_time,
        last_used_at: None,
        seen: Seen::Nothing,
        key: KeyCheck::default(),
    };
    for (kind, value) in Attributes(attributes) {
        sa_attribute(&mut state, kind, value);
    }
    Some(state)
}

fn sa_attribute(state: &mut SaState, kind: u16, value: &[u8]) {
    match kind {
        attr::ENCAP => {
            if let Some(encap) = read::<EncapTmpl>(value) {
                state.encapsulation = Some(Encapsulation {
                    src_port: u16::from_be_bytes(encap.sport),
                    dst_port: u16::from_be_bytes(encap.dport),
                });
            }
        }
        attr::REPLAY_ESN_VAL | attr::REPLAY_VAL => {
            if kind == attr::REPLAY_ESN_VAL
                && let Some(replay) = read::<ReplayEsnHead>(value)
            {
                state.replay.window = replay.replay_window;
            }
            if let Some(position) = position(kind, value) {
                state.sequence_out = position.sequence_out;
                state.sequence_in = position.sequence_in;
                state.seen = position.seen;
            }
        }
        attr::ALG_AEAD | attr::ALG_AUTH_TRUNC => {
            if let Ok((head, rest)) = AlgoIcvHead::read_from_prefix(value) {
                let integrity = kind == attr::ALG_AUTH_TRUNC;
                key(state, integrity, head.key_bits, rest);
            }
        }
        attr::ALG_CRYPT => {
            if let Ok((head, rest)) = AlgoHead::read_from_prefix(value) {
                key(state, false, head.key_bits, rest);
            }
        }
        attr::SET_MARK => {
            // Without a mask attribute the mask is all ones.
            if let Some(value) = read(value) {
                let mask = state.output_mark.map_or(u32::MAX, |(_, mask)| mask);
                state.output_mark = Some((value, mask));
            }
        }
        attr::SET_MARK_MASK => {
            if let Some(mask) = read(value) {
                let value = state.output_mark.map_or(0, |(value, _)| value);
                state.output_mark = Some((value, mask));
            }
        }
        attr::IF_ID => state.if_id = read(value).unwrap_or(0),
        attr::MARK => state.id.mark = mark(value),
        attr::LASTUSED => state.last_used_at = read(value).filter(|&seconds: &u64| seconds != 0),
        _ => {}
    }
}

/// One of the keys of an SA.
fn key(state: &mut SaState, integrity: bool, bits: u32, rest: &[u8]) {
    if let Some(key) = rest.get(..bits as usize / 8) {
        state.key = state.key.and(integrity, key);
    }
}

/// A replay state of either layout.
fn position(kind: u16, value: &[u8]) -> Option<Position> {
    if kind == attr::REPLAY_VAL {
        let replay = read::<ReplayState>(value)?;
        return Some(Position {
            sequence_out: u64::from(replay.oseq),
            sequence_in: u64::from(replay.seq),
            seen: Seen::Bitmap(vec![replay.bitmap]),
        });
    }
    let (head, bitmap) = ReplayEsnHead::read_from_prefix(value).ok()?;
    let words = bitmap
        .as_chunks::<4>()
        .0
        .iter()
        .take(head.bmp_len as usize)
        .map(|word| u32::from_ne_bytes(*word));
    Some(Position {
        sequence_out: wide(head.oseq_hi, head.oseq),
        sequence_in: wide(head.seq_hi, head.seq),
        seen: Seen::Bitmap(words.collect()),
    })
}

/// A replay event, or the answer to a question for one: which SA, whether the kernel only echoes
/// somebody's `XFRM_MSG_NEWAE`, and what it says.
pub(super) fn replay_event(payload: &[u8]) -> Option<(SaId, bool, Standpoint)> {
    let (id, attributes) = AeventId::read_from_prefix(payload).ok()?;
    if id.sa_id.proto != IPPROTO_ESP {
        return None;
    }
    let mut sa = SaId::new(id.sa_id.spi, address(&id.sa_id.daddr, id.sa_id.family)?);
    let mut found = None;
    let (mut event_every, mut timed) = (0, false);
    for (kind, value) in Attributes(attributes) {
        match kind {
            attr::REPLAY_ESN_VAL | attr::REPLAY_VAL => found = position(kind, value),
            attr::REPLAY_THRESH => event_every = read(value).unwrap_or(0),
            attr::MARK => sa.mark = mark(value),
            attr::ETIMER_THRESH => timed = read(value).unwrap_or(0u32) != 0,
            _ => {}
        }
    }
    let standpoint = Standpoint {
        position: found?,
        event_every,
        timed,
    };
    Some((sa, id.flags & XFRM_AE_CU != 0, standpoint))
}

/// What `XFRM_MSG_DELSA` tells of an SA that is gone: its last state.
pub(super) fn deleted(payload: &[u8]) -> Option<SaState> {
    let (_, attributes) = UserSaId::read_from_prefix(payload).ok()?;
    let (_, info) = Attributes(attributes).find(|&(kind, _)| kind == attr::SA)?;
    state(&read::<UserSaInfo>(info)?, attributes)
}

fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// A policy; `None` if malformed, a socket's own, of the "sub" type, or asking for
/// something else than one ESP tunnel.
pub(super) fn policy(payload: &[u8]) -> Option<Policy> {
    let (info, attributes) = UserPolicyInfo::read_from_prefix(payload).ok()?;
    let direction = match info.dir {
        0 => Direction::In,
        1 => Direction::Out,
        2 => Direction::Fwd,
        _ => return None,
    };
    let mut templates: &[u8] = &[];
    let (mut if_id, mut marked) = (0, Mark::NONE);
    for (kind, value) in Attributes(attributes) {
        match kind {
            attr::TMPL => templates = value,
            attr::IF_ID => if_id = read(value).unwrap_or(0),
            attr::MARK => marked = mark(value),
            attr::POLICY_TYPE if read::<UserPolicyType>(value)?.kind != XFRM_POLICY_TYPE_MAIN => {
                return None;
            }
            _ => {}
        }
    }
    let action = match (info.action, templates.len() / size_of::<UserTmpl>()) {
        (XFRM_POLICY_BLOCK, _) => Action::Block,
        (XFRM_POLICY_ALLOW, 0) => Action::Bypass,
        (XFRM_POLICY_ALLOW, 1) => Action::Protect(template(templates)?),
        _ => return None,
    };
    Some(Policy {
        key: PolicyKey {
            direction,
            selector: selector(&info.sel)?,
            if_id,
            mark: marked,
        },
        priority: info.priority,
        action,
        icmp: info.flags & XFRM_POLICY_FLAG_ICMP != 0,
    })
}

/// An expiry: which SA, and whether it is gone.
pub(super) fn expiry(payload: &[u8]) -> Option<(SaId, bool)> {
    let (expire, attributes) = UserExpire::read_from_prefix(payload).ok()?;
    if expire.state.id.proto != IPPROTO_ESP {
        return None;
    }
    let mut sa = sa_id(&expire.state)?;
    if let Some((_, value)) = Attributes(attributes).find(|&(kind, _)| kind == attr::MARK) {
        sa.mark = mark(value);
    }
    Some((sa, expire.hard != 0))
}

/// The policy whose packet found no SA (`XFRM_MSG_ACQUIRE`); `None` if it is none of a tunnel's.
pub(super) fn acquire(payload: &[u8]) -> Option<PolicyKey> {
    let (acquire, attributes) = UserAcquire::read_from_prefix(payload).ok()?;
    if acquire.id.proto != IPPROTO_ESP || acquire.policy.dir != Direction::Out as u8 {
        return None;
    }
    let (mut if_id, mut marked) = (0, Mark::NONE);
    for (kind, value) in Attributes(attributes) {
        match kind {
            attr::IF_ID => if_id = read(value).unwrap_or(0),
            attr::MARK => marked = mark(value),
            _ => {}
        }
    }
    Some(PolicyKey {
        direction: Direction::Out,
        selector: selector(&acquire.policy.sel)?,
        if_id,
        mark: marked,
    })
}

fn sa_id(info: &UserSaInfo) -> Option<SaId> {
    Some(SaId::new(
        info.id.spi,
        address(&info.id.daddr, info.family)?,
    ))
}

/// `struct xfrm_mark`.
fn mark(value: &[u8]) -> Mark {
    let (value, mask) = read::<[u32; 2]>(value).map_or((0, 0), |[value, mask]| (value, mask));
    Mark::new(value, mask)
}

fn template(value: &[u8]) -> Option<Template> {
    let template = read::<UserTmpl>(value)?;
    if template.id.proto != IPPROTO_ESP || template.mode != XFRM_MODE_TUNNEL {
        return None;
    }
    Some(Template {
        src: address(&template.saddr, template.family)?,
        dst: address(&template.id.daddr, template.family)?,
        reqid: template.reqid,
    })
}

fn selector(selector: &Selector) -> Option<PolicySelector> {
    let network = |octets, len| IpNet::new(address(octets, selector.family)?, len).ok();
    let port = |value: [u8; 2], mask: [u8; 2]| PortMatch {
        value: u16::from_be_bytes(value) & u16::from_be_bytes(mask),
        mask: u16::from_be_bytes(mask),
    };
    Some(PolicySelector {
        src: network(&selector.saddr, selector.prefixlen_s)?.trunc(),
        dst: network(&selector.daddr, selector.prefixlen_d)?.trunc(),
        protocol: selector.proto,
        src_port: port(selector.sport, selector.sport_mask),
        dst_port: port(selector.dport, selector.dport_mask),
    })
}

fn address(octets: &XfrmAddress, family: u16) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => {
            let [a, b, c, d, ..] = *octets;
            Some(Ipv4Addr::new(a, b, c, d).into())
        }
        libc::AF_INET6 => Some(Ipv6Addr::from(*octets).into()),
        _ => None,
    }
}

fn read<T: FromBytes + KnownLayout + Immutable>(octets: &[u8]) -> Option<T> {
    T::read_from_prefix(octets).ok().map(|(value, _)| value)
}
