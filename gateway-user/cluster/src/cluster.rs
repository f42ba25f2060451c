//! The core's state and its inputs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gateway_common::abi::NegotiationKey;
use gateway_common::{member::MemberId, slot::Slot, time::Instant};

use crate::change::{Cookie, Stamp};
use crate::config::Config;
use crate::frame::{self, DeltaSeq, Frame, Hello, PROTOCOL, Path};
use crate::half_open::Gate;
use crate::moves::Giving;
use crate::numbers::Placing;
use crate::outbox::Outbox;
use crate::output::{Class, Event, Output};
use crate::ownership::{Effect, Ownership, Pin};
use crate::peer::{Link, Peer};
use crate::reservation::Reservations;
use crate::secret::Secret;
use crate::slot_map::{SlotMap, Weighted};
use crate::slot_set::SlotSet;
use crate::snapshot::SnapshotIn;
use crate::status::{Lag, PeerStatus, QueuePeaks, Status};
use crate::stream::Ended;
use crate::view::{Epoch, SyncReport, Tenure, View};
use crate::views::Run;

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
    /// Slots of this member of which it knows all that their earlier owners wrote.
    pub(crate) ready: SlotSet,
    /// Slots of this member that came after all members of a view were level last: what is in them
    /// somebody may not know.
    pub(crate) unshared: SlotSet,
    /// The view in which the owner of each slot has told last what is in it: what was written in it
    /// before does not count any more.
    pub(crate) told: [Epoch; Slot::COUNT],
    /// The ownership that all copies in the slot may follow where they stand; and those that move on.
    pub(crate) placed: [Tenure; Slot::COUNT],
    /// Slots of this member that no majority gave to it, or in which another half may have finished
    /// exchanges that are under way here.
    pub(crate) half_gained: SlotSet,
    /// No majority stood behind the last view in which this member was.
    pub(crate) alone: bool,
    /// The halves have met; what was under way when they parted may be finished until then.
    pub(crate) met_until: Instant,
    pub(crate) placing: Option<Placing>,
    /// The other members of the view, while this one is in it: when they have to have told everything.
    pub(crate) needs: BTreeMap<Run, Epoch>,
    /// Streams that ended and that somebody may lack the last deltas of.
    pub(crate) ended: BTreeMap<Run, Ended>,
    /// The view of this member's last marker, and its number.
    pub(crate) marker: Epoch,
    pub(crate) marker_seq: DeltaSeq,
    /// What streams contain that ended in this view or before is known here.
    pub(crate) whole: Epoch,
    /// The last view whose gaps have been filled, in which this member is level, and in which all
    /// members of it are.
    pub(crate) filling: Epoch,
    pub(crate) levelled: Epoch,
    pub(crate) settled: Epoch,
    pub(crate) ownership: Ownership,
    pub(crate) reservations: Reservations,
    pub(crate) giving: BTreeMap<Cookie, Giving>,
    /// IKE SAs that others gave to this member: the delta that says so, the giver, which.
    pub(crate) taking: VecDeque<(DeltaSeq, MemberId, Cookie)>,
    pub(crate) cookie_secret: Option<(Stamp, Secret)>,
    pub(crate) outbox: Outbox,
    pub(crate) released: DeltaSeq,
    pub(crate) discarded: DeltaSeq,
    /// When background changes are sent at last.
    pub(crate) flush_at: Option<Instant>,
    pub(crate) gate: Gate,
    pub(crate) half_open_refused: u64,
    pub(crate) peaks: QueuePeaks,
    pub(crate) peers: BTreeMap<MemberId, Peer>,
    pub(crate) reported: SyncReport,
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
        let mut ownership = Ownership::new();
        ownership.unchecked = config.limits.mutations.no_epoch_check;
        let reservations = Reservations::new(Self::fixed_block(&config));
        Self {
            gate: Gate::new(&config.limits, now),
            reservations,
            config,
            view: View::default(),
            active: SlotSet::EMPTY,
            ready: SlotSet::EMPTY,
            unshared: SlotSet::EMPTY,
            told: [Epoch(0); Slot::COUNT],
            placed: [Tenure(0); Slot::COUNT],
            half_gained: SlotSet::EMPTY,
            alone: false,
            met_until: Instant::default(),
            placing: None,
            needs: BTreeMap::new(),
            ended: BTreeMap::new(),
            marker: Epoch(0),
            marker_seq: DeltaSeq(0),
            whole: Epoch(0),
            filling: Epoch(0),
            levelled: Epoch(0),
            settled: Epoch(0),
            ownership,
            giving: BTreeMap::new(),
            taking: VecDeque::new(),
            cookie_secret: None,
            outbox: Outbox::default(),
            released: DeltaSeq(0),
            discarded: DeltaSeq(0),
            flush_at: None,
            half_open_refused: 0,
            peaks: QueuePeaks::default(),
            peers,
            reported: SyncReport::default(),
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
        self.owns(slot) && self.active.contains(slot) && self.ready.contains(slot)
    }

    /// Whether all members of the view know what earlier owners of `slot`, which is this member's,
    /// wrote in it. Until then no message of an IKE SA in it may leave that is only repeated: if this
    /// member died, nobody might know what it is about. One that waits for a change by this member
    /// ([`Output::Released`]) needs no such look: who has the change has all of the IKE SA.
    pub fn shares(&self, slot: Slot) -> bool {
        !self.unshared.contains(slot)
    }

    /// Whether this run of this member is in the installed view.
    pub fn admitted(&self) -> bool {
        self.view.admits(self.config.local, self.config.incarnation)
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

    /// Writes an entry of the negotiations' table by an operator's word; the other members have to be
    /// told by the driver ([`Cluster::order`]).
    pub fn pin(&mut self, key: NegotiationKey, pin: Pin) {
        self.ownership.pin(key, pin);
    }

    /// Removes such an entry.
    pub fn unpin(&mut self, key: &NegotiationKey) -> Option<Pin> {
        self.ownership.unpin(key)
    }

    /// Whether `member` can be spoken to.
    pub fn is_up(&self, member: MemberId) -> bool {
        self.peers
            .get(&member)
            .is_some_and(|peer| peer.link == Link::Up)
    }

    /// Members whose hellos came and fit.
    pub fn reachable(&self) -> Vec<MemberId> {
        let up = self.peers.iter().filter(|(_, peer)| peer.link == Link::Up);
        up.map(|(member, _)| *member).collect()
    }

    /// The digest of what has to be alike on all members has changed.
    pub fn set_config_hash(&mut self, hash: [u8; 32]) {
        self.config.config_hash = hash;
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
            received: peer.received(),
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

    /// Asks `to` to see to something, which is the driver's business: [`Output::Order`] comes out
    /// there. `false` if the member cannot be reached. Nobody says whether it arrived.
    pub fn order(&mut self, to: MemberId, octets: Vec<u8>) -> bool {
        self.say(to, Secret::new(octets), Class::Datagram)
    }

    /// Tells `to` something that must arrive as long as the connection stands: [`Output::Order`] comes
    /// out there, in the order of the calls. `false` if the member cannot be reached.
    pub fn tell(&mut self, to: MemberId, octets: Secret) -> bool {
        self.say(to, octets, Class::Stream)
    }

    fn say(&mut self, to: MemberId, octets: Secret, class: Class) -> bool {
        let reachable = self
            .peers
            .get(&to)
            .is_some_and(|peer| peer.link == Link::Up);
        if reachable {
            let frame = Arc::new(Frame::Order { octets }.encode());
            self.outputs.push_back(Output::Send { to, frame, class });
        }
        reachable
    }

    /// The next effect; see [`Output`] for what order means.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.emit_ownership();
        if self.outputs.is_empty() {
            self.acknowledge();
            self.report();
        }
        self.outputs.pop_front()
    }

    /// Acknowledgements last: one for all that came together, after its effects.
    fn acknowledge(&mut self) {
        let (epoch, levelled) = (self.view.epoch, self.levelled);
        let mut acks = Vec::new();
        for (member, peer) in &mut self.peers {
            let incoming = &mut peer.incoming;
            if !std::mem::take(&mut incoming.ack_due) {
                continue;
            }
            let run = incoming.run;
            let stream = incoming.stream.as_ref().filter(|s| Some(s.run) == run);
            let under_way = incoming.snapshot.as_ref().map(SnapshotIn::taken);
            let ack = Frame::Ack {
                seq: stream.map(|stream| stream.seq).unwrap_or_default(),
                epoch,
                levelled,
                taken: under_way.or(incoming.taken),
            };
            acks.push((*member, ack.encode()));
        }
        for (member, ack) in acks {
            self.send(member, ack);
        }
    }

    /// Says what the membership has to know, if that is something else than before.
    fn report(&mut self) {
        let mut report = SyncReport {
            levelled: self.levelled,
            ..SyncReport::default()
        };
        for (member, peer) in &self.peers {
            let gate = self.config.limits.mutations.no_full_sync_gate;
            if self.is_complete(*member) || gate {
                report.complete_from.insert(*member);
            }
            if self.admitted() && self.view.members.contains_key(member) {
                let gap = peer.out.due.is_some() && !gate;
                if peer.link != Link::Up || peer.out.lagging || gap {
                    report.lagging.insert(*member);
                }
            } else if self.has_caught_up(peer) || gate && peer.link == Link::Up {
                report.caught_up.insert(*member);
            }
        }
        if report != self.reported {
            self.reported = report.clone();
            self.outputs.push_back(Output::Report(report));
        }
    }

    /// Whether a peer outside the view has been told everything in the view that it, too, has
    /// installed, and has acknowledged all since.
    pub(crate) fn has_caught_up(&self, peer: &Peer) -> bool {
        peer.in_sync() && peer.out.ack_epoch == self.view.epoch
    }

    /// For the faces.
    pub fn status(&self) -> Status {
        let last = self.outbox.last();
        let peers = self.peers.iter().map(|(member, peer)| PeerStatus {
            member: *member,
            connected: peer.link == Link::Up,
            in_sync: peer.in_sync(),
            protocol: peer.protocol,
            config_differs: peer.config_differs,
            sent: peer.out.sent,
            acknowledged: peer.out.acked.unwrap_or_default(),
            lag: Lag {
                deltas: last.0 - peer.out.acked.unwrap_or_default().0.min(last.0),
                octets: peer.out.in_flight_bytes,
                since: peer.out.waiting_since(),
            },
            peaks: peer.peaks,
            last_full_sync: peer.out.reason,
            complete: self.is_complete(*member),
            received: peer.received(),
            round_trip: peer.round_trip,
            slots: self.view.slots.owned_by(*member),
            counters: peer.counters,
        });
        Status {
            member: self.local(),
            slots: self.view.slots.owned_by(self.local()),
            epoch: self.view.epoch,
            levelled: self.levelled,
            published: last,
            released: self.released,
            retained: self.outbox.retained(),
            peaks: self.peaks,
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

    /// Puts what follows from changes of ownership into the queue.
    pub(crate) fn emit_ownership(&mut self) {
        while let Some(effect) = self.ownership.poll_effect() {
            let output = match effect {
                Effect::Table(change) => Output::Table(change),
                Effect::RecordUpserted(local_spi) => {
                    let Some(held) = self.ownership.sa(local_spi) else {
                        continue;
                    };
                    Output::RecordUpserted {
                        slot: held.slot,
                        written: held.written,
                        sa: held.sa.clone(),
                    }
                }
                Effect::RecordRemoved { slot, local_spi } => {
                    Output::RecordRemoved { slot, local_spi }
                }
                Effect::ChildGone(spi_in) => {
                    self.reservations.close(spi_in);
                    continue;
                }
            };
            self.outputs.push_back(output);
        }
    }
}
