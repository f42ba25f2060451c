//! Measures the data path; `cargo xtask bench steering` runs it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measures what steering and fence cost per frame. Needs root.
#[derive(Parser)]
struct Options {
    /// Where the report goes (JSON).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match gateway_tests::bench::steering(&Options::parse().out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
