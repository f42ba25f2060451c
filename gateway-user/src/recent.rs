//! The last log lines of the agent, for `gatewayctl log`: what the journal gets, as values.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines that are kept.
pub const KEPT: usize = 1000;

/// Octets of a line's text, and of each of its fields, that are kept: with [`KEPT`] the bound on
/// memory.
const LONGEST: usize = 1000;

/// One log line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Counts from 1 since the agent's start.
    pub number: u64,
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub unix_ms: u64,
    /// `error`, `warn` or `info`.
    pub level: String,
    /// What it says.
    pub text: String,
    /// What it is about: `connection`, `peer`, `spi`, `member`, …; `-` where that is not known.
    pub fields: BTreeMap<String, String>,
}

/// A ring of the last [`KEPT`] lines, at level `info` and above. Clones are the same ring.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    last: u64,
}

impl Recent {
    /// The last `count` lines with a number above `after`, oldest first; with `connection` only
    /// those about it.
    pub fn lines(&self, after: u64, count: usize, connection: Option<&str>) -> Vec<LogLine> {
        let ring = self.ring();
        let about = |line: &&LogLine| {
            connection
                .is_none_or(|name| line.fields.get("connection").map(String::as_str) == Some(name))
        };
        let newest_first = ring.lines.iter().rev();
        let mut lines: Vec<LogLine> = newest_first
            .take_while(|line| line.number > after)
            .filter(about)
            .take(count)
            .cloned()
            .collect();
        lines.reverse();
        lines
    }

    /// Number of the newest line, 0 if there is none.
    pub fn last(&self) -> u64 {
        self.ring().last
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = since.map_or(0, |since| since.as_millis());
        let mut ring = self.ring();
        ring.last += 1;
        let line = LogLine {
            number: ring.last,
            unix_ms: u64::try_from(unix_ms).unwrap_or(u64::MAX),
            level: level.as_str().to_ascii_lowercase(),
            text: said.text,
            fields: said.fields,
        };
        if ring.lines.len() == KEPT {
            ring.lines.pop_front();
        }
        ring.lines.push_back(line);
    }
}

/// Message and fields of an event.
#[derive(Default)]
struct Said {
    text: String,
    fields: BTreeMap<String, String>,
}

impl Said {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut text = Bounded::default();
        // Ends early when it is full.
        let _ = text.write_fmt(value);
        if field.name() == "message" {
            self.text = text.0;
        } else {
            self.fields.insert(field.name().to_owned(), text.0);
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

/// Text of at most [`LONGEST`] octets.
#[derive(Default)]
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = LONGEST - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(left)]);
        if text.len() > left {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn logged(work: impl FnOnce()) -> Recent {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, work);
        recent
    }

    #[test]
    fn lines_keep_what_they_are_about() {
        let recent = logged(|| {
            tracing::debug!("not for operators");
            tracing::warn!(connection = "a", peer = %"198.51.100.1:500", "refused: {}", 7);
            tracing::info!(connection = "b", "up");
        });
        let lines = recent.lines(0, 10, None);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[0].level.as_str(), lines[0].text.as_str()),
            ("warn", "refused: 7")
        );
        assert_eq!(lines[0].fields["peer"], "198.51.100.1:500");
        assert_eq!(recent.lines(0, 10, Some("b")), &lines[1..]);
        assert_eq!(recent.lines(1, 10, None), &lines[1..]);
        assert_eq!(recent.lines(0, 1, None), &lines[1..]);
        assert_eq!(recent.lines(2, 10, None), &[]);
    }

    #[test]
    fn memory_is_bounded() {
        let recent = logged(|| {
            for _ in 0..KEPT + 10 {
                tracing::info!(connection = "ü".repeat(5000), "{}", "ü".repeat(5000));
            }
        });
        let lines = recent.lines(0, usize::MAX, None);
        assert_eq!(lines.len(), KEPT);
        assert_eq!((lines[0].number, recent.last()), (11, (KEPT + 10) as u64));
        let longest = lines.iter().map(|line| line.text.len()).max();
        assert_eq!(longest, Some(LONGEST));
        assert!(
            lines
                .iter()
                .all(|line| line.fields["connection"].len() <= LONGEST)
        );
    }
}
