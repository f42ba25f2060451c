//! What no event tells, looked at once a second.

use std::collections::BTreeSet;
use std::fmt::Write;

use gateway_cluster::membership::PnoteState;

use super::Agent;
use crate::clock;
use crate::steering::{Fill, Finding};

/// Per cent of `SEP_my_IKE_packet` at which the alarm is logged.
const TABLE_ALARM_PERCENT: u32 = 80;
/// Counting the table walks all of it: tens of milliseconds when it is full.
const SECONDS_PER_COUNT: u32 = 10;

/// What was said already, so that a lasting trouble is one line in the log.
#[derive(Debug, Default)]
pub(super) struct House {
    seconds: u32,
    troubles: BTreeSet<String>,
    table_alarm: bool,
}

impl House {
    /// Those of `troubles` that were not there a second ago.
    fn news(&mut self, troubles: BTreeSet<String>) -> Vec<String> {
        let news = troubles.difference(&self.troubles).cloned().collect();
        self.troubles = troubles;
        news
    }

    fn is_time_to_count(&mut self) -> bool {
        let due = self.seconds.is_multiple_of(SECONDS_PER_COUNT);
        self.seconds = self.seconds.wrapping_add(1);
        due
    }

    /// Whether the table has just become nearly full.
    fn rings(&mut self, fill: Fill) -> bool {
        let full = fill.reaches(TABLE_ALARM_PERCENT);
        let rings = full && !self.table_alarm;
        self.table_alarm = full;
        rings
    }
}

impl Agent {
    /// Once a second.
    pub(super) fn keep_house(&mut self) {
        let mut troubles = BTreeSet::new();
        troubles.extend(self.look_for_members().err());
        let steering = self.watch_steering(&mut troubles);
        self.report("steering", steering);
        let xfrm = self.tunnels.promote_used().err();
        let xfrm = xfrm.map(|error| format!("rekeyed CHILD_SAs: {error}"));
        troubles.extend(xfrm.clone());
        self.report("xfrm", xfrm);
        for trouble in self.house.news(troubles) {
            tracing::error!("{trouble}");
        }
        if self.house.is_time_to_count() {
            self.watch_table();
        }
        self.watch_clock_and_crls();
        self.share_loaded();
    }

    /// Lets XDP forward to members that the sync network has shown since.
    pub(super) fn look_for_members(&self) -> Result<(), String> {
        let missing = self.steering.refresh_members();
        for member in missing.map_err(|error| error.to_string())? {
            tracing::debug!(%member, "no answer to ARP/ND on the sync network yet");
        }
        Ok(())
    }

    /// What certificates are judged by.
    pub(super) fn watch_clock_and_crls(&mut self) {
        let now = clock::now();
        self.node.set_wall_clock(now, clock::unix_seconds());
        if let Some(crls) = self.crls.refresh() {
            self.node.set_crls(now, crls);
        }
    }

    /// What keeps this member from being active.
    fn watch_steering(&self, troubles: &mut BTreeSet<String>) -> Option<String> {
        match self.steering.verify() {
            Ok(findings) => {
                troubles.extend(findings.iter().map(line));
                let lasting = findings.iter().find(|finding| !finding.repaired);
                lasting.map(line)
            }
            Err(error) => {
                troubles.insert(error.to_string());
                Some(error.to_string())
            }
        }
    }

    fn report(&self, device: &str, problem: Option<String>) {
        let state = if problem.is_some() {
            PnoteState::Problem
        } else {
            PnoteState::Ok
        };
        self.device(device, state, problem.unwrap_or_default(), None);
    }

    fn watch_table(&mut self) {
        let Ok(fill) = self.steering.tables().fill() else {
            return;
        };
        if self.house.rings(fill) {
            tracing::warn!(
                "SEP_my_IKE_packet is {TABLE_ALARM_PERCENT} % full ({} of {}): the least recently \
                 used negotiations will be forgotten (fix: a larger table.max_entries)",
                fill.entries,
                fill.max_entries
            );
        }
    }
}

fn line(finding: &Finding) -> String {
    let mut line = format!(
        "{} ({}): {}",
        finding.interface,
        finding.role.map_or("not configured", |role| role.as_str()),
        finding.what
    );
    // Writing to a String cannot fail.
    let _ = match &finding.error {
        Some(error) => write!(line, "; {error}"),
        None if finding.repaired => write!(line, "; put right"),
        None => Ok(()),
    };
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_trouble_is_told_once_and_again_when_it_comes_back() {
        let mut house = House::default();
        let some = |text: &str| BTreeSet::from([text.to_owned()]);
        assert_eq!(house.news(some("a")), ["a"]);
        assert!(house.news(some("a")).is_empty());
        assert!(house.news(BTreeSet::new()).is_empty());
        assert_eq!(house.news(some("a")), ["a"]);
    }

    #[test]
    fn the_alarm_rings_once_at_eighty_per_cent() {
        let mut house = House::default();
        let fill = |entries| Fill {
            entries,
            max_entries: 1000,
        };
        assert!(!house.rings(fill(799)));
        assert!(house.rings(fill(800)));
        assert!(!house.rings(fill(900)));
        assert!(!house.rings(fill(10)));
        assert!(house.rings(fill(1000)));
    }
}
