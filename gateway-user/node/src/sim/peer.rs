//! A VPN peer: negotiates as initiator, then goes on with an engine of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use gateway_ike::config::{
    Actions, Authentication, ChildConfig, Config, Connection, Initiation, Limits, RemoteAddress,
    Secret, Transport, Uniqueness, Volume,
};
use gateway_ike::endpoint::{Command, Endpoint};
use gateway_ike::identity::IdentityPattern;
use gateway_ike::output::{ChildSa, EventKind, KernelRequest, KernelResult, Output};
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_ike::testing::Toy;

use super::esp::{Inbound, KeyId, Packet, key_id};
use super::handshake::{Handshake, Party, Progress};

/// First pause before a retransmission of IKE_SA_INIT or IKE_AUTH; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An attempt is given up after so many of them.
const TRIES: u32 = 6;

/// An SA pair as the peer has it.
struct Sa {
    spi_out: [u8; 4],
    key_in: KeyId,
    key_out: KeyId,
    oseq: u64,
    inbound: Inbound,
    order: u64,
}

struct Attempt {
    handshake: Handshake,
    due: Instant,
    pause: Duration,
    tries: u32,
}

/// What a peer noticed that it should not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Attempts at IKE_SA_INIT.
    pub(super) inits: u64,
    /// Of them those that came after an established IKE SA was lost.
    pub(super) inits_after_loss: u64,
    /// Packets that were received before.
    pub(super) replays: u64,
    /// Packets accepted.
    pub(super) received: u64,
    /// Packets whose SA or key is unknown.
    pub(super) undecipherable: u64,
}

/// One peer.
pub(super) struct Peer {
    pub(super) party: Party,
    crypto: Arc<Toy>,
    endpoint: Endpoint,
    attempt: Option<Attempt>,
    sas: BTreeMap<[u8; 4], Sa>,
    installed: u64,
    pub(super) was_established: bool,
    pub(super) notes: Notes,
    /// Datagrams to send.
    pub(super) out: Vec<Vec<u8>>,
    /// Why IKE SAs ended.
    pub(super) closed: Vec<String>,
}

impl Peer {
    pub(super) fn new(index: u8, seed: u64, party: Party, now: Instant) -> Self {
        let crypto = Arc::new(Toy::new(seed ^ (u64::from(index) + 1) << 32));
        let endpoint = Endpoint::new(Arc::new(config(index, &party)), crypto.clone(), now);
        Self {
            party,
            crypto,
            endpoint,
            attempt: None,
            sas: BTreeMap::new(),
            installed: 0,
            was_established: false,
            notes: Notes::default(),
            out: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// Begins IKE_SA_INIT, beside what is established.
    pub(super) fn connect(&mut self, now: Instant) {
        let party = Party {
            initial_contact: self.established() == 0,
            ..self.party.clone()
        };
        let Some(handshake) = Handshake::new(&self.crypto, party) else {
            return;
        };
        self.notes.inits += 1;
        if self.was_established && self.established() == 0 {
            self.notes.inits_after_loss += 1;
        }
        self.out.push(handshake.request.clone());
        self.attempt = Some(Attempt {
            handshake,
            due: now + FIRST_PAUSE,
            pause: FIRST_PAUSE,
            tries: 1,
        });
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let progress = match &mut self.attempt {
            Some(attempt) => attempt.handshake.handle(bytes),
            None => Progress::Ignored,
        };
        match progress {
            Progress::Ignored => {
                let path = self.party.path;
                self.endpoint.handle_datagram(now, path, bytes);
                self.drain(now);
            }
            Progress::Next => {
                if let Some(attempt) = &mut self.attempt {
                    attempt.pause = FIRST_PAUSE;
                    attempt.tries = 1;
                    attempt.due = now + FIRST_PAUSE;
                    self.out.push(attempt.handshake.request.clone());
                }
            }
            Progress::Refused(reason) => {
                self.closed.push(format!("IKE_AUTH refused: {reason}"));
                self.attempt = None;
            }
            Progress::Done(record) => {
                self.attempt = None;
                self.was_established = true;
                for child in &record.children {
                    self.install(&child.sa);
                }
                self.endpoint.handle_command(now, Command::Import(record));
                self.drain(now);
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.drain(now);
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        if now < attempt.due {
            return;
        }
        if attempt.tries >= TRIES {
            self.attempt = None;
            self.connect(now);
            return;
        }
        attempt.tries += 1;
        attempt.pause = (attempt.pause * 2).min(LONGEST_PAUSE);
        attempt.due = now + attempt.pause;
        self.out.push(attempt.handshake.request.clone());
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref().map(|attempt| attempt.due);
        [attempt, self.endpoint.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Number of established IKE SAs.
    pub(super) fn established(&self) -> usize {
        self.endpoint.sas().count()
    }

    /// The gateway's SPI of the newest established IKE SA.
    pub(super) fn gateway_spi(&self) -> Option<[u8; 8]> {
        let newest = self.endpoint.sas().max_by_key(|sa| sa.established_at);
        newest.map(|sa| sa.remote_spi)
    }

    /// The gateway's inbound SPIs of the newest IKE SA's CHILD_SAs.
    pub(super) fn child_spis(&self) -> Vec<[u8; 4]> {
        let newest = self.endpoint.sas().max_by_key(|sa| sa.established_at);
        newest.map_or_else(Vec::new, |sa| {
            sa.children.iter().map(|child| child.spi_out).collect()
        })
    }

    /// Negotiating.
    pub(super) fn is_connecting(&self) -> bool {
        self.attempt.is_some()
    }

    /// Encrypts `count` packets under the newest SA.
    pub(super) fn encrypt(&mut self, count: u64) -> Option<Packet> {
        let sa = self.sas.values_mut().max_by_key(|sa| sa.order)?;
        let first = sa.oseq + 1;
        sa.oseq += count;
        Some(Packet {
            spi: sa.spi_out,
            key: sa.key_out,
            first,
            last: sa.oseq,
            slot: gateway_common::slot::Slot(0),
        })
    }

    pub(super) fn decrypt(&mut self, packet: &Packet) {
        match self.sas.get_mut(&packet.spi) {
            Some(sa) if sa.key_in == packet.key => {
                if sa.inbound.accept(packet) {
                    self.notes.received += 1;
                } else {
                    self.notes.replays += 1;
                }
            }
            _ => self.notes.undecipherable += 1,
        }
    }

    /// Orders the engine.
    pub(super) fn command(&mut self, now: Instant, command: Command) {
        self.endpoint.handle_command(now, command);
        self.drain(now);
    }

    /// Our SPIs of the established IKE SAs, the oldest first, with the CHILD_SAs' inbound SPIs.
    pub(super) fn own_spis(&self) -> Vec<([u8; 8], Vec<[u8; 4]>)> {
        let mut sas: Vec<_> = self.endpoint.sas().collect();
        sas.sort_by_key(|sa| sa.established_at);
        sas.iter()
            .map(|sa| {
                let children = sa.children.iter().map(|child| child.spi_in);
                (sa.local_spi, children.collect())
            })
            .collect()
    }

    fn install(&mut self, child: &ChildSa) {
        self.installed += 1;
        let sa = Sa {
            spi_out: child.spi_out,
            key_in: key_id(child.key_in.expose()),
            key_out: key_id(child.key_out.expose()),
            oseq: 0,
            inbound: Inbound::default(),
            order: self.installed,
        };
        self.sas.insert(child.spi_in, sa);
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => self.out.push(transmit.bytes),
                Output::Kernel(KernelRequest::Install { child, .. }) => {
                    self.install(&child);
                    let installed = KernelResult::Installed(child.id());
                    self.endpoint.handle_kernel(now, installed);
                }
                Output::Kernel(KernelRequest::Promote { .. } | KernelRequest::Update { .. }) => {}
                Output::Kernel(KernelRequest::Remove { child }) => {
                    self.sas.remove(&child.spi_in);
                }
                Output::Event(event) => {
                    if let EventKind::IkeSaClosed { reason } = event.kind {
                        self.closed.push(reason);
                    }
                }
                Output::Delta(_) | Output::Decide(_) => {}
            }
        }
    }
}

/// Stands in the peer's SPIs and IVs.
fn number(index: u8) -> MemberId {
    MemberId::new(index % MemberId::MAX + 1).unwrap_or_else(|| unreachable!())
}

/// A peer's engine: one connection, to the gateway.
fn config(index: u8, party: &Party) -> Config {
    let child = ChildConfig {
        name: "net".into(),
        local_ts: vec![party.local_ts.into()],
        remote_ts: vec![party.remote_ts.into()],
        esp_proposals: EspProposal::parse("aes128gcm16-esn").unwrap_or_default(),
        replay_window: 128,
        rekey_time: Duration::ZERO,
        life_time: Duration::from_secs(100_000),
        rand_time: Duration::ZERO,
        if_id_in: 0,
        if_id_out: 0,
        marks: gateway_ike::mark::Marks::default(),
        actions: Actions::default(),
        volume: Volume::default(),
    };
    let connection = Connection {
        name: "gateway".into(),
        local_addrs: Vec::new(),
        remote_addrs: vec![RemoteAddress::Any],
        proposals: IkeProposal::parse("aes128gcm16-prfsha256-x25519").unwrap_or_default(),
        local_id: party.local_id.clone(),
        remote_id: IdentityPattern::Exactly(party.remote_id.clone()),
        auth: Authentication::default(),
        children: vec![Arc::new(child)],
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        dpd_delay: Duration::ZERO,
        unique: Uniqueness::No,
        transport: Transport::default(),
        initiation: Initiation::default(),
    };
    Config {
        member: number(index),
        incarnation: 1,
        connections: vec![Arc::new(connection)],
        secrets: vec![Secret {
            ids: Vec::new(),
            secret: party.psk.clone(),
        }],
        ppks: Vec::new(),
        limits: Limits {
            retransmit_timeout: Duration::from_millis(300),
            retransmit_tries: 12,
            retry_delay: Duration::from_millis(500),
            ..Limits::default()
        },
    }
}
