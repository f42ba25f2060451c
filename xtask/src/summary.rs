//! The steps of a run and their closing table.

use std::time::{Duration, Instant};

use anyhow::Result;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what it should.
    Passed,
    /// It did not.
    Failed,
    /// It could not be run here; the row says why.
    Skipped,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was run.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// How many tests stand behind the row: (passed, failed).
    pub(crate) count: (u64, u64),
    /// Wall-clock time.
    pub(crate) took: Duration,
    /// One line of detail; why it failed or was skipped.
    pub(crate) detail: String,
}

/// Collects the rows of one `cargo xtask test`.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    rows: Vec<Row>,
}

impl Summary {
    /// Runs one step that counts as one test, and records how it ended.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<String>) -> bool {
        println!("\n=== {name}");
        let start = Instant::now();
        let (outcome, detail) = match work() {
            Ok(detail) => (Outcome::Passed, detail),
            Err(error) => {
                println!("{name}: {error:#}");
                (Outcome::Failed, first_line(&format!("{error:#}")))
            }
        };
        let count = if outcome == Outcome::Passed {
            (1, 0)
        } else {
            (0, 1)
        };
        self.push(Row {
            name: name.into(),
            outcome,
            count,
            took: start.elapsed(),
            detail,
        });
        outcome == Outcome::Passed
    }

    /// Adds a finished row.
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Records that something could not be run, loudly.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        println!("\n=== {name}\nSKIPPED: {why}");
        self.push(Row {
            name: name.into(),
            outcome: Outcome::Skipped,
            count: (0, 0),
            took: Duration::ZERO,
            detail: why.into(),
        });
    }

    /// (passed, failed, skipped rows).
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        self.rows
            .iter()
            .fold((0, 0, 0), |(passed, failed, skipped), row| {
                let skip = u64::from(row.outcome == Outcome::Skipped);
                (passed + row.count.0, failed + row.count.1, skipped + skip)
            })
    }

    /// Prints the table, and the line `N passed, M failed` as the very last one.
    pub(crate) fn print(&self) {
        let width = self
            .rows
            .iter()
            .map(|row| row.name.len())
            .max()
            .unwrap_or(0);
        println!("\n=== summary");
        for row in &self.rows {
            let took = format!("{:.1} s", row.took.as_secs_f64());
            let detail = if row.detail.is_empty() { "" } else { "  " };
            let word = row.outcome.word();
            println!(
                "{:width$}  {word:7}  {took:>8}{detail}{}",
                row.name, row.detail
            );
        }
        let (passed, failed, skipped) = self.totals();
        if skipped > 0 {
            println!("{skipped} step(s) skipped: see above for what they need");
        }
        println!("{passed} passed, {failed} failed");
    }
}

/// The text up to its first line break.
pub(crate) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_tests_not_rows() {
        let mut summary = Summary::default();
        assert!(summary.step("good", || Ok(String::new())));
        assert!(!summary.step("bad", || anyhow::bail!("why\nmore")));
        summary.skip("absent", "no tool");
        summary.push(Row {
            name: "unit".into(),
            outcome: Outcome::Failed,
            count: (10, 2),
            took: Duration::ZERO,
            detail: String::new(),
        });
        assert_eq!(summary.totals(), (11, 3, 1));
    }
}
