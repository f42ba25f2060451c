//! TCP with TLS 1.3.

use std::io;
use std::net::IpAddr;
#[cfg(test)]
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::Router;
use data_encoding::HEXLOWER;
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
use super::connection::{Limits, converse};
use crate::config::RestTls;
use crate::places::Places;

/// Who has not shown what it wants by then is closed.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at a time.
const HANDSHAKES: usize = 64;

/// A bound TCP socket with its certificates.
pub(super) struct Listener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    places: Arc<Places<IpAddr>>,
    limits: Limits,
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
            places: Places::new(limits.connections, limits.per_address),
            limits,
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
            let (acceptor, app, limits) = (self.acceptor.clone(), app.clone(), self.limits);
            tokio::spawn(async move {
                let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
                drop(permit);
                match shaken {
                    Ok(Ok(stream)) => {
                        let peer = Peer::Remote {
                            address,
                            certificate: shown(&stream),
                        };
                        converse(stream, peer, app, limits).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%address, "rest.listen: {error}"),
                    Err(_) => tracing::debug!(%address, "rest.listen: no handshake in time"),
                }
                drop(place);
            });
        }
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
