//! A million hostile frames: the kernel and the host model must agree on each, and nothing but
//! counters may be written.

use std::collections::BTreeMap;

use gateway_common::abi::{MARK_IKE, MARK_SA, map, mark};
use gateway_common::model::cases::{MISSING_DEVICE, all, world};
use gateway_common::model::mutate::{Random, mutate};
use gateway_common::model::{ModelTables, cases};
use gateway_common::packet::Octets;
use gateway_common::reason::{Action, Program, Reason};
use gateway_common::steer::{self, Forward, Leaving, Link, Verdict};

use crate::kernel::{Kernel, Outcome, Skb, is_root};

const FRAMES: u32 = 1_000_000;
/// Ethernet and IPv6.
const MIN_SKB: usize = 54;

/// A slot of this member in the world.
const OWN_SLOT: u8 = 0;
/// `GSO_MAX_SEGS`.
const MOST_SEGMENTS: u32 = 65_535;
/// Frames between two changes of the lease.
const LEASE_FRAMES: u32 = 5_000;

/// What the host makes of a frame: the reason and, if it is forwarded, how.
fn judge(program: Program, frame: &[u8], skb: Skb, tables: &ModelTables) -> (Reason, Vec<u8>) {
    let octets = Octets(frame);
    let verdict = match program {
        Program::Ingress => steer::ingress(&octets, tables),
        Program::Inside => steer::inside(&octets, tables),
        Program::Sync => Verdict::Stay(steer::sync(&octets, tables).reason),
        Program::Egress => {
            let leaving = Leaving {
                link: Link::Ethernet,
                mark: skb.mark,
                segments: steer::segments(skb.segments, skb.size, octets.0.len() as u32),
            };
            Verdict::Stay(steer::fence(&octets, &leaving, tables))
        }
    };
    match verdict {
        Verdict::Stay(reason) => (reason, frame.to_vec()),
        Verdict::Forward(forward) if forward.value.device == MISSING_DEVICE => {
            (steer::without_device(program), frame.to_vec())
        }
        Verdict::Forward(forward) => (forward.reason, readdressed(frame, &forward)),
    }
}

fn readdressed(frame: &[u8], forward: &Forward<'_>) -> Vec<u8> {
    let rest = &frame[12 + 4 * usize::from(forward.tags)..];
    [&forward.value.mac[..], &forward.value.marked_mac[..], rest].concat()
}

/// Most frames for the program that faces the world.
fn program(random: &mut Random) -> Program {
    match random.below(10) {
        0 => Program::Sync,
        1 => Program::Inside,
        2 => Program::Egress,
        _ => Program::Ingress,
    }
}

/// Marks of any slot, most of them of one that may send; now and then many segments.
fn skb(random: &mut Random) -> Skb {
    let [slot, low, high, ..] = random.next_u64().to_ne_bytes();
    let mark = match random.below(8) {
        0 => 0,
        1 => mark(MARK_SA, slot),
        2 => mark(MARK_IKE, slot),
        3 => mark(MARK_IKE, OWN_SLOT),
        _ => mark(MARK_SA, OWN_SLOT),
    };
    let few = [
        0,
        0,
        1,
        2,
        u32::from(low),
        u32::from_ne_bytes([low, high, 0, 0]),
    ];
    Skb {
        mark,
        segments: few[random.below(few.len())].min(MOST_SEGMENTS),
        size: u32::from(high) * u32::from(random.below(8) == 0),
    }
}

#[test]
fn a_million_hostile_frames_change_nothing_but_counters() {
    if !is_root("the million frames") {
        return;
    }
    let mut tables = world();
    let mut kernel = Kernel::load(&tables);
    // Each program mutates its own good frames: a change of one octet then decides something.
    let programs = [
        Program::Ingress,
        Program::Sync,
        Program::Inside,
        Program::Egress,
    ];
    let seeds = programs.map(|program| -> Vec<Vec<u8>> {
        let cases = all().into_iter().filter(|case| case.program == program);
        cases.map(|case: cases::Case| case.frame).collect()
    });
    let mut random = Random(20_260_728);
    let mut expected: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut actions = [0u32; 3];
    for number in 0..FRAMES {
        let program = program(&mut random);
        let skb = skb(&mut random);
        if number % LEASE_FRAMES == 0 {
            // Over, or not to end in this test, on the clock of either.
            tables.lease = [u64::MAX, 0, u64::MAX, 1_000_000][random.below(4)];
            kernel.lease(tables.lease);
        }
        let index = programs.iter().position(|p| *p == program).expect("listed");
        let mut frame = mutate(&mut random, &seeds[index]);
        if program == Program::Egress {
            // The kernel's test run for tc wants a packet behind the Ethernet header.
            frame.resize(frame.len().max(MIN_SKB), 0);
        }
        let (reason, output) = judge(program, &frame, skb, &tables);
        let outcome = Outcome {
            action: reason.action(),
            frame: output,
        };
        let found = kernel.run(program, &frame, skb);
        assert_eq!(
            found, outcome,
            "frame {number}, {reason}, {skb:?}: {frame:02x?}"
        );
        let counter = expected.entry(reason.index()).or_default();
        counter.0 += 1;
        counter.1 += frame.len() as u64;
        actions[reason.action() as usize] += 1;
        if number % 50_000 == 0 {
            assert_eq!(
                kernel.counters(map::STATS),
                expected,
                "up to frame {number}"
            );
        }
    }
    let stats = kernel.counters(map::STATS);
    assert_eq!(stats, expected);
    assert_eq!(
        stats.values().map(|(packets, _)| packets).sum::<u64>(),
        u64::from(FRAMES)
    );
    kernel.assert_unchanged(&tables);
    // A storm that never gets past the first check would prove little.
    for action in [Action::Pass, Action::Drop, Action::Forward] {
        assert!(
            actions[action as usize] > FRAMES / 100,
            "{action:?}: {actions:?}"
        );
    }
    let reached = expected.len();
    assert!(reached + 12 > Reason::ALL.len(), "only {reached} reasons");
}
