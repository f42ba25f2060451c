//! Critical devices of this member.

use std::collections::BTreeMap;

use gateway_common::time::Instant;

use super::io::{Pnote, PnoteState};
use super::status::PnoteStatus;

/// The registered devices by name.
#[derive(Debug, Default)]
pub(super) struct Pnotes {
    devices: BTreeMap<String, (Instant, Pnote)>,
}

impl Pnotes {
    pub(super) fn report(&mut self, now: Instant, pnote: Pnote) {
        self.devices.insert(pnote.name.clone(), (now, pnote));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.devices.remove(name);
    }

    /// How many have a problem, and the first of them.
    pub(super) fn problems(&self, now: Instant) -> (u8, Option<String>) {
        let bad = |(at, pnote): &&(Instant, Pnote)| state(now, *at, pnote) != PnoteState::Ok;
        let count = self.devices.values().filter(bad).count();
        let first = self.devices.values().find(bad);
        let reason = first.map(|(at, pnote)| format!("{}: {}", pnote.name, why(now, *at, pnote)));
        (u8::try_from(count).unwrap_or(u8::MAX), reason)
    }

    /// When the next report will be late.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let ends = |(at, pnote): &(Instant, Pnote)| Some(*at + pnote.timeout?);
        self.devices
            .values()
            .filter_map(ends)
            .filter(|end| *end > now)
            .min()
    }

    pub(super) fn status(&self, now: Instant) -> Vec<PnoteStatus> {
        let rows = self.devices.values().map(|(at, pnote)| PnoteStatus {
            name: pnote.name.clone(),
            state: state(now, *at, pnote),
            reason: why(now, *at, pnote).to_owned(),
            age: now - *at,
            timeout: pnote.timeout,
        });
        rows.collect()
    }
}

fn state(now: Instant, at: Instant, pnote: &Pnote) -> PnoteState {
    if late(now, at, pnote) {
        PnoteState::Problem
    } else {
        pnote.state
    }
}

fn late(now: Instant, at: Instant, pnote: &Pnote) -> bool {
    pnote.timeout.is_some_and(|timeout| now >= at + timeout)
}

fn why(now: Instant, at: Instant, pnote: &Pnote) -> &str {
    if late(now, at, pnote) {
        "did not report in time"
    } else {
        &pnote.reason
    }
}
