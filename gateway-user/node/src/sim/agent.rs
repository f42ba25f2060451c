//! What an agent's shell does: inputs to the two machines, their outputs to the world.

use std::sync::Arc;
use std::time::Duration;

use gateway_cluster::frame::Incarnation;
use gateway_cluster::membership::{
    self, LinkId, Membership, Output, ProbeResult, Sender, TwoMember, Via,
};
use gateway_cluster::slot_map::Weighted;
use gateway_common::member::MemberId;
use gateway_common::reason::Reason;
use gateway_ike::output::{KernelRequest, Transmit};
use gateway_ike::testing::Toy;

use super::check::Message;
use super::config;
use super::event::Event;
use super::host::{Agent, Host, Input, NodeInput};
use super::world::World;
use crate::Node;
use crate::effect::{Effect, KernelOp};

/// Cluster interfaces: 0 is the sync interface, 1 the public one.
const LINKS: [LinkId; 2] = [LinkId(0), LinkId(1)];

impl World {
    /// The agent starts; its host, too, if it is off.
    pub(super) fn start(&mut self, member: MemberId) {
        let members: Vec<Weighted> = self
            .hosts
            .keys()
            .map(|&member| Weighted { member, weight: 1 })
            .collect();
        let (seed, plan, now) = (self.seed, self.plan.clone(), self.now);
        let without = self.without;
        let Some(host) = self.hosts.get_mut(&member) else {
            return;
        };
        if host.agent.is_some() {
            return;
        }
        host.powered = true;
        host.runs += 1;
        let clock = host.clock(now);
        host.kernel.set_clock(clock);
        host.kernel.reconcile();
        let incarnation = Incarnation(host.runs);
        let mut cluster = membership::Config::new(member, incarnation, members.clone());
        cluster.timing = plan.timing;
        cluster.witness = plan.witness;
        cluster.two_member = if plan.availability {
            TwoMember::Availability
        } else {
            TwoMember::Consistency
        };
        if let Some(without) = without {
            cluster.mutations = without.membership();
        }
        let mut membership = Membership::new(cluster, clock, host.disk);
        for link in LINKS {
            membership.handle_link(clock, link, true);
        }
        let crypto = Toy::new(seed ^ u64::from(member.get()) << 40 ^ host.runs << 48);
        let config = config::node(member, incarnation, members, without);
        host.agent = Some(Box::new(Agent {
            membership,
            node: Node::new(config, Arc::new(crypto), clock),
            incarnation,
            timer: None,
            stopped: false,
        }));
        self.trace(|| format!("{member} starts, run {}", incarnation.0));
        let others: Vec<MemberId> = self
            .hosts
            .keys()
            .copied()
            .filter(|m| *m != member)
            .collect();
        for other in others {
            let delay = self.rng.millis(5, 60);
            self.after(
                delay,
                Event::Dial {
                    a: member,
                    b: other,
                },
            );
        }
        self.pump(member);
    }

    /// Something reaches an agent: at once, or after its pause.
    pub(super) fn input(&mut self, member: MemberId, input: Input) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&member) else {
            return;
        };
        if host.paused.is_some() {
            // A socket's buffer is finite, but a short pause does not fill it.
            host.backlog.push_back(input);
            return;
        }
        let clock = host.clock(now);
        let Some(agent) = &mut host.agent else {
            return;
        };
        match input {
            Input::Heartbeat { from, link, octets } => {
                agent.membership.handle_datagram(clock, from, link, &octets);
            }
            Input::Membership(command) => agent.membership.handle_command(clock, command),
            Input::Node(input) => {
                self.node_input(member, input);
            }
        }
        self.pump(member);
    }

    /// Something reaches the main loop.
    fn node_input(&mut self, member: MemberId, input: NodeInput) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&member) else {
            return;
        };
        if host.slow.is_some() {
            host.node_backlog.push_back(input);
            return;
        }
        let clock = host.clock(now);
        let lease = host.kernel.lease;
        let Some(agent) = &mut host.agent else {
            return;
        };
        let node = &mut agent.node;
        node.set_lease(lease);
        match input {
            NodeInput::Datagram { path, bytes } => node.handle_datagram(clock, path, &bytes),
            NodeInput::Frame { from, frame } => node.handle_frame(clock, from, frame.expose()),
            NodeInput::Connected(other) => node.handle_connected(clock, other),
            NodeInput::Disconnected(other) => node.handle_disconnected(clock, other),
            NodeInput::View { view, half: false } => node.handle_view(clock, *view),
            NodeInput::View { view, half: true } => node.handle_half_view(clock, *view),
            NodeInput::Active(epoch) => {
                node.handle_active(clock, epoch);
                host.gain_slots();
                self.check_fences(member);
            }
            NodeInput::Kernel(event) => node.handle_kernel_event(clock, event),
        }
    }

    /// The agent's timer.
    pub(super) fn agent_timer(&mut self, member: MemberId, run: u64) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&member) else {
            return;
        };
        let clock = host.clock(now);
        let held_up = host.paused.is_some();
        let slow = host.slow.is_some();
        let lease = host.kernel.lease;
        let Some(agent) = &mut host.agent else {
            return;
        };
        if agent.incarnation.0 != run {
            return;
        }
        agent.timer = None;
        if held_up {
            return;
        }
        let due = |at: Option<gateway_common::time::Instant>| at.is_some_and(|at| at <= clock);
        if due(agent.membership.poll_timeout()) {
            agent.membership.handle_timeout(clock);
        }
        if !slow && due(agent.node.poll_timeout()) {
            agent.node.set_lease(lease);
            agent.node.handle_timeout(clock);
        }
        self.pump(member);
    }

    /// Carries out everything that the two machines of an agent want, and sets its timer. The main
    /// loop does all that a notice of the membership leads to before it takes the next.
    pub(super) fn pump(&mut self, member: MemberId) {
        while self.check.violation.is_none() {
            let Some(host) = self.hosts.get_mut(&member) else {
                return;
            };
            let Some(agent) = &mut host.agent else {
                return;
            };
            if let Some(effect) = agent.node.poll_effect() {
                self.carry_node(member, effect);
            } else if let Some(output) = agent.membership.poll_output() {
                self.carry_membership(member, output);
            } else {
                break;
            }
        }
        self.set_timer(member);
    }

    fn set_timer(&mut self, member: MemberId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&member) else {
            return;
        };
        if host.paused.is_some() {
            return;
        }
        let Some(next) = host.next_timer() else {
            return;
        };
        let Some(agent) = &mut host.agent else {
            return;
        };
        // No machine is woken twice within 50 µs: schedulers are not that exact.
        let next = next.max(now + Duration::from_micros(50));
        if agent.timer.is_none_or(|timer| next < timer) {
            agent.timer = Some(next);
            let run = agent.incarnation.0;
            self.at(next, Event::AgentTimer { member, run });
        }
    }

    fn carry_membership(&mut self, member: MemberId, output: Output) {
        match output {
            Output::Send { to, via, datagram } => self.send_heartbeat(member, to, via, &datagram),
            Output::Install {
                view,
                unsafe_takeover,
            } => {
                self.trace(|| {
                    let members: Vec<u8> = view.members.keys().map(|m| m.get()).collect();
                    format!(
                        "{member} installs view {} of {members:?}, {} slots its own{}",
                        view.epoch,
                        view.slots.owned_by(member),
                        if unsafe_takeover { ", unsafe" } else { "" }
                    )
                });
                self.note_unsafe(unsafe_takeover);
                let (view, half) = (Box::new(view), unsafe_takeover);
                self.node_input(member, NodeInput::View { view, half });
            }
            Output::Activate(epoch) => {
                self.trace(|| format!("{member} activates {epoch}"));
                self.node_input(member, NodeInput::Active(epoch));
            }
            Output::Probe(other) => self.probe(member, other),
            Output::Persist(persisted) => self.on_host(member, |host| host.disk = persisted),
            Output::Slots(slots) => {
                self.on_host(member, |host| host.set_slots(slots));
                self.check_fences(member);
            }
            Output::Lease(until) => {
                self.on_host(member, |host| host.kernel.lease = until);
                self.check_fences(member);
            }
            Output::Alive(alive) => self.on_host(member, |host| host.kernel.alive = alive),
            Output::Stopped => self.on_host(member, |host| {
                if let Some(agent) = &mut host.agent {
                    agent.stopped = true;
                }
            }),
            Output::Addresses(_) => {}
            Output::Event(event) => self.trace(|| format!("{member} membership: {event:?}")),
        }
    }

    fn on_host(&mut self, member: MemberId, change: impl FnOnce(&mut Host)) {
        if let Some(host) = self.hosts.get_mut(&member) {
            change(host);
        }
    }

    fn carry_node(&mut self, member: MemberId, effect: Effect) {
        match effect {
            Effect::Transmit(transmit) => self.ike_leaves(member, &transmit),
            Effect::Frame { to, frame, .. } => self.send_frame(member, to, frame),
            Effect::Disconnect(other) => self.hang_up(member, other),
            Effect::Table(change) => self.on_host(member, |host| host.kernel.write(&change)),
            Effect::Kernel(op) => self.kernel_op(member, op),
            Effect::Report(report) => {
                let now = self.now;
                self.trace(|| format!("{member} reports {report:?}"));
                self.on_host(member, |host| {
                    let clock = host.clock(now);
                    if let Some(agent) = &mut host.agent {
                        agent.membership.handle_report(clock, report);
                    }
                });
            }
            // No scene configures anything at run time, or has somebody else decide.
            Effect::Shared { .. } | Effect::Decide(_) => {}
            Effect::Event(event) => self.trace(|| format!("{member} {event:?}")),
        }
    }

    fn kernel_op(&mut self, member: MemberId, op: KernelOp) {
        if let KernelOp::Own {
            request: KernelRequest::Install { child, .. },
            ..
        } = &op
        {
            self.check.installs(child);
        }
        self.trace(|| format!("{member} kernel: {}", describe(&op)));
        let now = self.now;
        self.on_host(member, |host| {
            let clock = host.clock(now);
            let result = host.kernel.perform(op);
            if let (Some(result), Some(agent)) = (result, &mut host.agent) {
                agent.node.handle_kernel(clock, result);
            }
        });
    }

    /// An IKE message leaves the agent, and the host if its fence lets it.
    fn ike_leaves(&mut self, member: MemberId, transmit: &Transmit) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&member) else {
            return;
        };
        let clock = host.clock(now);
        host.kernel.set_clock(clock);
        let reason = host
            .kernel
            .fence_ike(transmit.slot, transmit.path.remote.ip());
        if reason != Reason::FenceOwned {
            self.trace(|| format!("{member} {} IKE of {}", reason.as_str(), transmit.slot));
            return;
        }
        self.trace(|| {
            let message = Message::read(&transmit.bytes);
            format!("{member} -> {} {}", transmit.path.remote, summary(message))
        });
        self.check.ike_leaves(&member, &transmit.bytes);
        self.check_replicas(member, &transmit.bytes);
        let peer = self
            .peers
            .iter()
            .position(|peer| peer.party.path.local == transmit.path.remote);
        let Some(peer) = peer.filter(|_| self.net.public_passes(member)) else {
            return;
        };
        let copies = 1 + u8::from(self.rng.percent(self.plan.duplication));
        for _ in 0..copies {
            if let Some(delay) = self.public_hop() {
                let bytes = transmit.bytes.clone();
                self.after(delay, Event::IkeAtPeer { peer, bytes });
            }
        }
    }

    fn send_heartbeat(&mut self, from: MemberId, to: Sender, via: Via, datagram: &[u8]) {
        let octets: Arc<[u8]> = datagram.into();
        if self.rng.below(16) == 0 {
            self.check.in_clear("heartbeat", &octets);
        }
        let links: &[LinkId] = match &via {
            Via::All => &LINKS,
            Via::One(link) => std::slice::from_ref(link),
        };
        for link in links {
            let passes = match to {
                Sender::Member(to) => self.net.heartbeat_passes(from, to, link.0),
                Sender::Witness => self.net.witness_passes(from),
            };
            if !passes || (!self.calm && self.rng.percent(self.plan.heartbeat_loss)) {
                continue;
            }
            let delay = self.hop();
            let event = Event::Heartbeat {
                from: Sender::Member(from),
                to,
                link: *link,
                octets: Arc::clone(&octets),
            };
            self.after(delay, event);
        }
    }

    /// ARP on all interfaces.
    fn probe(&mut self, member: MemberId, other: MemberId) {
        let there = self.hosts.get(&other).is_some_and(|host| host.powered)
            && (self.net.heartbeat_passes(member, other, 0)
                && self.net.heartbeat_passes(other, member, 0)
                || self.net.heartbeat_passes(member, other, 1)
                    && self.net.heartbeat_passes(other, member, 1));
        let now = self.now;
        self.on_host(member, |host| {
            let clock = host.clock(now);
            if let Some(agent) = &mut host.agent {
                let result = ProbeResult {
                    member: other,
                    own_good: true,
                    answered: there,
                };
                agent.membership.handle_probe(clock, result);
            }
        });
    }
}

fn describe(op: &KernelOp) -> String {
    match op {
        KernelOp::Own { request, start } => match request {
            KernelRequest::Install { child, replaces } => format!(
                "install {:02x?} from {start}, replaces {:02x?}",
                child.spi_in,
                replaces.map(|r| r.spi_in)
            ),
            KernelRequest::Remove { child } => format!("remove {:02x?}", child.spi_in),
            KernelRequest::Promote { child } => format!("promote {:02x?}", child.spi_in),
            KernelRequest::Update { child } => format!("update {:02x?}", child.spi_in),
        },
        KernelOp::Copy { child, standing } => format!("copy {:02x?} {standing:?}", child.spi_in),
        KernelOp::MoveCopy {
            child, standing, ..
        } => format!("move {:02x?} {standing:?}", child.spi_in),
        KernelOp::Advance { child, to, .. } => format!("advance {:02x?} to {to}", child.spi_in),
        KernelOp::RemoveCopy(child) => format!("remove copy {:02x?}", child.spi_in),
    }
}

/// One line about an IKE message.
pub(super) fn summary(message: Option<Message>) -> String {
    let Some(message) = message else {
        return "no IKE message".into();
    };
    let exchange = match message.exchange {
        34 => "IKE_SA_INIT",
        35 => "IKE_AUTH",
        36 => "CREATE_CHILD_SA",
        37 => "INFORMATIONAL",
        _ => "?",
    };
    let kind = if message.response {
        "response"
    } else {
        "request"
    };
    let spi = |spi: [u8; 8]| format!("{:08x}", u64::from_be_bytes(spi) >> 32);
    format!(
        "{exchange} {kind} {} of {}/{}",
        message.id,
        spi(message.initiator),
        spi(message.responder)
    )
}
