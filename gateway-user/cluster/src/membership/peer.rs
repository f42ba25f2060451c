//! What is known of the other members.

use std::collections::BTreeMap;

use gateway_common::time::Instant;

use super::io::LinkId;
use super::state::Shown;
use super::wire::Heartbeat;
use crate::frame::Incarnation;

/// Sequences behind the highest one that may still come, because datagrams overtake each other.
const WINDOW: u64 = 128;

/// Another member, or the witness.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Its latest run; refuses every earlier one.
    pub(super) incarnation: Option<Incarnation>,
    window: Window,
    /// When something new came last.
    pub(super) heard: Option<Instant>,
    /// Per interface: when something came last, and its sequence.
    pub(super) links: BTreeMap<LinkId, (Instant, u64)>,
    /// The latest heartbeat, and its sequence.
    pub(super) said: Heartbeat,
    said_at: u64,
    /// Heard within the silence time.
    pub(super) alive: bool,
    /// This run said goodbye.
    pub(super) gone: bool,
    /// As shown last.
    pub(super) shown: Shown,
    pub(super) reason: String,
    pub(super) last_change: Instant,
}

/// What a datagram is by its incarnation and sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// The first of a new run.
    NewRun,
    /// New.
    New,
    /// A copy of a known one that came over another interface.
    Copy,
    /// Of an earlier run.
    OldRun,
    /// Seen already, or too old to tell.
    Replayed,
}

impl Peer {
    /// Takes note of a datagram.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        via: LinkId,
        incarnation: Incarnation,
        sequence: u64,
    ) -> Freshness {
        let freshness = match self.incarnation {
            Some(known) if incarnation < known => return Freshness::OldRun,
            Some(known) if incarnation == known => {
                if self.gone {
                    return Freshness::Replayed;
                }
                if self.window.admit(sequence) {
                    Freshness::New
                } else if self.is_copy(via, sequence) {
                    Freshness::Copy
                } else {
                    return Freshness::Replayed;
                }
            }
            _ => {
                self.start_run(incarnation, sequence);
                Freshness::NewRun
            }
        };
        let link = self.links.entry(via).or_insert((now, sequence));
        *link = (now, link.1.max(sequence));
        if freshness != Freshness::Copy {
            self.heard = Some(now);
        }
        freshness
    }

    /// Keeps the latest of the heartbeats, whatever the order in which they come.
    pub(super) fn says(&mut self, sequence: u64, heartbeat: Heartbeat) -> bool {
        if sequence <= self.said_at {
            return false;
        }
        self.said_at = sequence;
        self.said = heartbeat;
        true
    }

    /// A heartbeat of its run was heard.
    pub(super) const fn said_any(&self) -> bool {
        self.said_at > 0
    }

    fn is_copy(&self, via: LinkId, sequence: u64) -> bool {
        self.window.recent(sequence)
            && self
                .links
                .get(&via)
                .is_none_or(|(_, last)| sequence > *last)
    }

    fn start_run(&mut self, incarnation: Incarnation, sequence: u64) {
        self.incarnation = Some(incarnation);
        self.window = Window::default();
        self.window.admit(sequence);
        self.links.clear();
        self.said = Heartbeat::default();
        self.said_at = 0;
        self.gone = false;
    }
}

/// Sequences that were seen: the highest, and which of the 128 up to it.
#[derive(Debug, Default)]
struct Window {
    highest: u64,
    seen: u128,
}

impl Window {
    /// Whether it is new; it is not any more afterwards. 0 is never used.
    fn admit(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let shift = u32::try_from(sequence - self.highest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.highest = sequence;
            return true;
        }
        let bit = 1u128.checked_shl(u32::try_from(self.highest - sequence).unwrap_or(u32::MAX));
        match bit {
            Some(bit) if sequence > 0 && self.seen & bit == 0 => {
                self.seen |= bit;
                true
            }
            _ => false,
        }
    }

    const fn recent(&self, sequence: u64) -> bool {
        sequence > 0 && self.highest - sequence < WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sequence_counts_once_and_late_ones_within_the_window() {
        let mut window = Window::default();
        let admitted = |window: &mut Window, sequences: &[u64]| -> Vec<bool> {
            sequences.iter().map(|s| window.admit(*s)).collect()
        };
        assert_eq!(
            admitted(
                &mut window,
                &[0, 5, 5, 3, 3, 200, 72, 73, 73, 5, 1 << 60, 200]
            ),
            [
                false, true, false, true, false, true, false, true, false, false, true, false
            ]
        );
    }

    #[test]
    fn copies_count_per_interface_and_old_runs_never() {
        let mut peer = Peer::default();
        let now = Instant::from_nanos(1);
        let mut judge =
            |link, run, sequence| peer.judge(now, LinkId(link), Incarnation(run), sequence);
        assert_eq!(judge(0, 2, 7), Freshness::NewRun);
        assert_eq!(judge(1, 2, 7), Freshness::Copy);
        assert_eq!(judge(1, 2, 7), Freshness::Replayed);
        assert_eq!(judge(0, 2, 8), Freshness::New);
        assert_eq!(judge(0, 2, 7), Freshness::Replayed);
        assert_eq!(judge(0, 1, 9), Freshness::OldRun);
        assert_eq!(judge(0, 3, 1), Freshness::NewRun);
        assert_eq!(judge(0, 2, 10), Freshness::OldRun);
    }
}
