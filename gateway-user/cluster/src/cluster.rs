//! The core's state and its inputs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::Cookie;
use crate::config::Config;
use crate::frame::{self, DeltaSeq, Frame, Hello, PROTOCOL, Path};
use crate::half_open::Gate;
use crate::outbox::Outbox;
use crate::output::{Class, Event, Output};
use crate::ownership::{Effect, Ownership};
use crate::peer::{Link, Peer, Standing};
use crate::secret::Secret;
use crate::slot_map::{SlotMap, Weighted};
use crate::slot_set::SlotSet;
use crate::status::{PeerStatus, Status};
use crate::view::{Epoch, View};

/// The largest datagram that can be relayed, in octets: the largest UDP payload.
pub const MAX_DATAGRAM: usize = 65_527;

/// One member's view of the cluster.
///
/// After every call that takes `&mut self` poll [`Cluster::poll_output`] until it is empty, and
/// call [`Cluster::handle_timeout`] when [`Cluster::poll_timeout`] says so. The transport's events
/// of one member have to come in order: connected, frames, disconnected.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) config: Config,
    pub(crate) view: View,
    /// Slots of this member whose earlier owner's transmit right has ended.
    pub(crate) active: SlotSet,
    pub(crate) ownership: Ownership,
    pub(crate) outbox: Outbox,
    pub(crate) released: DeltaSeq,
    /// When background changes are sent at last.
    pub(crate) flush_at: Option<Instant>,
    /// The deltas that stand for our established SAs: what a snapshot consists of.
    pub(crate) own: BTreeMap<Cookie, Arc<Secret>>,
    pub(crate) gate: Gate,
    pub(crate) half_open_refused: u64,
    pub(crate) peers: BTreeMap<MemberId, Peer>,
    pub(crate) outputs: VecDeque<Output>,
}

impl Cluster {
    /// A member that has just started: it knows no view and owns nothing.
    pub fn new(config: Config, now: Instant) -> Self {
        let peers = config
            .members
            .iter()
            .filter(|weighted| weighted.member != config.local)
            .map(|weighted| (weighted.member, Peer::default()))
            .collect();
        Self {
            gate: Gate::new(&config.limits, now),
            config,
            view: View::default(),
            active: SlotSet::EMPTY,
            ownership: Ownership::new(),
            outbox: Outbox::default(),
            released: DeltaSeq(0),
            flush_at: None,
            own: BTreeMap::new(),
            half_open_refused: 0,
            peers,
            outputs: VecDeque::new(),
        }
    }

    /// This member.
    pub const fn local(&self) -> MemberId {
        self.config.local
    }

    /// All members of the configuration, this one included.
    pub fn members(&self) -> &[Weighted] {
        &self.config.members
    }

    /// The view that is installed; epoch 0 before the first.
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// Who owns which slot in the installed view.
    pub const fn slots(&self) -> &SlotMap {
        &self.view.slots
    }

    /// Whether this member owns `slot`: the view says so, and this run of it is in the view.
    pub fn owns(&self, slot: Slot) -> bool {
        self.slots().owner(slot) == Some(self.local()) && self.admitted()
    }

    /// Whether this member may serve `slot`: it owns it, the earlier owner's transmit right has
    /// ended, and the streams of the members that died are levelled. (The lease is another matter.)
    pub fn serves(&self, slot: Slot) -> bool {
        self.owns(slot) && self.active.contains(slot)
    }

    /// Whether this run of this member is in the installed view.
    pub fn admitted(&self) -> bool {
        self.view.admits(self.config.local, self.config.incarnation)
    }

    /// The membership installed a view. Lost slots are not this member's from now on; gained ones
    /// wait for [`Cluster::handle_active`]. Views that are not newer are ignored.
    pub fn handle_view(&mut self, now: Instant, view: View) {
        if view.epoch <= self.view.epoch {
            return;
        }
        self.view = view;
        let owned = self.owned();
        self.active = self.active.intersection(&owned);
        self.flush(now);
        self.release();
    }

    /// The transmit rights of those who owned this member's slots before `epoch` have ended.
    pub fn handle_active(&mut self, _now: Instant, epoch: Epoch) {
        if epoch == self.view.epoch {
            self.active = self.owned();
        }
    }

    pub(crate) fn owned(&self) -> SlotSet {
        if self.admitted() {
            SlotSet::of(&self.view.slots, self.config.local)
        } else {
            SlotSet::EMPTY
        }
    }

    /// The tables and what stands behind them. The records of our own SAs are not kept here.
    pub const fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Whether `member` can be spoken to.
    pub fn is_up(&self, member: MemberId) -> bool {
        self.peers
            .get(&member)
            .is_some_and(|peer| peer.link == Link::Up)
    }

    /// The transport has an authenticated connection to `member`.
    pub fn handle_connected(&mut self, now: Instant, member: MemberId) {
        self.handle_disconnected(now, member);
        let Some(peer) = self.peers.get_mut(&member) else {
            self.outputs.push_back(Output::Disconnect(member));
            return;
        };
        peer.reset(now, Link::Greeting);
        let hello = Frame::Hello(Hello {
            protocol: PROTOCOL,
            member: self.config.local,
            incarnation: self.config.incarnation,
            cluster_id: self.config.cluster_id,
            cluster_name: self.config.cluster_name.clone(),
            config_hash: self.config.config_hash,
            received: peer.received,
        });
        self.send(member, hello.encode());
    }

    /// The transport lost its connection to `member`.
    pub fn handle_disconnected(&mut self, now: Instant, member: MemberId) {
        self.take_down(now, member);
        self.release();
    }

    /// Relays an IKE datagram to `to`, as [`Cluster::route`] said. `false` if that is impossible:
    /// the member cannot be reached, or no datagram is that long.
    pub fn relay(&mut self, to: MemberId, path: &Path, datagram: &[u8]) -> bool {
        let Some(peer) = self.peers.get_mut(&to) else {
            return false;
        };
        if peer.link != Link::Up || datagram.len() > MAX_DATAGRAM {
            return false;
        }
        peer.counters.relayed_out += 1;
        self.outputs.push_back(Output::Send {
            to,
            frame: Arc::new(frame::encode_relay(path, datagram)),
            class: Class::Datagram,
        });
        true
    }

    /// The next effect; see [`Output`] for what order means.
    pub fn poll_output(&mut self) -> Option<Output> {
        while let Some(effect) = self.ownership.poll_effect() {
            if let Some(output) = self.output_of(&effect) {
                return Some(output);
            }
        }
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        // Acknowledgements last: one for all that came together, after its effects.
        let (member, peer) = self.peers.iter_mut().find(|(_, peer)| peer.ack_due)?;
        peer.ack_due = false;
        let ack = Frame::Ack {
            seq: peer
                .received
                .map(|position| position.seq)
                .unwrap_or_default(),
            snapshot_entries: peer
                .snapshot_in
                .as_ref()
                .map(|snapshot| snapshot.entries.len() as u64),
        };
        Some(Output::Send {
            to: *member,
            frame: Arc::new(ack.encode()),
            class: Class::Stream,
        })
    }

    /// For the faces.
    pub fn status(&self) -> Status {
        let peers = self.peers.iter().map(|(member, peer)| PeerStatus {
            member: *member,
            connected: peer.link == Link::Up,
            in_sync: peer.standing == Standing::InSync,
            config_differs: peer.config_differs,
            sent: peer.sent,
            acknowledged: peer.acked.unwrap_or_default(),
            received: peer.received,
            round_trip: peer.round_trip,
            slots: self.view.slots.owned_by(*member),
            counters: peer.counters,
        });
        Status {
            member: self.local(),
            slots: self.view.slots.owned_by(self.local()),
            published: self.outbox.last(),
            released: self.released,
            retained: self.outbox.retained(),
            half_open: self.ownership.half_open(self.local()),
            half_open_suppressed: self.gate.suppressed(),
            half_open_refused: self.half_open_refused,
            peers: peers.collect(),
        }
    }

    pub(crate) fn take_down(&mut self, now: Instant, member: MemberId) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        let was_up = peer.link == Link::Up;
        peer.reset(now, Link::Down);
        if was_up {
            self.outputs.push_back(Output::PeerDown(member));
        }
    }

    /// Closes a connection from our side.
    pub(crate) fn disconnect(&mut self, now: Instant, member: MemberId, because: Event) {
        self.event(because);
        self.take_down(now, member);
        self.outputs.push_back(Output::Disconnect(member));
        self.release();
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(crate) fn send(&mut self, to: MemberId, frame: Secret) {
        self.send_shared(to, Arc::new(frame));
    }

    pub(crate) fn send_shared(&mut self, to: MemberId, frame: Arc<Secret>) {
        self.outputs.push_back(Output::Send {
            to,
            frame,
            class: Class::Stream,
        });
    }

    fn output_of(&self, effect: &Effect) -> Option<Output> {
        let local = self.local();
        match *effect {
            Effect::Table(change) => Some(Output::Table(change)),
            // The agent made its own SAs itself.
            Effect::RecordUpserted { announcer, .. } | Effect::RecordRemoved { announcer, .. }
                if announcer == local =>
            {
                None
            }
            Effect::RecordUpserted {
                announcer,
                local_spi,
            } => {
                let held = self.ownership.sa(announcer, local_spi)?;
                Some(Output::RecordUpserted {
                    announcer,
                    slot: held.slot,
                    sa: held.sa.clone(),
                })
            }
            Effect::RecordRemoved {
                announcer,
                local_spi,
            } => Some(Output::RecordRemoved {
                announcer,
                local_spi,
            }),
        }
    }
}
