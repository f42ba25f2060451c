//! The socket.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::{Call, Hub, client};
use crate::api;
use crate::local_socket::{self, Limits};

/// The engine's counters only grow, as metrics have to: what clients of this socket see begins here.
pub type Baseline = Arc<Mutex<BTreeMap<String, u64>>>;

/// Ways to the agent's loop, and from it.
#[derive(Clone)]
pub struct Links {
    /// Questions and orders.
    pub calls: mpsc::Sender<api::Call>,
    /// What is loaded.
    pub loads: mpsc::Sender<Call>,
    /// Events.
    pub hub: Hub,
    /// When the agent started.
    pub started: SystemTime,
    /// What the counters were when a client reset them.
    pub reset: Baseline,
}

/// Binds `socket` (mode 0600, its folder is made) and serves clients until the agent ends.
///
/// # Errors
/// If the socket cannot be bound, or somebody already answers on it.
pub async fn serve(socket: &Path, links: Links) -> io::Result<()> {
    let listener = local_socket::bind(socket, 0o600, None, "daemon").await?;
    tokio::spawn(async move {
        let limits = Limits::default();
        let handle = |stream, _| client::serve(stream, links.clone(), limits.patience);
        let stopped = || links.calls.is_closed();
        local_socket::serve(listener, "VICI socket", limits, stopped, handle).await;
    });
    Ok(())
}
