//! The socket.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::{Call, Hub, client};
use crate::{api, local_socket};

/// Clients at the same time; more are turned away.
const CLIENTS: usize = 64;

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
}

/// Binds `socket` (mode 0600, its folder is made) and serves clients until the agent ends.
///
/// # Errors
/// If the socket cannot be bound, or somebody already answers on it.
pub async fn serve(socket: &Path, links: Links) -> io::Result<()> {
    let listener = local_socket::bind(socket, 0o600, None, "daemon").await?;
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS));
    tokio::spawn(async move {
        while !links.calls.is_closed() {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(place) = std::sync::Arc::clone(&places).try_acquire_owned() else {
                        continue;
                    };
                    let links = links.clone();
                    tokio::spawn(async move {
                        client::serve(stream, links).await;
                        drop(place);
                    });
                }
                // Out of descriptors, say: the next client may have more luck.
                Err(error) => {
                    tracing::warn!("VICI socket: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}
