//! The socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::{Call, Hub, client};
use crate::api;

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
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if UnixStream::connect(socket).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "another daemon answers on {}: stop it first",
                socket.display()
            ),
        ));
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
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
