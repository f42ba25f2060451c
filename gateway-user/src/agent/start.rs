//! Bringing a member up, in the order in which no cleartext can leak and no packet is steered to a
//! member that is not ready.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use gateway_cluster::membership::Membership;
use gateway_ike::crypto::CryptoProvider;
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_node::Node;
use tokio::sync::mpsc;

use super::algorithms::Preparation;
use super::guard::guard;
use super::house::House;
use super::journal::Journal;
use super::loaded::Loaded;
use super::log::EventLog;
use super::membership::{Handle, Notice, Parts};
use super::notify::Manager;
use super::revocation::Crls;
use super::socket::Sockets;
use super::{Agent, Inputs, QUEUE, preflight, translate};
use crate::api::{self, model::Check};
use crate::authorize::Porters;
use crate::clock;
use crate::config::{Backend, Config};
use crate::crypto::AwsLc;
use crate::heartbeat::{HeartbeatConfig, Heartbeats, SessionKeys};
use crate::recent::Recent;
use crate::rest;
use crate::state_dir::Store;
use crate::steering::Steering;
use crate::sync::Transport;
use crate::vici::{self, Baseline, Hub, Links};
use crate::vip::{self, Health, Keeper, Prober};
use crate::xfrm::{EventStream, Events, Gate, Recording, SaKernel, Tunnels, Xfrm};

impl Agent {
    /// Brings up the kernel's SAs, the data path, the sockets, the sync channel and the membership.
    /// `file` is where `config` was read from, and will be again.
    /// `recent`: where the log lines go that clients may ask for.
    ///
    /// # Errors
    /// The first thing that failed, with its fix. What ran before goes on running.
    pub async fn start(mut config: Config, file: &Path, recent: Recent) -> Result<Self> {
        let started = clock::now();
        report_checks(&preflight(&config));
        // Before anything else: what an earlier run held is another member's by now.
        let keeper = Keeper::start(config.floating.clone()).context("[ha] addresses")?;
        let store = Store::open(&config.cluster.state_dir)
            .with_context(|| format!("cluster.state_dir {}", config.cluster.state_dir.display()))?;
        let incarnation = store.next_run().context("cluster.state_dir")?;
        warn_of_sha1(&config);
        let tunnels = start_kernel(&config)?;
        vip::ensure_on_loopback(&config.standing_vips())
            .context("the VIPs could not be put on lo")?;
        let steering = Steering::start(&translate::steering_config(&config))?;

        let (datagram_sender, datagrams) = mpsc::channel(QUEUE);
        let (notice_sender, notices) = mpsc::unbounded_channel();
        let (porters, decisions) = Porters::new();
        let sockets = Sockets::bind(&config.cluster.vips, &datagram_sender)?;
        let kernel_events = match config.backend {
            Backend::Xfrm => Some(EventStream::new(Events::open()?)?),
            Backend::Recording => None,
        };
        let (transport, frames) =
            Transport::start(translate::transport_config(&config)?).context("sync channel")?;
        let faces = Faces::open(&mut config).await?;
        let crypto: Arc<dyn CryptoProvider> = Arc::new(AwsLc);
        let node = Node::new(
            translate::node_config(&config, incarnation),
            crypto,
            started,
        );
        let persisted = store.read_view().context("cluster.state_dir")?;
        let membership_config = translate::membership_config(&config, incarnation);
        membership_config.validate()?;
        let parts = Parts {
            local: config.cluster.local,
            membership: Membership::new(membership_config, clock::now(), persisted),
            heartbeats: Heartbeats::open(heartbeat_config(&config))?,
            fence: steering.fence_handle(),
            gate: Gate::clone(tunnels.gate()),
            store,
            keeper,
            silence: config.cluster.timing.silence * 3,
            prober: prober(&config),
        };
        let mut agent = Self {
            config_file: file.to_owned(),
            loaded: Loaded::default(),
            hub: faces.hub,
            started,
            node,
            steering,
            tunnels,
            sockets,
            transport,
            membership: start_membership(parts, notice_sender)?,
            health: Health::new(&config.health, &config.cluster.vips),
            manager: Manager::from_environment(),
            send_errors: 0,
            log: EventLog::default(),
            recent,
            journal: faces.journal,
            house: House::default(),
            crls: Crls::new(&config.crl_files),
            preparation: Preparation::default(),
            porters,
            inherited: BTreeMap::new(),
            active_slots: BTreeSet::new(),
            adopting: true,
            stop_at: None,
            inputs: Inputs {
                datagrams,
                frames,
                calls: faces.calls,
                loads: faces.loads,
                notices,
                decisions,
                kernel_events,
            },
            config,
        };
        agent.hear_acquires();
        agent.prepare_algorithms();
        agent.watch_clock_and_crls();
        agent.inherit_tables()?;
        agent.report_devices();
        agent.carry_out();
        agent.manager.tell("READY=1");
        tracing::info!(
            member = %agent.config.cluster.local,
            cluster = agent.config.cluster.name,
            steering = agent.steering.mode().as_str(),
            run = format!("{:x}", incarnation.0),
            "gatewayd {} looks for the other members",
            env!("CARGO_PKG_VERSION"),
        );
        Ok(agent)
    }
}

/// Where operators and programs ask; what they ask for comes out of `calls` and `loads`.
struct Faces {
    calls: mpsc::Receiver<api::Call>,
    loads: mpsc::Receiver<vici::Call>,
    hub: Hub,
    journal: Journal,
}

impl Faces {
    /// The control socket, REST and VICI.
    async fn open(config: &mut Config) -> Result<Self> {
        let (call_sender, calls) = mpsc::channel(64);
        let (load_sender, loads) = mpsc::channel(16);
        api::serve(&config.api_socket, call_sender.clone())
            .await
            .with_context(|| format!("control socket {}", config.api_socket.display()))?;
        let (hub, journal) = (Hub::default(), Journal::new(config.cluster.local));
        if let Some(rest) = config.rest.take() {
            rest::serve(rest, call_sender.clone(), journal.listeners().clone())
                .await
                .context("REST API")?;
        }
        let links = Links {
            reset: Baseline::default(),
            calls: call_sender,
            loads: load_sender,
            hub: hub.clone(),
            started: std::time::SystemTime::now(),
        };
        serve_vici(config, links).await;
        Ok(Self {
            calls,
            loads,
            hub,
            journal,
        })
    }
}

/// Without it the gateway does all that it is for.
async fn serve_vici(config: &Config, links: Links) {
    let Some(socket) = &config.vici_socket else {
        return;
    };
    if let Err(error) = vici::serve(socket, links).await {
        tracing::error!(
            "swanctl cannot be used: VICI socket {}: {error}",
            socket.display()
        );
    }
}

fn start_membership(parts: Parts, notices: mpsc::UnboundedSender<Notice>) -> Result<Handle> {
    Handle::start(parts, notices).context("the membership's thread could not be started")
}

/// SAs and policies: the block policies stand before anything else does. What an earlier run left
/// stays until the other members have said what still stands.
fn start_kernel(config: &Config) -> Result<Tunnels> {
    let kernel: Box<dyn SaKernel> = match config.backend {
        Backend::Xfrm => Box::new(Xfrm::open()?),
        Backend::Recording => Box::new(Recording::new()),
    };
    let mut tunnels = Tunnels::new(kernel);
    tunnels.set_inbound_policy(config.takeover.inbound);
    let found = tunnels.begin_adoption()?;
    if found > 0 {
        tracing::info!("{found} SAs of an earlier run wait for their records");
    }
    guard(&mut tunnels, config, &config.connections)?;
    // Now and not at the first tunnel.
    tunnels.probe(&config.cluster.vips)?;
    Ok(tunnels)
}

/// RFC 8221, RFC 8247: SHA-1 is on its way out. It is only there because the configuration asks for
/// it.
fn warn_of_sha1(config: &Config) {
    for connection in &config.connections {
        let ike = connection.proposals.iter().any(IkeProposal::uses_sha1);
        let children = connection.children.iter();
        let weak = children.filter(|child| child.esp_proposals.iter().any(EspProposal::uses_sha1));
        let mut names: Vec<_> = weak.map(|child| child.name.as_str()).collect();
        if ike {
            names.insert(0, "IKE");
        }
        if !names.is_empty() {
            tracing::warn!(
                "connection {}: {} may use SHA-1, which is being phased out; write sha256 \
                 instead of sha1 as soon as the peer can do it",
                connection.name,
                names.join(", ")
            );
        }
    }
}

fn heartbeat_config(config: &Config) -> HeartbeatConfig {
    let cluster = &config.cluster;
    let witness = config.witness.as_ref().map(|witness| {
        let keys = SessionKeys::from_shared(cluster.local.get(), 0, witness.key.expose());
        (
            SocketAddr::new(witness.address, witness.port),
            Arc::new(keys),
        )
    });
    HeartbeatConfig {
        cluster: cluster.id,
        local: cluster.local,
        port: cluster.heartbeat_port,
        links: translate::cluster_links(config),
        witness,
    }
}

fn prober(config: &Config) -> Prober {
    let members = &config.cluster.members;
    let others = members
        .iter()
        .filter(|(id, _)| **id != config.cluster.local)
        .map(|(id, member)| (*id, member.addresses().collect()));
    let own = config.cluster.local_member().addresses().collect();
    Prober::new(own, others.collect())
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
