//! What was measured, beside what it may cost.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    /// What counts: the best of the rounds, or for rates their median.
    pub(super) best: f64,
    /// Their median.
    pub(super) median: f64,
}

impl Figure {
    /// Of times: the smallest is the best.
    pub(super) fn smallest(rounds: Vec<f64>) -> Self {
        let sorted = sorted(rounds);
        Self {
            best: sorted.first().copied().unwrap_or(f64::NAN),
            median: median(&sorted),
        }
    }

    /// Of rates: the median. Part of the far end's work moves between this thread and the
    /// kernel's own under load, so the best round is the luckiest, not the least disturbed.
    pub(super) fn typical(rounds: Vec<f64>) -> Self {
        let median = median(&sorted(rounds));
        Self {
            best: median,
            median,
        }
    }
}

fn sorted(mut rounds: Vec<f64>) -> Vec<f64> {
    rounds.sort_by(f64::total_cmp);
    rounds
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What something may cost, as the README states it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Budget {
    /// What it is for.
    pub(super) name: &'static str,
    /// What was measured.
    pub(super) value: f64,
    /// The limit.
    pub(super) limit: f64,
    /// Whether the value must stay below the limit (else above).
    pub(super) at_most: bool,
    /// Of both numbers.
    pub(super) unit: &'static str,
}

impl Budget {
    /// Whether it is kept.
    pub(super) fn kept(&self) -> bool {
        if self.at_most {
            self.value <= self.limit
        } else {
            self.value >= self.limit
        }
    }
}

/// All figures by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Report {
    figures: BTreeMap<String, Figure>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a figure; of one that is taken twice (the empty program, once per family) the better
    /// counts.
    pub(super) fn add(&mut self, key: String, figure: Figure) {
        self.figures
            .entry(key)
            .and_modify(|known| {
                if figure.best < known.best {
                    *known = figure;
                }
            })
            .or_insert(figure);
    }

    fn best(&self, key: &str) -> f64 {
        self.figures.get(key).map_or(f64::NAN, |figure| figure.best)
    }

    /// The budgets that these figures can be held against.
    pub(super) fn budgets(&self) -> Vec<Budget> {
        let over = |name, key, base, limit| Budget {
            name,
            value: self.best(key) - self.best(base),
            limit,
            at_most: true,
            unit: "ns over empty",
        };
        vec![
            over("ESP hit", "esp_hit_ns", "empty_ns", 15.0),
            over("IKE exact hit", "ike_exact_ns", "empty_ns", 30.0),
            over("IKE any hit", "ike_any_ns", "empty_ns", 30.0),
            over("fence", "fence_ns", "fence_empty_ns", 50.0),
            Budget {
                name: "forwarding",
                value: self.best("forward_mpps") / self.best("bare_redirect_mpps"),
                limit: 0.9,
                at_most: false,
                unit: "of a bare redirect",
            },
        ]
    }

    /// The report as it is written to the file.
    pub(super) fn to_json(&self) -> Value {
        let mut all = Map::new();
        let round = |value: f64| json!((value * 100.0).round() / 100.0);
        for (key, figure) in &self.figures {
            all.insert(key.clone(), round(figure.best));
        }
        let medians: Map<String, Value> = self
            .figures
            .iter()
            .map(|(key, figure)| (key.clone(), round(figure.median)))
            .collect();
        let budgets: Vec<Value> = self
            .budgets()
            .iter()
            .map(|budget| {
                json!({
                    "name": budget.name, "value": round(budget.value), "limit": budget.limit,
                    "unit": budget.unit, "kept": budget.kept(),
                })
            })
            .collect();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        all.insert("kernel".to_owned(), json!(kernel.trim()));
        all.insert("esp".to_owned(), json!("synthetic"));
        all.insert("medians".to_owned(), Value::Object(medians));
        all.insert("budgets".to_owned(), Value::Array(budgets));
        Value::Object(all)
    }
}

/// What one look-up cost on the machine that the budgets were set on.
const BUDGET_LOOKUP_NS: u32 = 9;

/// Rows of the table: label, key stem.
const ROWS: [(&str, &str); 8] = [
    ("empty program", "empty"),
    ("one hash look-up (yardstick)", "one_lookup"),
    ("ESP hit, forwarded", "esp_hit"),
    ("IKE hit, exact message id", "ike_exact"),
    ("IKE hit, any message id", "ike_any"),
    ("IKE miss, decision function", "miss"),
    ("ESP miss", "esp_miss"),
    ("not ours", "not_ours"),
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<30} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "XDP, ns per frame", "hot", "over", "median", "cold", "over"
        )?;
        for (label, stem) in ROWS {
            let (hot, cold) = (format!("{stem}_ns"), format!("{stem}_ns_cold"));
            writeln!(
                f,
                "{label:<30} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                self.best(&hot),
                self.best(&hot) - self.best("empty_ns"),
                self.figures.get(&hot).map_or(f64::NAN, |hot| hot.median),
                self.best(&cold),
                self.best(&cold) - self.best("empty_ns_cold"),
            )?;
        }
        writeln!(
            f,
            "tc fence {:.1} ns, empty {:.1} ns\nlive frames {:.2} Mpps, bare redirect {:.2} Mpps\n",
            self.best("fence_ns"),
            self.best("fence_empty_ns"),
            self.best("forward_mpps"),
            self.best("bare_redirect_mpps"),
        )?;
        writeln!(
            f,
            "One hash look-up costs {:.0} ns here; the budgets were set where it cost {}.",
            self.best("one_lookup_ns") - self.best("empty_ns"),
            BUDGET_LOOKUP_NS,
        )?;
        for budget in self.budgets() {
            let sign = if budget.at_most { "≤" } else { "≥" };
            writeln!(
                f,
                "{:<14} {:>7.2} {} (budget {sign} {}) {}",
                budget.name,
                budget.value,
                budget.unit,
                budget.limit,
                if budget.kept() { "kept" } else { "NOT KEPT" },
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new();
        for (key, best) in [
            ("empty_ns", 7.0),
            ("esp_hit_ns", 21.0),
            ("ike_exact_ns", 40.0),
            ("ike_any_ns", 37.0),
            ("fence_ns", 60.0),
            ("fence_empty_ns", 7.0),
        ] {
            report.add(key.to_owned(), Figure { best, median: best });
        }
        for (key, best) in [("forward_mpps", 4.6), ("bare_redirect_mpps", 5.0)] {
            report.add(key.to_owned(), Figure { best, median: best });
        }
        report
    }

    #[test]
    fn budgets_compare_with_the_empty_program_and_the_bare_redirect() {
        let kept: Vec<bool> = report().budgets().iter().map(Budget::kept).collect();
        assert_eq!(kept, [true, false, true, false, true]);
    }

    #[test]
    fn a_figure_that_was_never_taken_keeps_no_budget() {
        assert!(Report::new().budgets().iter().all(|budget| !budget.kept()));
    }

    #[test]
    fn times_count_by_the_best_round_and_rates_by_the_median() {
        let times = Figure::smallest(vec![3.0, 1.0, 9.0]);
        assert_eq!((times.best, times.median), (1.0, 3.0));
        let rates = Figure::typical(vec![3.0, 1.0, 9.0]);
        assert_eq!((rates.best, rates.median), (3.0, 3.0));
    }

    #[test]
    fn the_file_has_the_keys_that_others_read() {
        let json = report().to_json();
        assert_eq!(json["esp_hit_ns"], 21.0);
        assert_eq!(json["medians"]["fence_ns"], 60.0);
        assert_eq!(json["esp"], "synthetic");
    }
}
