//! The XDP and tc programs of the gateway: thin adapters around the packet logic of
//! `gateway-common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod frame;
mod maps;
mod tables;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use gateway_common::packet::Frame;
use gateway_common::reason::{Action, Program, Reason};
use gateway_common::steer::{self, Forward, Leaving, Link, Verdict};

use frame::{SkbFrame, XdpFrame};
use tables::{Maps, count, count_forwarded, count_received};

/// XDP on public interfaces.
#[xdp(frags)]
#[inline(always)]
fn gateway_ingress(ctx: XdpContext) -> u32 {
    let frame = XdpFrame::new(ctx.ctx);
    let verdict = steer::ingress(&frame, &Maps);
    conclude(&ctx, &frame, verdict, Program::Ingress)
}

/// XDP on inside interfaces.
#[xdp(frags)]
#[inline(always)]
fn gateway_inside(ctx: XdpContext) -> u32 {
    let frame = XdpFrame::new(ctx.ctx);
    let verdict = steer::inside(&frame, &Maps);
    conclude(&ctx, &frame, verdict, Program::Inside)
}

/// XDP on the sync interface.
#[xdp(frags)]
#[inline(always)]
fn gateway_sync(ctx: XdpContext) -> u32 {
    let frame = XdpFrame::new(ctx.ctx);
    let received = steer::sync(&frame, &Maps);
    let octets = frame.octets();
    count(received.reason, octets);
    if received.member != 0 {
        count_received(received.member, octets);
    }
    stay(received.reason)
}

/// tc egress: the fence.
#[classifier]
#[inline(always)]
fn gateway_egress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let frame = SkbFrame::new(skb);
    // SAFETY: the kernel hands a valid context to the program.
    let (mark, protocol, octets) = unsafe { ((*skb).mark, (*skb).protocol, (*skb).len) };
    // SAFETY: as above.
    let (counted, size) = unsafe { ((*skb).gso_segs, (*skb).gso_size) };
    let leaving = Leaving {
        link: link(&frame, u16::from_be(protocol as u16)),
        mark,
        segments: steer::segments(counted, size, octets),
    };
    let reason = steer::fence(&frame, &leaving, &Maps);
    count(reason, u64::from(octets));
    match reason.action() {
        Action::Drop => TC_ACT_SHOT,
        Action::Pass | Action::Forward => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
fn conclude(ctx: &XdpContext, frame: &XdpFrame, verdict: Verdict<'_>, program: Program) -> u32 {
    let octets = frame.octets();
    let forward = match verdict {
        Verdict::Stay(reason) => {
            count(reason, octets);
            return stay(reason);
        }
        Verdict::Forward(forward) => forward,
    };
    // Before the frame is changed: if the device is missing it goes up the stack as it came.
    let redirected = maps::SYNC_DEV.redirect(forward.value.device, u64::from(XDP_PASS));
    if redirected != Ok(XDP_REDIRECT) || !readdress(ctx, frame, &forward) {
        count(steer::without_device(program), octets);
        return XDP_PASS;
    }
    count(forward.reason, octets);
    count_forwarded(forward.member, octets);
    XDP_REDIRECT
}

#[inline(always)]
fn stay(reason: Reason) -> u32 {
    match reason.action() {
        Action::Drop => XDP_DROP,
        Action::Pass | Action::Forward => XDP_PASS,
    }
}

/// Pops the tags and writes both addresses. The EtherType behind the last tag already stands
/// where the shorter header needs it.
#[inline(always)]
fn readdress(ctx: &XdpContext, frame: &XdpFrame, forward: &Forward<'_>) -> bool {
    if forward.tags == 0 {
        return frame.write_addresses(forward.value);
    }
    // SAFETY: shortens the frame by tags that were read.
    let result = unsafe { bpf_xdp_adjust_head(ctx.ctx, 4 * i32::from(forward.tags)) };
    result == 0 && XdpFrame::new(ctx.ctx).write_addresses(forward.value)
}

/// Whether the frame begins with an Ethernet header: it does unless the EtherType there is not the
/// packet's and the packet could begin with its IP header, as on devices without link layer.
#[inline(always)]
fn link(frame: &SkbFrame, protocol: u16) -> Link {
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    const TAGS: [u16; 2] = [0x8100, 0x88a8];
    let kind = frame.read(12).map_or(protocol, u16::from_be_bytes);
    if kind == protocol || TAGS.contains(&kind) {
        return Link::Ethernet;
    }
    match (protocol, frame.read(0)) {
        (IPV4, Some([first])) if first >> 4 == 4 => Link::Ip(IPV4),
        (IPV6, Some([first])) if first >> 4 == 6 => Link::Ip(IPV6),
        _ => Link::Ethernet,
    }
}

/// The licence that the kernel reads; GPL-compatible, which some helpers demand.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
