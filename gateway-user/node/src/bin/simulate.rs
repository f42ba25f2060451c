//! Runs simulated clusters by seed and shows how to replay those that fail.

use std::process::ExitCode;

use gateway_node::sim::{Mechanism, Options, run};

const USAGE: &str = "usage: simulate --seed N | --seeds A..B [--trace] [--quiet] [--heavy] [--sides] [--halves] [--rekeys] [--without MECHANISM]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let trace = arguments.iter().any(|argument| argument == "--trace");
    let heavy = arguments.iter().any(|argument| argument == "--heavy");
    let sides = arguments.iter().any(|argument| argument == "--sides");
    let halves = arguments.iter().any(|argument| argument == "--halves");
    let rekeys = arguments.iter().any(|argument| argument == "--rekeys");
    let quiet = arguments.iter().any(|argument| argument == "--quiet");
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let single = value("--seed").and_then(|n| n.parse::<u64>().ok());
    let range = value("--seeds").and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse::<u64>().ok()?..to.parse::<u64>().ok()?)
    });
    let Some(seeds) = range.or_else(|| single.map(|seed| seed..seed.saturating_add(1))) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let without = match value("--without") {
        Some(name) => match Mechanism::named(&name) {
            None => {
                let all = Mechanism::ALL.map(Mechanism::name).join(", ");
                eprintln!("no mechanism {name}; there are: {all}");
                return ExitCode::from(2);
            }
            known => known,
        },
        None => None,
    };
    let (mut failed, mut events) = (0u64, 0u64);
    for seed in seeds.clone() {
        let outcome = run(Options {
            seed,
            trace,
            quiet,
            heavy,
            sides,
            halves,
            rekeys,
            without,
        });
        events += outcome.events;
        if let Some(violation) = &outcome.violation {
            failed += 1;
            println!("seed {seed}: {violation}\n  {}", outcome.replay());
        }
    }
    let count = seeds.end - seeds.start;
    println!("{count} seeds, {failed} failed, {events} events");
    if failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
