//! TCP: TLS 1.3 alone, and who shows what.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::access::Peer;
use super::super::connection::Limits;
use super::super::tls::Listener;
use crate::config::RestTls;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    pem: (String, String),
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn identity(issuer: &Authority, name: &str) -> Identity {
    let mut params = CertificateParams::new(vec!["gateway".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, "noc");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Identity {
        certificate: certificate.der().clone(),
        key: key.serialize_der(),
        pem: (certificate.pem(), key.serialize_pem()),
    }
}

/// A server that answers with what it knows of its peer; its address.
async fn serve(
    folder: &Path,
    server: &Identity,
    clients: &Authority,
    limits: Limits,
) -> std::net::SocketAddr {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let config = RestTls {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate: file("server.crt", &server.pem.0),
        key: file("server.key", &server.pem.1),
        client_ca: Some(file("clients.crt", &clients.pem())),
    };
    let listener = Listener::bind(&config, limits).await.unwrap();
    let address = listener.local_addr().unwrap();
    let show = get(|ConnectInfo(peer): ConnectInfo<Peer>| async move {
        match peer {
            Peer::Remote {
                certificate: Some(shown),
                ..
            } => format!("{:?} {:?}", shown.common_name.unwrap(), shown.units),
            _ => "nobody".to_owned(),
        }
    });
    let swallow = post(|body: String| async move { body.len().to_string() });
    let app = axum::Router::new().route("/", show).route("/", swallow);
    tokio::spawn(listener.serve(app));
    address
}

async fn connect(
    address: std::net::SocketAddr,
    roots: &Authority,
    client: Option<&Identity>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    store.add(roots.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(store);
    let config = match client {
        Some(client) => builder
            .with_client_auth_cert(
                vec![client.certificate.clone()],
                PrivateKeyDer::Pkcs8(client.key.clone().into()),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await?;
    connector
        .connect("gateway".try_into().unwrap(), stream)
        .await
}

async fn ask(
    address: std::net::SocketAddr,
    roots: &Authority,
    client: Option<&Identity>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<String> {
    let mut stream = connect(address, roots, client, version).await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}

/// Waits until the server has closed the connection, and returns what it said before.
async fn closed(stream: &mut TlsStream<TcpStream>) -> String {
    let mut said = Vec::new();
    // An end without TLS's own farewell is an end, too.
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says_if_our_authority_issued_it() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (authority(), authority());
    let server = identity(&servers, "server");
    let address = serve(folder.path(), &server, &clients, Limits::default()).await;
    let alice = identity(&clients, "alice");
    let tls13 = &rustls::version::TLS13;
    let shown = ask(address, &servers, Some(&alice), tls13).await.unwrap();
    assert_eq!(shown, "\"alice\" [\"noc\"]");
    let nobody = ask(address, &servers, None, tls13).await.unwrap();
    assert_eq!(nobody, "nobody");
    let forged = identity(&servers, "alice");
    assert!(ask(address, &servers, Some(&forged), tls13).await.is_err());
    let old = ask(address, &servers, Some(&alice), &rustls::version::TLS12).await;
    assert!(old.is_err(), "{old:?}");
    // Who says nothing holds nobody up.
    let _silent = TcpStream::connect(address).await.unwrap();
    assert!(ask(address, &servers, Some(&alice), tls13).await.is_ok());
}

#[tokio::test]
async fn a_request_that_does_not_come_to_its_end_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (authority(), authority());
    let server = identity(&servers, "server");
    let limits = Limits {
        headers: Duration::from_millis(200),
        ..Limits::default()
    };
    let address = serve(folder.path(), &server, &clients, limits).await;
    let tls13 = &rustls::version::TLS13;
    let mut silent = connect(address, &servers, None, tls13).await.unwrap();
    let mut slow = connect(address, &servers, None, tls13).await.unwrap();
    let feeding = tokio::spawn(async move {
        // One octet after the other, as long as anybody listens.
        let drip = b"GET / HTTP/1.1\r\nHost: gateway\r\nX: ".iter();
        for octet in drip.chain(std::iter::repeat(&b'x')) {
            if slow.write_all(&[*octet]).await.is_err() || slow.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(ask(address, &servers, None, tls13).await.unwrap(), "nobody");
    assert_eq!(closed(&mut silent).await, "");
    feeding.await.unwrap();
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (authority(), authority());
    let server = identity(&servers, "server");
    let limits = Limits {
        answer: Duration::from_millis(200),
        ..Limits::default()
    };
    let address = serve(folder.path(), &server, &clients, limits).await;
    let tls13 = &rustls::version::TLS13;
    let mut slow = connect(address, &servers, None, tls13).await.unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    let said = closed(&mut slow).await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (authority(), authority());
    let server = identity(&servers, "server");
    let limits = Limits {
        per_address: 2,
        ..Limits::default()
    };
    let address = serve(folder.path(), &server, &clients, limits).await;
    let tls13 = &rustls::version::TLS13;
    let first = connect(address, &servers, None, tls13).await.unwrap();
    let _second = connect(address, &servers, None, tls13).await.unwrap();
    assert!(ask(address, &servers, None, tls13).await.is_err());
    drop(first);
    // The place is free as soon as the server has seen the end.
    while ask(address, &servers, None, tls13).await.is_err() {
        tokio::task::yield_now().await;
    }
}
