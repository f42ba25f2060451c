//! Our encoder against that of netlink-packet-xfrm, octet for octet.

use gateway_ike::crypto::{Encryption, Integrity};
use gateway_ike::mark::Mark;
use gateway_ike::secret::SecretBytes;
use netlink_packet_core::Emitable;
use netlink_packet_xfrm as other;
use netlink_packet_xfrm::{XfrmAttrs, XfrmMessage};

use super::{child, ip, sa};
use crate::xfrm::child::outbound;
use crate::xfrm::message::{Batch, MAX_REQUEST};
use crate::xfrm::parse::{self, Messages};
use crate::xfrm::types::{
    Action, Direction, Encapsulation, Policy, PolicyKey, Replay, Request, Sa, SaId, Template,
};
use crate::xfrm::{Move, PolicySelector, PortMatch, Position, Seen};

const SEQ: u32 = 0x0102_0304;

fn encode(request: &Request<'_>) -> Vec<u8> {
    let mut batch = Batch::new(MAX_REQUEST);
    batch.push(request, SEQ, true);
    batch.bytes().to_vec()
}

fn expect(message: &XfrmMessage, flags: i32) -> Vec<u8> {
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut payload);
    let mut bytes = Vec::new();
    bytes.extend((payload.len() as u32 + 16).to_ne_bytes());
    bytes.extend(message.message_type().to_ne_bytes());
    bytes.extend((flags as u16).to_ne_bytes());
    bytes.extend(SEQ.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(payload);
    bytes
}

const CREATE: i32 = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const REPLACE: i32 =
    libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
const PLAIN: i32 = libc::NLM_F_REQUEST | libc::NLM_F_ACK;

fn family(address: std::net::IpAddr) -> u16 {
    if address.is_ipv4() {
        other::constants::AF_INET
    } else {
        other::constants::AF_INET6
    }
}

fn padded(text: &str) -> [u8; 64] {
    let mut name = [0; 64];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

/// RFC 7296 §2.17: the encryption key first, then the integrity key.
fn algorithms(sa: &Sa) -> Vec<XfrmAttrs> {
    let key = sa.key.expose();
    let (name, integrity) = match sa.encryption {
        Encryption::AesCbc(_, Integrity::HmacSha1_96) => ("cbc(aes)", Some(("hmac(sha1)", 20, 96))),
        Encryption::AesCbc(_, Integrity::HmacSha256_128) => {
            ("cbc(aes)", Some(("hmac(sha256)", 32, 128)))
        }
        Encryption::AesCbc(_, Integrity::HmacSha384_192) => {
            ("cbc(aes)", Some(("hmac(sha384)", 48, 192)))
        }
        Encryption::AesCbc(_, Integrity::HmacSha512_256) => {
            ("cbc(aes)", Some(("hmac(sha512)", 64, 256)))
        }
        Encryption::ChaCha20Poly1305 => ("rfc7539esp(chacha20,poly1305)", None),
        _ => ("rfc4106(gcm(aes))", None),
    };
    let Some((hash, hash_key_len, icv_bits)) = integrity else {
        return vec![XfrmAttrs::EncryptionAlgAead(other::AlgAead {
            alg_name: padded(name),
            alg_key_len: key.len() as u32 * 8,
            alg_icv_len: 128,
            alg_key: key.to_vec(),
        })];
    };
    let (cipher_key, hash_key) = key.split_at(key.len() - hash_key_len);
    vec![
        XfrmAttrs::AuthenticationAlgTrunc(other::AlgAuth {
            alg_name: padded(hash),
            alg_key_len: hash_key_len as u32 * 8,
            alg_trunc_len: icv_bits,
            alg_key: hash_key.to_vec(),
        }),
        XfrmAttrs::EncryptionAlg(other::Alg {
            alg_name: padded(name),
            alg_key_len: cipher_key.len() as u32 * 8,
            alg_key: cipher_key.to_vec(),
        }),
    ]
}

fn other_sa(sa: &Sa) -> other::state::ModifyMessage {
    let mut info = other::UserSaInfo {
        reqid: sa.reqid,
        family: family(sa.id.dst),
        mode: other::constants::XFRM_MODE_TUNNEL,
        flags: other::constants::XFRM_STATE_AF_UNSPEC,
        ..other::UserSaInfo::default()
    };
    info.source(&sa.src);
    info.destination(&sa.id.dst);
    info.family = family(sa.id.dst);
    info.selector = other::Selector::default();
    info.id.spi = u32::from_be_bytes(sa.id.spi);
    info.id.proto = other::constants::IPPROTO_ESP;
    info.lifetime_cfg.hard_add_expires_seconds = sa.hard_lifetime_seconds;
    let inf = |amount: u64| if amount == 0 { u64::MAX } else { amount };
    info.lifetime_cfg.soft_byte_limit = inf(sa.quota.soft_bytes);
    info.lifetime_cfg.hard_byte_limit = inf(sa.quota.hard_bytes);
    info.lifetime_cfg.soft_packet_limit = inf(sa.quota.soft_packets);
    info.lifetime_cfg.hard_packet_limit = inf(sa.quota.hard_packets);
    let mut nlas = algorithms(sa);
    if let Some(ports) = sa.encapsulation {
        nlas.push(XfrmAttrs::EncapsulationTemplate(other::EncapTmpl {
            encap_type: other::constants::UDP_ENCAP_ESPINUDP,
            encap_sport: ports.src_port,
            encap_dport: ports.dst_port,
            encap_oa: other::Address::default(),
        }));
    }
    if sa.replay.esn || sa.replay.window > 32 {
        info.flags |= if sa.replay.esn {
            other::constants::XFRM_STATE_ESN
        } else {
            0
        };
        let words = sa.replay.window.div_ceil(32);
        nlas.push(XfrmAttrs::ReplayStateEsn(other::ReplayEsn {
            bmp_len: words,
            replay_window: sa.replay.window,
            bmp: vec![0; words as usize],
            ..other::ReplayEsn::default()
        }));
    } else {
        info.replay_window = sa.replay.window as u8;
    }
    if sa.event_every != 0 {
        nlas.push(XfrmAttrs::ReplayThreshold(sa.event_every));
        nlas.push(XfrmAttrs::EventTimeThreshold(0));
    }
    if let Some((value, mask)) = sa.output_mark {
        nlas.push(XfrmAttrs::MarkVal(value));
        nlas.push(XfrmAttrs::MarkMask(mask));
    }
    if sa.if_id != 0 {
        nlas.push(XfrmAttrs::IfId(sa.if_id));
    }
    nlas.extend(other_mark(sa.id.mark));
    other::state::ModifyMessage {
        user_sa_info: info,
        nlas,
    }
}

fn sas() -> Vec<Sa> {
    let v6 = Sa {
        id: SaId::new([0xc1, 2, 3, 4], ip("2001:db8::1")),
        src: ip("2001:db8::2"),
        encryption: Encryption::AesGcm16Key256,
        key: SecretBytes::new((0..36).collect()),
        ..sa(1)
    };
    let mut marked = outbound(&child(9), 0x4700_0002);
    marked.if_id = 42;
    let mut found_by_mark = sa(5);
    found_by_mark.id.mark = Mark::new(0x2a, 0xff);
    found_by_mark.if_id = 3;
    let mut all = vec![
        sa(1),
        v6.clone(),
        marked,
        found_by_mark,
        Sa {
            encapsulation: Some(Encapsulation {
                src_port: 4500,
                dst_port: 61234,
            }),
            hard_lifetime_seconds: 0,
            quota: gateway_ike::output::Quota {
                soft_bytes: 1 << 40,
                hard_packets: 1 << 33,
                ..gateway_ike::output::Quota::default()
            },
            ..sa(2)
        },
        Sa {
            replay: Replay {
                window: 128,
                esn: true,
            },
            ..v6.clone()
        },
        Sa {
            replay: Replay {
                window: 33,
                esn: false,
            },
            ..sa(3)
        },
        Sa {
            replay: Replay {
                window: 4096,
                esn: true,
            },
            encapsulation: Some(Encapsulation {
                src_port: 1,
                dst_port: 2,
            }),
            output_mark: Some((1, 1)),
            if_id: 1,
            ..v6
        },
    ];
    all.extend(Encryption::all().map(|encryption| Sa {
        encryption,
        key: SecretBytes::new((0..).take(encryption.keymat_len()).collect()),
        ..sa(4)
    }));
    all
}

#[test]
fn sas_agree() {
    for sa in sas() {
        let message = other_sa(&sa);
        assert_eq!(
            encode(&Request::NewSa(&sa)),
            expect(&XfrmMessage::AddSa(message.clone()), CREATE)
        );
        assert_eq!(
            encode(&Request::UpdateSa(&sa)),
            expect(&XfrmMessage::UpdateSa(message), REPLACE)
        );
        let mut id = other::UserSaId {
            spi: u32::from_be_bytes(sa.id.spi),
            family: family(sa.id.dst),
            proto: other::constants::IPPROTO_ESP,
            ..other::UserSaId::default()
        };
        id.destination(&sa.id.dst);
        let delete = other::state::DelGetMessage {
            user_sa_id: id,
            nlas: other_mark(sa.id.mark).into_iter().collect(),
        };
        let mut batch = Batch::new(MAX_REQUEST);
        batch.push_query(&sa.id, SEQ);
        let query = XfrmMessage::GetSa(delete.clone());
        assert_eq!(batch.bytes(), expect(&query, libc::NLM_F_REQUEST));
        assert_eq!(
            encode(&Request::DeleteSa(&sa.id)),
            expect(&XfrmMessage::DeleteSa(delete), PLAIN)
        );
    }
}

fn other_selector(selector: &PolicySelector) -> other::Selector {
    let mut raw = other::Selector {
        sport: selector.src_port.value,
        sport_mask: selector.src_port.mask,
        dport: selector.dst_port.value,
        dport_mask: selector.dst_port.mask,
        proto: selector.protocol,
        ..other::Selector::default()
    };
    raw.source_prefix(&selector.src.network(), selector.src.prefix_len());
    raw.destination_prefix(&selector.dst.network(), selector.dst.prefix_len());
    raw
}

fn selector(src: &str, dst: &str) -> PolicySelector {
    PolicySelector::between(src.parse().unwrap(), dst.parse().unwrap())
}

fn policies() -> Vec<Policy> {
    let tcp = PolicySelector {
        protocol: 6,
        src_port: PortMatch {
            value: 443,
            mask: 0xffff,
        },
        dst_port: PortMatch {
            value: 1024,
            mask: 0xfc00,
        },
        ..selector("10.1.0.0/16", "10.2.0.0/16")
    };
    let tunnel = |src, dst| {
        Action::Protect(Template {
            src: ip(src),
            dst: ip(dst),
            reqid: 0x4700_0001,
        })
    };
    let policy = |direction, selector: PolicySelector, if_id, action, icmp| Policy {
        key: PolicyKey {
            direction,
            selector,
            if_id,
            mark: Mark::NONE,
        },
        priority: selector.priority(),
        action,
        icmp,
    };
    let v6 = selector("2001:db8:1::/48", "::/0");
    vec![
        policy(
            Direction::Out,
            tcp,
            0,
            tunnel("192.0.2.1", "192.0.2.2"),
            true,
        ),
        policy(
            Direction::In,
            v6,
            7,
            tunnel("2001:db8::2", "2001:db8::1"),
            true,
        ),
        policy(
            Direction::Fwd,
            v6,
            0,
            tunnel("192.0.2.1", "192.0.2.2"),
            true,
        ),
        policy(
            Direction::Out,
            selector("0.0.0.0/0", "10.2.0.0/16"),
            0,
            Action::Block,
            false,
        ),
        policy(
            Direction::In,
            selector("10.1.0.0/16", "0.0.0.0/0"),
            0,
            Action::Bypass,
            false,
        ),
    ]
}

/// Those, and the strongest with a mark.
fn marked_policies() -> Vec<Policy> {
    let mut all = policies();
    let mut marked = all[0];
    marked.key.mark = Mark::new(42, 0xff);
    all.push(marked);
    all
}

fn other_mark(mark: Mark) -> Option<XfrmAttrs> {
    let Mark { value, mask } = mark;
    (!mark.is_none()).then_some(XfrmAttrs::Mark(other::Mark { value, mask }))
}

fn other_policy(policy: &Policy) -> other::policy::ModifyMessage {
    let info = other::UserPolicyInfo {
        selector: other_selector(&policy.key.selector),
        priority: policy.priority,
        direction: policy.key.direction as u8,
        action: match policy.action {
            Action::Block => other::constants::XFRM_POLICY_BLOCK,
            _ => other::constants::XFRM_POLICY_ALLOW,
        },
        flags: if policy.icmp {
            other::constants::XFRM_POLICY_ICMP
        } else {
            0
        },
        ..other::UserPolicyInfo::default()
    };
    let mut nlas = vec![];
    if let Action::Protect(template) = policy.action {
        let mut raw = other::UserTemplate {
            family: family(template.dst),
            saddr: other::Address::from_ip(&template.src),
            reqid: template.reqid,
            mode: other::constants::XFRM_MODE_TUNNEL,
            ..other::UserTemplate::default()
        };
        raw.id.daddr = other::Address::from_ip(&template.dst);
        raw.id.proto = other::constants::IPPROTO_ESP;
        nlas.push(XfrmAttrs::Template(vec![raw]));
    }
    if policy.key.if_id != 0 {
        nlas.push(XfrmAttrs::IfId(policy.key.if_id));
    }
    nlas.extend(other_mark(policy.key.mark));
    other::policy::ModifyMessage {
        user_policy_info: info,
        nlas,
    }
}

#[test]
fn policies_agree() {
    for policy in marked_policies() {
        let message = other_policy(&policy);
        assert_eq!(
            encode(&Request::NewPolicy(&policy)),
            expect(&XfrmMessage::AddPolicy(message.clone()), CREATE)
        );
        assert_eq!(
            encode(&Request::UpdatePolicy(&policy)),
            expect(&XfrmMessage::UpdatePolicy(message), REPLACE)
        );
        let mut nlas = vec![];
        if policy.key.if_id != 0 {
            nlas.push(XfrmAttrs::IfId(policy.key.if_id));
        }
        nlas.extend(other_mark(policy.key.mark));
        let delete = other::policy::DelGetMessage {
            user_policy_id: other::UserPolicyId {
                selector: other_selector(&policy.key.selector),
                direction: policy.key.direction as u8,
                index: 0,
            },
            nlas,
        };
        assert_eq!(
            encode(&Request::DeletePolicy(&policy.key)),
            expect(&XfrmMessage::DeletePolicy(delete), PLAIN)
        );
    }
}

#[test]
fn what_we_encode_we_read_back() {
    for sa in sas() {
        let bytes = encode(&Request::NewSa(&sa));
        let message = Messages(&bytes).next().unwrap();
        let state = parse::sa(message.payload).unwrap();
        assert_eq!(
            (
                state.id,
                state.src,
                state.reqid,
                state.encapsulation,
                state.replay
            ),
            (sa.id, sa.src, sa.reqid, sa.encapsulation, sa.replay)
        );
        assert_eq!(
            (state.output_mark, state.if_id, state.hard_lifetime_seconds),
            (sa.output_mark, sa.if_id, sa.hard_lifetime_seconds)
        );
        assert_eq!(state.quota, sa.quota);
    }
    for policy in marked_policies() {
        let bytes = encode(&Request::NewPolicy(&policy));
        let message = Messages(&bytes).next().unwrap();
        assert_eq!(parse::policy(message.payload), Some(policy));
    }
}

#[test]
fn every_request_fits_its_room_and_a_cleared_batch_holds_nothing() {
    for sa in sas() {
        assert!(encode(&Request::NewSa(&sa)).len() <= MAX_REQUEST);
    }
    let mut batch = Batch::new(2 * MAX_REQUEST);
    batch.push(&Request::NewSa(&sa(1)), 1, true);
    assert!(batch.has_room());
    let at = batch.bytes().as_ptr();
    let len = batch.bytes().len();
    assert!(batch.bytes().windows(20).any(|w| w == [0x11; 20]));
    batch.clear();
    assert!(batch.bytes().is_empty());
    // SAFETY: the octets were written before and the buffer, whose capacity never changes, lives.
    let left = unsafe { std::slice::from_raw_parts(at, len) };
    assert!(left.iter().all(|&octet| octet == 0));
}

#[test]
fn messages_of_a_batch_are_aligned_and_numbered() {
    let mut batch = Batch::new(3 * MAX_REQUEST);
    for (seq, sa) in (5..).zip(&sas()[..3]) {
        batch.push(&Request::NewSa(sa), seq, true);
    }
    let numbers: Vec<u32> = Messages(batch.bytes()).map(|m| m.header.seq).collect();
    assert_eq!(numbers, [5, 6, 7]);
}

fn other_id(id: &SaId) -> other::AsyncEventId {
    let mut sa_id = other::UserSaId {
        spi: u32::from_be_bytes(id.spi),
        family: family(id.dst),
        proto: other::constants::IPPROTO_ESP,
        ..other::UserSaId::default()
    };
    sa_id.destination(&id.dst);
    other::AsyncEventId {
        sa_id,
        ..other::AsyncEventId::default()
    }
}

fn other_position(replay: Replay, position: &Position) -> XfrmAttrs {
    if !replay.esn && replay.window <= 32 {
        return XfrmAttrs::ReplayState(other::Replay {
            oseq: position.sequence_out as u32,
            seq: position.sequence_in as u32,
            bitmap: u32::MAX,
        });
    }
    let words = replay.window.div_ceil(32);
    XfrmAttrs::ReplayStateEsn(other::ReplayEsn {
        bmp_len: words,
        oseq: position.sequence_out as u32,
        seq: position.sequence_in as u32,
        oseq_hi: (position.sequence_out >> 32) as u32,
        seq_hi: (position.sequence_in >> 32) as u32,
        replay_window: replay.window,
        bmp: vec![u32::MAX; words as usize],
    })
}

#[test]
fn moves_agree_and_are_read_back() {
    const NEWAE: i32 = libc::NLM_F_REQUEST | libc::NLM_F_REPLACE;
    for (sa, high) in sas().iter().zip([0u64, 7].into_iter().cycle()) {
        let high = if sa.replay.esn { high << 32 } else { 0 };
        let to = Move {
            id: sa.id,
            replay: sa.replay,
            position: Position {
                sequence_out: high | 0x0102_0304,
                sequence_in: high | 0x0506_0708,
                seen: Seen::All,
            },
        };
        let message = other::monitor::NewAsyncEventMessage {
            id: other_id(&sa.id),
            nlas: other_mark(sa.id.mark)
                .into_iter()
                .chain([other_position(sa.replay, &to.position)])
                .collect(),
        };
        let message = XfrmMessage::NewAsyncEvent(message);
        let bytes = encode(&Request::MoveSa(&to));
        assert_eq!(bytes, expect(&message, NEWAE | libc::NLM_F_ACK));
        let mut batch = Batch::new(MAX_REQUEST);
        batch.push(&Request::MoveSa(&to), SEQ, false);
        assert_eq!(batch.bytes(), expect(&message, NEWAE));

        let payload = Messages(&bytes).next().unwrap().payload;
        let (id, echo, found) = parse::replay_event(payload).unwrap();
        assert_eq!((id, echo), (sa.id, false));
        assert_eq!(found.position.sequence_out, to.position.sequence_out);
        assert_eq!(found.position.sequence_in, to.position.sequence_in);
        // As an SA starts there, so it is read back.
        let mut started = sa.clone();
        started.start = to.position.clone();
        let bytes = encode(&Request::NewSa(&started));
        let state = parse::sa(Messages(&bytes).next().unwrap().payload).unwrap();
        assert_eq!(state.position(), found.position);
    }
}

#[test]
fn questions_for_sequence_numbers_carry_the_mark() {
    let mut id = sa(1).id;
    id.mark = Mark::new(0x2a, 0xff);
    let mut batch = Batch::new(MAX_REQUEST);
    batch.push_replay_query(&id, SEQ);
    let mut other = other_id(&id);
    other.flags = other::constants::XFRM_AE_RTHR | other::constants::XFRM_AE_ETHR;
    // The other encoder writes this question without attributes only.
    let message = XfrmMessage::NewAsyncEvent(other::monitor::NewAsyncEventMessage {
        id: other,
        nlas: other_mark(id.mark).into_iter().collect(),
    });
    let mut expected = expect(&message, libc::NLM_F_REQUEST);
    expected[4..6].copy_from_slice(&other::constants::XFRM_MSG_GETAE.to_ne_bytes());
    assert_eq!(batch.bytes(), expected);
}

#[test]
fn a_distance_of_events_agrees() {
    let pace = Request::Pace(&sa(1).id, 77);
    let message = other::monitor::NewAsyncEventMessage {
        id: other_id(&sa(1).id),
        nlas: vec![XfrmAttrs::ReplayThreshold(77)],
    };
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_REPLACE | libc::NLM_F_ACK;
    assert_eq!(
        encode(&pace),
        expect(&XfrmMessage::NewAsyncEvent(message), flags)
    );
}
