//! TCP with TLS 1.3.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use axum::extract::Request;
use axum::extract::connect_info::ConnectInfo;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::{Extension, Router};
use data_encoding::HEXLOWER;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::access::{ClientCertificate, Peer};
use super::problem::Problem;
use crate::config::RestTls;

/// Who has not shown what it wants by then is closed.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at a time.
const HANDSHAKES: usize = 64;

/// What strangers can take up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// Of them from one address.
    pub(super) per_address: usize,
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
            headers: Duration::from_secs(10),
            // Orders may wait for a slot that nobody serves, and then for the peer.
            answer: Duration::from_secs(60),
        }
    }
}

/// Who is connected.
#[derive(Debug)]
struct Places {
    limits: Limits,
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `address`, unless it or all together have too many.
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let from_there = taken.get(&address).copied().unwrap_or(0);
        if all >= self.limits.connections || from_there >= self.limits.per_address {
            return None;
        }
        taken.insert(address, from_there + 1);
        let places = Arc::clone(self);
        Some(Place { places, address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
        }
        taken.retain(|_, count| *count > 0);
    }
}

/// A bound TCP socket with its certificates.
pub(super) struct Listener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    places: Arc<Places>,
}

impl Listener {
    /// Reads the certificates and binds.
    pub(super) async fn bind(config: &RestTls, limits: Limits) -> io::Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(config)?));
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("rest.listen {}: {error}", config.listen),
            )
        })?;
        Ok(Self {
            listener,
            acceptor,
            places: Arc::new(Places {
                limits,
                taken: Mutex::default(),
            }),
        })
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `app` to whoever connects, each beside the others, so that nobody can hold up the rest.
    pub(super) async fn serve(self, app: Router) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
                return;
            };
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                // Out of descriptors, say: the next client may have more luck.
                Err(error) => {
                    tracing::warn!("rest.listen: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(place) = self.places.take(address.ip()) else {
                tracing::debug!(%address, "rest.listen: too many connections");
                continue;
            };
            let (acceptor, app) = (self.acceptor.clone(), app.clone());
            tokio::spawn(async move {
                let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
                drop(permit);
                match shaken {
                    Ok(Ok(stream)) => converse(stream, address, app, place).await,
                    Ok(Err(error)) => tracing::debug!(%address, "rest.listen: {error}"),
                    Err(_) => tracing::debug!(%address, "rest.listen: no handshake in time"),
                }
            });
        }
    }
}

/// Serves one connection to its end.
async fn converse(stream: TlsStream<TcpStream>, address: SocketAddr, app: Router, place: Place) {
    let peer = Peer::Remote {
        address,
        certificate: shown(&stream),
    };
    let limits = place.places.limits;
    let bounded = from_fn(move |request: Request, next: Next| async move {
        let answer = tokio::time::timeout(limits.answer, next.run(request)).await;
        let late =
            || Problem::new(StatusCode::REQUEST_TIMEOUT, "not answered in time").into_response();
        answer.unwrap_or_else(|_| late())
    });
    let app = app.layer(bounded).layer(Extension(ConnectInfo(peer)));
    let service = TowerToHyperService::new(app);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%address, "rest.listen: {error}");
    }
}

fn server_config(config: &RestTls) -> io::Result<ServerConfig> {
    let wrong = |what: &std::path::Path, error: String| {
        io::Error::other(format!("[rest] {}: {error}", what.display()))
    };
    let chain = certificates(&config.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|error| wrong(&config.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| wrong(path, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                // Bearers of tokens need none.
                .allow_unauthenticated()
                .build()
                .map_err(|error| wrong(path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&config.certificate, error.to_string()))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

fn certificates(path: &std::path::Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> =
        read.map_err(|error| io::Error::other(format!("[rest] {}: {error}", path.display())))?;
    if read.is_empty() {
        let problem = format!("[rest] {}: no certificate in PEM", path.display());
        return Err(io::Error::other(problem));
    }
    Ok(read)
}

/// What the client's certificate says, which rustls has verified.
fn shown(stream: &TlsStream<TcpStream>) -> Option<ClientCertificate> {
    let (_, connection) = stream.get_ref();
    let der = connection.peer_certificates()?.first()?;
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let subject = parsed.subject();
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value.as_str().ok().map(str::to_owned)
    };
    Some(ClientCertificate {
        fingerprint: HEXLOWER.encode(digest::digest(&digest::SHA256, der).as_ref()),
        common_name: subject.iter_common_name().next().and_then(text),
        units: subject
            .iter_organizational_unit()
            .filter_map(text)
            .collect(),
    })
}
