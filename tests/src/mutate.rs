//! Fuzzing without a nightly compiler: mutations of the committed corpora, from a seed.
//!
//! The corpora come from coverage-guided runs (`tests/fuzz`), so that what is near their entries
//! reaches deep. Nothing is measured here and nothing learned: the same seed makes the same inputs in
//! the same order. So the gate, which has one seed and a fixed number of inputs, says the same about
//! the same code; the nightly run begins at the time of day.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::fuzz::{TARGETS, Target};

/// Longest input in octets: more than any entry of a corpus has.
const LONGEST: usize = 4096;
/// Mutations of one input, at most.
const STACKED: u64 = 6;
/// An input that takes longer has found something, too.
const HANGS: Duration = Duration::from_secs(60);

/// Values that comparisons, lengths and counts turn at.
const EDGES: [u8; 12] = [0, 1, 2, 3, 4, 8, 0x10, 0x20, 0x7f, 0x80, 0xfe, 0xff];

/// How much of a shared budget a target gets, small parsers being the unit: what has state needs
/// many more inputs.
pub fn weight(name: &str) -> u32 {
    match name {
        "endpoint" => 12,
        "reassembly" | "record" | "sync_peer" => 5,
        "ike_message" | "ike_chain" | "ike_sk_open" | "x509_certificate" | "x509_crl" | "frame"
        | "sync_frame" => 2,
        _ => 1,
    }
}

/// Where the gate's random numbers begin.
pub const GATE_SEED: u64 = 1;

/// How many inputs the gate tries, however long that takes: the same on every machine, so that a
/// faster one does not come to inputs that nobody has seen pass. On two idle cores, one has a minute's
/// work with the endpoint, the other as much with the rest.
pub fn gate(name: &str) -> u64 {
    match name {
        "frame_mutated" => 10_000,
        "endpoint" => 80_000,
        "reassembly" => 100_000,
        "sync_peer" | "frame" => 300_000,
        "x509_certificate" | "x509_crl" | "x509_name" | "ike_sk_open" => 1_000_000,
        _ => 3_000_000,
    }
}

/// What is run, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Folder with a corpus per target.
    pub corpora: PathBuf,
    /// Where inputs go that found something.
    pub findings: PathBuf,
    /// Only these targets; all if empty.
    pub targets: Vec<String>,
    /// Time for all of them together, shared by [`weight`]; or, if `each`, for every one.
    pub time: Duration,
    /// See `time`.
    pub each: bool,
    /// As many inputs as [`gate`] says, in place of a time.
    pub gate: bool,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Targets that are run at the same time.
    pub threads: usize,
}

/// What became of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its name.
    pub target: &'static str,
    /// Inputs that were tried.
    pub inputs: u64,
    /// The input that broke a promise.
    pub finding: Option<PathBuf>,
}

/// Runs the targets. The heaviest first, so that no thread is left with it at the end.
///
/// # Errors
/// A target is unknown, or its corpus cannot be read.
pub fn run(plan: &Plan) -> Result<Vec<Ran>> {
    let mut targets: Vec<Target> = TARGETS
        .iter()
        .filter(|(name, _)| plan.targets.is_empty() || plan.targets.iter().any(|t| t == name))
        .copied()
        .collect();
    let asked = if plan.targets.is_empty() {
        TARGETS.len()
    } else {
        plan.targets.len()
    };
    ensure!(
        targets.len() == asked,
        "an unknown target: {:?}",
        plan.targets
    );
    targets.sort_by_key(|(name, _)| std::cmp::Reverse(weight(name)));
    let total: u32 = targets.iter().map(|(name, _)| weight(name)).sum();
    let next = AtomicUsize::new(0);
    let ran = Mutex::new(Vec::new());
    let threads = plan.threads.clamp(1, targets.len());
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                let share = f64::from(weight(target.0)) / f64::from(total);
                let time = if plan.each {
                    plan.time
                } else {
                    plan.time.mul_f64(share * threads as f64)
                };
                let one = watched(plan, *target, time)?;
                if let Ok(mut ran) = ran.lock() {
                    ran.push(one);
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(ran.into_inner().unwrap_or_default())
}

/// One target, and somebody who ends the process when an input takes for ever: a loop cannot be
/// stopped otherwise.
fn watched(plan: &Plan, target: Target, time: Duration) -> Result<Ran> {
    let inputs = &AtomicU64::new(0);
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let file = plan.findings.join(format!("{}-{:x}", target.0, plan.seed));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut seen = inputs.load(Ordering::Relaxed);
            while waiting.recv_timeout(HANGS) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let now = inputs.load(Ordering::Relaxed);
                if now == seen {
                    eprintln!(
                        "{}: input {now} of seed {:#x} takes longer than {HANGS:?}",
                        target.0, plan.seed
                    );
                    std::process::exit(1);
                }
                seen = now;
            }
        });
        let ran = one(plan, target, time, &file, inputs);
        drop(done);
        ran
    })
}

fn one(
    plan: &Plan,
    (name, body): Target,
    time: Duration,
    file: &Path,
    inputs: &AtomicU64,
) -> Result<Ran> {
    let corpus = corpus(&plan.corpora.join(name))?;
    let mut random = Random::new(plan.seed, name);
    let end = Instant::now() + time;
    let goes_on = |tried| match plan.gate {
        true => tried < gate(name),
        false => Instant::now() < end,
    };
    while goes_on(inputs.load(Ordering::Relaxed)) {
        let input = mutated(&mut random, &corpus);
        inputs.fetch_add(1, Ordering::Relaxed);
        if catch_unwind(AssertUnwindSafe(|| body(&input))).is_err() {
            fs::create_dir_all(&plan.findings)?;
            fs::write(file, &input).with_context(|| file.display().to_string())?;
            return Ok(Ran {
                target: name,
                inputs: inputs.load(Ordering::Relaxed),
                finding: Some(file.to_owned()),
            });
        }
    }
    Ok(Ran {
        target: name,
        inputs: inputs.load(Ordering::Relaxed),
        finding: None,
    })
}

/// The entries of a corpus, in an order that does not depend on the file system.
fn corpus(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    let read = |file: &PathBuf| fs::read(file).with_context(|| file.display().to_string());
    let entries: Vec<Vec<u8>> = files.iter().map(read).collect::<Result<_>>()?;
    ensure!(!entries.is_empty(), "{} is empty", folder.display());
    Ok(entries)
}

/// Another input out of those of a corpus.
fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.next() % STACKED {
        mutate(random, &mut input, corpus);
    }
    input.truncate(LONGEST);
    input
}

fn mutate(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = random.below(input.len());
    let range = at..(at + 1 + random.below(16)).min(input.len());
    match (random.next() % 10, input.get_mut(at)) {
        (0, Some(octet)) => *octet ^= 1 << (random.next() % 8),
        (1, Some(octet)) => *octet = EDGES[random.below(EDGES.len())],
        (2, Some(octet)) => *octet = random.next() as u8,
        (3, Some(octet)) => {
            *octet = octet
                .wrapping_add((random.next() % 33) as u8)
                .wrapping_sub(16);
        }
        (4, Some(_)) => drop(input.drain(range)),
        (5, Some(_)) => input.truncate(at),
        (6, Some(_)) => {
            let copy = input[range].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, copy);
        }
        (7, _) => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len());
            let end = (from + 1 + random.below(200)).min(other.len());
            input.splice(
                at.min(input.len())..,
                other[from.min(end)..end].iter().copied(),
            );
        }
        (8, _) => {
            let more: Vec<u8> = (0..=random.below(8)).map(|_| random.next() as u8).collect();
            let to = random.below(input.len() + 1);
            input.splice(to..to, more);
        }
        _ => input.extend((0..=random.below(16)).map(|_| EDGES[random.below(EDGES.len())])),
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// Targets do not see the same numbers.
    fn new(seed: u64, name: &str) -> Self {
        let mix = |state: u64, octet: u8| (state ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3);
        Self(name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 if that is 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next())
            .unwrap_or(0)
            .checked_rem(bound)
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(folder: &Path) -> Plan {
        Plan {
            corpora: folder.join("corpora"),
            findings: folder.join("findings"),
            targets: vec!["test".into()],
            time: Duration::from_secs(30),
            each: true,
            gate: false,
            seed: 7,
            threads: 1,
        }
    }

    /// The runner itself can find something, and what it found is kept as it was.
    #[test]
    fn what_breaks_a_promise_is_found_and_kept() {
        fn fragile(data: &[u8]) {
            assert!(!data.contains(&0x7f) || data.len() < 3, "found");
        }
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(folder.path());
        fs::create_dir_all(plan.corpora.join("test")).unwrap();
        fs::write(plan.corpora.join("test/entry"), [1, 2, 3, 4]).unwrap();
        let ran = watched(&plan, ("test", fragile), plan.time);
        let finding = ran.unwrap().finding.unwrap();
        let input = fs::read(finding).unwrap();
        assert!(catch_unwind(|| fragile(&input)).is_err());
    }

    #[test]
    fn a_seed_makes_the_same_inputs() {
        let corpus = [vec![1, 2, 3], vec![9; 40], Vec::new()];
        let inputs = |seed| {
            let mut random = Random::new(seed, "test");
            let all: Vec<_> = (0..500).map(|_| mutated(&mut random, &corpus)).collect();
            all
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let distinct: std::collections::BTreeSet<_> = inputs(1).into_iter().collect();
        assert!(distinct.len() > 400, "{} of 500 differ", distinct.len());
    }

    /// A name that is misspelt above would silently get the least.
    #[test]
    fn weights_are_of_targets_that_exist() {
        let heavy = TARGETS.iter().filter(|(name, _)| weight(name) > 1).count();
        assert_eq!(heavy, 11);
    }
}
