//! The Unix socket.

use std::io;
use std::path::Path;

use axum::Router;
use tokio::net::UnixListener;

use super::access::Peer;
use super::connection::{Limits, converse};
use crate::local_socket;

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

/// Serves `app` to whoever connects, until the agent ends.
pub(super) async fn serve(listener: UnixListener, app: Router, limits: Limits) {
    let places = local_socket::Limits {
        clients: limits.connections,
        per_user: limits.per_user,
        patience: limits.answer,
    };
    let handle = |stream, uid| converse(stream, Peer::Local { uid }, app.clone(), limits);
    local_socket::serve(listener, "rest.socket", places, || false, handle).await;
}
