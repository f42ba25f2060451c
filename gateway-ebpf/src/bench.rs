//! What the bench compares the gateway's programs with. A second object of the same build, never
//! shipped.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::{DevMap, HashMap, PerCpuArray};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Where [`bench_redirect`] sends to.
#[btf_map]
static BENCH_DEV: DevMap<1> = DevMap::new();

/// Frames that arrived at [`bench_sink`].
#[btf_map]
static BENCH_SUNK: PerCpuArray<u64, 1> = PerCpuArray::new();

/// An XDP program that does nothing: what calling one costs.
#[xdp(frags)]
fn bench_empty(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// As many entries, as long a key as `ESP_SA` in the bench.
#[btf_map]
static BENCH_HASH: HashMap<[u8; 20], u32, 131_072> = HashMap::new();

/// One look-up in a hash map and nothing else: what the machine asks for each of them.
#[xdp(frags)]
fn bench_lookup(_ctx: XdpContext) -> u32 {
    // SAFETY: the value is copied out at once.
    match unsafe { BENCH_HASH.get(&[0; 20]) } {
        Some(_) => XDP_PASS,
        None => XDP_DROP,
    }
}

/// A redirect without a reason: what the driver's part of forwarding costs.
#[xdp(frags)]
fn bench_redirect(_ctx: XdpContext) -> u32 {
    match BENCH_DEV.redirect(0, u64::from(XDP_PASS)) {
        Ok(action) | Err(action) => action,
    }
}

/// The far end of the wire: counts and drops.
#[xdp(frags)]
fn bench_sink(_ctx: XdpContext) -> u32 {
    if let Some(sunk) = BENCH_SUNK.get_ptr_mut(0) {
        // SAFETY: a per-CPU value, and XDP programs are not preempted on their CPU.
        unsafe { *sunk += 1 };
    }
    XDP_DROP
}

/// A tc program that does nothing.
#[classifier]
fn bench_tc_empty(_ctx: TcContext) -> i32 {
    -1
}

/// The licence that the kernel reads.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
