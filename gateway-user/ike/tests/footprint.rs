//! What an IKE SA with one CHILD_SA costs: octets of heap (gating), time per handshake (shown).

#![allow(clippy::unwrap_used)]

#[allow(unreachable_pub, dead_code)]
#[path = "../../src/crypto/mod.rs"]
mod aws_lc;
#[allow(dead_code)]
#[path = "engine/config.rs"]
mod config;
#[allow(dead_code)]
#[path = "engine/gateway.rs"]
mod gateway;
#[allow(dead_code)]
#[path = "engine/initiator.rs"]
mod initiator;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::{Gateway, path};
use initiator::Initiator;

/// The system's allocator, counting what is live.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PEERS: u32 = 2000;

/// The budget: at most 4 KB per IKE SA with its CHILD_SA.
#[test]
fn an_ike_sa_with_its_child_takes_less_than_four_kilobytes() {
    let mut config = config::config();
    config.limits.cookie_threshold = usize::MAX;
    let mut gateway = Gateway::new(config);
    let mut spent = Vec::with_capacity(PEERS as usize);
    let before = LIVE.load(Ordering::Relaxed);
    for number in 0..PEERS {
        let mut peer = Initiator::new(u64::from(number));
        let source = Ipv4Addr::from_bits(0xc633_0000 + number);
        peer.path = path("203.0.113.10:500", &format!("{source}:500"));
        peer.own_address = peer.path.remote;
        peer.spi_in = (0xc000_0000 + number).to_be_bytes();
        let init = peer.init();
        let started = std::time::Instant::now();
        let response = gateway.exchange(peer.path, &init);
        let on_init = started.elapsed();
        peer.take_init(&response);
        let auth = peer.auth();
        let started = std::time::Instant::now();
        let response = gateway.exchange(peer.path, &auth);
        spent.push(on_init + started.elapsed());
        assert!(peer.take_auth(&response).is_some());
        gateway.log.clear();
    }
    // The negotiations' requests are forgotten after their time.
    gateway.advance(Duration::from_secs(30));
    gateway.log = Vec::new();
    assert_eq!(gateway.endpoint.sas().count(), PEERS as usize);
    let each = (LIVE.load(Ordering::Relaxed) - before) / PEERS as usize;
    // The median, because others use the machine too.
    spent.sort();
    println!(
        "{each} octets per IKE SA with CHILD_SA; {:?} of the responder per handshake",
        spent[spent.len() / 2]
    );
    assert!(each <= 4096, "{each} octets");
}
