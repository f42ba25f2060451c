//! The agent's log as events, for `swanctl --log` and the orders' own output.

use std::fmt::{self, Write};
use std::sync::{Arc, LazyLock};

use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines that may wait for a client; a slower one misses the oldest.
const QUEUE: usize = 1024;

static LINES: LazyLock<broadcast::Sender<Arc<Line>>> =
    LazyLock::new(|| broadcast::Sender::new(QUEUE));

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// strongSwan's three letters for where it comes from.
    pub(super) group: &'static str,
    /// strongSwan's level: 0 what went wrong, 1 what an operator wants to know, 2 details.
    pub(super) level: u8,
    /// The connection that it is about.
    pub(super) connection: Option<String>,
    /// The line.
    pub(super) message: String,
}

/// Lines from now on.
pub(super) fn listen() -> broadcast::Receiver<Arc<Line>> {
    LINES.subscribe()
}

/// Hands log lines to the VICI clients that want them.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogLayer;

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if LINES.receiver_count() == 0 {
            return;
        }
        let metadata = event.metadata();
        let mut line = Line {
            group: group(metadata.target()),
            level: match *metadata.level() {
                Level::ERROR | Level::WARN => 0,
                Level::INFO => 1,
                Level::DEBUG | Level::TRACE => 2,
            },
            ..Line::default()
        };
        event.record(&mut Fields(&mut line));
        // Nobody listens any more: nobody misses it.
        let _ = LINES.send(Arc::new(line));
    }
}

struct Fields<'a>(&'a mut Line);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "connection" if value != "-" => self.0.connection = Some(value.to_owned()),
            "connection" => {}
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => {
                let rest = std::mem::take(&mut self.0.message);
                write!(self.0.message, "{value:?}{rest}")
            }
            name => write!(self.0.message, " {name}={value:?}"),
        };
    }
}

/// By the module that writes it.
fn group(target: &str) -> &'static str {
    let known = [
        ("xfrm", "KNL"),
        ("config", "CFG"),
        ("reload", "CFG"),
        ("loaded", "CFG"),
        ("vici", "CFG"),
        ("sync", "NET"),
        ("socket", "NET"),
        ("agent::log", "IKE"),
    ];
    let found = known.iter().find(|(part, _)| target.contains(part));
    found.map_or("DMN", |(_, group)| group)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_line_carries_its_connection_and_its_fields() {
        let mut lines = listen();
        let subscriber = tracing_subscriber::registry().with(LogLayer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "x::xfrm", connection = "log-test", spi = "0a", "up");
        });
        // Other tests may log at the same time.
        let line = std::iter::from_fn(|| lines.try_recv().ok())
            .find(|line| line.connection.as_deref() == Some("log-test"))
            .unwrap();
        assert_eq!((line.group, line.level), ("KNL", 1));
        assert_eq!(line.message, "up spi=0a");
    }
}
