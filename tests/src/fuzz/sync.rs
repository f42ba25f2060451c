//! What a member may send to another.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_cluster::Cluster;
use gateway_cluster::change::{Change, Child, Mirror, Reserved, Sa};
use gateway_cluster::config::{Config, Limits};
use gateway_cluster::frame::{DeltaSeq, Frame, Hello, Incarnation, MAX_FRAME, PROTOCOL};
use gateway_cluster::output::Output;
use gateway_cluster::secret::Secret;
use gateway_cluster::slot_map::{Mode, SlotMap, Weighted};
use gateway_cluster::view::{Epoch, Tenures, View};
use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;

/// One frame.
pub(super) fn frame(data: &[u8]) {
    let Ok(frame) = Frame::decode(data) else {
        return;
    };
    let canonical = frame.encode();
    assert!(canonical.len() <= data.len(), "unknown parts are left out");
    assert_eq!(Frame::decode(canonical.expose()), Ok(frame));
}

/// A conversation with an authenticated member that sends what it likes, between our own changes,
/// broken connections and the passing of time.
///
/// The input is a row of steps: an octet that says what happens, and for a frame its length in two
/// octets and the frame.
pub(super) fn peer(data: &[u8]) {
    let mut driver = Driver::new();
    let mut rest = data;
    while let Some((step, tail)) = rest.split_first() {
        rest = tail;
        match step % 8 {
            0..=3 => {
                let Some(([high, low], tail)) = rest.split_first_chunk::<2>() else {
                    break;
                };
                let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
                let (frame, tail) = tail.split_at(length);
                rest = tail;
                driver.core.handle_frame(driver.now, peer_id(), frame);
            }
            4 => driver.publish(step >> 3),
            5 => driver.wait(Duration::from_millis(u64::from(step >> 3) * 40)),
            6 => driver.core.handle_connected(driver.now, peer_id()),
            _ => driver.greet(),
        }
        driver.drain();
    }
    driver.finish();
}

fn peer_id() -> MemberId {
    member(2)
}

fn member(id: u8) -> MemberId {
    MemberId::new(id).expect("1 to 63")
}

struct Driver {
    core: Cluster,
    now: Instant,
    released: DeltaSeq,
    published: DeltaSeq,
    up: BTreeSet<MemberId>,
    /// Our SAs, by SPI.
    own: BTreeSet<[u8; 8]>,
}

impl Driver {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let config = Config {
            local: member(1),
            members: (1..=3)
                .map(|id| Weighted {
                    member: member(id),
                    weight: 1,
                })
                .collect(),
            cluster_id: 1,
            cluster_name: "hq".into(),
            config_hash: [0; 32],
            incarnation: Incarnation(7),
            limits: Limits {
                half_open_entries: 4,
                retained_deltas: 8,
                window_bytes: 600,
                ..Limits::default()
            },
        };
        let mut driver = Self {
            core: Cluster::new(config, now),
            now,
            released: DeltaSeq(0),
            published: DeltaSeq(0),
            up: BTreeSet::new(),
            own: BTreeSet::new(),
        };
        // The peer is outside the view: nobody has let it in.
        let owner = Weighted {
            member: member(1),
            weight: 1,
        };
        let view = View {
            epoch: Epoch(1),
            members: [(member(1), Incarnation(7))].into(),
            slots: SlotMap::UNSET.next(&[owner], Mode::LoadSharing),
            tenures: Tenures::default(),
        };
        driver.core.handle_view(now, view);
        driver.core.handle_connected(now, peer_id());
        driver.drain();
        driver
    }

    /// The hello of a well-behaved peer.
    fn greet(&mut self) {
        let hello = Frame::Hello(Hello {
            protocol: PROTOCOL,
            member: peer_id(),
            incarnation: Incarnation(9),
            cluster_id: 1,
            cluster_name: "hq".into(),
            config_hash: [0; 32],
            received: None,
        });
        let hello = hello.encode();
        self.core.handle_frame(self.now, peer_id(), hello.expose());
    }

    fn publish(&mut self, n: u8) {
        let local_spi = [n, 0, 0, 0, 0, 0, 0, 1];
        let change = if n % 4 == 3 {
            Change::SaRemoved { local_spi }
        } else {
            Change::SaUpsert(Sa {
                local_spi,
                children: vec![Child {
                    spi_in: [n; 4],
                    vip: [203, 0, 113, 10].into(),
                    spi_out: [n; 4],
                    peer: [192, 0, 2, n].into(),
                    remote_nets: Vec::new(),
                    reserved: Reserved::default(),
                }],
                record: Secret::new(vec![n; 100]),
                ..Sa::default()
            })
        };
        let slot = Slot(3 * n);
        let published = self.core.publish(self.now, slot, change, Mirror::Urgent);
        // Unless a peer was there first with the same SPI in a slot of its own.
        if let Ok(published) = published {
            self.published = published;
        }
        let held = self.core.ownership().sa(local_spi);
        match held.is_some_and(|held| self.core.owns(held.slot)) {
            true => self.own.insert(local_spi),
            false => self.own.remove(&local_spi),
        };
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.core.handle_timeout(self.now);
        let next = self.core.poll_timeout();
        assert!(next.is_none_or(|at| at > self.now), "a timer is stuck");
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send { to, frame, .. } => {
                    assert_eq!(to, peer_id());
                    assert!(frame.len() <= MAX_FRAME);
                    assert!(Frame::decode(frame.expose()).is_ok());
                }
                Output::Released(seq) => {
                    assert!(seq > self.released && seq <= self.core.status().published);
                    self.released = seq;
                }
                Output::PeerUp(peer) => assert!(self.up.insert(peer)),
                Output::PeerDown(peer) => assert!(self.up.remove(&peer)),
                Output::Disconnect(peer) => assert!(!self.core.is_up(peer)),
                Output::RecordUpserted { sa, .. } => self.check_foreign(&sa.local_spi),
                Output::RecordRemoved { local_spi, .. } => self.check_foreign(&local_spi),
                Output::Moved { slot, .. } => assert!(!self.core.owns(slot)),
                Output::Table(_)
                | Output::Discarded(_)
                | Output::Advance { .. }
                | Output::MoveEnded { .. }
                | Output::CookieSecret(_)
                | Output::Relayed { .. }
                | Output::Order { .. }
                | Output::Report(_)
                | Output::Event(_) => {}
            }
        }
    }

    /// Our own SAs are ours to change.
    fn check_foreign(&self, local_spi: &[u8; 8]) {
        assert!(!self.own.contains(local_spi), "{local_spi:?} is ours");
    }

    /// Whatever the peer did: it cannot hold us up for longer than the silence that is allowed, its
    /// half-open entries are bounded, and our own SAs are as we published them.
    fn finish(mut self) {
        let status = self.core.status();
        assert!(status.retained.0 <= 8);
        assert!(self.core.ownership().half_open(peer_id()) <= 4);
        self.wait(Duration::from_secs(10));
        self.drain();
        assert_eq!(self.released, self.core.status().published);
        assert!(self.released >= self.published);
        self.core.handle_disconnected(self.now, peer_id());
        self.drain();
        assert!(self.up.is_empty());
    }
}
