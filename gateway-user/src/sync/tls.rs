//! Certificates, and who a peer is by its certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_common::member::MemberId;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ConnectionCommon, RootCertStore, ServerConfig};
use time::OffsetDateTime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{PeerAddress, TransportConfig};
use crate::heartbeat::{EXPORTER_LABEL, SessionKeys};
use crate::pki::Identity;

const ALPN: &[u8] = b"gateway-sync/1";

/// The CA that is trusted, and this member's certificate and key.
pub struct Credentials {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    not_after: OffsetDateTime,
}

/// What is wrong with certificates or key.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read, or holds something else.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate is for somebody else.
    #[error("the certificate is for {found}, this is gateway://{cluster}/member/{member}")]
    WrongIdentity {
        /// Whom it names.
        found: String,
        /// This cluster.
        cluster: String,
        /// This member.
        member: MemberId,
    },
    /// Certificate and key do not fit together, or the library refuses them.
    #[error("certificate and key: {0}")]
    Tls(String),
}

impl Credentials {
    /// Reads PEM files: the CA's certificate, this member's certificate, its private key.
    ///
    /// # Errors
    ///
    /// [`CredentialError::File`] names the file.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, CredentialError> {
        fn refuse(path: &Path, reason: String) -> CredentialError {
            CredentialError::File {
                path: path.to_path_buf(),
                reason,
            }
        }
        let mut roots = RootCertStore::empty();
        for root in certificates(ca).map_err(|reason| refuse(ca, reason))? {
            roots
                .add(root)
                .map_err(|error| refuse(ca, error.to_string()))?;
        }
        let chain = certificates(certificate).map_err(|reason| refuse(certificate, reason))?;
        let not_after = not_after(&chain).ok_or_else(|| refuse(certificate, "not X.509".into()))?;
        let key =
            PrivateKeyDer::from_pem_file(key).map_err(|error| refuse(key, error.to_string()))?;
        Ok(Self {
            roots: Arc::new(roots),
            chain,
            key,
            not_after,
        })
    }

    /// When this member's certificate expires.
    pub const fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            roots: Arc::clone(&self.roots),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            not_after: self.not_after,
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| error.to_string())?;
    if all.is_empty() {
        return Err("no certificate in this file".into());
    }
    Ok(all)
}

fn not_after(chain: &[CertificateDer<'_>]) -> Option<OffsetDateTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    Some(certificate.validity().not_after.to_datetime())
}

/// Both roles, ready to use.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
}

impl Tls {
    pub(super) fn new(config: &TransportConfig) -> Result<Self, CredentialError> {
        let credentials = &config.credentials;
        check_own(config)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let failed = |error: rustls::Error| CredentialError::Tls(error.to_string());
        let server = server(credentials, &provider).map_err(failed)?;
        let client = client(credentials, &provider).map_err(failed)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }
}

fn check_own(config: &TransportConfig) -> Result<(), CredentialError> {
    let own = config.credentials.chain.first().map(Identity::of);
    let found = match own {
        Some(Ok(own)) if own.cluster == config.cluster && own.member == config.local => {
            return Ok(());
        }
        Some(Ok(other)) => other.uri(),
        Some(Err(error)) => error.to_string(),
        None => "nobody".into(),
    };
    Err(CredentialError::WrongIdentity {
        found,
        cluster: config.cluster.clone(),
        member: config.local,
    })
}

fn server(
    credentials: &Credentials,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, rustls::Error> {
    let roots = Arc::clone(&credentials.roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    // Every connection authenticates afresh: no tickets, no resumption.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn client(
    credentials: &Credentials,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(Arc::clone(&credentials.roots))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// The name that a dialled peer's certificate has to carry: its sync address.
pub(super) fn server_name(peer: PeerAddress) -> ServerName<'static> {
    ServerName::IpAddress(peer.address.into())
}

/// Keys for the heartbeats between `local` and `remote`, exported from their session (RFC 8446 §7.5).
pub(super) fn heartbeat_keys<Data>(
    session: &ConnectionCommon<Data>,
    local: MemberId,
    remote: MemberId,
) -> Result<Arc<SessionKeys>, String> {
    SessionKeys::derive(local.get(), remote.get(), |out, context| {
        session
            .export_keying_material(out, EXPORTER_LABEL, Some(context))
            .map(drop)
    })
    .map(Arc::new)
    .map_err(|error| format!("no keys for the heartbeats: {error}"))
}

/// Whether the verified certificate is that of the member that is configured at this address.
pub(super) fn check_peer(
    config: &TransportConfig,
    expected: PeerAddress,
    chain: Option<&[CertificateDer<'_>]>,
) -> Result<(), String> {
    let leaf = chain
        .and_then(<[_]>::first)
        .ok_or("the peer has no certificate")?;
    let identity = Identity::of(leaf).map_err(|error| error.to_string())?;
    if identity.cluster != config.cluster || identity.member != expected.member {
        return Err(format!(
            "its certificate is for {}, at {} is member {}",
            identity.uri(),
            expected.address,
            expected.member
        ));
    }
    Ok(())
}
