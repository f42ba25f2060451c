//! The agent: one loop around the sans-IO cores.
//!
//! Datagrams, frames of other members, timers and clients' requests come in one at
//! a time; each is given to the core that it concerns, then the cores' outputs are carried out in
//! their order until there are none left ([`effects`]). Nothing else holds state.

mod answers;
mod clock;
mod effects;
mod harden;
mod house;
mod log;
mod replica;
mod socket;
mod table;
mod translate;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway_cluster::Cluster;
use gateway_cluster::frame::{self, Incarnation};
use gateway_cluster::route::{Origin, Route};
use gateway_cluster::view::View;
use gateway_common::packet::IkeHeader;
use gateway_common::time::Instant;
use gateway_ike::crypto::CryptoProvider;
use gateway_ike::endpoint::Endpoint;
use gateway_ike::output::Path;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::effects::Held;
use self::house::House;
use self::log::EventLog;
use self::replica::Replicas;
use self::socket::{Datagram, Sockets};
use self::table::Inherited;
use crate::api::model::Check;
use crate::api::{self, Call};
use crate::config::{Backend, Config};
use crate::crypto::AwsLc;
use crate::steering::{self, Steering};
use crate::sync::{Transport, TransportEvent, TransportEvents};
use crate::xfrm::{Recording, SaKernel, Tunnels, Xfrm};

pub use harden::forbid_core_dumps;

/// Datagrams that may wait for the loop; what comes beyond is dropped, as on a wire.
const QUEUE: usize = 4096;
/// Neighbours, fence and table fill are looked at this often.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// One running member.
pub struct Agent {
    config: Config,
    started: Instant,
    endpoint: Endpoint,
    cluster: Cluster,
    steering: Steering,
    tunnels: Tunnels,
    sockets: Sockets,
    transport: Transport,
    held: Held,
    replicas: Replicas,
    counters: AgentCounters,
    log: EventLog,
    house: House,
    inherited: Vec<Inherited>,
    inputs: Inputs,
}

/// Everything that wakes the loop.
struct Inputs {
    datagrams: mpsc::Receiver<Datagram>,
    frames: TransportEvents,
    calls: mpsc::Receiver<Call>,
}

/// What the cores do not count.
#[derive(Clone, Copy, Debug, Default)]
struct AgentCounters {
    relayed_out: u64,
    relayed_in: u64,
    not_ours_dropped: u64,
    send_errors: u64,
}

/// What woke the loop.
enum Wake {
    Datagram(Datagram),
    Frame(TransportEvent),
    Call(Call),
    Timer,
    Housekeeping,
    Stop(&'static str),
}

impl Agent {
    /// Brings up the kernel's SAs, the data path, the sockets and the sync channel, in the order
    /// in which no cleartext can leak and no packet is steered to a member that is not ready.
    ///
    /// # Errors
    /// The first thing that failed, with its fix. What ran before goes on running.
    pub async fn start(config: Config) -> Result<Self> {
        let started = clock::now();
        report_checks(&preflight(&config));
        let tunnels = start_kernel(&config)?;
        crate::vip::ensure_on_loopback(&config.cluster.vips)
            .context("the VIPs could not be put on lo")?;
        let steering = Steering::start(&translate::steering_config(&config))?;

        let (datagram_sender, datagrams) = mpsc::channel(QUEUE);
        let (call_sender, calls) = mpsc::channel(64);
        let sockets = Sockets::bind(&config.cluster.vips, &datagram_sender)?;
        let crypto = AwsLc;
        let incarnation = draw_incarnation(&crypto);
        let (transport, frames) =
            Transport::start(translate::transport_config(&config)?).context("sync channel")?;
        api::serve(&config.api_socket, call_sender)
            .await
            .with_context(|| format!("control socket {}", config.api_socket.display()))?;
        let endpoint = Endpoint::new(
            Arc::new(translate::engine_config(&config, incarnation)),
            Arc::new(crypto),
            started,
        );
        let mut cluster = Cluster::new(translate::cluster_config(&config, incarnation), started);
        let mode = translate::slot_mode(&config);
        let view = View::of_all(cluster.members(), mode);
        let epoch = view.epoch;
        cluster.handle_view(started, view);
        cluster.handle_active(started, epoch);
        let mut agent = Self {
            started,
            endpoint,
            cluster,
            steering,
            tunnels,
            sockets,
            transport,
            held: Held::default(),
            replicas: Replicas::default(),
            counters: AgentCounters::default(),
            log: EventLog::default(),
            house: House::default(),
            inherited: Vec::new(),
            inputs: Inputs {
                datagrams,
                frames,
                calls,
            },
            config,
        };
        agent.inherit_tables()?;
        agent.write_slot_owners()?;
        // Without a membership nobody takes slots over, so the lease never ends.
        let always = Instant::from_nanos(u64::MAX);
        agent.steering.fence_handle().set_lease(always)?;
        agent.steering.set_live(
            &agent
                .config
                .cluster
                .members
                .keys()
                .copied()
                .collect::<Vec<_>>(),
        )?;
        agent.carry_out();
        tracing::info!(
            member = %agent.config.cluster.local,
            cluster = agent.config.cluster.name,
            steering = agent.steering.mode().as_str(),
            "gatewayd {} serves {} of 256 slots",
            env!("CARGO_PKG_VERSION"),
            agent.cluster.slots().owned_by(agent.config.cluster.local),
        );
        Ok(agent)
    }

    /// Runs until SIGTERM or SIGINT. Steering, SAs and policies stay: the next start takes over.
    ///
    /// # Errors
    /// If the signals cannot be received.
    pub async fn run(mut self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pause = self.pause();
            let inputs = &mut self.inputs;
            let wake = tokio::select! {
                Some(datagram) = inputs.datagrams.recv() => Wake::Datagram(datagram),
                Some(frame) = inputs.frames.recv() => Wake::Frame(frame),
                Some(call) = inputs.calls.recv() => Wake::Call(call),
                () = tokio::time::sleep(pause) => Wake::Timer,
                _ = housekeeping.tick() => Wake::Housekeeping,
                _ = terminate.recv() => Wake::Stop("SIGTERM"),
                _ = interrupt.recv() => Wake::Stop("SIGINT"),
            };
            if let Wake::Stop(signal) = wake {
                tracing::info!("{signal}: stopping; steering and SAs stay in place");
                return Ok(());
            }
            self.handle(wake);
            self.carry_out();
        }
    }

    /// Time until the next timer of a core, at most an hour.
    fn pause(&self) -> Duration {
        let next = [self.endpoint.poll_timeout(), self.cluster.poll_timeout()];
        let next = next.into_iter().flatten().min();
        next.map_or(Duration::from_secs(3600), |at| at - clock::now())
    }

    fn handle(&mut self, wake: Wake) {
        let now = clock::now();
        match wake {
            Wake::Datagram(datagram) => {
                self.receive(now, Origin::Network, datagram.path, &datagram.bytes);
            }
            Wake::Frame(TransportEvent::Connected { member }) => {
                self.cluster.handle_connected(now, member);
            }
            Wake::Frame(TransportEvent::Disconnected { member, .. }) => {
                self.cluster.handle_disconnected(now, member);
            }
            Wake::Frame(TransportEvent::Frame { member, bytes }) => {
                self.cluster.handle_frame(now, member, bytes.expose());
            }
            Wake::Call(call) => {
                let reply = self.answer(&call.request);
                // A client that has gone needs no answer.
                let _ = call.reply.send(reply);
            }
            Wake::Timer => {}
            Wake::Housekeeping => self.keep_house(),
            Wake::Stop(_) => {}
        }
        self.endpoint.handle_timeout(now);
        self.cluster.handle_timeout(now);
    }

    /// An IKE datagram: served if it is this member's, else relayed to its owner, once.
    fn receive(&mut self, now: Instant, origin: Origin, path: Path, bytes: &[u8]) {
        // What has no IKEv2 header the engine counts and drops, wherever it arrived.
        let route = IkeHeader::parse(bytes).map_or(Route::Local, |header| {
            let lease = now + Duration::from_secs(1);
            self.cluster
                .route(&header, path.remote.ip(), origin, now, lease)
        });
        match route {
            Route::Local => {
                self.counters.relayed_in += u64::from(origin != Origin::Network);
                self.endpoint.handle_datagram(now, path, bytes);
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
}

/// Never the same again: two runs of a member must not be taken for one.
fn draw_incarnation(crypto: &AwsLc) -> Incarnation {
    let mut octets = [0; 8];
    crypto.random(&mut octets);
    Incarnation(u64::from_be_bytes(octets))
}

/// SAs and policies: the block policies stand before anything else does.
fn start_kernel(config: &Config) -> Result<Tunnels> {
    let kernel: Box<dyn SaKernel> = match config.backend {
        Backend::Xfrm => Box::new(Xfrm::open()?),
        Backend::Recording => Box::new(Recording::new()),
    };
    let mut tunnels = Tunnels::new(kernel);
    if config.forwarding_block {
        let children = config
            .connections
            .iter()
            .flat_map(|connection| &connection.children);
        let remote: Vec<_> = children
            .clone()
            .flat_map(|child| &child.remote_ts)
            .copied()
            .collect();
        let local = children.flat_map(|child| &child.local_ts);
        let exempt = translate::exempt_networks(config, local);
        for open in tunnels.protect(&remote, &exempt)? {
            tracing::warn!(
                "remote_ts {open} is everything: cleartext to it is not blocked while its tunnel \
                 is down"
            );
        }
    }
    // Now and not at the first tunnel.
    tunnels.probe(&config.cluster.vips)?;
    let found = tunnels.reconcile()?;
    if found.sas_deleted > 0 {
        tracing::info!(
            "removed {} SAs of an earlier run: their keys ended with it",
            found.sas_deleted
        );
    }
    Ok(tunnels)
}

/// What on this host would break the cluster.
pub fn preflight(config: &Config) -> Vec<Check> {
    steering::preflight(&translate::steering_config(config))
        .into_iter()
        .map(Check::from)
        .collect()
}

fn report_checks(checks: &[Check]) {
    for check in checks.iter().filter(|check| !check.ok) {
        let (name, subject, fix) = (&check.name, &check.subject, &check.fix);
        tracing::warn!(
            "pre-flight: {name} {subject}: {} (fix: {fix})",
            check.message
        );
    }
}

/// Detaches the programs and removes the pins of this host.
///
/// # Errors
/// If a pin cannot be removed.
pub fn uninstall(config: &Config) -> Result<()> {
    steering::uninstall(&translate::steering_config(config))?;
    Ok(())
}
