//! Accepting connections from the members that dial us.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::peer::in_time;
use super::tls::{Tls, check_peer};
use super::{Detour, PeerAddress, Shared, TransportConfig, TransportError, count, socket};

/// An authenticated connection.
pub(super) type Accepted = TlsStream<TcpStream>;

/// A member that dials us.
#[derive(Clone)]
pub(super) struct Dialler {
    peer: PeerAddress,
    streams: mpsc::Sender<Accepted>,
    handshakes: Arc<Semaphore>,
}

impl Dialler {
    pub(super) fn new(shared: &Shared, peer: PeerAddress, streams: mpsc::Sender<Accepted>) -> Self {
        Self {
            peer,
            streams,
            handshakes: Arc::new(Semaphore::new(shared.config.limits.handshakes_per_peer)),
        }
    }
}

pub(super) fn bind(config: &TransportConfig) -> Result<TcpListener, TransportError> {
    socket::listen(config).map_err(|source| TransportError::Listen {
        address: SocketAddr::new(config.address, config.port),
        device: config.device.clone().unwrap_or_else(|| "any".into()),
        source,
    })
}

/// Detours are for bad days: one that cannot be listened on is only worth a warning.
pub(super) fn bind_detours(config: &TransportConfig) -> Vec<TcpListener> {
    let listen = |detour: &Detour| {
        socket::listen_on(config, detour.address)
            .inspect_err(|error| {
                warn!(address = %detour.address, "sync channel: no detour: {error}");
            })
            .ok()
    };
    config.detours.iter().filter_map(listen).collect()
}

/// Accepts for as long as the transport lives. Only addresses of members that dial us get as far as
/// TLS, and none of them can use up what the others need.
pub(super) async fn run(
    shared: Arc<Shared>,
    tls: Tls,
    listener: TcpListener,
    diallers: BTreeMap<IpAddr, Dialler>,
) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: it will not get better by trying at once.
                warn!(%error, "cannot accept a sync connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(dialler) = diallers.get(&from.ip().to_canonical()) else {
            count(&shared.counters.strangers, 1);
            debug!(%from, "sync connection from an address of no member that dials us");
            continue;
        };
        let Ok(permit) = Arc::clone(&dialler.handshakes).try_acquire_owned() else {
            count(&shared.counters.crowded, 1);
            continue;
        };
        let (shared, tls, dialler) = (Arc::clone(&shared), tls.clone(), dialler.clone());
        tokio::spawn(async move {
            let peer = dialler.peer;
            if let Err(reason) = accept(&shared, &tls, stream, dialler, permit).await {
                count(&shared.counters.refused, 1);
                if shared.note_error(peer.member, &reason) {
                    warn!(member = %peer.member, %from, reason, "sync connection refused");
                }
            }
        });
    }
}

async fn accept(
    shared: &Shared,
    tls: &Tls,
    stream: TcpStream,
    dialler: Dialler,
    permit: OwnedSemaphorePermit,
) -> Result<(), String> {
    let config = &shared.config;
    socket::prepare(config, &stream).map_err(|error| error.to_string())?;
    let stream = in_time(config.limits.handshake, tls.acceptor.accept(stream)).await?;
    check_peer(config, dialler.peer, stream.get_ref().1.peer_certificates())?;
    drop(permit);
    // Only fails when the transport is being closed.
    let _ = dialler.streams.send(stream).await;
    Ok(())
}
