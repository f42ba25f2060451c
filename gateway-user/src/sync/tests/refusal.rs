//! Who is not let in, and what ends a connection.

use std::io::{Read, Write};

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;

use super::*;

/// Starts member 1 (dialler) and member 2 with these credentials; nobody may be heard.
async fn refuse(one: Credentials, two: Credentials) -> (String, String) {
    let port = free_port();
    let mut two = Node::start(config(2, 2, port, two));
    let mut one = Node::start(config(1, 2, port, one));
    let errors = |node: &Node, peer| node.transport.last_error(id(peer));
    until(|| errors(&one, 2).is_some() && errors(&two, 1).is_some()).await;
    let seen = (errors(&one, 2).unwrap(), errors(&two, 1).unwrap());
    sleep(Duration::from_millis(300)).await;
    while let Some(event) = one.waiting().await {
        let heard = matches!(event, TransportEvent::Frame { .. });
        assert!(!heard, "{event:?}");
    }
    if let Some(event) = two.waiting().await {
        panic!("the listening side accepted it: {event:?}");
    }
    assert!(counted(&two.transport.counters().refused) > 0);
    seen
}

#[tokio::test]
async fn another_authority_is_refused() {
    let other = Pki::new("hq");
    let (dialler, listener) = refuse(PKI.credentials(1), other.credentials(2)).await;
    assert!(dialler.contains("certificate"), "{dialler}");
    assert!(!listener.is_empty());
    // The listener trusts the same authority as the dialler, which shows another's certificate.
    let mut mixed = PKI.issue(1, 1);
    std::fs::copy(
        other.issue(1, 1).join("member.crt"),
        mixed.join("member.crt"),
    )
    .unwrap();
    assert!(matches!(
        Transport::start(config(1, 2, free_port(), load(&mixed))),
        Err(TransportError::Credentials(CredentialError::Tls(_)))
    ));
    mixed = other.issue(1, 1);
    std::fs::copy(PKI.issue(1, 1).join("ca.crt"), mixed.join("ca.crt")).unwrap();
    let (_, listener) = refuse(load(&mixed), PKI.credentials(2)).await;
    assert!(listener.contains("certificate"), "{listener}");
}

#[tokio::test]
async fn another_member_or_cluster_is_refused_whoever_dials() {
    // Member 3 listens at the address of member 2, and its certificate even names that address.
    let port = free_port();
    let mut impostor = config(3, 3, port, load(&PKI.issue(3, 2)));
    impostor.address = address(2);
    impostor.peers.retain(|peer| peer.member == id(1));
    let _three = Node::start(impostor);
    let one = Node::start(config(1, 2, port, PKI.credentials(1)));
    until(|| one.transport.last_error(id(2)).is_some()).await;
    let error = one.transport.last_error(id(2)).unwrap();
    assert!(error.contains("is for gateway://hq/member/3"), "{error}");
    assert!(!one.transport.is_connected(id(2)));
    // Without that address it does not even get so far.
    let port = free_port();
    let mut impostor = config(3, 3, port, PKI.credentials(3));
    impostor.address = address(2);
    impostor.peers.retain(|peer| peer.member == id(1));
    let _three = Node::start(impostor);
    let one = Node::start(config(1, 2, port, PKI.credentials(1)));
    until(|| one.transport.last_error(id(2)).is_some()).await;
    let error = one.transport.last_error(id(2)).unwrap();
    assert!(error.contains("not valid for name"), "{error}");
    // And the other way round: who dials from the address of member 1 has to be member 1.
    let port = free_port();
    let three = Node::start(config(3, 3, port, PKI.credentials(3)));
    let mut impostor = config(2, 3, port, PKI.credentials(2));
    impostor.address = address(1);
    let two = Node::start(impostor);
    until(|| three.transport.last_error(id(1)).is_some()).await;
    let error = three.transport.last_error(id(1)).unwrap();
    assert!(error.contains("is for gateway://hq/member/2"), "{error}");
    assert!(!three.transport.is_connected(id(1)) && !three.transport.is_connected(id(2)));
    drop(two);
    // A certificate for this member of another cluster is refused at the start.
    let other = Pki::new("branch");
    let error = Transport::start(config(1, 2, port, other.credentials(1)));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("gateway://branch/member/1"), "{error}");
}

#[tokio::test]
async fn expired_certificates_are_refused() {
    let expired = PKI.expired(1);
    assert!(expired.not_after() < OffsetDateTime::now_utc());
    let (_, listener) = refuse(expired, PKI.credentials(2)).await;
    assert!(listener.contains("xpired"), "{listener}");
    let (dialler, _) = refuse(PKI.credentials(1), PKI.expired(2)).await;
    assert!(dialler.contains("xpired"), "{dialler}");
}

fn raw(from: IpAddr, port: u16) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket
        .connect(&SocketAddr::new(address(2), port).into())
        .unwrap();
    let stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads until the other side closes; it must, and it must not say anything of interest.
fn closed(mut stream: std::net::TcpStream) {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert!(answer.len() < 100, "at most an alert");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_strangers_disturb_nobody() {
    let (one, mut two, port) = pair().await;
    let counters = || two.transport.counters();
    tokio::task::spawn_blocking(move || {
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0; 5000],
            &[0x16, 3, 1, 0xff, 0xff],
        ] {
            let mut stream = raw(address(1), port);
            let _ = stream.write_all(garbage);
            closed(stream);
        }
        closed(raw(address(99), port));
    })
    .await
    .unwrap();
    until(|| counted(&counters().refused) == 3).await;
    assert_eq!(counted(&counters().strangers), 1);
    // Handshakes that hang are bounded, and given up in time.
    let hanging: Vec<_> = (0..6).map(|_| raw(address(1), port)).collect();
    until(|| counted(&counters().crowded) == 2).await;
    until(|| counted(&counters().refused) == 7).await;
    drop(hanging);
    one.send(2, b"still here").unwrap();
    assert_eq!(two.frame().await, b"still here");
}

#[tokio::test]
async fn tls_1_2_and_clients_without_certificate_are_refused() {
    let (_one, two, port) = pair().await;
    let counters = || two.transport.counters();
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(PKI.issue(1, 1).join("ca.crt")).unwrap();
    roots.add(ca).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let before = counted(&counters().refused);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(address(1), 0)).unwrap();
        let tcp = socket
            .connect(SocketAddr::new(address(2), port))
            .await
            .unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let name = ServerName::IpAddress(address(2).into());
        if let Ok(mut stream) = connector.connect(name, tcp).await {
            assert!(stream.read_u8().await.is_err());
        }
        until(|| counted(&counters().refused) == before + 1).await;
    }
}

#[tokio::test]
async fn frames_of_impossible_length_break_the_connection() {
    for length in [0u32, MAX_FRAME as u32 + 1, u32::MAX] {
        let port = free_port();
        let mut two = Node::start(config(2, 2, port, PKI.credentials(2)));
        let one = config(1, 2, port, PKI.credentials(1));
        let tls = tls::Tls::new(&one).unwrap();
        let tcp = socket::dial(&one, (one.address, one.peers[0].address))
            .await
            .unwrap();
        let name = tls::server_name(one.peers[0]);
        let mut stream = tls.connector.connect(name, tcp).await.unwrap();
        two.connected(1).await;
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let reason = two.disconnected(1).await;
        assert!(reason.contains(&length.to_string()), "{reason}");
        assert_eq!(counted(&two.transport.counters().bad_lengths), 1);
    }
}
