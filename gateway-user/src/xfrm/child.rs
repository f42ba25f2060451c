//! A CHILD_SA as SAs and policies.

use std::net::IpAddr;

use gateway_common::abi::{MARK_MASK, MARK_SA, mark};
use gateway_ike::crypto::Encryption;
use gateway_ike::output::{ChildSa, Quota};
use gateway_ike::secret::SecretBytes;

use super::replay::{EVENT_EVERY_IN, EVENT_EVERY_OUT, Position};
use super::reqid;
use super::selector::Flow;
use super::types::{
    Action, Direction, Encapsulation, Policy, PolicyKey, Replay, Sa, SaId, Template,
};

/// Identity of the inbound SA.
pub(super) fn id_in(child: &ChildSa) -> SaId {
    SaId {
        mark: child.marks.of_inbound_sa(),
        ..SaId::new(child.spi_in, child.local)
    }
}

/// Identity of the outbound SA. It has no mark: the policy, which has it, asks for this very SA by
/// its reqid, and ICMP errors, which have none, would not find it.
pub(super) fn id_out(child: &ChildSa) -> SaId {
    SaId::new(child.spi_out, child.remote)
}

/// Sequence numbers of the inbound SA.
pub(super) const fn inbound_replay(child: &ChildSa) -> Replay {
    Replay {
        window: child.replay_window,
        esn: child.esn,
    }
}

/// Sequence numbers of the outbound SA of a child with this inbound one.
pub(super) const fn outbound_replay(inbound: Replay) -> Replay {
    Replay {
        // An outbound SA keeps no window, but kernels before 6.10 refuse ESN without one.
        window: if inbound.esn { inbound.window } else { 0 },
        esn: inbound.esn,
    }
}

/// The SA that decrypts.
pub(super) fn inbound(child: &ChildSa, reqid: u32) -> Sa {
    Sa {
        id: id_in(child),
        src: child.remote,
        reqid,
        encryption: child.encryption,
        key: child.key_in.clone(),
        encapsulation: child.encap.map(|(ours, peers)| Encapsulation {
            src_port: peers,
            dst_port: ours,
        }),
        replay: inbound_replay(child),
        output_mark: (!child.marks.set_in.is_none())
            .then_some((child.marks.set_in.value, child.marks.set_in.mask)),
        if_id: child.if_id_in,
        hard_lifetime_seconds: child.hard_lifetime_seconds,
        quota: child.quota,
        start: Position::default(),
        event_every: EVENT_EVERY_IN,
    }
}

/// The SA that encrypts. Its output mark names the slot: the fence lets the packets out by it. What
/// the operator wants to have set besides has other bits.
pub(super) fn outbound(child: &ChildSa, reqid: u32) -> Sa {
    Sa {
        id: id_out(child),
        src: child.local,
        reqid,
        encryption: child.encryption,
        key: child.key_out.clone(),
        encapsulation: child.encap.map(|(ours, peers)| Encapsulation {
            src_port: ours,
            dst_port: peers,
        }),
        replay: outbound_replay(inbound_replay(child)),
        output_mark: Some((
            mark(MARK_SA, child.slot.0) | child.marks.set_out.value & !MARK_MASK,
            MARK_MASK | child.marks.set_out.mask,
        )),
        if_id: child.if_id_out,
        hard_lifetime_seconds: child.hard_lifetime_seconds,
        quota: child.quota,
        start: Position::default(),
        event_every: EVENT_EVERY_OUT,
    }
}

/// An SA that nothing can use: from an address to itself, with a key that protects nothing. It has
/// one of our reqids, so that a process killed in between leaves nothing for ever.
pub(super) fn probe(local: IpAddr) -> Sa {
    let encryption = Encryption::AesGcm16Key128;
    Sa {
        id: SaId::new([0, 0, 1, 0], local),
        src: local,
        reqid: reqid::PROBE,
        encryption,
        key: SecretBytes::new(vec![0; encryption.keymat_len()]),
        encapsulation: None,
        replay: Replay {
            window: 32,
            esn: false,
        },
        output_mark: None,
        if_id: 0,
        hard_lifetime_seconds: 1,
        quota: Quota::default(),
        start: Position::default(),
        event_every: 0,
    }
}

/// The policies of one direction.
pub(super) fn policies<'a>(
    child: &'a ChildSa,
    flows: &'a [Flow],
    direction: Direction,
    reqid: u32,
) -> impl Iterator<Item = Policy> + 'a {
    let (src, dst, if_id, mark) = match direction {
        Direction::Out => (
            child.local,
            child.remote,
            child.if_id_out,
            child.marks.outbound,
        ),
        Direction::In | Direction::Fwd => (
            child.remote,
            child.local,
            child.if_id_in,
            child.marks.inbound,
        ),
    };
    flows.iter().map(move |flow| {
        let selector = flow.selector(direction);
        let key = PolicyKey {
            direction,
            selector,
            if_id,
            mark,
        };
        Policy {
            key,
            priority: key.priority(),
            action: Action::Protect(Template { src, dst, reqid }),
            icmp: true,
        }
    })
}
