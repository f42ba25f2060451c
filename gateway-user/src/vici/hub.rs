//! Events on their way from the agent's loop to the clients.

use std::sync::Arc;

use gateway_vici::Section;
use tokio::sync::broadcast;

/// Events that may wait for a client; a slower one misses the oldest.
const QUEUE: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Name of the event, "ike-updown" for example.
    pub name: &'static str,
    /// The connection that it is about.
    pub connection: Option<String>,
    /// Why something failed or ended, in words.
    pub reason: Option<String>,
    /// What clients that registered for it get.
    pub message: Section,
}

/// Passes events on.
#[derive(Clone, Debug)]
pub struct Hub(broadcast::Sender<Arc<Happened>>);

impl Default for Hub {
    fn default() -> Self {
        Self(broadcast::Sender::new(QUEUE))
    }
}

impl Hub {
    /// Whether anybody listens: otherwise nothing has to be put together.
    pub fn has_listeners(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells all clients.
    pub fn tell(&self, happened: Happened) {
        // Nobody listens: nobody misses it.
        let _ = self.0.send(Arc::new(happened));
    }

    /// Events from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Arc<Happened>> {
        self.0.subscribe()
    }
}
