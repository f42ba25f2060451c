//! What operators and packets ask for, on whatever member: it is carried out by the owner.

mod message;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use gateway_cluster::ownership::Held;
use gateway_cluster::secret::Secret;
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use gateway_ike::endpoint::{Command, SaStatus, Target};

use crate::batch::{Act, Batch};
use crate::configure::SHARED;
use crate::divided::REPORT;
use crate::effect::{Effect, Event};
use crate::hand_over::NEGOTIATION;
use crate::node::Node;
use crate::records::Spi;

use message::Message;

/// How long an order waits for somebody who serves its slot: longer than a takeover takes.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is tried meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// Views differ for a moment: an order that was passed on so often stays where it is.
const MAX_HOPS: u8 = 3;

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Bring it up.
    Initiate,
    /// The same because of a packet (XFRM ACQUIRE).
    Acquire,
    /// Delete its IKE SAs, or one kind of its CHILD_SAs, with a DELETE to the peer.
    Terminate,
    /// Make successors.
    Rekey,
}

/// One SA among those of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// An IKE SA, by our SPI.
    Ike([u8; 8]),
    /// A CHILD_SA, by its inbound SPI.
    Child([u8; 4]),
}

impl Only {
    /// By the SPI's octets in network order, of which there are 8 or 4.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let ike = octets.try_into().ok().map(Self::Ike);
        ike.or_else(|| octets.try_into().ok().map(Self::Child))
    }

    fn octets(&self) -> &[u8] {
        match self {
            Self::Ike(spi) => spi,
            Self::Child(spi) => spi,
        }
    }
}

/// Something to be done about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub what: What,
    /// The connection's name.
    pub connection: String,
    /// Name of its child; `None`: all of them, or the IKE SA.
    pub child: Option<String>,
    /// Only this SA, if it is not an initiation.
    pub only: Option<Only>,
}

/// What has become of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// So many things are done here: a few at once, the others in the turns that follow.
    pub here: usize,
    /// It was passed on to these members. Each says when it has it; the order of one that leaves
    /// the view before that goes to its successor.
    pub passed_on: BTreeSet<MemberId>,
    /// Slots that nobody serves now. The order waits for them for [`PATIENCE`]; then an
    /// [`Event::OrderLapsed`] says that it was given up.
    pub waiting: BTreeSet<Slot>,
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such connection, or none that can be initiated.
    #[error(
        "connection {0} cannot be initiated: it is not configured, or its remote_addrs has no \
         single address of a family that we have an address of"
    )]
    NotInitiable(String),
    /// The connection has no such child.
    #[error("connection {0} has no child {1}")]
    NoChild(String, String),
    /// There is nothing that it could be about.
    #[error("connection {0} has no such SA")]
    NothingThere(String),
}

impl What {
    const fn brings_up(self) -> bool {
        matches!(self, Self::Initiate | Self::Acquire)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initiate => "initiate",
            Self::Acquire => "acquire",
            Self::Terminate => "terminate",
            Self::Rekey => "rekey",
        })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.connection)?;
        match &self.child {
            Some(child) => write!(f, " child {child}"),
            None => Ok(()),
        }
    }
}

/// An order about some slots that is not seen to yet.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    order: Order,
    slots: Vec<Slot>,
    hops: u8,
    until: Instant,
}

impl Pending {
    /// As one that has just been given.
    pub(crate) fn anew(self, now: Instant) -> Self {
        let until = now + PATIENCE;
        Self { until, ..self }
    }
}

/// Orders that this member has to see through.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// They wait for somebody who serves their slots.
    waiting: Vec<Pending>,
    /// Passed on, and the member has not said yet that it has them.
    passed: BTreeMap<u64, (MemberId, Pending)>,
    last_number: u64,
    /// When to look after those that wait.
    look: Option<Instant>,
}

impl Orders {
    /// When [`Node::look_after_orders`] has something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        let passed = self.passed.values().map(|(_, pending)| pending.until);
        passed.chain(self.look).min()
    }
}

impl Node {
    /// Carries out an order, or passes it on to whoever may, or keeps it until somebody may. What
    /// comes of it, events say.
    ///
    /// # Errors
    /// [`Refused`]; then nothing was done.
    pub fn handle_order(&mut self, now: Instant, order: &Order) -> Result<Outcome, Refused> {
        let slots = self.slots_of(now, order)?;
        let outcome = self.give(
            now,
            Pending {
                order: order.clone(),
                slots,
                hops: 0,
                until: now + PATIENCE,
            },
        );
        self.collect(now);
        Ok(outcome)
    }

    /// The slots whose owners would see to an order now.
    ///
    /// # Errors
    /// As for [`Node::handle_order`].
    pub fn would_order(&self, now: Instant, order: &Order) -> Result<Vec<Slot>, Refused> {
        self.slots_of(now, order)
    }

    /// Another member says something about orders.
    pub(crate) fn take_order(&mut self, now: Instant, from: MemberId, octets: Secret) {
        if octets.expose().first() == Some(&SHARED) {
            self.effects.push_back(Effect::Shared { from, octets });
            return;
        }
        if let Some((&REPORT, record)) = octets.expose().split_first() {
            self.take_report(now, record);
            return;
        }
        if let Some((&NEGOTIATION, record)) = octets.expose().split_first() {
            self.take_negotiation(now, record);
            return;
        }
        match Message::decode(octets.expose()) {
            Some(Message::Do {
                number,
                hops,
                slots,
                order,
            }) => {
                self.cluster.order(from, Message::Taken { number }.encode());
                self.give(
                    now,
                    Pending {
                        order,
                        slots,
                        hops: hops.saturating_add(1),
                        until: now + PATIENCE,
                    },
                );
            }
            Some(Message::Taken { number }) => {
                self.orders.passed.remove(&number);
            }
            None => self.take_pin_order(now, octets.expose()),
        }
    }

    /// The view has changed, or a slot has become this member's: what waits may go on, and what a
    /// member had not taken yet goes to another if it is gone.
    pub(crate) fn reconsider_orders(&mut self, now: Instant) {
        let members = &self.cluster.view().members;
        let lost: Vec<u64> = self
            .orders
            .passed
            .iter()
            .filter(|(_, (to, _))| !members.contains_key(to))
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            if let Some((_, pending)) = self.orders.passed.remove(&number) {
                self.orders.waiting.push(pending);
            }
        }
        for pending in std::mem::take(&mut self.orders.waiting) {
            if now < pending.until {
                self.give(now, pending);
            } else {
                self.lapse(pending);
            }
        }
        self.orders.look = (!self.orders.waiting.is_empty()).then(|| now + LOOK);
    }

    pub(crate) fn look_after_orders(&mut self, now: Instant) {
        if self.orders.look.is_some_and(|look| look <= now) {
            self.reconsider_orders(now);
        }
        let passed = self.orders.passed.iter();
        let late: Vec<u64> = passed
            .filter(|(_, (_, pending))| pending.until <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            if let Some((_, pending)) = self.orders.passed.remove(&number) {
                self.lapse(pending);
            }
        }
    }

    fn lapse(&mut self, pending: Pending) {
        let Pending { order, slots, .. } = pending;
        self.effects
            .push_back(Effect::Event(Event::OrderLapsed { order, slots }));
    }

    /// Does what can be done here, passes on what is others' business, and keeps the rest.
    fn give(&mut self, now: Instant, pending: Pending) -> Outcome {
        let mut outcome = Outcome::default();
        let mut elsewhere: BTreeMap<MemberId, Vec<Slot>> = BTreeMap::new();
        for slot in &pending.slots {
            let owner = self.view().slots.owner(*slot);
            let other = owner.filter(|owner| *owner != self.local() && pending.hops < MAX_HOPS);
            let done = if self.serves(now, *slot) {
                self.carry_out_order(now, &pending, *slot)
            } else {
                None
            };
            match (done, other) {
                (Some(times), _) => outcome.here += times,
                (None, Some(owner)) => elsewhere.entry(owner).or_default().push(*slot),
                (None, None) => drop(outcome.waiting.insert(*slot)),
            }
        }
        for (owner, slots) in elsewhere {
            if self.pass_on(owner, &pending, &slots) {
                outcome.passed_on.insert(owner);
            } else {
                outcome.waiting.extend(slots);
            }
        }
        if !outcome.waiting.is_empty() {
            self.orders.look.get_or_insert(now + LOOK);
            let slots = outcome.waiting.iter().copied().collect();
            self.orders.waiting.push(Pending { slots, ..pending });
        }
        self.work_off(now);
        outcome
    }

    fn pass_on(&mut self, to: MemberId, pending: &Pending, slots: &[Slot]) -> bool {
        self.orders.last_number += 1;
        let number = self.orders.last_number;
        let message = Message::Do {
            number,
            hops: pending.hops,
            slots: slots.to_vec(),
            order: pending.order.clone(),
        };
        let reached = self.cluster.order(to, message.encode());
        if reached {
            let slots = slots.to_vec();
            let pending = Pending {
                slots,
                ..pending.clone()
            };
            self.orders.passed.insert(number, (to, pending));
        }
        reached
    }

    /// The slots whose owners have to see to an order.
    fn slots_of(&self, now: Instant, order: &Order) -> Result<Vec<Slot>, Refused> {
        let name = &order.connection;
        let configured = self.start.connection(name);
        let home = Slot::for_connection(name);
        if order.what.brings_up() {
            let connection = configured.ok_or_else(|| Refused::NotInitiable(name.clone()))?;
            if let Some(child) = &order.child
                && connection.children.iter().all(|known| known.name != *child)
            {
                return Err(Refused::NoChild(name.clone(), child.clone()));
            }
            // Further children join the IKE SA that is there, wherever that is.
            let live = self.start.live(name);
            let held = live.and_then(|spi| self.cluster.ownership().sa(spi));
            return Ok(vec![held.map_or(home, |held| held.slot)]);
        }
        let held = self.cluster.ownership().sas();
        let meant = held.filter(|held| self.targets_of(order, held) > 0);
        let mut slots: BTreeSet<Slot> = meant.map(|held| held.slot).collect();
        // What is being initiated has no SA yet, and only its owner knows of it.
        let begun = || !self.serves(now, home) || self.endpoint.is_initiating(name);
        if configured.is_some() && ends_all(order) && begun() {
            slots.insert(home);
        }
        if slots.is_empty() {
            return Err(Refused::NothingThere(name.clone()));
        }
        Ok(slots.into_iter().collect())
    }

    /// How many targets an order has at an IKE SA. Its record stays closed: there may be very many.
    fn targets_of(&self, order: &Order, held: &Held) -> usize {
        let spi = held.sa.local_spi;
        if self.index.connection(spi) != Some(&*order.connection) {
            return 0;
        }
        match (&order.only, &order.child) {
            (Some(Only::Ike(only)), _) if spi != *only => 0,
            (Some(Only::Child(only)), _) => {
                usize::from(held.sa.children.iter().any(|child| child.spi_in == *only))
            }
            (_, Some(name)) => self.index.children(spi, name),
            (_, None) => 1,
        }
    }

    /// Carries out an order about a slot that this member serves, or leaves it to the turns that follow,
    /// and says how many targets it has; `None` if it has to wait: an IKE SA is on its way to another
    /// member.
    fn carry_out_order(&mut self, now: Instant, pending: &Pending, slot: Slot) -> Option<usize> {
        let order = &pending.order;
        let name = &order.connection;
        if order.what.brings_up() {
            let connection = self.start.connection(name).cloned()?;
            if let Some(spi) = self.start.live(name)
                && !self.wake(now, spi)
            {
                return None;
            }
            let children = order.child.iter().cloned().collect();
            let by_packet = order.what == What::Acquire;
            let order = self.initiate_order(&connection, children, false, by_packet);
            self.endpoint.handle_command(now, Command::Initiate(order));
            return Some(1);
        }
        let (mut times, mut left) = (0, VecDeque::new());
        for spi in self.index.in_slot(slot) {
            let held = self.cluster.ownership().sa(spi);
            let targets = held.map_or(0, |held| self.targets_of(order, held));
            if targets > 0 {
                times += targets;
                left.push_back(spi);
            }
        }
        // All or nothing: what is tried again must not be done twice.
        if left.iter().any(|spi| self.cluster.is_moving(*spi)) {
            return None;
        }
        if ends_all(order) {
            times += usize::from(self.endpoint.is_initiating(name));
            let connection = name.clone();
            self.endpoint
                .handle_command(now, Command::Relinquish { connection });
        }
        let pending = Pending {
            slots: vec![slot],
            ..pending.clone()
        };
        let act = Act::Order(pending);
        self.batches.push(Batch {
            since: now,
            slot,
            act,
            left,
        });
        Some(times)
    }

    /// Carries out an order about one IKE SA of a slot that this member serves.
    pub(crate) fn carry_out_one(&mut self, now: Instant, slot: Slot, pending: &Pending, spi: Spi) {
        if self.index.slot(spi) != Some(slot) || self.index.is_closed(spi) {
            return;
        }
        let order = &pending.order;
        if !self.wake(now, spi) {
            // It has begun to move meanwhile, or cannot be read: this one alone is tried again.
            let only = order.only.or(Some(Only::Ike(spi)));
            let order = Order {
                only,
                ..order.clone()
            };
            self.put_off(
                now,
                Pending {
                    order,
                    ..pending.clone()
                },
            );
            return;
        }
        let Some(sa) = self.endpoint.sa(spi) else {
            return;
        };
        for target in targets(&sa, order) {
            let command = match order.what {
                What::Rekey => Command::Rekey(target),
                What::Initiate | What::Acquire | What::Terminate => Command::Terminate(target),
            };
            self.endpoint.handle_command(now, command);
        }
    }

    /// An order waits for somebody who can carry it out.
    pub(crate) fn put_off(&mut self, now: Instant, pending: Pending) {
        self.orders.look.get_or_insert(now + LOOK);
        self.orders.waiting.push(pending);
    }
}

fn ends_all(order: &Order) -> bool {
    order.what == What::Terminate && order.child.is_none() && order.only.is_none()
}

/// The IKE SA, or its children of a name.
fn targets(sa: &SaStatus, order: &Order) -> Vec<Target> {
    let children = sa.children.iter();
    let by_name = |name: &String| -> Vec<Target> {
        let named = children.clone().filter(|child| child.name == *name);
        named.map(|child| Target::Child(child.spi_in)).collect()
    };
    match (&order.only, &order.child) {
        (Some(Only::Ike(spi)), _) if sa.local_spi != *spi => Vec::new(),
        (Some(Only::Child(spi)), _) => {
            let found = children.clone().find(|child| child.spi_in == *spi);
            found.map(|_| Target::Child(*spi)).into_iter().collect()
        }
        (_, Some(name)) => by_name(name),
        (_, None) => vec![Target::Ike(sa.local_spi)],
    }
}
