//! The task that keeps the connection to one peer.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::client;
use tracing::{debug, warn};

use super::connection::{Queue, read_all, write_all};
use super::listener::Accepted;
use super::tls::{self, Tls, check_peer, server_name};
use super::{PeerAddress, Report, Session, Shared, count, socket};
use crate::heartbeat::SessionKeys;

pub(super) struct Task {
    shared: Arc<Shared>,
    tls: Tls,
    events: mpsc::Sender<Report>,
    peer: PeerAddress,
}

impl Task {
    pub(super) fn new(
        shared: Arc<Shared>,
        tls: Tls,
        events: mpsc::Sender<Report>,
        peer: PeerAddress,
    ) -> Self {
        Self {
            shared,
            tls,
            events,
            peer,
        }
    }

    /// Serves the connections that the peer opens; a newer one replaces an older one, because the
    /// peer opens it only when it has given the older one up.
    pub(super) async fn serve(self, mut accepted: mpsc::Receiver<Accepted>) {
        let mut next = accepted.recv().await;
        while let Some(stream) = next.take() {
            let mut heard = false;
            tokio::select! {
                () = self.accepted(stream, &mut heard) => {}
                newer = accepted.recv() => {
                    next = newer;
                    self.end("replaced by a new connection".into()).await;
                    continue;
                }
            }
            next = accepted.recv().await;
        }
    }

    /// Dials, for as long as the transport lives.
    pub(super) async fn dial(self) {
        let limits = self.shared.config.limits.clone();
        let mut pause = limits.redial_min;
        loop {
            let mut heard = false;
            match self.connect().await {
                Ok((stream, keys)) => {
                    let dialled = true;
                    self.run(stream, Session { keys, dialled }, &mut heard)
                        .await;
                }
                Err(reason) => self.report(&reason),
            }
            // Who closes at once, or refuses our certificate, is left alone for longer and longer.
            if heard {
                pause = limits.redial_min;
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(limits.redial_max);
        }
    }

    async fn accepted(&self, stream: Accepted, heard: &mut bool) {
        let (local, member) = (self.shared.config.local, self.peer.member);
        match tls::heartbeat_keys(stream.get_ref().1, local, member) {
            Ok(keys) => {
                let dialled = false;
                self.run(stream, Session { keys, dialled }, heard).await;
            }
            Err(reason) => self.end(reason).await,
        }
    }

    async fn connect(&self) -> Result<(client::TlsStream<TcpStream>, Arc<SessionKeys>), String> {
        let shared = &self.shared;
        let stream = self.reach().await?;
        let limit = shared.config.limits.handshake;
        let name = server_name(self.peer);
        let stream = in_time(limit, self.tls.connector.connect(name, stream))
            .await
            .inspect_err(|_| count(&shared.counters.refused, 1))?;
        let chain = stream.get_ref().1.peer_certificates();
        check_peer(&shared.config, self.peer, chain)
            .inspect_err(|_| count(&shared.counters.refused, 1))?;
        let keys = tls::heartbeat_keys(stream.get_ref().1, shared.config.local, self.peer.member)?;
        Ok((stream, keys))
    }

    /// The first way on which the peer answers; the first failure if there is none.
    async fn reach(&self) -> Result<TcpStream, String> {
        let shared = &self.shared;
        let mut first = None;
        for way in shared.ways_to(self.peer) {
            match in_time(
                shared.config.limits.connect,
                socket::dial(&shared.config, way),
            )
            .await
            {
                Ok(stream) => return Ok(stream),
                Err(reason) => {
                    count(&shared.counters.unreachable, 1);
                    first.get_or_insert(reason);
                }
            }
        }
        Err(first.unwrap_or_else(|| "no address".into()))
    }

    /// Runs a connection until it breaks.
    async fn run(&self, stream: impl AsyncRead + AsyncWrite, session: Session, heard: &mut bool) {
        let (shared, member) = (&self.shared, self.peer.member);
        let (queue, outgoing) = Queue::new(shared.config.limits.queue_bytes);
        let connected = Report::Connected(member, Arc::clone(&queue), session);
        if self.events.send(connected).await.is_err() {
            return;
        }
        debug!(%member, address = %self.peer.address, "sync connection established");
        let (reader, writer) = tokio::io::split(stream);
        let reason = tokio::select! {
            reason = queue.closed() => reason,
            reason = read_all(reader, member, &self.events, shared, heard) => reason,
            reason = write_all(writer, outgoing, &shared.counters) => reason,
        };
        self.end(reason).await;
    }

    async fn end(&self, reason: String) {
        self.report(&reason);
        // With nobody listening everything ends anyway.
        let report = Report::Disconnected(self.peer.member, reason);
        let _ = self.events.send(report).await;
    }

    /// Logs a failure once, not with every attempt.
    fn report(&self, reason: &str) {
        let PeerAddress { member, address } = self.peer;
        if self.shared.note_error(member, reason) {
            warn!(%member, %address, reason, "no sync connection");
        } else {
            debug!(%member, %address, reason, "still no sync connection");
        }
    }
}

/// An I/O operation that has to be complete within `limit`.
pub(super) async fn in_time<T>(
    limit: Duration,
    operation: impl Future<Output = std::io::Result<T>>,
) -> Result<T, String> {
    match timeout(limit, operation).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("timed out".into()),
    }
}
