//! The XDP and tc programs of the gateway: thin adapters around the packet logic of
//! `gateway-common`.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// XDP on public interfaces.
#[xdp(frags)]
pub fn gateway_ingress(_ctx: XdpContext) -> u32 {
    keep();
    XDP_PASS
}

/// XDP on the sync interface.
#[xdp(frags)]
pub fn gateway_sync(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// XDP on inside interfaces.
#[xdp(frags)]
pub fn gateway_inside(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// tc egress: the fence.
#[classifier]
pub fn gateway_egress(_ctx: TcContext) -> i32 {
    -1
}

#[inline(always)]
fn keep() {
    let _ = maps::SYNC_DEV.redirect(0, 2);
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
