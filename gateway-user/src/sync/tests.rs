use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant as StdInstant;

use gateway_cluster::change::{Change, Mirror, Sa};
use gateway_cluster::config::{Config, Limits};
use gateway_cluster::frame::{DeltaSeq, Incarnation};
use gateway_cluster::output::Output;
use gateway_cluster::slot_map::{Mode, Weighted};
use gateway_cluster::{Cluster, frame::Frame};
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::*;
use crate::pki::{self, InitOptions, IssueOptions};

const PATIENCE: Duration = Duration::from_secs(20);

fn id(member: u8) -> MemberId {
    MemberId::new(member).unwrap()
}

fn address(member: u8) -> IpAddr {
    IpAddr::from([127, 0, 77, member])
}

/// An authority and members' certificates, made once.
struct Pki {
    dir: TempDir,
}

impl Pki {
    fn new(cluster: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let options = InitOptions {
            cluster: cluster.into(),
            days: 10,
            force: false,
        };
        pki::init(dir.path(), &options).unwrap();
        Self { dir }
    }

    /// A certificate of `member` that says that it is at `at`.
    fn issue(&self, member: u8, at: u8) -> PathBuf {
        let out = TempDir::new_in(self.dir.path()).unwrap().keep();
        let options = IssueOptions {
            member: id(member),
            cluster: None,
            sync_address: address(at),
            days: 5,
            force: false,
        };
        pki::issue(self.dir.path(), &out, &options).unwrap();
        out
    }

    fn credentials(&self, member: u8) -> Credentials {
        load(&self.issue(member, member))
    }

    /// As `issue`, but expired yesterday.
    fn expired(&self, member: u8) -> Credentials {
        let out = self.issue(member, member);
        let ca = CertificateDer::from_pem_file(out.join("ca.crt")).unwrap();
        let ca_key = std::fs::read_to_string(self.dir.path().join("ca.key")).unwrap();
        let ca_key = rcgen::KeyPair::from_pem(&ca_key).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_der(&ca, ca_key).unwrap();
        let identity = pki::Identity {
            cluster: "hq".into(),
            member: id(member),
        };
        let mut params = rcgen::CertificateParams::default();
        params.not_before = OffsetDateTime::now_utc() - time::Duration::days(3);
        params.not_after = OffsetDateTime::now_utc() - time::Duration::days(1);
        params.subject_alt_names = vec![
            rcgen::SanType::URI(identity.uri().try_into().unwrap()),
            rcgen::SanType::IpAddress(address(member)),
        ];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(out.join("member.crt"), certificate.pem()).unwrap();
        std::fs::write(out.join("member.key"), key.serialize_pem()).unwrap();
        load(&out)
    }
}

fn load(dir: &Path) -> Credentials {
    let file = |name| dir.join(name);
    Credentials::load(&file("ca.crt"), &file("member.crt"), &file("member.key")).unwrap()
}

static PKI: LazyLock<Pki> = LazyLock::new(|| Pki::new("hq"));

fn free_port() -> u16 {
    let probe = StdListener::bind((address(250), 0)).unwrap();
    probe.local_addr().unwrap().port()
}

fn config(local: u8, members: u8, port: u16, credentials: Credentials) -> TransportConfig {
    TransportConfig {
        local: id(local),
        cluster: "hq".into(),
        address: address(local),
        port,
        device: None,
        peers: (1..=members)
            .filter(|member| *member != local)
            .map(|member| PeerAddress {
                member: id(member),
                address: address(member),
            })
            .collect(),
        credentials,
        limits: TransportLimits {
            redial_max: Duration::from_millis(200),
            handshake: Duration::from_secs(2),
            ..TransportLimits::default()
        },
    }
}

struct Node {
    transport: Transport,
    events: TransportEvents,
}

impl Node {
    fn start(config: TransportConfig) -> Self {
        let (transport, events) = Transport::start(config).unwrap();
        Self { transport, events }
    }

    async fn next(&mut self) -> TransportEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// An event that has happened already.
    async fn waiting(&mut self) -> Option<TransportEvent> {
        let event = timeout(Duration::from_millis(1), self.events.recv());
        event.await.ok().flatten()
    }

    async fn connected(&mut self, to: u8) {
        let event = self.next().await;
        assert!(
            matches!(event, TransportEvent::Connected { member } if member == id(to)),
            "{event:?}"
        );
        assert!(self.transport.is_connected(id(to)));
    }

    async fn disconnected(&mut self, from: u8) -> String {
        match self.next().await {
            TransportEvent::Disconnected { member, reason } if member == id(from) => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn frame(&mut self) -> Vec<u8> {
        match self.next().await {
            TransportEvent::Frame { bytes, .. } => bytes.expose().to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn send(&self, to: u8, bytes: &[u8]) -> Result<(), SendError> {
        let frame = Arc::new(Secret::from(bytes));
        self.transport.send(id(to), frame, Class::Stream)
    }
}

async fn until(condition: impl Fn() -> bool) {
    let start = StdInstant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "does not come true");
        sleep(Duration::from_millis(5)).await;
    }
}

fn counted(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Members 1 and 2, connected.
async fn pair() -> (Node, Node, u16) {
    let port = free_port();
    let mut two = Node::start(config(2, 2, port, PKI.credentials(2)));
    let mut one = Node::start(config(1, 2, port, PKI.credentials(1)));
    one.connected(2).await;
    two.connected(1).await;
    (one, two, port)
}

#[tokio::test]
async fn frames_go_both_ways_in_order() {
    let (mut one, mut two, _) = pair().await;
    let large = vec![7; MAX_FRAME];
    for n in 0..200u32 {
        one.send(2, &n.to_be_bytes()).unwrap();
    }
    one.send(2, &large).unwrap();
    two.send(1, b"hello").unwrap();
    assert_eq!(one.frame().await, b"hello");
    assert_eq!(one.transport.last_error(id(2)), None);
    for n in 0..200u32 {
        assert_eq!(two.frame().await, n.to_be_bytes());
    }
    assert_eq!(two.frame().await, large);
    assert_eq!(one.send(2, &[]), Err(SendError::Length));
    assert_eq!(one.send(2, &vec![0; MAX_FRAME + 1]), Err(SendError::Length));
    assert_eq!(one.send(3, b"x"), Err(SendError::NotConnected));
    assert_eq!(
        counted(&two.transport.counters().bytes_in),
        800 + MAX_FRAME as u64
    );
}

#[tokio::test]
async fn a_member_that_comes_back_is_connected_again() {
    let (mut one, two, port) = pair().await;
    drop(two);
    assert!(one.disconnected(2).await.contains("closed by the peer"));
    assert_eq!(one.send(2, b"x"), Err(SendError::NotConnected));
    let mut two = Node::start(config(2, 2, port, PKI.credentials(2)));
    one.connected(2).await;
    two.connected(1).await;
    one.send(2, b"again").unwrap();
    assert_eq!(two.frame().await, b"again");
    // The dialler comes back: its new connection is a new one for the other side, too.
    drop(one);
    two.disconnected(1).await;
    let mut one = Node::start(config(1, 2, port, PKI.credentials(1)));
    one.connected(2).await;
    two.connected(1).await;
    // On request.
    two.transport.disconnect(id(1));
    assert_eq!(two.disconnected(1).await, "closed on request");
    one.disconnected(2).await;
    one.connected(2).await;
    two.connected(1).await;
}

#[tokio::test]
async fn a_newer_connection_replaces_an_older_one() {
    let (one, mut two, port) = pair().await;
    // The first member's agent was killed and its host did not even say so: a second one dials.
    let other = config(1, 2, port, PKI.credentials(1));
    let tls = tls::Tls::new(&other).unwrap();
    let tcp = socket::dial(&other, other.peers[0]).await.unwrap();
    let name = tls::server_name(other.peers[0]);
    let mut stream = tls.connector.connect(name, tcp).await.unwrap();
    assert!(two.disconnected(1).await.contains("replaced"));
    two.connected(1).await;
    stream.write_all(&[0, 0, 0, 2, 9, 9]).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(two.frame().await, [9, 9]);
    drop(one);
}

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
        let tcp = socket::dial(&one, one.peers[0]).await.unwrap();
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

#[tokio::test]
async fn a_peer_that_does_not_read_blocks_nobody() {
    let port = free_port();
    let mut two = Node::start(config(2, 2, port, PKI.credentials(2)));
    let mut quick = config(1, 2, port, PKI.credentials(1));
    quick.limits.queue_bytes = 1 << 20;
    let mut one = Node::start(quick);
    one.connected(2).await;
    two.connected(1).await;
    // Nobody takes two's events: its channel, the sockets' buffers and our queue fill up.
    let frame = Arc::new(Secret::new(vec![1; 32 << 10]));
    let mut datagrams = 0;
    let started = StdInstant::now();
    let refused = loop {
        assert!(started.elapsed() < PATIENCE);
        let datagram = one
            .transport
            .send(id(2), Arc::clone(&frame), Class::Datagram);
        datagrams += u32::from(datagram == Err(SendError::QueueFull));
        if let Err(error) = one.transport.send(id(2), Arc::clone(&frame), Class::Stream) {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused, SendError::QueueFull);
    assert!(
        datagrams > 5,
        "datagrams are dropped long before: {datagrams}"
    );
    assert!(one.disconnected(2).await.contains("does not keep up"));
    assert_eq!(counted(&one.transport.counters().overflows), 1);
}

/// A core on a transport, as the agent drives it.
struct Driven {
    node: Node,
    core: Cluster,
    origin: StdInstant,
    released: DeltaSeq,
    upserted: usize,
}

impl Driven {
    fn start(member: u8, port: u16, run: u64, origin: StdInstant) -> Self {
        let members = (1..=3).map(|m| Weighted {
            member: id(m),
            weight: 1,
        });
        let core = Config {
            local: id(member),
            members: members.collect(),
            mode: Mode::LoadSharing,
            cluster_id: 1,
            cluster_name: "hq".into(),
            config_hash: [0; 32],
            incarnation: Incarnation(run),
            limits: Limits::default(),
        };
        Self {
            node: Node::start(config(member, 3, port, PKI.credentials(member))),
            core: Cluster::new(core, Instant::from_nanos(0)),
            origin,
            released: DeltaSeq(0),
            upserted: 0,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.origin.elapsed().as_nanos() as u64)
    }

    fn publish(&mut self, n: u8) -> DeltaSeq {
        let sa = Sa {
            local_spi: [n; 8],
            children: Vec::new(),
            record: Secret::new(vec![n; 20_000]),
        };
        let now = self.now();
        let change = Change::SaUpsert(sa);
        let seq = self.core.publish(now, Slot(n), change, Mirror::Urgent);
        self.drain();
        seq.unwrap()
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send { to, frame, class } => {
                    let _ = self.node.transport.send(to, frame, class);
                }
                Output::Disconnect(member) => self.node.transport.disconnect(member),
                Output::Released(seq) => self.released = seq,
                Output::RecordUpserted { .. } => self.upserted += 1,
                _ => {}
            }
        }
    }

    async fn step(&mut self) {
        let event = timeout(Duration::from_millis(2), self.node.events.recv()).await;
        let now = self.now();
        match event {
            Ok(Some(TransportEvent::Connected { member })) => {
                self.core.handle_connected(now, member);
            }
            Ok(Some(TransportEvent::Frame { member, bytes })) => {
                self.core.handle_frame(now, member, bytes.expose());
            }
            Ok(Some(TransportEvent::Disconnected { member, .. })) => {
                self.core.handle_disconnected(now, member);
            }
            Ok(None) | Err(_) => {}
        }
        self.core.handle_timeout(now);
        self.drain();
    }

    fn in_sync(&self) -> bool {
        self.core.status().peers.iter().all(|peer| peer.in_sync)
    }
}

async fn drive(nodes: &mut BTreeMap<u8, Driven>, done: impl Fn(&BTreeMap<u8, Driven>) -> bool) {
    let start = StdInstant::now();
    while !done(nodes) {
        assert!(start.elapsed() < PATIENCE, "does not converge");
        for node in nodes.values_mut() {
            node.step().await;
        }
    }
}

#[tokio::test]
async fn three_cores_converge_over_tls() {
    let (port, origin) = (free_port(), StdInstant::now());
    let mut nodes: BTreeMap<u8, Driven> = (1..=3)
        .map(|member| (member, Driven::start(member, port, 1, origin)))
        .collect();
    for n in 0..60 {
        nodes.get_mut(&1).unwrap().publish(n);
    }
    drive(&mut nodes, |nodes| nodes.values().all(Driven::in_sync)).await;
    let seq = nodes.get_mut(&1).unwrap().publish(60);
    assert!(nodes[&1].released < seq, "not before they have it");
    drive(&mut nodes, |nodes| nodes[&1].released == seq).await;
    let everywhere = |nodes: &BTreeMap<u8, Driven>| {
        nodes
            .values()
            .all(|node| node.core.ownership().sas().count() == 61)
    };
    assert!(everywhere(&nodes));
    assert_eq!((nodes[&2].upserted, nodes[&3].upserted), (61, 61));
    // Member 3 is restarted and catches up.
    nodes.remove(&3);
    drive(&mut nodes, |nodes| !nodes[&1].core.is_up(id(3))).await;
    nodes.insert(3, Driven::start(3, port, 2, origin));
    drive(&mut nodes, |nodes| {
        everywhere(nodes) && nodes.values().all(Driven::in_sync)
    })
    .await;
}

#[tokio::test]
async fn a_frame_is_never_larger_than_its_length_was_checked() {
    let (mut ours, mut theirs) = tokio::io::duplex(64);
    ours.write_all(&[0xff; 8]).await.unwrap();
    let error = connection::read_frame(&mut theirs).await.unwrap_err();
    assert!(matches!(error, connection::ReadError::Length(u32::MAX)));
    let ping = Frame::Ping { nonce: 1 }.encode();
    let (mut ours, mut theirs) = tokio::io::duplex(64);
    ours.write_all(&(ping.len() as u32).to_be_bytes())
        .await
        .unwrap();
    ours.write_all(ping.expose()).await.unwrap();
    let read = connection::read_frame(&mut theirs).await.unwrap();
    assert_eq!(read, ping);
}
