//! The fence on every way out, and put back as soon as the kernel tells that it is gone.

use std::time::Duration;

use gateway_common::abi::{Address, EspOutKey, MARK_IKE, MARK_SA, mark};
use gateway_common::member::MemberId;
use gateway_common::reason::Reason;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_user::steering::{FenceHook, Steering, SteeringConfig, SteeringGuard};

use crate::lab::{Lab, run, with_lab};
use crate::wire::{PEER, Tap, VIP, esp, mac};

const SPI: u32 = 0xc0de_0002;
/// Far longer than the kernel needs to tell; a test that waits this long fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// Slot of this member; every other slot has no owner.
const OURS: u8 = 4;

fn with_hook(lab: &Lab, hook: FenceHook) -> SteeringConfig {
    SteeringConfig {
        fence: Some(hook),
        ..lab.config()
    }
}

/// Packets that ended in `reason`.
fn counted(steering: &Steering, reason: Reason) -> u64 {
    let counters = steering.tables().counters().unwrap();
    counters.reasons[reason.index() as usize].packets
}

/// Whether ESP from the VIP with this mark leaves by `interface`.
fn leaves(interface: &str, mark: u32) -> bool {
    let sender = Tap::open(interface);
    sender.set_mark(mark);
    sender.send(&esp(mac(interface), VIP, PEER, SPI))
}

/// Calls the guard until it has seen what the kernel told, and has nothing more to say.
fn settle(guard: &SteeringGuard) {
    while !guard.watch(Duration::ZERO).unwrap().is_empty() {}
}

#[test]
fn esp_leaves_by_no_interface_unfenced() {
    for hook in [FenceHook::Tcx, FenceHook::Clsact] {
        with_lab(move |lab| {
            run("ip link add other0 type veth peer name other0p");
            run("ip link set other0 up");
            run("ip link set other0p up");
            let steering = Steering::start(&with_hook(lab, hook)).unwrap();
            for interface in ["pub0", "sync0", "in0", "other0"] {
                let before = counted(&steering, Reason::FenceUnmarked);
                assert!(!leaves(interface, 0), "{interface}");
                let after = counted(&steering, Reason::FenceUnmarked);
                assert_eq!(after, before + 1, "{interface}");
            }
            assert!(steering.verify().unwrap().is_empty());

            run("ip link add late0 type veth peer name late0p");
            run("ip link set late0 up");
            run("ip link set late0p up");
            assert!(steering.verify().unwrap().is_empty(), "nothing was wrong");
            assert!(!leaves("late0", 0), "fenced when it had appeared");
            run("ip link del late0");
            assert!(steering.verify().unwrap().is_empty(), "nor is now");
        });
    }
}

#[test]
fn owner_lease_and_ceiling_decide_on_a_real_interface() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        let (tables, fence) = (steering.tables(), steering.fence_handle());
        let mut owners = [None; Slot::COUNT];
        owners[usize::from(OURS)] = MemberId::new(1);
        fence.set_slot_owners(&owners).unwrap();
        let ends = |reason: Reason, kind: u32, slot: u8| {
            let before = counted(&steering, reason);
            let left = leaves("pub0", mark(kind, slot));
            assert_eq!(left, reason == Reason::FenceOwned, "{reason}");
            assert_eq!(counted(&steering, reason), before + 1, "{reason}");
        };
        ends(Reason::FenceNotOwner, MARK_SA, OURS + 1);
        ends(Reason::FenceLeaseOver, MARK_SA, OURS);
        fence.set_lease(Instant::from_nanos(u64::MAX)).unwrap();
        ends(Reason::FenceUnknownSa, MARK_SA, OURS);
        let key = EspOutKey {
            spi: SPI.to_be_bytes(),
            peer: Address::from_v4(PEER),
        };
        // The packet's sequence number is 1.
        tables.put_esp_out(&key, Slot(OURS), 0).unwrap();
        ends(Reason::FenceAboveCeiling, MARK_SA, OURS);
        ends(Reason::FenceAboveCeiling, MARK_IKE, OURS);
        assert!(tables.raise_ceiling(&key, 1).unwrap());
        ends(Reason::FenceOwned, MARK_SA, OURS);
        fence.set_lease(Instant::default()).unwrap();
        ends(Reason::FenceLeaseOver, MARK_SA, OURS);
    });
}

#[test]
fn the_guard_puts_a_removed_filter_back_when_the_kernel_tells() {
    with_lab(|lab| {
        let steering = Steering::start(&with_hook(lab, FenceHook::Clsact)).unwrap();
        let guard = steering.guard().unwrap();
        settle(&guard);
        // An interface that the configuration names, and one that it does not.
        for interface in ["pub0", "in0p"] {
            for removal in ["tc qdisc del dev {} clsact", "tc filter del dev {} egress"] {
                run(&removal.replace("{}", interface));
                let start = std::time::Instant::now();
                let findings = guard.watch(PATIENCE).unwrap();
                assert!(start.elapsed() < PATIENCE, "the kernel told nothing");
                assert_eq!(findings.len(), 1, "{removal}: {findings:?}");
                assert_eq!(findings[0].interface, interface);
                assert!(findings[0].what.contains("removed"), "{findings:?}");
                assert_eq!(findings[0].problem(), None, "it is right again");
                assert!(!leaves(interface, 0), "{removal} on {interface}");
                settle(&guard);
            }
        }
    });
}

#[test]
fn the_guard_fences_what_appears_and_lets_go_of_what_goes() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        let guard = steering.guard().unwrap();
        settle(&guard);
        run("ip link add late0 type veth peer name late0p");
        run("ip link set late0 up");
        run("ip link set late0p up");
        let pins = || std::fs::read_dir(lab.pins("links")).unwrap().count();
        let before = pins();
        let start = std::time::Instant::now();
        while pins() != before + 2 && start.elapsed() < PATIENCE {
            assert!(guard.watch(PATIENCE).unwrap().is_empty());
        }
        assert!(!leaves("late0", 0));
        run("ip link del late0");
        while pins() != before && start.elapsed() < PATIENCE {
            assert!(guard.watch(PATIENCE).unwrap().is_empty());
        }
        assert_eq!(pins(), before);
    });
}

#[test]
fn a_detached_link_is_found_by_looking() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        let guard = steering.guard().unwrap();
        settle(&guard);
        let pin = lab
            .pins("links")
            .join(format!("tcx_{}", crate::lab::index("in0p")));
        run(&format!("bpftool link detach pinned {}", pin.display()));
        let findings = guard.watch(Duration::ZERO).unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].role, None);
        assert!(findings[0].repaired && !leaves("in0p", 0));
    });
}

#[test]
fn what_cannot_be_repaired_is_a_problem_until_it_is() {
    with_lab(|lab| {
        let steering = Steering::start(&with_hook(lab, FenceHook::Clsact)).unwrap();
        let guard = steering.guard().unwrap();
        let pin = crate::fence::foreign_program(lab);
        run(&format!(
            "tc filter add dev in0p egress pref 1 handle 7 bpf da object-pinned {pin}"
        ));
        for _ in 0..2 {
            let findings = guard.watch(Duration::ZERO).unwrap();
            assert_eq!(findings.len(), 1, "{findings:?}");
            let problem = findings[0].problem().unwrap();
            assert!(problem.contains("in0p"), "{problem}");
            assert!(problem.contains("runs before"), "{problem}");
        }
        run("tc filter del dev in0p egress pref 1 handle 7 bpf");
        assert!(guard.watch(Duration::ZERO).unwrap().is_empty());
    });
}
