//! The agent: one loop around the sans-IO node, and a thread for the membership.
//!
//! Datagrams, frames of other members, what the membership decided, the kernel's events, timers and
//! clients' requests come in one at a time; each is given to the [`Node`], then its effects are
//! carried out in their order until there are none left ([`effects`]). Nothing else holds state.

mod algorithms;
mod answers;
mod cluster_answers;
mod connections;
mod effects;
mod explain;
mod forwarding;
mod guard;
mod harden;
mod house;
mod journal;
mod live;
mod loaded;
mod log;
mod membership;
mod notices;
mod notify;
mod pages;
mod reload;
mod revocation;
mod socket;
mod start;
mod table;
mod translate;
mod turn;
mod updown;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use gateway_cluster::membership::Command;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_ike::endpoint as ike;
use gateway_ike::output::Verdict;
use gateway_node::Node;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::algorithms::Preparation;
use self::house::House;
use self::journal::Journal;
use self::loaded::Loaded;
use self::log::EventLog;
use self::membership::{Handle, Notice};
use self::notify::Manager;
use self::revocation::Crls;
use self::socket::{Datagram, Sockets};
use self::table::Inherited;
use self::turn::Turn;
use crate::api::Call;
use crate::api::model::Check;
use crate::authorize::{Decision, Porters};
use crate::clock;
use crate::config::Config;
use crate::recent::Recent;
use crate::steering::{self, Steering};
use crate::sync::{Transport, TransportEvent, TransportEvents};
use crate::vici::{self, Hub};
use crate::vip::{self, Health};
use crate::xfrm::{EventStream, Tunnels, XfrmEvent};

pub use harden::forbid_core_dumps;

/// Datagrams that may wait for the loop; what comes beyond is dropped, as on a wire.
const QUEUE: usize = 4096;
/// Neighbours, fence and table fill are looked at this often.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// One running member.
pub struct Agent {
    config: Config,
    /// Where it was read from.
    config_file: PathBuf,
    /// What was loaded at run time.
    loaded: Loaded,
    hub: Hub,
    started: Instant,
    node: Node,
    steering: Steering,
    tunnels: Tunnels,
    sockets: Sockets,
    transport: Transport,
    membership: Handle,
    health: Health,
    manager: Manager,
    send_errors: u64,
    log: EventLog,
    recent: Recent,
    journal: Journal,
    house: House,
    crls: Crls,
    preparation: Preparation,
    porters: Porters,
    inherited: Inherited,
    /// Those of the last view in which this member became active.
    active_slots: BTreeSet<Slot>,
    /// SAs of an earlier run still wait for their records.
    adopting: bool,
    /// The agent ends then at the latest.
    stop_at: Option<Instant>,
    inputs: Inputs,
}

/// Everything that wakes the loop.
struct Inputs {
    datagrams: mpsc::Receiver<Datagram>,
    frames: TransportEvents,
    calls: mpsc::Receiver<Call>,
    loads: mpsc::Receiver<vici::Call>,
    notices: mpsc::UnboundedReceiver<Notice>,
    decisions: mpsc::UnboundedReceiver<Decision>,
    kernel_events: Option<EventStream>,
}

impl Inputs {
    async fn kernel_event(events: &mut Option<EventStream>) -> std::io::Result<XfrmEvent> {
        match events {
            Some(events) => events.next().await,
            None => std::future::pending().await,
        }
    }
}

/// What woke the loop.
enum Wake {
    Datagram(Datagram),
    Frame(TransportEvent),
    Call(Call),
    Load(vici::Call),
    Reload,
    Notice(Notice),
    Decision(Decision),
    Kernel(std::io::Result<XfrmEvent>),
    Timer,
    SignOfLife,
    Housekeeping,
    Signal(&'static str),
}

impl Wake {
    const fn about(&self) -> &'static str {
        match self {
            Self::Datagram(_) => "a datagram",
            Self::Frame(TransportEvent::Frame { .. }) => "a frame of another member",
            Self::Frame(_) => "a connection to another member",
            Self::Call(_) => "a question of a client",
            Self::Load(_) => "what a client loads",
            Self::Reload => "the configuration file",
            Self::Notice(Notice::View { .. }) => "a view",
            Self::Notice(Notice::Active(_)) => "slots that came",
            Self::Notice(_) => "a notice of the membership",
            Self::Decision(_) => "a decision about a peer",
            Self::Kernel(_) => "an event of the kernel",
            Self::Timer => "a timer",
            Self::SignOfLife => "the sign of life",
            Self::Housekeeping => "housekeeping",
            Self::Signal(_) => "a signal",
        }
    }
}

impl Agent {
    /// Runs until SIGTERM or SIGINT; a second one does not wait for the other members to take over.
    /// Steering, SAs and policies stay: the next start takes them over.
    ///
    /// # Errors
    /// If the signals cannot be received.
    pub async fn run(mut self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sign_of_life = tokio::time::interval(self.config.cluster.watchdog / 4);
        sign_of_life.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.stop_at.is_none_or(|at| clock::now() < at) {
            let pause = self.pause();
            let inputs = &mut self.inputs;
            let wake = tokio::select! {
                Some(notice) = inputs.notices.recv() => Wake::Notice(notice),
                Some(datagram) = inputs.datagrams.recv() => Wake::Datagram(datagram),
                Some(frame) = inputs.frames.recv() => Wake::Frame(frame),
                Some(call) = inputs.calls.recv() => Wake::Call(call),
                Some(call) = inputs.loads.recv() => Wake::Load(call),
                Some(decision) = inputs.decisions.recv() => Wake::Decision(decision),
                event = Inputs::kernel_event(&mut inputs.kernel_events) => Wake::Kernel(event),
                () = tokio::time::sleep(pause) => Wake::Timer,
                _ = sign_of_life.tick() => Wake::SignOfLife,
                _ = housekeeping.tick() => Wake::Housekeeping,
                _ = terminate.recv() => Wake::Signal("SIGTERM"),
                _ = hang_up.recv() => Wake::Reload,
                _ = interrupt.recv() => Wake::Signal("SIGINT"),
            };
            let turn = Turn::begin(wake.about());
            self.handle(wake);
            self.carry_out();
            turn.end();
        }
        self.leave();
        Ok(())
    }

    /// Time until the node's next timer or the end, at most an hour. None as long as there is work that
    /// is done in parts.
    fn pause(&self) -> Duration {
        if self.tunnels.is_surveying() || self.tunnels.is_tidying() {
            return Duration::ZERO;
        }
        let next = [self.node.poll_timeout(), self.stop_at];
        let next = next.into_iter().flatten().min();
        next.map_or(Duration::from_secs(3600), |at| at - clock::now())
    }

    fn handle(&mut self, wake: Wake) {
        let now = clock::now();
        self.node.set_lease(self.membership.lease());
        match wake {
            Wake::Datagram(datagram) => {
                self.node
                    .handle_datagram(now, datagram.path, &datagram.bytes);
            }
            Wake::Frame(event) => self.hear(now, event),
            Wake::Call(call) => self.answer(call),
            Wake::Load(call) => self.answer_vici(call),
            // Said in the log.
            Wake::Reload => drop(self.reload()),
            Wake::Notice(notice) => self.take_notice(now, notice),
            Wake::Decision(decision) => self.take_decision(now, decision),
            Wake::Kernel(event) => self.hear_kernel(now, event),
            Wake::Timer => self.go_on(now),
            Wake::SignOfLife => self.show_life(),
            Wake::Housekeeping => self.keep_house(),
            Wake::Signal(name) => self.stop(now, name),
        }
        self.node.handle_timeout(now);
    }

    fn hear(&mut self, now: Instant, event: TransportEvent) {
        match event {
            TransportEvent::Connected {
                member,
                keys,
                dialled,
            } => {
                // Who accepted knows that the other end has the keys.
                self.membership.keys(member, keys, !dialled);
                self.node.handle_connected(now, member);
            }
            TransportEvent::Disconnected { member, .. } => {
                self.node.handle_disconnected(now, member);
            }
            TransportEvent::Frame { member, bytes } => {
                self.node.handle_frame(now, member, bytes.expose());
            }
        }
    }

    /// Somebody has decided about a peer. Why one is refused stands in the engine's line.
    fn take_decision(&mut self, now: Instant, decision: Decision) {
        let handle = decision.handle();
        if decision.verdict == Verdict::Accept {
            log::let_in(&decision);
        }
        let verdict = decision.verdict;
        self.node
            .handle_command(now, ike::Command::Decided { handle, verdict });
    }

    fn hear_kernel(&mut self, now: Instant, event: std::io::Result<XfrmEvent>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::error!("the kernel's events cannot be read: {error}");
                XfrmEvent::Overrun
            }
        };
        if let XfrmEvent::Acquire { policy } = &event {
            self.acquire(now, policy);
        }
        match self.tunnels.hear(&event) {
            Ok(events) => {
                for event in events {
                    self.node.handle_kernel_event(now, event);
                }
            }
            Err(error) => tracing::warn!("after an event of the kernel: {error}"),
        }
    }

    /// The next part of what takes too long for one turn when there are many SAs.
    fn go_on(&mut self, now: Instant) {
        for event in self.tunnels.survey_part() {
            self.node.handle_kernel_event(now, event);
        }
        match self.tunnels.tidy_part() {
            Ok(None | Some(0)) => {}
            Ok(Some(count)) => tracing::info!("removed {count} SAs of an earlier run"),
            Err(error) => tracing::error!("SAs of an earlier run: {error}"),
        }
    }

    fn stop(&mut self, now: Instant, signal: &str) {
        if self.stop_at.is_some() {
            self.stop_at = Some(now);
            return;
        }
        tracing::info!("{signal}: handing over to the other members");
        self.manager.tell("STOPPING=1");
        self.stop_at = Some(now + self.config.cluster.drain);
        self.membership.command(Command::Stop, None);
    }

    /// The last things, when nothing of this member is needed any more.
    fn leave(&mut self) {
        if let Err(error) = withdraw(&self.config) {
            tracing::error!("{error:#}");
        }
        tracing::info!("stopped; steering, SAs and policies stay in place");
    }
}

/// What on this host would break the cluster.
pub fn preflight(config: &Config) -> Vec<Check> {
    deferred_preflight(config)()
}

/// The same, to be run where it may take its time: it asks the kernel for a route to every peer's
/// network.
fn deferred_preflight(config: &Config) -> impl FnOnce() -> Vec<Check> + Send + 'static {
    let steering = translate::steering_config(config);
    let exposed = config.exposed.as_ref().map(Check::exposed);
    move || {
        let host = steering::preflight(&steering);
        host.into_iter().map(Check::from).chain(exposed).collect()
    }
}

/// Takes back what draws traffic to this member: floating addresses, the routes and the state that
/// routing daemons look at. For the time without an agent.
///
/// # Errors
/// If the kernel or the file system refuses.
pub fn withdraw(config: &Config) -> Result<()> {
    vip::drop_floating(&config.floating)?;
    Health::new(&config.health, &config.cluster.vips).tell("DEAD", false)?;
    Ok(())
}

/// Detaches the programs and removes the pins of this host.
///
/// # Errors
/// If a pin cannot be removed.
pub fn uninstall(config: &Config) -> Result<()> {
    withdraw(config)?;
    steering::uninstall(&translate::steering_config(config))?;
    Ok(())
}
