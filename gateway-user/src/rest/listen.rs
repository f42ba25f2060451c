//! The Unix socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};

use super::access::Peer;

/// Nobody's user id: whose the kernel does not tell may nothing.
const NOBODY: u32 = u32::MAX;

/// Binds `path` with `mode`, for `group`. What an earlier run left behind is replaced.
pub(super) async fn unix(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    let about = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("rest.socket {}: {error}", path.display()),
        )
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(about)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        let error = io::Error::from(io::ErrorKind::AddrInUse);
        return Err(about(error));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(about(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(about)?;
    std::os::unix::fs::chown(path, None, group).map_err(about)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(about)?;
    Ok(listener)
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred();
        Self::Local {
            uid: credentials.map_or(NOBODY, |credentials| credentials.uid()),
        }
    }
}
