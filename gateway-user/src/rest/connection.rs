//! One connection, over whatever it came, and what those who connect can take up.

use std::time::Duration;

use axum::extract::Request;
use axum::extract::connect_info::ConnectInfo;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

use super::access::Peer;
use super::problem::Problem;

/// What clients can take up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// Of them from one address, over TCP.
    pub(super) per_address: usize,
    /// Of them of one user, over the Unix socket.
    pub(super) per_user: usize,
    /// Whole requests without their bodies have to be there by then, counted from the last answer.
    pub(super) headers: Duration,
    /// By then the answer has begun, and the body of the request was there before that.
    pub(super) answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            per_address: 32,
            per_user: 128,
            headers: Duration::from_secs(10),
            // Orders may wait for a slot that nobody serves, and then for the peer.
            answer: Duration::from_secs(60),
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    app: Router,
    limits: Limits,
) {
    let bounded = from_fn(move |request: Request, next: Next| async move {
        let answer = tokio::time::timeout(limits.answer, next.run(request)).await;
        let late =
            || Problem::new(StatusCode::REQUEST_TIMEOUT, "not answered in time").into_response();
        answer.unwrap_or_else(|_| late())
    });
    let about = format!("{peer:?}");
    let app = app.layer(bounded).layer(Extension(ConnectInfo(peer)));
    let service = TowerToHyperService::new(app);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("REST, {about}: {error}");
    }
}
