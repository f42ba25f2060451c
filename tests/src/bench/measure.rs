//! The measurements.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions};
use gateway_common::abi::{MARK_SA, mark};
use gateway_common::reason::Reason;

use super::frames::{self, Random};
use super::report::{Figure, Report};
use super::setup::{EGRESS, INGRESS, KEYS, LOCAL_SLOT, Programs};

const ROUNDS: usize = 41;
const COLD_ROUNDS: usize = 5;
const LIVE_ROUNDS: usize = 41;
/// Runs of a hot measurement: some milliseconds.
const REPEAT: u32 = 200_000;
/// Frames of a live measurement: some ten milliseconds.
const LIVE_FRAMES: u32 = 100_000;
/// Frames that the kernel takes through the program before it flushes, as a driver's poll does.
const LIVE_BATCH: u32 = 64;

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
/// `TC_ACT_UNSPEC`.
const TC_UNSPEC: u32 = u32::MAX;

/// One XDP figure.
struct Case {
    name: &'static str,
    program: &'static str,
    frame: fn(u64) -> Vec<u8>,
    known: bool,
    verdict: u32,
    /// Why the gateway's program leaves the frame; `None` for the empty program.
    reason: Option<Reason>,
}

const EMPTY: Case = Case {
    name: "empty",
    program: "bench_empty",
    frame: frames::esp,
    known: true,
    verdict: XDP_PASS,
    reason: None,
};

/// A yardstick: budgets are in nanoseconds, but a look-up costs a processor with slow returns
/// (mitigations) several times what it costs another.
const LOOKUP: Case = Case {
    name: "one_lookup",
    program: "bench_lookup",
    ..EMPTY
};

const ESP_HIT: Case = Case {
    name: "esp_hit",
    program: INGRESS,
    frame: frames::esp,
    known: true,
    verdict: XDP_REDIRECT,
    reason: Some(Reason::EspForwarded),
};

const fn ike(name: &'static str, known: bool, reason: Reason) -> Case {
    Case {
        name,
        program: INGRESS,
        frame: frames::ike,
        known,
        verdict: XDP_REDIRECT,
        reason: Some(reason),
    }
}

/// The cases by what the negotiation table must hold: message ids of their own, or "any".
const WITH_EXACT: [Case; 7] = [
    EMPTY,
    LOOKUP,
    ESP_HIT,
    ike("ike_exact", true, Reason::NegotiationForwarded),
    ike("miss", false, Reason::NewIkeForwarded),
    Case {
        name: "esp_miss",
        program: INGRESS,
        frame: frames::esp,
        known: false,
        verdict: XDP_PASS,
        reason: Some(Reason::EspUnknown),
    },
    Case {
        name: "not_ours",
        program: INGRESS,
        frame: frames::not_ours,
        known: true,
        verdict: XDP_PASS,
        reason: Some(Reason::NotToVip),
    },
];
const WITH_ANY: [Case; 2] = [EMPTY, ike("ike_any", true, Reason::NegotiationForwarded)];

impl Case {
    fn frames(&self, programs: &Programs) -> Vec<Vec<u8>> {
        let keys = if self.known {
            &programs.known
        } else {
            &programs.unknown
        };
        let mut frames: Vec<Vec<u8>> = keys.iter().map(|key| (self.frame)(*key)).collect();
        // Another order than that in which the tables were filled.
        let mut random = Random(0x7368_7566_666c_6501);
        for last in (1..frames.len()).rev() {
            frames.swap(last, (random.next() % (last as u64 + 1)) as usize);
        }
        frames
    }

    /// Runs every frame once and checks that it takes the way that the figure is named after.
    fn check(&self, programs: &Programs, frames: &[Vec<u8>]) -> Result<()> {
        let before = programs.stats()?;
        for frame in frames {
            let (verdict, _) = self.run(programs, frame, 1)?;
            ensure!(
                verdict == self.verdict,
                "{}: verdict {verdict} instead of {}",
                self.name,
                self.verdict
            );
        }
        let after = programs.stats()?;
        let Some(reason) = self.reason else {
            return Ok(());
        };
        let counted = |reason: Reason| after[reason as usize] - before[reason as usize];
        if counted(reason) != frames.len() as u64 {
            let others: Vec<String> = Reason::ALL
                .iter()
                .filter(|reason| counted(**reason) > 0)
                .map(|reason| format!("{} × {reason}", counted(*reason)))
                .collect();
            anyhow::bail!(
                "{}: {} frames should all have been {reason}, but were {}",
                self.name,
                frames.len(),
                others.join(", ")
            );
        }
        Ok(())
    }

    /// The verdict, and the time that the kernel measured per run.
    fn run(&self, programs: &Programs, frame: &[u8], repeat: u32) -> Result<(u32, Duration)> {
        let result = programs.xdp(self.program)?.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::new()
        })?;
        Ok((result.return_value, result.duration))
    }

    fn hot(&self, programs: &Programs, frame: &[u8]) -> Result<f64> {
        Ok(nanoseconds(self.run(programs, frame, REPEAT)?.1))
    }

    fn cold(&self, programs: &Programs, frames: &[Vec<u8>]) -> Result<f64> {
        let mut total = Duration::ZERO;
        for frame in frames {
            total += self.run(programs, frame, 1)?.1;
        }
        Ok(nanoseconds(total) / frames.len() as f64)
    }
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// Takes all figures.
pub(super) fn all(programs: &mut Programs) -> Result<Report> {
    let mut report = Report::new();
    programs.fill_negotiations(true)?;
    family(programs, &WITH_EXACT, &mut report)?;
    programs.fill_negotiations(false)?;
    family(programs, &WITH_ANY, &mut report)?;
    fence(programs, &mut report)?;
    forwarding(programs, &mut report)?;
    Ok(report)
}

/// Takes the figures of `cases` in turn.
fn family(programs: &Programs, cases: &[Case], report: &mut Report) -> Result<()> {
    let frames: Vec<Vec<Vec<u8>>> = cases.iter().map(|case| case.frames(programs)).collect();
    for (case, frames) in cases.iter().zip(&frames) {
        ensure!(
            frames.len() == KEYS,
            "{}: {} frames",
            case.name,
            frames.len()
        );
        case.check(programs, frames)?;
    }
    let mut hot = vec![Vec::new(); cases.len()];
    let mut cold = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for (position, case) in cases.iter().enumerate() {
            hot[position].push(case.hot(programs, &frames[position][0])?);
        }
    }
    for _ in 0..COLD_ROUNDS {
        for (position, case) in cases.iter().enumerate() {
            cold[position].push(case.cold(programs, &frames[position])?);
        }
    }
    for (case, (hot, cold)) in cases.iter().zip(hot.into_iter().zip(cold)) {
        report.add(format!("{}_ns", case.name), Figure::smallest(hot));
        report.add(format!("{}_ns_cold", case.name), Figure::smallest(cold));
    }
    Ok(())
}

/// A `struct __sk_buff` with nothing set but the mark, which is its third word.
fn context(mark: u32) -> [u8; 12] {
    let mut context = [0; 12];
    context[8..].copy_from_slice(&mark.to_ne_bytes());
    context
}

fn fence(programs: &Programs, report: &mut Report) -> Result<()> {
    let frame = frames::esp_out(programs.known[0]);
    let context = context(mark(MARK_SA, LOCAL_SLOT));
    let run = |name: &str, repeat| -> Result<(u32, f64)> {
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        let result = programs.tc(name)?.test_run(options)?;
        Ok((result.return_value, nanoseconds(result.duration)))
    };
    let allowed = Reason::FenceOwned as usize;
    let before = programs.stats()?[allowed];
    let (verdict, _) = run(EGRESS, 1)?;
    ensure!(
        verdict == TC_UNSPEC && programs.stats()?[allowed] == before + 1,
        "the fence did not let its own slot's ESP out (verdict {verdict})"
    );
    let (mut fence, mut empty) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        fence.push(run(EGRESS, REPEAT)?.1);
        empty.push(run("bench_tc_empty", REPEAT)?.1);
    }
    report.add("fence_ns".to_owned(), Figure::smallest(fence));
    report.add("fence_empty_ns".to_owned(), Figure::smallest(empty));
    Ok(())
}

fn forwarding(programs: &Programs, report: &mut Report) -> Result<()> {
    let frame = frames::esp(programs.known[0]);
    // Delivered frames, in millions a second of the kernel's time.
    let run = |name: &str| -> Result<f64> {
        let before = programs.sunk()?;
        let result = programs
            .xdp(name)?
            .test_run(TestRunOptions {
                data_in: Some(&frame),
                repeat: LIVE_FRAMES,
                attrs: TestRunAttrs::new().xdp_live_frames(LIVE_BATCH),
                ..TestRunOptions::new()
            })
            .context("live frames need kernel 5.18")?;
        let delivered = programs.sunk()? - before;
        ensure!(
            delivered * 100 >= u64::from(LIVE_FRAMES) * 99,
            "{name}: only {delivered} of {LIVE_FRAMES} frames arrived"
        );
        let share = delivered as f64 / f64::from(LIVE_FRAMES);
        Ok(share * 1e3 / nanoseconds(result.duration))
    };
    let (mut forward, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..LIVE_ROUNDS {
        forward.push(run(INGRESS)?);
        bare.push(run("bench_redirect")?);
    }
    report.add("forward_mpps".to_owned(), Figure::typical(forward));
    report.add("bare_redirect_mpps".to_owned(), Figure::typical(bare));
    Ok(())
}
