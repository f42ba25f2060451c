//! The endpoint under test, the kernel and the replica that believe it, and what must hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::time::Instant;
use gateway_ike::config::Config;
use gateway_ike::crypto::CryptoProvider;
use gateway_ike::endpoint::{Command, Endpoint, SaStatus};
use gateway_ike::output::{
    Change, ChildId, DecisionHandle, Delta, KernelRequest, KernelResult, Output, Path, Transmit,
    Verdict,
};
use gateway_ike::record::{Contact, IkeSaRecord};

use super::peer::Peer;
use super::setup::{HALF_OPEN_LIMIT, config};
use super::watch::Watch;

/// As the kernel sees a CHILD_SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Installation {
    Asked,
    Done,
}

pub(super) struct World {
    pub(super) endpoint: Endpoint,
    crypto: Arc<Watch>,
    config: Arc<Config>,
    pub(super) now: Instant,
    pub(super) peers: Vec<Peer>,
    kernel: BTreeMap<ChildId, Installation>,
    pub(super) asked: VecDeque<ChildId>,
    /// Peers that somebody has to decide about; some are gone.
    questions: VecDeque<DecisionHandle>,
    /// Our SPIs of those that nobody has let in.
    undecided: BTreeSet<[u8; 8]>,
    /// What a replica would have.
    replica: BTreeMap<[u8; 8], IkeSaRecord>,
    /// Negotiations that are open as the other members know it, by our SPI.
    negotiations: BTreeSet<[u8; 8]>,
    last_delta: u64,
    /// Datagrams that were sent to the endpoint.
    pub(super) sent: Vec<(Path, Vec<u8>)>,
    /// Answers since the last input: our SPI and Message ID.
    answers: Vec<([u8; 8], u32)>,
}

/// How much is remembered for replays.
const MEMORY: usize = 64;

impl World {
    pub(super) fn new() -> Self {
        let crypto = Arc::new(Watch::new(7));
        let config = Arc::new(config(1, 1));
        let now = Instant::from_nanos(1_000_000_000);
        let provider: Arc<dyn CryptoProvider> = Arc::clone(&crypto) as _;
        let local = SocketAddr::from(([192, 0, 2, 1], 500));
        Self {
            endpoint: Endpoint::new(Arc::clone(&config), provider, now),
            crypto,
            config,
            now,
            peers: (0..3).map(|number| Peer::new(number, local)).collect(),
            kernel: BTreeMap::new(),
            asked: VecDeque::new(),
            questions: VecDeque::new(),
            undecided: BTreeSet::new(),
            replica: BTreeMap::new(),
            negotiations: BTreeSet::new(),
            last_delta: 0,
            sent: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// A datagram that the engine cannot take for authentic: nothing that exists may change.
    pub(super) fn send_forged(&mut self, path: Path, bytes: &[u8]) {
        let (sas, kernel) = (self.statuses(), self.kernel.clone());
        let replica = self.replica.clone();
        self.endpoint.handle_datagram(self.now, path, bytes);
        self.drain();
        assert_eq!(self.statuses(), sas, "a forged datagram changed an IKE SA");
        assert_eq!(self.kernel, kernel, "a forged datagram reached the kernel");
        assert!(self.replica == replica, "a forged datagram was replicated");
    }

    /// A datagram as it comes. The answers to it: our SPI and Message ID.
    pub(super) fn send(&mut self, path: Path, bytes: Vec<u8>) -> Vec<([u8; 8], u32)> {
        self.answers.clear();
        self.endpoint.handle_datagram(self.now, path, &bytes);
        self.drain();
        if self.sent.len() == MEMORY {
            self.sent.remove(0);
        }
        self.sent.push((path, bytes));
        std::mem::take(&mut self.answers)
    }

    /// The kernel answers its oldest question, or its newest.
    pub(super) fn answer_kernel(&mut self, oldest: bool, success: bool) {
        let child = if oldest {
            self.asked.pop_front()
        } else {
            self.asked.pop_back()
        };
        let Some(child) = child else { return };
        let result = if success {
            self.kernel.insert(child, Installation::Done);
            KernelResult::Installed(child)
        } else {
            self.kernel.remove(&child);
            KernelResult::Failed {
                child,
                reason: "the kernel says no".to_owned(),
            }
        };
        self.endpoint.handle_kernel(self.now, result);
        self.drain();
    }

    /// Somebody decides about the peer that has waited longest, or again about one that has its
    /// answer; `false` if there is none.
    pub(super) fn decide(&mut self, accept: bool, again: bool) -> bool {
        let Some(handle) = self.questions.front().copied() else {
            return false;
        };
        if !again {
            self.questions.pop_front();
        }
        let verdict = if accept {
            self.undecided.remove(&handle.local_spi);
            Verdict::Accept
        } else {
            Verdict::Refuse {
                reason: "not today".to_owned(),
            }
        };
        self.command(Command::Decided { handle, verdict });
        true
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.endpoint.handle_timeout(self.now);
        self.drain();
        let next = self.endpoint.poll_timeout();
        assert!(
            next.is_none_or(|next| next > self.now),
            "what is due is done"
        );
    }

    pub(super) fn command(&mut self, command: Command) {
        self.endpoint.handle_command(self.now, command);
        self.drain();
    }

    /// The member dies; another one goes on with what it has been told. Questions to the kernel
    /// without answer died with it.
    pub(super) fn take_over(&mut self) {
        let member = if self.config.member.get() == 1 { 2 } else { 1 };
        self.config = Arc::new(config(member, self.config.incarnation.wrapping_add(1)));
        let provider: Arc<dyn CryptoProvider> = Arc::clone(&self.crypto) as _;
        self.endpoint = Endpoint::new(Arc::clone(&self.config), provider, self.now);
        self.last_delta = 0;
        for child in std::mem::take(&mut self.asked) {
            self.kernel.remove(&child);
        }
        self.negotiations.clear();
        for record in self.replica.clone().into_values() {
            let command = Command::Import(Box::new(record));
            self.endpoint.handle_command(self.now, command);
        }
        self.drain();
    }

    /// An IKE SA comes back from its record, as one that another member hands over; with `adopt`
    /// as one that was authenticated there, with initial contact or without.
    pub(super) fn bring_back(&mut self, local_spi: [u8; 8], adopt: Option<bool>) {
        let Some(record) = self.replica.get(&local_spi).cloned() else {
            return;
        };
        // What the kernel has been asked for would be nobody's.
        if !self.asked.is_empty() {
            return;
        }
        let mut record = Box::new(record);
        let command = match adopt {
            None => Command::Import(record),
            Some(initial_contact) => {
                record.contact = Some(if initial_contact {
                    Contact::Initial
                } else {
                    Contact::Further
                });
                Command::Adopt(record)
            }
        };
        let forget = Command::Forget { local_spi };
        self.endpoint.handle_command(self.now, forget);
        self.command(command);
    }

    fn statuses(&self) -> Vec<SaStatus> {
        self.endpoint.sas().collect()
    }

    fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => self.transmitted(&transmit),
                Output::Kernel(request) => self.kernel_asked(&request),
                Output::Delta(delta) => self.replicated(delta),
                Output::Decide(question) => {
                    let handle = question.handle;
                    assert!(self.undecided.insert(handle.local_spi), "asked twice");
                    self.questions.push_back(handle);
                }
                Output::Event(event) => assert!(!format!("{event:?}").is_empty()),
            }
        }
        self.check();
    }

    fn transmitted(&mut self, transmit: &Transmit) {
        if let Some(after) = transmit.after {
            assert!(after.0 <= self.last_delta, "depends on a delta to come");
        }
        let address = transmit.path.remote.ip();
        let peer = self
            .peers
            .iter_mut()
            .find(|peer| peer.path.remote.ip() == address)
            .expect("goes to one of the peers");
        self.answers.extend(peer.receive(&transmit.bytes));
    }

    fn kernel_asked(&mut self, request: &KernelRequest) {
        match request {
            KernelRequest::Install { child, replaces } => {
                let id = child.id();
                assert!(self.kernel.insert(id, Installation::Asked).is_none());
                assert!(replaces.is_none_or(|old| self.kernel.contains_key(&old)));
                self.asked.push_back(id);
            }
            KernelRequest::Promote { child } => {
                assert_eq!(self.kernel.get(child), Some(&Installation::Done));
            }
            KernelRequest::Update { child } => {
                assert!(self.kernel.contains_key(&child.id()));
            }
            KernelRequest::Remove { child } => {
                assert!(
                    self.kernel.remove(child).is_some(),
                    "{child:?} was not there"
                );
                self.asked.retain(|asked| asked != child);
            }
        }
    }

    fn replicated(&mut self, delta: Delta) {
        self.last_delta += 1;
        assert_eq!(delta.id.0, self.last_delta, "deltas without gaps");
        match delta.change {
            Change::NegotiationOpened { local_cookie, .. } => {
                assert!(self.negotiations.insert(local_cookie));
            }
            Change::NegotiationClosed { local_cookie, .. } => {
                assert!(self.negotiations.remove(&local_cookie));
            }
            Change::Upsert(record) => {
                let spi = &record.local_spi;
                assert!(!self.undecided.contains(spi), "nobody has let it in");
                let octets = record.encode();
                let decoded = IkeSaRecord::decode(octets.expose()).expect("our own record");
                assert!(decoded == *record, "a record survives its encoding");
                self.negotiations.remove(&record.local_spi);
                self.replica.insert(record.local_spi, *record);
            }
            Change::Removed { local_spi } => {
                assert!(self.replica.remove(&local_spi).is_some());
            }
        }
    }

    /// What holds whenever the endpoint rests.
    fn check(&self) {
        assert!(self.endpoint.half_open() <= HALF_OPEN_LIMIT);
        let counters = self.endpoint.counters();
        let refused = counters.decisions_overdue <= counters.decisions_refused;
        assert!(refused && counters.decisions_refused <= counters.decisions_asked);
        let causes: u64 = counters
            .iter()
            .filter(|(name, _)| name.starts_with("dropped_") || *name == "retransmissions_dropped")
            .map(|(_, count)| count)
            .sum();
        assert_eq!(counters.dropped, causes, "every drop has one cause");
        self.check_replica();
        let installed: BTreeSet<_> = self
            .kernel
            .iter()
            .filter(|(_, state)| **state == Installation::Done)
            .map(|(child, _)| child.spi_in)
            .collect();
        let accounted: BTreeSet<_> = self
            .endpoint
            .sas()
            .flat_map(|sa| sa.children)
            .map(|child| child.spi_in)
            .collect();
        assert_eq!(accounted, installed, "engine and kernel agree");
    }

    /// A replica knows everything that was answered (invariant 4).
    fn check_replica(&self) {
        let exported: Vec<_> = self.endpoint.export(self.now).collect();
        let tombstones = self.endpoint.tombstones();
        let tombstones: BTreeSet<_> = tombstones.collect();
        let buried = self.replica.values().filter(|r| r.closed.is_some());
        assert!(buried.map(|r| r.local_spi).eq(tombstones.iter().copied()));
        assert_eq!(exported.len() + tombstones.len(), self.replica.len());
        for record in exported {
            let known = &self.replica[&record.local_spi];
            assert_eq!(known.expected_request, record.expected_request);
            // What comes back to the same run starts above all that it ever drew, which is later
            // than its record says.
            assert!(known.next_iv <= record.next_iv);
            assert_eq!(known.replaced, record.replaced);
            assert!(known.last_response == record.last_response);
            assert!(known.keys == record.keys);
            assert!(
                known
                    .children
                    .iter()
                    .map(|child| &child.sa)
                    .eq(record.children.iter().map(|child| &child.sa))
            );
        }
    }

    /// Whatever came before, every IKE SA still answers, and in the end nothing is left behind.
    pub(super) fn finish(&mut self) {
        while !self.asked.is_empty() {
            self.answer_kernel(true, true);
        }
        for sa in self.statuses() {
            self.ask_for_life(&sa);
        }
        for _ in 0..10_000 {
            let Some(next) = self.endpoint.poll_timeout() else {
                break;
            };
            self.advance(next.saturating_since(self.now));
        }
        assert_eq!(self.endpoint.poll_timeout(), None);
        assert_eq!(self.endpoint.half_open(), 0);
        assert!(self.negotiations.is_empty(), "every negotiation ends");
        assert!(self.kernel.is_empty(), "every CHILD_SA ends");
    }

    fn ask_for_life(&mut self, sa: &SaStatus) {
        let found = self.peers.iter().enumerate().find_map(|(index, peer)| {
            let session = peer
                .sessions
                .iter()
                .position(|session| session.spi_r == sa.local_spi)?;
            Some((index, session))
        });
        // The peer of a spoilt exchange has no keys to ask with.
        let Some((index, session)) = found else {
            return;
        };
        let peer = &mut self.peers[index];
        let header = peer.sessions[session].header(gateway_ike::wire::ExchangeType::INFORMATIONAL);
        let request = peer.seal_raw(session, &header, (0, &[0]));
        let path = peer.path;
        assert_eq!(
            self.send(path, request),
            [(sa.local_spi, header.message_id)],
            "a live IKE SA answers"
        );
    }
}
