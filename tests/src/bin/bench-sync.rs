//! Measures copying and taking over SAs; `cargo xtask bench sync` runs it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measures what copying SAs to other members costs, and taking them over.
#[derive(Parser)]
struct Options {
    /// Where the report goes (JSON).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match gateway_tests::bench::sync(&Options::parse().out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
