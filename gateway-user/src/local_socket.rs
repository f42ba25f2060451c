//! Sockets that programs of this host ask on.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use crate::places::Places;

/// Nobody's user id: whose the kernel does not tell may nothing.
const NOBODY: u32 = u32::MAX;

/// What the programs of this host can take up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time; more are closed.
    pub(crate) clients: usize,
    /// Of them of one user: where a group may connect, none of it can keep root out.
    pub(crate) per_user: usize,
    /// Who leaves a request unfinished, or an answer unread, for so long is closed.
    pub(crate) patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 64,
            per_user: 64,
            patience: Duration::from_secs(60),
        }
    }
}

/// Binds `path` with `mode`, for `group` if there is one; its folder is made, and what an earlier run
/// left behind is replaced.
///
/// # Errors
/// If it cannot be bound, or if somebody answers on it, who is called `other` then.
pub(crate) async fn bind(
    path: &Path,
    mode: u32,
    group: Option<u32>,
    other: &str,
) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "another {other} answers on {}: stop it first",
                path.display()
            ),
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    if group.is_some() {
        chown(path, None, group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Gives every client that finds a place to `handle`, with its user id, until `stopped`.
pub(crate) async fn serve<Handled: Future<Output = ()> + Send + 'static>(
    listener: UnixListener,
    about: &'static str,
    limits: Limits,
    stopped: impl Fn() -> bool,
    handle: impl Fn(UnixStream, u32) -> Handled,
) {
    let places = Places::new(limits.clients, limits.per_user);
    while !stopped() {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Out of descriptors, say: the next client may have more luck.
            Err(error) => {
                tracing::warn!("{about}: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let uid = stream.peer_cred().map_or(NOBODY, |peer| peer.uid());
        let Some(place) = places.take(uid) else {
            tracing::debug!(uid, "{about}: too many connections");
            continue;
        };
        let handled = handle(stream, uid);
        tokio::spawn(async move {
            handled.await;
            drop(place);
        });
    }
}
