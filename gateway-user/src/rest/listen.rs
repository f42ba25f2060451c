//! The Unix socket.

use std::io;
use std::path::Path;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use super::access::Peer;
use crate::local_socket;

/// Nobody's user id: whose the kernel does not tell may nothing.
const NOBODY: u32 = u32::MAX;

/// Binds `path` with `mode`, for `group`.
pub(super) async fn unix(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    let bound = local_socket::bind(path, mode, group, "gatewayd").await;
    bound.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("rest.socket {}: {error}", path.display()),
        )
    })
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred();
        Self::Local {
            uid: credentials.map_or(NOBODY, |credentials| credentials.uid()),
        }
    }
}
