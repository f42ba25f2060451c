//! Frames really go where the tables say, with and without an agent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway_common::abi::{Address, EspOutKey, EspSaKey, MARK_SA, mark};
use gateway_common::member::MemberId;
use gateway_common::reason::Reason;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_user::steering::{FenceHook, Steering, SteeringConfig};

use crate::lab::{Lab, run, with_lab};
use crate::wire::{PEER, Tap, VIP, esp, has_spi, mac};

const SPI: u32 = 0xc0de_0001;
const MEMBER_2: [u8; 6] = [0x02, 0, 0, 0, 0x02, 0x02];
const PATIENCE: Duration = Duration::from_secs(3);
/// Long enough for a frame that should not come.
const SHORT: Duration = Duration::from_millis(150);

fn id(raw: u8) -> MemberId {
    MemberId::new(raw).unwrap()
}

/// The SA that leaves, of a slot of ours.
fn outbound() -> EspOutKey {
    EspOutKey {
        spi: SPI.to_be_bytes(),
        peer: Address::from_v4(PEER),
    }
}

/// Starts with one ESP SA in slot 5, which belongs to member 2; all others are ours.
fn start(config: &SteeringConfig) -> Steering {
    start_object(config, gateway_user::steering::OBJECT)
}

fn start_object(config: &SteeringConfig, object: &'static [u8]) -> Steering {
    run("ip neigh replace 10.99.0.2 lladdr 02:00:00:00:02:02 dev sync0 nud permanent");
    let steering = Steering::start_object(config, object).unwrap();
    let mut owners = [Some(id(1)); Slot::COUNT];
    owners[5] = Some(id(2));
    let tables = steering.tables();
    tables.set_slot_owners(&owners).unwrap();
    let sa = EspSaKey {
        spi: SPI.to_be_bytes(),
        vip: Address::from_v4(VIP),
    };
    tables.put_esp_sa(&sa, Slot(5)).unwrap();
    tables.put_esp_out(&outbound(), Slot(4), 7).unwrap();
    steering
        .fence_handle()
        .set_lease(Instant::from_nanos(u64::MAX))
        .unwrap();
    steering.set_live(&[id(1), id(2)]).unwrap();
    steering.refresh_members().unwrap();
    steering
}

/// Whether an ESP frame that comes in on `pub0` goes out of `sync0`, and how.
fn steered(frame: &[u8]) -> Option<Vec<u8>> {
    let (sender, receiver) = (Tap::open("pub0p"), Tap::open("sync0p"));
    assert!(sender.send(frame));
    receiver.receive(PATIENCE, |frame| has_spi(frame, SPI))
}

fn not_steered(frame: &[u8]) {
    let (sender, receiver) = (Tap::open("pub0p"), Tap::open("sync0p"));
    assert!(sender.send(frame));
    assert_eq!(receiver.receive(SHORT, |frame| has_spi(frame, SPI)), None);
}

fn check_steered(frame: &[u8]) {
    let forwarded = steered(frame).expect("forwarded to member 2");
    assert_eq!(forwarded[..6], MEMBER_2);
    assert_eq!(forwarded[6..12], [0x02, 0x47, 0x57, 0x46, 7, 1]);
    assert_eq!(forwarded[12..], frame[12..]);
}

#[test]
fn steering_goes_on_without_the_agent_and_through_its_restart() {
    with_lab(|lab| {
        let frame = esp(mac("pub0"), PEER, VIP, SPI);
        let steering = start(&lab.config());
        check_steered(&frame);
        let counters = steering.tables().counters().unwrap();
        assert_eq!(counters.reasons[Reason::EspForwarded as usize].packets, 1);
        assert_eq!(counters.forwarded[2].packets, 1);
        assert_eq!(counters.forwarded[2].bytes, frame.len() as u64);
        drop(steering);
        check_steered(&frame);

        let steering = Steering::start(&lab.config()).unwrap();
        check_steered(&frame);
        let counters = steering.tables().counters().unwrap();
        assert_eq!(counters.forwarded[2].packets, 3, "counters survive too");

        steering.set_enabled(false).unwrap();
        not_steered(&frame);
        steering.set_enabled(true).unwrap();
        check_steered(&frame);
        steering.set_live(&[id(1)]).unwrap();
        not_steered(&frame);
    });
}

/// Not a test: the agent of the next one, in a process of its own.
#[test]
#[ignore = "started by another test"]
fn agent() {
    let Some(bpffs) = std::env::var_os(BPFFS) else {
        return;
    };
    let _running = start(&Lab::config_on(bpffs.into()));
    println!("{RUNNING}");
    std::thread::sleep(Duration::from_secs(600));
}

const BPFFS: &str = "STEERING_TEST_BPFFS";
const RUNNING: &str = "the agent runs";

#[test]
fn sigkill_stops_nothing_and_the_next_start_takes_over() {
    with_lab(|lab| {
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "traffic::agent", "--ignored", "--nocapture"])
            .env(BPFFS, lab.bpffs())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(agent.stdout.take().unwrap());
        let up = output.lines().map_while(Result::ok);
        assert!(up.into_iter().any(|line| line.contains(RUNNING)));
        let frame = esp(mac("pub0"), PEER, VIP, SPI);
        check_steered(&frame);
        let links = crate::pins::link_ids(lab);

        // SAFETY: kill takes no pointers; the child has not been waited for.
        unsafe { libc::kill(agent.id().cast_signed(), libc::SIGKILL) };
        agent.wait().unwrap();
        check_steered(&frame);
        assert_eq!(crate::pins::link_ids(lab), links);

        let steering = Steering::start(&lab.config()).unwrap();
        check_steered(&frame);
        let ids = |links: &BTreeMap<String, (u32, u32)>| -> Vec<u32> {
            links.values().map(|(link, _)| *link).collect()
        };
        assert_eq!(ids(&crate::pins::link_ids(lab)), ids(&links));
        let counters = steering.tables().counters().unwrap();
        assert_eq!(counters.forwarded[2].packets, 3);
    });
}

#[test]
fn an_object_for_kernels_without_frags_steers_too() {
    with_lab(|lab| {
        let mut object = gateway_user::steering::OBJECT.to_vec();
        let name = b"xdp.frags\0";
        while let Some(at) = object.windows(name.len()).position(|part| part == name) {
            object[at + 3] = 0;
        }
        let steering = start_object(&lab.config(), object.leak());
        check_steered(&esp(mac("pub0"), PEER, VIP, SPI));
        drop(steering);
    });
}

#[test]
fn no_frame_is_missed_while_the_programs_are_swapped() {
    with_lab(|lab| {
        let frame = esp(mac("pub0"), PEER, VIP, SPI);
        drop(start(&lab.config()));
        let receiver = Tap::open("sync0p");
        let sender = Tap::open("pub0p");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let flood = std::thread::spawn(move || {
            let (mut sent, mut arrived) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                assert!(sender.send(&frame));
                sent += 1;
                arrived += usize::from(
                    receiver
                        .receive(PATIENCE, |frame| has_spi(frame, SPI))
                        .is_some(),
                );
            }
            (sent, arrived)
        });
        for _ in 0..8 {
            drop(Steering::start(&lab.config()).unwrap());
        }
        stop.store(true, Ordering::Relaxed);
        let (sent, arrived) = flood.join().unwrap();
        assert!(sent > 100, "only {sent} frames");
        assert_eq!(arrived, sent, "steering paused");
    });
}

/// ESP of another member's slot must not leave, through `restarts` restarts, whatever happens.
fn fence_holds(lab: &Lab, hook: FenceHook) {
    let mut config = lab.config();
    config.fence = Some(hook);
    drop(start(&config));
    let frame = esp(mac("pub0p"), VIP, PEER, SPI);
    let far_end = Tap::open("pub0p");
    let sender = Tap::open("pub0");

    sender.set_mark(mark(MARK_SA, 4));
    assert!(sender.send(&frame), "our own slot may send");
    assert!(
        far_end
            .receive(PATIENCE, |frame| has_spi(frame, SPI))
            .is_some()
    );

    sender.set_mark(mark(MARK_SA, 5));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let flood = std::thread::spawn(move || {
        let mut dropped = 0;
        while !stopped.load(Ordering::Relaxed) {
            dropped += usize::from(!sender.send(&frame));
        }
        dropped
    });
    for _ in 0..8 {
        drop(Steering::start(&config).unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    let dropped = flood.join().unwrap();
    assert!(dropped > 100, "only {dropped} attempts");
    assert_eq!(far_end.count(|frame| has_spi(frame, SPI)), 0, "leaked");
    let steering = Steering::start(&config).unwrap();
    let counters = steering.tables().counters().unwrap();
    assert_eq!(
        counters.reasons[Reason::FenceStandbyCopy as usize].packets,
        dropped as u64
    );
}

#[test]
fn the_tcx_fence_leaks_nothing_while_it_is_replaced() {
    with_lab(|lab| fence_holds(lab, FenceHook::Tcx));
}

#[test]
fn the_clsact_fence_leaks_nothing_while_it_is_replaced() {
    with_lab(|lab| fence_holds(lab, FenceHook::Clsact));
}
