//! Two endpoints with one IKE SA between them, weather, and members that die at any point.
//!
//! Each side is a cluster in miniature: a member that serves, and a replica that has what was
//! acknowledged (flush and ack). When the member dies, another one goes on from the replica.
//! Everything happens at an instant of simulated time, decided by a seed.

mod check;
mod side;

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_common::time::Instant;
use gateway_ike::config::{ChildConfig, Connection};
use gateway_ike::endpoint::{Command, Target};
use gateway_ike::output::{ChildId, DecisionHandle, KernelResult, Path, Verdict};

use crate::initiator::Initiator;

pub(crate) use self::check::Wire;
pub(crate) use self::side::{Order, Side};

/// What a network may do to a datagram, in percent, and how long it takes.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// Datagrams take 1 ms to this many, each at random: that reorders them.
    pub(crate) delay_ms: u64,
}

impl Weather {
    pub(crate) const FAIR: Self = Self {
        loss: 0,
        duplication: 0,
        delay_ms: 1,
    };
    pub(crate) const STORM: Self = Self {
        loss: 15,
        duplication: 15,
        delay_ms: 80,
    };
}

/// What becomes of one datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Lost,
    /// Others overtake it.
    Late(Duration),
    /// It comes at once and again after so long.
    Twice(Duration),
}

impl Fate {
    fn arrivals(self) -> Vec<Duration> {
        let soon = Duration::from_millis(1);
        match self {
            Self::Lost => Vec::new(),
            Self::Late(after) => vec![after],
            Self::Twice(after) => vec![soon, after],
        }
    }
}

/// Something that happens to a side.
enum Event {
    Datagram(Path, Vec<u8>),
    /// The oldest delta on its way reaches the replica, and its acknowledgement the member.
    Delta,
    Kernel(KernelResult),
    Decided(DecisionHandle, Verdict),
    Order(Order),
}

/// How questions are answered, each after so many milliseconds at most.
#[derive(Clone, Copy)]
pub(crate) struct Decisions {
    pub(crate) delay_ms: u64,
    /// Of a hundred, so many are refused, …
    pub(crate) refused: u64,
    /// … and so many never answered.
    pub(crate) unanswered: u64,
}

impl Decisions {
    const SWIFT: Self = Self {
        delay_ms: 1,
        refused: 0,
        unanswered: 0,
    };
}

/// Reproducible randomness (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `bound`.
    pub(crate) fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The two sides and what is between them.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) sides: [Side; 2],
    pub(crate) weather: Weather,
    pub(crate) decisions: Decisions,
    pub(crate) wire: Wire,
    pub(crate) dice: Dice,
    queue: BTreeMap<(Instant, u64), (usize, u32, Event)>,
    events: u64,
    /// What happens to the datagram with this number, counted from 0; in place of the weather.
    pub(crate) fate: Option<(u64, Fate)>,
    /// Datagrams that were sent.
    pub(crate) sent: u64,
    /// Kill points passed, and the ones at which the member dies.
    pub(crate) points: u64,
    pub(crate) deaths: Vec<u64>,
}

impl Pair {
    /// With an established IKE SA and one child, made by IKE_AUTH.
    pub(crate) fn new(seed: u64) -> Self {
        Self::tweaked(seed, |_, _, _| ())
    }

    /// The same, with changes to each side's configuration.
    pub(crate) fn tweaked(
        seed: u64,
        tweak: impl Fn(usize, &mut Connection, &mut ChildConfig),
    ) -> Self {
        Self::settled(seed, side::established(seed, Initiator::new(seed), tweak))
    }

    /// The same, with the IKE SA's algorithms.
    pub(crate) fn offering(seed: u64, proposal: &str) -> Self {
        let peer = Initiator::new(seed).offer(proposal);
        Self::settled(seed, side::established(seed, peer, |_, _, _| ()))
    }

    fn settled(seed: u64, (sides, now): ([Side; 2], Instant)) -> Self {
        let mut pair = Self::between(seed, sides, now);
        pair.settle(Duration::from_secs(1));
        pair
    }

    fn between(seed: u64, sides: [Side; 2], now: Instant) -> Self {
        Self {
            now,
            sides,
            weather: Weather::FAIR,
            decisions: Decisions::SWIFT,
            wire: Wire::default(),
            dice: Dice::new(seed),
            queue: BTreeMap::new(),
            events: 0,
            fate: None,
            sent: 0,
            points: 0,
            deaths: Vec::new(),
        }
    }

    /// Without an IKE SA; either side can initiate one.
    pub(crate) fn unconnected(
        seed: u64,
        tweak: impl Fn(usize, &mut Connection, &mut ChildConfig),
    ) -> Self {
        let (sides, now) = side::unconnected(seed, tweak);
        Self::between(seed, sides, now)
    }

    /// Notes something for whoever has to find out why it failed.
    pub(crate) fn log(&mut self, text: &str) {
        self.wire.context = text.to_owned();
    }

    /// Orders something at a time from now.
    pub(crate) fn order(&mut self, side: usize, after: Duration, order: Order) {
        self.schedule(side, after, Event::Order(order));
    }

    /// Orders something at once.
    pub(crate) fn order_now(&mut self, side: usize, order: Order) {
        self.order(side, Duration::ZERO, order);
    }

    /// Gives a command at once.
    pub(crate) fn command(&mut self, side: usize, command: Command) {
        self.sides[side].endpoint.handle_command(self.now, command);
        self.carry_out(side);
    }

    /// The kernel says that a CHILD_SA has expired; after a hard expiry it has dropped it.
    pub(crate) fn expire(&mut self, side: usize, child: ChildId, hard: bool) {
        self.sides[side]
            .endpoint
            .handle_expire(self.now, child, hard);
        self.carry_out(side);
    }

    fn schedule(&mut self, side: usize, after: Duration, event: Event) {
        self.events += 1;
        let life = self.sides[side].life;
        self.queue
            .insert((self.now + after, self.events), (side, life, event));
    }

    /// Lets time pass, with everything that happens meanwhile.
    pub(crate) fn settle(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let timers = self.sides.iter().filter_map(|s| s.endpoint.poll_timeout());
            let Some(next) = queued.into_iter().chain(timers).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            for side in 0..2 {
                let due = self.sides[side].endpoint.poll_timeout();
                if due.is_some_and(|due| due <= self.now) {
                    self.sides[side].endpoint.handle_timeout(self.now);
                    self.carry_out(side);
                }
            }
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (side, life, event) = entry.remove();
                self.happen(side, life, event);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, side: usize, life: u32, event: Event) {
        // What a dead member was told or told itself dies with it.
        let stale = life != self.sides[side].life;
        match event {
            Event::Datagram(path, bytes) => {
                if self.dies(side) {
                    return;
                }
                self.wire.arrived(side, &bytes);
                let member = &mut self.sides[side];
                member.endpoint.handle_datagram(self.now, path, &bytes);
                if !self.dies(side) {
                    self.carry_out(side);
                }
            }
            Event::Delta if !stale => {
                if self.dies(side) {
                    return;
                }
                let now = self.now;
                self.sides[side].replicate(now);
                if self.dies(side) {
                    return;
                }
                for transmit in self.sides[side].release() {
                    if self.dies(side) {
                        return;
                    }
                    self.send(side, transmit.path, &transmit.bytes);
                    if self.dies(side) {
                        return;
                    }
                }
            }
            Event::Kernel(result) if !stale => {
                self.sides[side].endpoint.handle_kernel(self.now, result);
                if !self.dies(side) {
                    self.carry_out(side);
                }
            }
            // The helper does not know that the one who asked is dead.
            Event::Decided(handle, verdict) => {
                if self.dies(side) {
                    return;
                }
                let decided = Command::Decided { handle, verdict };
                self.sides[side].endpoint.handle_command(self.now, decided);
                if !self.dies(side) {
                    self.carry_out(side);
                }
            }
            Event::Order(order) => self.obey(side, order),
            Event::Delta | Event::Kernel(_) => {}
        }
    }

    fn obey(&mut self, side: usize, order: Order) {
        let member = &mut self.sides[side];
        if let Order::Initiate { persistent } = order {
            member.initiate(self.now, persistent);
            return self.carry_out(side);
        }
        let Some(sa) = member.current() else { return };
        let child = sa.children.last().map(|child| child.spi_in);
        let command = match (order, child) {
            (Order::Liveness, _) => Command::Liveness {
                local_spi: sa.local_spi,
            },
            (Order::RekeyIke, _) => Command::Rekey(Target::Ike(sa.local_spi)),
            (Order::Sync, _) => Command::SyncMessageIds {
                local_spi: sa.local_spi,
            },
            (Order::RekeyChild, Some(child)) => Command::Rekey(Target::Child(child)),
            (Order::RekeyChild, None) => return,
            (Order::Terminate, _) => Command::Terminate(Target::Ike(sa.local_spi)),
            (Order::TerminateChild, Some(child)) => Command::Terminate(Target::Child(child)),
            (Order::Die, _) => return self.take_over(side),
            (Order::TerminateChild, None) | (Order::Initiate { .. }, _) => return,
        };
        member.endpoint.handle_command(self.now, command);
        self.carry_out(side);
    }

    /// One point at which the member may die; whether it does.
    fn dies(&mut self, side: usize) -> bool {
        self.points += 1;
        if !self.deaths.contains(&self.points) {
            return false;
        }
        self.take_over(side);
        true
    }

    /// The member is dead; another one goes on from the replica, and asks the peer for a sign of
    /// life.
    fn take_over(&mut self, side: usize) {
        let now = self.now;
        self.sides[side].take_over(now);
        self.carry_out(side);
        if self.sides[side].starts && self.sides[side].spis().is_empty() {
            self.sides[side].initiate(now, true);
            self.carry_out(side);
        }
        let spis: Vec<_> = self.sides[side].spis();
        for local_spi in spis {
            let liveness = Command::Liveness { local_spi };
            self.sides[side].endpoint.handle_command(now, liveness);
        }
        self.carry_out(side);
    }

    /// Carries out what a side wants, in order, until there is nothing left.
    fn carry_out(&mut self, side: usize) {
        let life = self.sides[side].life;
        while let Some(effect) = self.sides[side].poll() {
            match effect {
                side::Effect::Delta => {
                    if self.dies(side) {
                        return;
                    }
                    let delay = Duration::from_micros(200 + self.dice.roll(800));
                    self.schedule(side, delay, Event::Delta);
                }
                side::Effect::Kernel(result) => {
                    let delay = Duration::from_micros(100 + self.dice.roll(400));
                    self.schedule(side, delay, Event::Kernel(result));
                }
                side::Effect::Decide(handle) => self.ask(side, handle),
                side::Effect::Transmit(transmit) => {
                    self.send(side, transmit.path, &transmit.bytes);
                }
            }
            assert_eq!(life, self.sides[side].life);
        }
    }

    /// Somebody outside decides, now and then twice.
    fn ask(&mut self, side: usize, handle: DecisionHandle) {
        let kind = self.dice.roll(100);
        let Decisions {
            delay_ms,
            refused,
            unanswered,
        } = self.decisions;
        if kind < unanswered {
            return;
        }
        let verdict = if kind < unanswered + refused {
            Verdict::Refuse {
                reason: "not today".to_owned(),
            }
        } else {
            Verdict::Accept
        };
        for _ in 0..=u64::from(self.dice.roll(4) == 0) {
            let delay = Duration::from_micros(self.dice.roll(1000 * delay_ms));
            self.schedule(side, delay, Event::Decided(handle, verdict.clone()));
        }
    }

    fn send(&mut self, from: usize, path: Path, bytes: &[u8]) {
        self.wire.saw(from, bytes);
        let to = 1 - from;
        let path = Path::new(path.remote, path.local);
        if self.dice.roll(100) < self.weather.loss {
            return;
        }
        let number = self.sent;
        self.sent += 1;
        if let Some((_, fate)) = self.fate.filter(|(at, _)| *at == number) {
            for after in fate.arrivals() {
                let event = Event::Datagram(path, bytes.to_vec());
                self.schedule(to, after, event);
            }
            return;
        }
        let copies = 1 + u64::from(self.dice.roll(100) < self.weather.duplication);
        for _ in 0..copies {
            let delay = 1000 + self.dice.roll(self.weather.delay_ms * 1000);
            let event = Event::Datagram(path, bytes.to_vec());
            self.schedule(to, Duration::from_micros(delay), event);
        }
    }

    /// Both sides have the one IKE SA, the same children, nothing to do, and can talk.
    pub(crate) fn assert_well(&mut self, context: &str) {
        self.weather = Weather::FAIR;
        self.deaths.clear();
        for side in 0..2 {
            self.order_now(side, Order::Liveness);
            self.settle(Duration::from_secs(1));
        }
        // A liveness check that was lost in the storm comes again, some time.
        for _ in 0..60 {
            let asks = |side: &Side| {
                let records = side.records(self.now);
                records.iter().any(|record| record.outstanding.is_some())
            };
            if !self.sides.iter().any(asks) {
                break;
            }
            self.settle(Duration::from_millis(997));
        }
        check::agree(&self.sides, self.now, context);
    }
}
