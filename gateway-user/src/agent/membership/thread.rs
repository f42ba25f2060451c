//! The thread: sockets, timers, and carrying out what the membership decided.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use gateway_cluster::membership::{
    Command, Event, Membership, Output, Persisted, Pnote, PnoteState,
};
use gateway_cluster::slot_map::SlotMap;
use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc as tokio_mpsc;

use super::wake::Wakes;
use super::{Answer, Handle, Input, Notice, Parts, Snapshot, schedule};
use crate::clock;

/// Interfaces and snapshot are looked at this often.
const HOUSEKEEPING: Duration = Duration::from_millis(100);
/// Datagrams taken before timers have their turn again.
const BATCH: usize = 64;

pub(super) struct Runner {
    parts: Parts,
    own: Handle,
    inputs: mpsc::Receiver<Input>,
    notices: tokio_mpsc::UnboundedSender<Notice>,
    wakes: Wakes,
    /// Outputs that wait until the one before them is on disk.
    waiting: VecDeque<Output>,
    links: Vec<bool>,
    real_time: bool,
    stopped: bool,
    /// Why the last command was refused.
    refused: Option<&'static str>,
    probe: Option<JoinHandle<()>>,
    /// Slots that the membership gave this member and the main loop has not heard of yet; numbered.
    gaining: Option<SlotMap>,
    gains: u64,
}

impl Runner {
    pub(super) fn new(
        parts: Parts,
        own: Handle,
        inputs: mpsc::Receiver<Input>,
        notices: tokio_mpsc::UnboundedSender<Notice>,
        wakes: Wakes,
    ) -> Self {
        Self {
            parts,
            own,
            inputs,
            notices,
            wakes,
            waiting: VecDeque::new(),
            links: Vec::new(),
            real_time: false,
            stopped: false,
            refused: None,
            probe: None,
            gaining: None,
            gains: 0,
        }
    }

    /// Runs until `Command::Stop` is done, or the main loop is gone.
    pub(super) fn run(mut self) {
        match schedule::real_time() {
            Ok(()) => self.real_time = true,
            Err(error) => tracing::warn!(
                "the membership runs without real-time priority ({error}): a busy host can make \
                 this member look dead (fix: CAP_SYS_NICE, and LimitRTPRIO in the unit)"
            ),
        }
        let mut house_at = clock::now();
        while !self.stopped && !self.notices.is_closed() {
            self.take_inputs();
            self.take_datagrams();
            let now = clock::now();
            if self.membership().poll_timeout().is_some_and(|at| at <= now) {
                self.membership().handle_timeout(now);
            }
            if house_at <= now {
                self.keep_house(now);
                house_at = now + HOUSEKEEPING;
            }
            self.carry_out();
            let next = self.membership().poll_timeout();
            let next = next.map_or(house_at, |at| at.min(house_at));
            self.wait(next - clock::now());
        }
    }

    const fn membership(&mut self) -> &mut Membership {
        &mut self.parts.membership
    }

    fn take_inputs(&mut self) {
        while let Ok(input) = self.inputs.try_recv() {
            let now = clock::now();
            match input {
                Input::Report(report) => self.membership().handle_report(now, report),
                Input::Pnote(pnote) => self.membership().handle_pnote(now, pnote),
                Input::Command(command, answer) => self.obey(now, command, answer),
                Input::Probe(result) => self.membership().handle_probe(now, result),
                Input::Gain(number) => self.gain_slots(number),
                Input::Keys {
                    member,
                    keys,
                    shared,
                } => self.parts.heartbeats.install_keys(member, keys, shared),
            }
            self.carry_out();
        }
    }

    fn obey(&mut self, now: Instant, command: Command, answer: Option<Answer>) {
        self.refused = None;
        self.membership().handle_command(now, command);
        self.carry_out();
        self.publish(now);
        let outcome = self.refused.take().map_or(Ok(()), Err);
        // A client that has gone needs no answer.
        let _ = answer.map(|answer| answer.send(outcome));
    }

    fn take_datagrams(&mut self) {
        for _ in 0..BATCH {
            let now = clock::now();
            let Some(received) = self.parts.heartbeats.receive(now) else {
                return;
            };
            let (from, via) = (received.from, received.via);
            self.membership()
                .handle_datagram(now, from, via, &received.body);
            // An acknowledgement must not wait for the rest of the batch: leases count on it.
            self.carry_out();
        }
    }

    fn keep_house(&mut self, now: Instant) {
        let silence = self.parts.silence;
        let states = self.parts.heartbeats.check_links(now, silence);
        self.links = states.iter().map(|(_, up)| *up).collect();
        for (link, up) in states {
            self.membership().handle_link(now, link, up);
        }
        self.publish(now);
    }

    /// The main loop must not make this thread wait: then the next snapshot is the news.
    fn publish(&mut self, now: Instant) {
        let names = self.parts.heartbeats.link_names();
        let snapshot = Snapshot {
            status: self.parts.membership.status(now),
            heartbeats: self.parts.heartbeats.counters(),
            links: names.into_iter().zip(self.links.iter().copied()).collect(),
            real_time: self.real_time,
        };
        if let Ok(mut shared) = self.own.shared.snapshot.try_lock() {
            *shared = snapshot;
        }
    }

    fn wait(&mut self, pause: Duration) {
        let mut polled = vec![PollFd::from_borrowed_fd(self.wakes.socket(), PollFlags::IN)];
        for socket in self.parts.heartbeats.sockets() {
            polled.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(pause.subsec_nanos()),
        };
        // An error (a signal) is a wake like any other.
        let _ = poll(&mut polled, Some(&timeout));
        drop(polled);
        self.wakes.clear();
    }
}

/// Carrying out.
impl Runner {
    fn carry_out(&mut self) {
        loop {
            let Some(output) = self
                .waiting
                .pop_front()
                .or_else(|| self.parts.membership.poll_output())
            else {
                return;
            };
            if let Output::Persist(persisted) = output {
                if !self.persist(&persisted) {
                    self.waiting.push_front(output);
                    return self.hold_back();
                }
            } else {
                self.carry_out_one(output);
            }
        }
    }

    fn persist(&mut self, persisted: &Persisted) -> bool {
        let Err(error) = self.parts.store.write_view(persisted) else {
            return true;
        };
        let reason = format!("the view cannot be put on disk: {error}");
        let pnote = Pnote {
            name: "state_dir".into(),
            state: PnoteState::Problem,
            reason,
            timeout: None,
        };
        self.parts.membership.handle_pnote(clock::now(), pnote);
        false
    }

    /// The disk fails: nothing is promised to anybody, and the lease runs out.
    fn hold_back(&mut self) {
        while let Some(output) = self.parts.membership.poll_output() {
            if !matches!(output, Output::Send { .. } | Output::Lease(_)) {
                self.waiting.push_back(output);
            }
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::Send { to, via, datagram } => self.parts.heartbeats.send(to, via, &datagram),
            Output::Persist(_) => {}
            Output::Install {
                view,
                unsafe_takeover,
            } => self.notify(Notice::View {
                view: Box::new(view),
                unsafe_takeover,
            }),
            Output::Slots(slots) => self.take_slots(slots),
            Output::Activate(epoch) => self.notify(Notice::Active(epoch)),
            Output::Lease(until) => self.write_lease(until),
            Output::Addresses(hold) => self.parts.keeper.hold(hold),
            Output::Alive(live) => {
                if let Err(error) = self.parts.fence.set_live(&live) {
                    tracing::error!("{error}: the programs steer as if nothing had changed");
                }
            }
            Output::Probe(member) => self.probe(member),
            Output::Stopped => {
                self.stopped = true;
                self.parts.keeper.hold(false);
                self.notify(Notice::Stopped);
            }
            Output::Event(event) => {
                if let Event::Refused { reason, .. } = &event {
                    self.refused = Some(reason);
                }
                self.publish(clock::now());
                self.notify(Notice::Event(event));
            }
        }
    }

    fn notify(&self, notice: Notice) {
        // Nobody listens any more when the process is about to end.
        let _ = self.notices.send(notice);
    }

    /// Takes away at once and gives later. The main loop may still be about to move copies for other
    /// owners; one that the gate refused, and that is acknowledged to its owner all the same, would
    /// let both use the same sequence numbers.
    fn take_slots(&mut self, slots: SlotMap) {
        self.gains += 1;
        let held = |slot, owner| owner != Some(self.parts.local) || self.parts.gate.owns(slot);
        if slots.iter().all(|(slot, owner)| held(slot, owner)) {
            self.gaining = None;
            return self.write_slots(&slots);
        }
        let mut owners = [None; Slot::COUNT];
        for ((slot, owner), place) in slots.iter().zip(&mut owners) {
            *place = owner.filter(|_| held(slot, owner));
        }
        self.write_slots(&SlotMap::from_owners(owners));
        self.gaining = Some(slots);
        self.notify(Notice::Gaining(self.gains));
    }

    /// The main loop has come so far; what was decided since then has another number.
    fn gain_slots(&mut self, number: u64) {
        if number == self.gains
            && let Some(slots) = self.gaining.take()
        {
            self.write_slots(&slots);
        }
    }

    /// No copy moves any more when its slot becomes ours, and none does before it has ceased to be.
    fn write_slots(&self, slots: &SlotMap) {
        let mut owners = [None; Slot::COUNT];
        for (slot, owner) in slots.iter() {
            owners[usize::from(slot.0)] = owner;
        }
        let ours = |slot: Slot| slots.owner(slot) == Some(self.parts.local);
        self.parts.gate.gain(ours);
        match self.parts.fence.set_slot_owners(&owners) {
            Ok(()) => self.parts.gate.lose(ours),
            Err(error) => {
                tracing::error!("{error}: the programs steer as if nothing had changed");
            }
        }
    }

    fn write_lease(&self, until: Instant) {
        let lease = &self.own.shared.lease;
        lease.store(until.as_nanos(), Ordering::Release);
        if let Err(error) = self.parts.fence.set_lease(until) {
            tracing::error!("{error}: the fence stops this member");
        }
    }

    /// In a thread of its own: an answer may take longer than a heartbeat.
    fn probe(&mut self, member: MemberId) {
        if self
            .probe
            .as_ref()
            .is_some_and(|probe| !probe.is_finished())
        {
            return;
        }
        let (prober, own) = (self.parts.prober.clone(), self.own.sibling());
        let own_good = self.links.contains(&true);
        let spawned = std::thread::Builder::new()
            .name("probe".into())
            .spawn(move || own.tell(Input::Probe(prober.probe(member, own_good))));
        match spawned {
            Ok(probe) => self.probe = Some(probe),
            Err(error) => tracing::warn!("no probe of member {member}: {error}"),
        }
    }
}
