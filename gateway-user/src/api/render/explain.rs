//! `gatewayctl explain`.

use std::fmt::Write;

use super::text::{columns, fact};
use crate::api::model::{Explanation, Finding};

/// `gatewayctl explain`.
pub fn explanation(explanation: &Explanation) -> String {
    let mut out = format!(
        "{} ({})\n",
        shortened(&explanation.subject),
        explanation.kind
    );
    if explanation.findings.is_empty() {
        out.push_str("\nnothing in the cluster has to do with it\n");
    }
    for finding in &explanation.findings {
        let _ = write!(out, "\n{}", one(finding));
    }
    out
}

/// A packet is too long for a heading.
fn shortened(subject: &str) -> String {
    const SHOWN: usize = 48;
    match subject.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &subject[..at]),
        None => subject.to_owned(),
    }
}

fn one(finding: &Finding) -> String {
    let mut out = format!("{}\n", finding.about);
    let rows: Vec<Vec<String>> = finding
        .steps
        .iter()
        .map(|step| {
            let value = step.value.as_deref().unwrap_or("nothing");
            vec![
                format!("   {}", step.table),
                step.key.clone(),
                "->".into(),
                value.into(),
            ]
        })
        .collect();
    out.push_str(&columns(&rows));
    if let Some(slot) = finding.slot {
        fact(&mut out, "Slot", &slot.to_string());
    }
    fact(&mut out, "Owner", &owner(finding));
    if let (Some(action), Some(reason)) = (&finding.action, &finding.reason) {
        fact(&mut out, "XDP", &format!("{action} ({reason})"));
    }
    let _ = writeln!(out, "   => {}", finding.meaning);
    out
}

fn owner(finding: &Finding) -> String {
    if finding.owner == 0 {
        return "nobody".into();
    }
    let name = finding.owner_name.as_deref().unwrap_or("not configured");
    let state = finding.owner_state.as_deref().unwrap_or("unknown");
    format!("member {} ({name}), {state}", finding.owner)
}
