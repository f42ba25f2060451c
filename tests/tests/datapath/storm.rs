//! A million hostile frames: the kernel and the host model must agree on each, and nothing but
//! counters may be written.

use std::collections::BTreeMap;

use gateway_common::abi::{MARK_IKE, MARK_SA, map, mark};
use gateway_common::model::cases::{MISSING_DEVICE, all, world};
use gateway_common::model::mutate::{Random, mutate};
use gateway_common::model::{ModelTables, cases};
use gateway_common::packet::Octets;
use gateway_common::reason::{Action, Program, Reason};
use gateway_common::steer::{self, Forward, Link, Verdict};

use crate::kernel::{Kernel, Outcome, is_root};

const FRAMES: u32 = 1_000_000;
/// Ethernet and IPv6.
const MIN_SKB: usize = 54;

/// What the host makes of a frame: the reason and, if it is forwarded, how.
fn judge(program: Program, frame: &[u8], mark: u32, tables: &ModelTables) -> (Reason, Vec<u8>) {
    let octets = Octets(frame);
    let verdict = match program {
        Program::Ingress => steer::ingress(&octets, tables),
        Program::Inside => steer::inside(&octets, tables),
        Program::Sync => Verdict::Stay(steer::sync(&octets, tables).reason),
        Program::Egress => Verdict::Stay(steer::fence(&octets, Link::Ethernet, mark, tables)),
    };
    match verdict {
        Verdict::Stay(reason) => (reason, frame.to_vec()),
        Verdict::Forward(forward) if forward.device == MISSING_DEVICE => {
            (steer::without_device(program), frame.to_vec())
        }
        Verdict::Forward(forward) => (forward.reason, readdressed(frame, &forward)),
    }
}

fn readdressed(frame: &[u8], forward: &Forward) -> Vec<u8> {
    let rest = &frame[12 + 4 * usize::from(forward.tags)..];
    [&forward.destination[..], &forward.source[..], rest].concat()
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

fn skb_mark(random: &mut Random) -> u32 {
    let slot = random.next_u64().to_ne_bytes()[0];
    match random.below(3) {
        0 => 0,
        1 => mark(MARK_SA, slot),
        _ => mark(MARK_IKE, slot),
    }
}

#[test]
fn a_million_hostile_frames_change_nothing_but_counters() {
    if !is_root("the million frames") {
        return;
    }
    let tables = world();
    let kernel = Kernel::load(&tables);
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
        let mark = skb_mark(&mut random);
        let index = programs.iter().position(|p| *p == program).expect("listed");
        let mut frame = mutate(&mut random, &seeds[index]);
        if program == Program::Egress {
            // The kernel's test run for tc wants a packet behind the Ethernet header.
            frame.resize(frame.len().max(MIN_SKB), 0);
        }
        let (reason, output) = judge(program, &frame, mark, &tables);
        let outcome = Outcome {
            action: reason.action(),
            frame: output,
        };
        let found = kernel.run(program, &frame, mark);
        assert_eq!(found, outcome, "frame {number}, {reason}: {frame:02x?}");
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
