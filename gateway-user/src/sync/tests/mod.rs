//! Members on loopback addresses, with certificates made by [`crate::pki`].

mod cores;
mod refusal;

use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant as StdInstant;

use gateway_cluster::frame::Frame;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
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

/// A port that is free at every member's address. It is below those from which the kernel takes a
/// dialler's, and a socket keeps it from other tests, of other processes too.
fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<StdListener>> = Mutex::new(Vec::new());
    let mut listeners = (20_000..32_768).map(|port| StdListener::bind((address(250), port)));
    let listener = listeners.find_map(Result::ok).unwrap();
    let port = listener.local_addr().unwrap().port();
    TAKEN.lock().unwrap().push(listener);
    port
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
        detours: Vec::new(),
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
            matches!(event, TransportEvent::Connected { member, .. } if member == id(to)),
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

/// Addresses of a second network.
fn detour(local: u8, members: u8) -> Detour {
    let on_it = |member: u8| IpAddr::from([127, 99, 8, member]);
    Detour {
        address: on_it(local),
        peers: (1..=members).map(|m| (id(m), on_it(m))).collect(),
    }
}

#[tokio::test]
async fn a_member_that_the_sync_network_does_not_reach_is_reached_around_it() {
    let port = free_port();
    let around = |local, address| TransportConfig {
        address,
        detours: vec![detour(local, 2)],
        ..config(local, 2, port, PKI.credentials(local))
    };
    // The second member does not hear on its sync address.
    let nowhere = IpAddr::from([127, 99, 9, 9]);
    let mut two = Node::start(around(2, nowhere));
    let mut one = Node::start(around(1, address(1)));
    one.connected(2).await;
    two.connected(1).await;
    one.send(2, b"around").unwrap();
    assert_eq!(two.frame().await, b"around");
    assert!(counted(&one.transport.counters().unreachable) >= 1);
    // The certificate is checked as ever: a detour is no way for strangers.
    assert_eq!(counted(&two.transport.counters().refused), 0);
}

#[tokio::test]
async fn a_known_cut_of_the_sync_network_needs_no_attempt_on_it() {
    let port = free_port();
    let around = |local| TransportConfig {
        detours: vec![detour(local, 2)],
        ..config(local, 2, port, PKI.credentials(local))
    };
    let mut two = Node::start(around(2));
    let mut one = Node::start(around(1));
    one.connected(2).await;
    two.connected(1).await;
    let peer = one.transport.shared.config.peers[0];
    let first = |node: &Node| node.transport.shared.ways_to(peer)[0].1;
    assert_eq!(first(&one), address(2));
    one.transport.set_detour(id(2), true);
    assert_eq!(one.disconnected(2).await, "closed on request");
    assert_eq!(first(&one), IpAddr::from([127, 99, 8, 2]));
    one.connected(2).await;
    // Saying it again changes nothing.
    one.transport.set_detour(id(2), true);
    assert!(one.waiting().await.is_none());
    assert_eq!(counted(&one.transport.counters().unreachable), 0);
}

#[tokio::test]
async fn both_ends_export_the_same_keys_for_heartbeats() {
    let port = free_port();
    let mut two = Node::start(config(2, 2, port, PKI.credentials(2)));
    let mut one = Node::start(config(1, 2, port, PKI.credentials(1)));
    let session = async |node: &mut Node| match node.next().await {
        TransportEvent::Connected { keys, dialled, .. } => (keys, dialled),
        other => panic!("{other:?}"),
    };
    let (ours, dialled) = session(&mut one).await;
    let (theirs, accepted) = session(&mut two).await;
    assert!(dialled && !accepted);
    assert!(ours.matches(&theirs) && theirs.matches(&ours));
    assert!(!ours.matches(&ours));
}

#[tokio::test]
async fn a_newer_connection_replaces_an_older_one() {
    let (one, mut two, port) = pair().await;
    // The first member's agent was killed and its host did not even say so: a second one dials.
    let other = config(1, 2, port, PKI.credentials(1));
    let tls = tls::Tls::new(&other).unwrap();
    let tcp = socket::dial(&other, (address(1), address(2)))
        .await
        .unwrap();
    let name = tls::server_name(other.peers[0]);
    let mut stream = tls.connector.connect(name, tcp).await.unwrap();
    assert!(two.disconnected(1).await.contains("replaced"));
    two.connected(1).await;
    stream.write_all(&[0, 0, 0, 2, 9, 9]).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(two.frame().await, [9, 9]);
    drop(one);
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
