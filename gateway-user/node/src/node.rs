//! The member's state, its inputs and its queue of effects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use gateway_cluster::Cluster;
use gateway_cluster::frame;
use gateway_cluster::route::{Origin, Route};
use gateway_cluster::secret::Secret;
use gateway_cluster::slot_set::SlotSet;
use gateway_cluster::view::{Epoch, View};
use gateway_common::packet::{Direction, IkeHeader};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use gateway_ike::crypto::CryptoProvider;
use gateway_ike::endpoint::{Command, Endpoint, Target};
use gateway_ike::output::{KernelResult, Path};
use gateway_ike::x509::Crl;

use crate::batch::Batches;
use crate::children::Children;
use crate::config::Config;
use crate::cookies::Cookies;
use crate::divided::Divided;
use crate::effect::{Effect, KernelEvent, KernelOp};
use crate::fresh::Fresh;
use crate::hand_over::HandedOver;
use crate::held::Held;
use crate::moves::Moves;
use crate::order::Orders;
use crate::pins::Pins;
use crate::records::{Index, Spi};
use crate::start::Start;
use crate::status::Counters;
use crate::walk::{Care, Walk};

/// One member without its IO.
///
/// After every call that takes `&mut self` and a time, call [`Node::poll_effect`] until it is
/// empty, carry the effects out in their order, and call [`Node::handle_timeout`] when
/// [`Node::poll_timeout`] says so. Before every input the driver says how long the lease runs
/// ([`Node::set_lease`]): without one nothing is processed and nothing leaves.
pub struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) cluster: Cluster,
    pub(crate) crypto: Arc<dyn CryptoProvider>,
    pub(crate) lease: Instant,
    pub(crate) held: Held,
    pub(crate) index: Index,
    pub(crate) children: Children,
    /// IKE SAs that the engine holds, by slot; the others are sealed.
    pub(crate) awake: BTreeMap<Slot, BTreeSet<Spi>>,
    pub(crate) walk: Walk,
    /// Slots that came and are not active yet.
    pub(crate) gained: SlotSet,
    /// No majority stands behind the installed view.
    pub(crate) half_view: bool,
    pub(crate) divided: Divided,
    pub(crate) moves: Moves,
    pub(crate) handed_over: HandedOver,
    pub(crate) fresh: Fresh,
    pub(crate) cookies: Cookies,
    pub(crate) start: Start,
    pub(crate) orders: Orders,
    pub(crate) batches: Batches,
    pub(crate) pins: Pins,
    pub(crate) counters: Counters,
    /// What was configured at run time, for members that come.
    pub(crate) shared: Option<Secret>,
    pub(crate) effects: VecDeque<Effect>,
}

impl Node {
    /// A member that has just started: it owns nothing before a view admits it and is active.
    pub fn new(config: Config, crypto: Arc<dyn CryptoProvider>, now: Instant) -> Self {
        let mut node = Self {
            start: Start::new(&config.ike),
            endpoint: Endpoint::new(config.ike, Arc::clone(&crypto), now),
            crypto,
            cluster: Cluster::new(config.cluster, now),
            lease: Instant::default(),
            held: Held::default(),
            index: Index::default(),
            children: Children::default(),
            awake: BTreeMap::new(),
            walk: Walk::new(config.walk),
            gained: SlotSet::EMPTY,
            half_view: false,
            divided: Divided::default(),
            moves: Moves::default(),
            handed_over: HandedOver::default(),
            fresh: Fresh::default(),
            cookies: Cookies::default(),
            orders: Orders::default(),
            batches: Batches::default(),
            pins: Pins::default(),
            counters: Counters::default(),
            shared: None,
            effects: VecDeque::new(),
        };
        node.collect(now);
        node
    }

    /// This member.
    pub const fn local(&self) -> MemberId {
        self.cluster.local()
    }

    /// The installed view.
    pub const fn view(&self) -> &View {
        self.cluster.view()
    }

    /// This member may process and transmit until then. Only the membership's word counts; the
    /// driver repeats it before each input.
    pub fn set_lease(&mut self, until: Instant) {
        self.lease = until;
    }

    /// The time of day, in seconds since 1970, which certificates are judged by; to be told again
    /// whenever the clock may have been set.
    pub fn set_wall_clock(&mut self, now: Instant, unix_seconds: u64) {
        let command = Command::SetWallClock { unix_seconds };
        self.endpoint.handle_command(now, command);
    }

    /// The CRLs that certificates are looked up in, in place of those before.
    pub fn set_crls(&mut self, now: Instant, crls: Vec<Arc<Crl>>) {
        self.endpoint.handle_command(now, Command::SetCrls(crls));
    }

    /// An IKE datagram came from the network, without non-ESP marker: it is processed if it is
    /// this member's, else relayed to its owner, once.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        self.receive(now, Origin::Network, path, bytes);
        self.collect(now);
    }

    /// The sync channel has an authenticated connection to `member`.
    pub fn handle_connected(&mut self, now: Instant, member: MemberId) {
        self.cluster.handle_connected(now, member);
        self.collect(now);
    }

    /// The sync channel lost its connection to `member`.
    pub fn handle_disconnected(&mut self, now: Instant, member: MemberId) {
        self.cluster.handle_disconnected(now, member);
        self.collect(now);
    }

    /// A frame came from `member`.
    pub fn handle_frame(&mut self, now: Instant, member: MemberId, octets: &[u8]) {
        self.cluster.handle_frame(now, member, octets);
        self.collect(now);
    }

    /// The membership installed a view. Slots that went are given up at once; those that came wait
    /// for [`Node::handle_active`].
    pub fn handle_view(&mut self, now: Instant, view: View) {
        self.install(now, view, false);
    }

    /// As [`Node::handle_view`], but no majority stands behind the view: the other half of the one
    /// before may be serving, too. Sequence numbers of slots that came have jumped, and their CHILD_SAs
    /// get other keys, at the rate of rekeyings after takeovers; those of slots that stayed when what is
    /// left of their numbers runs out, or when the halves have met again.
    pub fn handle_half_view(&mut self, now: Instant, view: View) {
        self.install(now, view, true);
    }

    fn install(&mut self, now: Instant, view: View, half: bool) {
        if view.epoch <= self.view().epoch {
            return;
        }
        let before = owned(&self.cluster);
        self.half_view = half;
        self.divide(now, &view, half);
        if half {
            self.cluster.handle_half_view(now, view);
        } else {
            self.cluster.handle_view(now, view);
        }
        let own = owned(&self.cluster);
        let lost = before.difference(&own);
        for slot in lost.iter() {
            for local_spi in self.awake.remove(&slot).unwrap_or_default() {
                self.endpoint
                    .handle_command(now, Command::Forget { local_spi });
            }
            self.walk.remove(slot);
        }
        for child in self.fresh.lose(&lost) {
            self.effects
                .push_back(Effect::Kernel(KernelOp::RemoveCopy(child)));
        }
        self.held.forget(|slot| lost.contains(slot));
        let kept = before.intersection(&own);
        let places = if kept.is_empty() { &own } else { &kept };
        self.keep_negotiations(now, &lost, places);
        self.leave_connections(now, &lost);
        self.gained = self.gained.union(&own.difference(&before));
        self.reconsider_orders(now);
        self.collect(now);
    }

    /// The slots that `epoch` gave this member are its alone from now on: no other may transmit.
    /// What this costs does not depend on how many SAs are in them.
    pub fn handle_active(&mut self, now: Instant, epoch: Epoch) {
        if epoch != self.view().epoch {
            return;
        }
        self.cluster.handle_active(now, epoch);
        let gained = std::mem::replace(&mut self.gained, SlotSet::EMPTY);
        let gained: Vec<Slot> = gained
            .iter()
            .filter(|slot| self.cluster.owns(*slot))
            .collect();
        // What is established in the others from now on needs no look.
        let inherited: Vec<Slot> = gained
            .iter()
            .copied()
            .filter(|slot| self.index.after(*slot, None).is_some())
            .collect();
        if self.half_view {
            // What left the other half was on this one. If that lives on it asks the peers for nothing:
            // under the same Message IDs one of the two would get the other's answers.
            self.walk.add_with(now, inherited.into_iter(), Care::Rekey);
        } else if !self.meet_again(now) {
            self.walk.add(now, inherited.into_iter());
        }
        self.refresh_cookies(now);
        self.start_connections(now, &gained);
        self.reconsider_orders(now);
        self.collect(now);
    }

    /// The kernel's answer to an [`crate::effect::KernelOp::Own`] with an installation.
    pub fn handle_kernel(&mut self, now: Instant, result: KernelResult) {
        self.endpoint.handle_kernel(now, result);
        self.collect(now);
    }

    /// The kernel told something by itself.
    pub fn handle_kernel_event(&mut self, now: Instant, event: KernelEvent) {
        match event {
            KernelEvent::SentUpTo { child, sequence } => {
                self.cluster.handle_sent(now, child.spi_in, sequence);
                let owner = self.children.owner(&child);
                if self.cluster.runs_out(child.spi_in)
                    && owner.is_some_and(|spi| self.wake(now, spi))
                {
                    let rekey = Command::Rekey(Target::Child(child.spi_in));
                    self.endpoint.handle_command(now, rekey);
                }
            }
            KernelEvent::ReceivedUpTo { child, sequence } => {
                self.cluster.handle_received(now, child.spi_in, sequence);
            }
            // The engine has timers of its own for time, but not for octets and packets.
            KernelEvent::Expired { child, hard } => {
                let owner = self.children.owner(&child);
                if owner.is_some_and(|spi| self.wake(now, spi)) {
                    self.endpoint.handle_expire(now, child, hard);
                }
            }
        }
        self.collect(now);
    }

    /// An order of the operator or the driver about an IKE SA: wakes it.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        self.endpoint.handle_command(now, command);
        self.collect(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.cluster.handle_timeout(now);
        if self.next_cookie_secret().is_some_and(|due| due <= now) {
            self.refresh_cookies(now);
        }
        self.end_division(now);
        self.look_after_orders(now);
        self.work_off(now);
        while let Some((spi, care)) = self.walk.step(now, &self.index) {
            self.look_after(now, spi, care);
        }
        self.collect(now);
    }

    /// When [`Node::handle_timeout`] has something to do; changes with every input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.endpoint.poll_timeout(),
            self.cluster.poll_timeout(),
            self.walk.next(),
            self.next_cookie_secret(),
            self.orders.next(),
            self.batches.next(),
            self.divided.next(),
        ];
        timers.into_iter().flatten().min()
    }

    /// The next effect, in the order in which they have to be carried out.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether this member may process what belongs to `slot`, and transmit for it.
    pub(crate) fn serves(&self, now: Instant, slot: Slot) -> bool {
        self.cluster.serves(slot) && now < self.lease
    }

    pub(crate) fn receive(&mut self, now: Instant, origin: Origin, path: Path, bytes: &[u8]) {
        // What has no IKEv2 header the engine counts and drops, wherever it arrived.
        let header = IkeHeader::parse(bytes).ok();
        let pinned = header
            .as_ref()
            .and_then(|header| self.pinned_slot(now, header, path.remote.ip()));
        let route = header.as_ref().map_or(Route::Local, |header| {
            self.cluster
                .route(header, path.remote.ip(), origin, now, self.lease)
        });
        match route {
            Route::Local => {
                self.counters.relayed_in += u64::from(origin != Origin::Network);
                let cookie = header.and_then(|h| h.our_cookie(Direction::Received));
                if let Some(cookie) = cookie {
                    self.wake(now, cookie);
                    self.look_for_peer(now, cookie, path.remote.ip());
                }
                if cookie.is_some_and(|cookie| self.nobody_has(cookie)) {
                    self.endpoint.handle_stray(now, path, bytes);
                } else if let Some(slot) = pinned {
                    self.endpoint.handle_datagram_in(now, path, bytes, slot);
                } else {
                    self.endpoint.handle_datagram(now, path, bytes);
                }
            }
            Route::Relay(owner) => {
                let path = frame::Path {
                    local: path.local,
                    remote: path.remote,
                };
                if self.cluster.relay(owner, &path, bytes) {
                    self.counters.relayed_out += 1;
                } else {
                    self.counters.not_ours_dropped += 1;
                }
            }
            Route::Drop => self.counters.not_ours_dropped += 1,
        }
    }

    /// Whether no member of the view has an established IKE SA with our SPI `cookie`: whoever serves
    /// a slot has heard of all, because no message that establishes one leaves before. What is left
    /// of one that is over does not count.
    fn nobody_has(&self, cookie: Spi) -> bool {
        self.index.is_closed(cookie) || self.cluster.ownership().ike_sa(cookie).is_none()
    }

    /// Gives the engine an IKE SA of this member that is still sealed, and with it those of the same
    /// identities: uniqueness looks at them, and of a rekeying both have to be there to know how
    /// far it came. Whether the engine has it now.
    pub(crate) fn wake(&mut self, now: Instant, spi: Spi) -> bool {
        let Some(held) = self.cluster.ownership().sa(spi) else {
            return false;
        };
        let slot = held.slot;
        if !self.serves(now, slot) || self.cluster.is_moving(spi) {
            return false;
        }
        if self.is_awake(slot, spi) {
            return true;
        }
        let kin: Vec<Spi> = match held.sa.identities {
            Some(identities) => {
                let kin = self.cluster.ownership().by_identities(identities);
                let kin = kin.filter(|held| held.slot == slot);
                kin.map(|held| held.sa.local_spi).collect()
            }
            None => vec![spi],
        };
        // The one that is wanted last: what it decides about the others they have to be there for.
        for spi in kin.into_iter().filter(|kin| *kin != spi).chain([spi]) {
            self.import(now, slot, spi);
        }
        self.is_awake(slot, spi)
    }

    pub(crate) fn is_awake(&self, slot: Slot, spi: Spi) -> bool {
        self.awake.get(&slot).is_some_and(|a| a.contains(&spi))
    }

    fn import(&mut self, now: Instant, slot: Slot, spi: Spi) {
        let held = self.cluster.ownership().sa(spi);
        let Some(held) = held.filter(|_| !self.is_awake(slot, spi)) else {
            return;
        };
        if self.cluster.is_moving(spi) {
            return;
        }
        match self.index.open(now, held) {
            Ok(record) => {
                self.awake.entry(slot).or_default().insert(spi);
                self.counters.woken += 1;
                // If whoever took it in died before it had dealt with older ones of the same
                // identities, that waits for a message of its peer: this may be a stranger's.
                let command = Command::Import(Box::new(record));
                self.endpoint.handle_command(now, command);
            }
            Err(_) => self.counters.unreadable_records += 1,
        }
    }

    /// The engine has nothing to do with an IKE SA any more that was in `slot`.
    pub(crate) fn put_to_sleep(&mut self, now: Instant, slot: Slot, local_spi: Spi) {
        let awake = self.awake.get_mut(&slot);
        if awake.is_some_and(|awake| awake.remove(&local_spi)) {
            self.endpoint
                .handle_command(now, Command::Forget { local_spi });
        }
    }

    /// An IKE SA that came by takeover has its turn.
    fn look_after(&mut self, now: Instant, local_spi: Spi, care: Care) {
        if !self.wake(now, local_spi) {
            return;
        }
        self.reconcile(now, local_spi);
        let held = self.cluster.ownership().sa(local_spi);
        let children = held.map_or(&[][..], |held| &held.sa.children);
        let children: Vec<_> = children.iter().map(|child| child.spi_in).collect();
        if care == Care::Check || children.is_empty() {
            self.endpoint
                .handle_command(now, Command::Liveness { local_spi });
            return;
        }
        self.counters.rekeyed_after_takeover += children.len() as u64;
        for spi_in in children {
            let rekey = Command::Rekey(Target::Child(spi_in));
            self.endpoint.handle_command(now, rekey);
        }
    }
}

pub(crate) fn owned(cluster: &Cluster) -> SlotSet {
    let all = (0..=u8::MAX).map(Slot);
    all.filter(|slot| cluster.owns(*slot)).collect()
}
