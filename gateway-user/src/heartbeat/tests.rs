use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::*;

fn member(id: u8) -> MemberId {
    MemberId::new(id).unwrap()
}

/// Two members on the loopback device; each pair's port is below those that the kernel gives away.
fn pair(witness: Option<(SocketAddr, Arc<SessionKeys>)>) -> (Heartbeats, Heartbeats, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = |id: u8| IpAddr::from(Ipv4Addr::new(127, 7, 7, id));
    let open = |id: u8, witness| {
        let others = [1, 2, 3].into_iter().filter(|other| *other != id);
        Heartbeats::open(HeartbeatConfig {
            cluster: 9,
            local: member(id),
            port,
            links: vec![LinkConfig {
                device: Some("lo".into()),
                local: address(id),
                peers: others
                    .map(|other| (member(other), address(other)))
                    .collect(),
            }],
            witness,
        })
        .unwrap()
    };
    (open(1, witness), open(2, None), port)
}

fn keys(local: u8, remote: u8) -> Arc<SessionKeys> {
    Arc::new(SessionKeys::from_shared(local, remote, &[5; 32]))
}

/// Loopback delivers before `sendto` returns.
fn next(heartbeats: &mut Heartbeats) -> Option<Received> {
    heartbeats.receive(Instant::from_nanos(1))
}

#[test]
fn what_one_member_sends_the_other_receives() {
    let (mut a, mut b, _) = pair(None);
    a.install_keys(member(2), keys(1, 2), true);
    b.install_keys(member(1), keys(2, 1), true);
    a.send(Sender::Member(member(2)), Via::All, b"hello");
    let received = next(&mut b).unwrap();
    assert_eq!(received.from, Sender::Member(member(1)));
    assert_eq!(
        (received.via, &received.body[..]),
        (LinkId(0), &b"hello"[..])
    );
    assert_eq!(next(&mut b), None);
    b.send(Sender::Member(member(1)), Via::One(LinkId(0)), b"back");
    assert_eq!(next(&mut a).unwrap().body, b"back");
    assert_eq!((a.counters().sent, a.counters().received), (1, 1));
}

#[test]
fn without_a_session_nothing_leaves_and_nothing_is_believed() {
    let (mut a, mut b, _) = pair(None);
    a.send(Sender::Member(member(2)), Via::All, b"hello");
    assert_eq!(a.counters().no_key, 1);
    a.install_keys(member(2), keys(1, 2), true);
    a.send(Sender::Member(member(2)), Via::All, b"hello");
    assert_eq!(next(&mut b), None);
    assert_eq!(b.counters().unknown_key, 1);
}

#[test]
fn garbage_and_forgeries_only_count() {
    let (mut a, mut b, port) = pair(None);
    b.install_keys(member(1), keys(2, 1), true);
    a.install_keys(member(2), keys(1, 2), true);
    let to = SocketAddr::new([127, 7, 7, 2].into(), port);
    let header = Header {
        cluster: 9,
        from: 1,
        to: 2,
        key: keys(1, 2).id(),
    };
    let good = wire::seal(header, b"body", |octets| keys(1, 2).sign(octets)).unwrap();
    let sender = |address: [u8; 4]| UdpSocket::bind(SocketAddr::new(address.into(), 0)).unwrap();
    let own = sender([127, 7, 7, 1]);
    for index in 0..good.len() {
        let mut forged = good.clone();
        forged[index] ^= 0x40;
        own.send_to(&forged, to).unwrap();
        own.send_to(&good[..index], to).unwrap();
    }
    // A stranger cannot replay, and a member cannot speak for another from its own address.
    sender([127, 7, 7, 9]).send_to(&good, to).unwrap();
    sender([127, 7, 7, 3]).send_to(&good, to).unwrap();
    assert_eq!(next(&mut b), None);
    let counters = b.counters();
    assert_eq!(counters.received, 0);
    // A bit of body or tag, or a body that was cut; what is wrong in the header is told earlier.
    assert_eq!(counters.forged, 4 + 16 + 4);
    assert_eq!(
        counters.forged + counters.foreign + counters.unknown_key,
        2 * good.len() as u64 + 2
    );
    own.send_to(&good, to).unwrap();
    assert!(next(&mut b).is_some());
}

#[test]
fn the_witness_answers_from_its_address_only() {
    let witness = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = witness.local_addr().unwrap();
    let (mut a, _, _) = pair(Some((address, keys(1, WITNESS))));
    a.send(Sender::Witness, Via::All, b"vote?");
    let mut buffer = [0; 100];
    let (length, member) = witness.recv_from(&mut buffer).unwrap();
    let envelope = Envelope::parse(&buffer[..length]).unwrap();
    assert_eq!((envelope.header.from, envelope.header.to), (1, WITNESS));
    let header = Header {
        cluster: 9,
        from: WITNESS,
        to: 1,
        key: keys(WITNESS, 1).id(),
    };
    let sign = |octets: &[u8]| keys(WITNESS, 1).sign(octets);
    let answer = wire::seal(header, b"yes", sign).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&answer, member).unwrap();
    assert_eq!(next(&mut a), None);
    witness.send_to(&answer, member).unwrap();
    let received = next(&mut a).unwrap();
    assert_eq!(
        (received.from, received.via),
        (Sender::Witness, WITNESS_LINK)
    );
}

#[test]
fn the_loopback_interface_is_up_and_a_missing_one_is_down() {
    let (mut a, _, port) = pair(None);
    let silence = Duration::from_secs(1);
    let up = a.check_links(Instant::from_nanos(1), silence);
    assert_eq!(up, [(LinkId(0), true)]);
    let missing = LinkConfig {
        device: None,
        local: [192, 0, 2, 77].into(),
        peers: BTreeMap::new(),
    };
    a.links.push(Link::new(missing, port));
    let states = a.check_links(Instant::from_nanos(1), silence);
    assert_eq!(states, [(LinkId(0), true), (LinkId(1), false)]);
}
