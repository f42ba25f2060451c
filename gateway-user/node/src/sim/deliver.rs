//! Events: datagrams and packets on their way, traffic, the sync channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gateway_cluster::membership::Sender;
use gateway_cluster::network::Network;
use gateway_cluster::secret::Secret;
use gateway_common::abi::{Address, EspSaKey};
use gateway_common::member::MemberId;
use gateway_common::packet::{Direction, IkeHeader};
use gateway_common::route::route_ike;
use gateway_ike::output::Path;

use super::esp::Packet;
use super::event::Event;
use super::host::{Input, NodeInput};
use super::world::{VIP, World, peer_address};

impl World {
    /// Lets one thing happen, and what follows from it at once.
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::AgentTimer { member, run } => self.agent_timer(member, run),
            Event::Resume { member, run } => self.resume(member, run),
            Event::Start { member } => self.start(member),
            Event::IkeAtMember {
                member,
                path,
                bytes,
                hops,
            } => self.ike_at_member(member, path, bytes, hops),
            Event::IkeAtPeer { peer, bytes } => {
                let now = self.now;
                self.peers[peer].handle_datagram(now, &bytes);
                self.after_peer(peer);
            }
            Event::EspAtMember {
                member,
                peer,
                packet,
                hops,
            } => self.esp_at_member(member, peer, packet, hops),
            Event::EspAtPeer { peer, packet } => self.peers[peer].decrypt(&packet),
            Event::ClearAtMember {
                member,
                peer,
                count,
                hops,
            } => self.clear_at_member(member, peer, count, hops),
            Event::Heartbeat {
                from,
                to,
                link,
                octets,
            } => match to {
                Sender::Member(to) => self.input(to, Input::Heartbeat { from, link, octets }),
                Sender::Witness => self.at_witness(from, link, &octets),
            },
            Event::Frame {
                from,
                to,
                connection,
                frame,
            } => self.frame_arrives(from, to, connection, frame),
            Event::Retry {
                from,
                to,
                connection,
            } => self.deliver_waiting(from, to, connection),
            Event::Dial { a, b } => self.dial(a, b),
            Event::Hangup {
                member,
                other,
                connection,
            } => {
                // The end of one that was replaced means nothing any more.
                if self.net.connection(member, other) <= Some(connection) {
                    self.input(member, Input::Node(NodeInput::Disconnected(other)));
                }
            }
            Event::PeerTimer { peer } => {
                let now = self.now;
                self.peers[peer].handle_timeout(now);
                self.after_peer(peer);
            }
            Event::PeerActs { peer } => self.peer_acts(peer),
            Event::Traffic { peer } => self.traffic(peer),
            Event::Junk => self.junk(),
            Event::Fault(fault) => self.fault(fault),
            Event::Heal(cut) => {
                self.trace(|| format!("cut {} heals", cut.number));
                self.net.heal(cut.number);
            }
            Event::Undrain { member } => {
                use gateway_cluster::membership::Command;
                self.input(member, Input::Membership(Command::Undrain));
            }
        }
    }

    /// Sends what a peer wants to send, to any member, and sets its timer.
    pub(super) fn after_peer(&mut self, peer: usize) {
        let path = self.peers[peer].party.path;
        for bytes in std::mem::take(&mut self.peers[peer].out) {
            self.check.in_clear("IKE of a peer", &bytes);
            self.capture(&bytes);
            self.trace(|| {
                let message = super::check::Message::read(&bytes);
                format!("peer {peer} -> {}", super::agent::summary(message))
            });
            let copies = 1 + u8::from(self.rng.percent(self.plan.duplication));
            for _ in 0..copies {
                let reachable = self.reachable();
                let (Some(member), Some(delay)) = (self.rng.pick(&reachable), self.public_hop())
                else {
                    continue;
                };
                let event = Event::IkeAtMember {
                    member,
                    path: Path::new(path.remote, path.local),
                    bytes: bytes.clone(),
                    hops: 0,
                };
                self.after(delay, event);
            }
        }
        for reason in std::mem::take(&mut self.peers[peer].closed) {
            self.trace(|| format!("peer {peer}: IKE SA closed: {reason}"));
        }
        if let Some(at) = self.peers[peer].poll_timeout() {
            // Stale timers do nothing; this one may come twice.
            self.at(
                at.max(self.now + Duration::from_micros(50)),
                Event::PeerTimer { peer },
            );
        }
    }

    fn ike_at_member(&mut self, member: MemberId, path: Path, bytes: Vec<u8>, hops: u8) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&member).filter(|host| host.powered) else {
            return;
        };
        let clock = host.clock(now);
        host.kernel.set_clock(clock);
        // gateway_ingress; what came over the sync network is never forwarded on.
        let elsewhere = IkeHeader::parse(&bytes)
            .ok()
            .filter(|_| hops == 0)
            .and_then(|header| {
                let remote = Address::from(path.remote.ip());
                let route = route_ike(&header, &remote, Direction::Received, &host.kernel);
                let owner = u8::try_from(route.member).ok().and_then(MemberId::new)?;
                (owner != member && host.kernel.alive.contains(&owner)).then_some(owner)
            });
        match elsewhere {
            Some(owner) => {
                let event = Event::IkeAtMember {
                    member: owner,
                    path,
                    bytes,
                    hops: 1,
                };
                self.redirect(member, owner, event);
            }
            None => self.input(member, Input::Node(NodeInput::Datagram { path, bytes })),
        }
    }

    /// A frame that XDP sends to another member.
    fn redirect(&mut self, from: MemberId, to: MemberId, event: Event) {
        if self.net.sync_passes(from, to) {
            let delay = self.hop();
            self.after(delay, event);
        }
    }

    fn esp_at_member(&mut self, member: MemberId, peer: usize, packet: Packet, hops: u8) {
        let Some(host) = self.hosts.get_mut(&member).filter(|host| host.powered) else {
            return;
        };
        let key = EspSaKey {
            spi: packet.spi,
            vip: VIP.into(),
        };
        match host.kernel.steer_esp(&key).filter(|_| hops == 0) {
            Some(owner) => {
                let event = Event::EspAtMember {
                    member: owner,
                    peer,
                    packet,
                    hops: 1,
                };
                self.redirect(member, owner, event);
            }
            None => {
                host.kernel.decrypt(VIP, &packet);
                self.kernel_events(member);
            }
        }
    }

    fn clear_at_member(&mut self, member: MemberId, peer: usize, count: u64, hops: u8) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&member).filter(|host| host.powered) else {
            return;
        };
        let clock = host.clock(now);
        host.kernel.set_clock(clock);
        let net = self.peers[peer].party.local_ts.start;
        let net = Network::new(0, net, 24).map(|net| net.key());
        let owner = net.and_then(|net| host.kernel.steer_clear(&net));
        match owner.filter(|_| hops == 0) {
            Some(owner) => {
                let event = Event::ClearAtMember {
                    member: owner,
                    peer,
                    count,
                    hops: 1,
                };
                self.redirect(member, owner, event);
            }
            None => self.encrypt(member, peer, count),
        }
    }

    /// The kernel encrypts and the fence decides; the agent has no part in it.
    pub(super) fn encrypt(&mut self, member: MemberId, peer: usize, count: u64) {
        let address = peer_address(u8::try_from(peer).unwrap_or(0));
        let Some(host) = self.hosts.get_mut(&member) else {
            return;
        };
        let packet = host.kernel.encrypt(address, count);
        if let Some(packet) = packet {
            self.trace(|| {
                let (spi, first, last) = (packet.spi, packet.first, packet.last);
                format!("{member} ESP {spi:02x?} {first}..={last}")
            });
            self.check.esp_leaves(&member, &packet);
            if self.net.public_passes(member)
                && let Some(delay) = self.public_hop()
            {
                self.after(delay, Event::EspAtPeer { peer, packet });
            }
        }
        self.kernel_events(member);
    }

    fn kernel_events(&mut self, member: MemberId) {
        let Some(host) = self
            .hosts
            .get_mut(&member)
            .filter(|host| host.agent.is_some())
        else {
            return;
        };
        for event in host.kernel.events() {
            self.trace(|| format!("{member} kernel says {event:?}"));
            self.input(member, Input::Node(NodeInput::Kernel(event)));
        }
    }

    /// Packets both ways, mostly few, sometimes very many.
    fn traffic(&mut self, peer: usize) {
        let count = match self.rng.below(20) {
            _ if self.heavy => self.rng.between(8_000, 16_000),
            0 => self.rng.between(2_000, 9_000),
            1..=4 => self.rng.between(100, 1_500),
            _ => self.rng.between(1, 8),
        };
        let reachable = self.reachable();
        if let Some(member) = self.rng.pick(&reachable) {
            // Some of it the member makes itself, behind the steering.
            let hops = u8::from(self.rng.percent(15));
            let event = Event::ClearAtMember {
                member,
                peer,
                count,
                hops,
            };
            self.handle(event);
        }
        if let (Some(packet), Some(member), Some(delay)) = (
            self.peers[peer].encrypt(count),
            self.rng.pick(&reachable),
            self.public_hop(),
        ) {
            let event = Event::EspAtMember {
                member,
                peer,
                packet,
                hops: 0,
            };
            self.after(delay, event);
        }
        let pause = self.rng.millis(10, 120);
        self.after(pause, Event::Traffic { peer });
    }

    /// A frame for the sync channel. One that has no connection is lost with it.
    pub(super) fn send_frame(&mut self, from: MemberId, to: MemberId, frame: Arc<Secret>) {
        let Some(connection) = self.net.connection(from, to) else {
            return;
        };
        let delay = Duration::from_micros(200);
        let event = Event::Frame {
            from,
            to,
            connection,
            frame,
        };
        self.after(delay, event);
    }

    fn frame_arrives(&mut self, from: MemberId, to: MemberId, connection: u64, frame: Arc<Secret>) {
        if self.net.connection(from, to) != Some(connection) {
            return;
        }
        let waiting = self.net.waiting.entry((from, to)).or_default();
        waiting.push_back(frame);
        // What waits is tried again by itself.
        if waiting.len() == 1 {
            self.deliver_waiting(from, to, connection);
        }
    }

    /// The transport goes on trying, in order, as long as the connection stands.
    fn deliver_waiting(&mut self, from: MemberId, to: MemberId, connection: u64) {
        while self.net.connection(from, to) == Some(connection) {
            if !(self.net.sync_passes(from, to) && self.net.sync_passes(to, from)) {
                let event = Event::Retry {
                    from,
                    to,
                    connection,
                };
                return self.after(Duration::from_millis(20), event);
            }
            let waiting = self.net.waiting.get_mut(&(from, to));
            let Some(frame) = waiting.and_then(VecDeque::pop_front) else {
                return;
            };
            self.input(to, Input::Node(NodeInput::Frame { from, frame }));
        }
    }

    fn dial(&mut self, a: MemberId, b: MemberId) {
        let up = |world: &Self, m| {
            let host = world.hosts.get(&m);
            host.is_some_and(|h| h.powered && h.agent.is_some() && h.paused.is_none())
        };
        if self.net.connection(a, b).is_some() {
            return;
        }
        if !(up(self, a) && up(self, b) && self.net.sync_passes(a, b) && self.net.sync_passes(b, a))
        {
            // A host that is off is dialled when it starts.
            if self.hosts.get(&a).is_some_and(|host| host.agent.is_some()) {
                let pause = self.rng.millis(50, 150);
                self.after(pause, Event::Dial { a, b });
            }
            return;
        }
        self.net.connect(a, b);
        self.trace(|| format!("sync {a}-{b} connected"));
        self.input(a, Input::Node(NodeInput::Connected(b)));
        self.input(b, Input::Node(NodeInput::Connected(a)));
    }

    /// `member` closes its connection to `other`.
    pub(super) fn hang_up(&mut self, member: MemberId, other: MemberId) {
        let Some(connection) = self.net.disconnect(member, other) else {
            return;
        };
        self.trace(|| format!("sync {member}-{other} closed by {member}"));
        let delay = self.hop();
        self.after(
            delay,
            Event::Hangup {
                member: other,
                other: member,
                connection,
            },
        );
        let event = Event::Hangup {
            member,
            other,
            connection,
        };
        self.after(delay, event);
        let pause = self.rng.millis(50, 150);
        self.after(
            pause,
            Event::Dial {
                a: member,
                b: other,
            },
        );
    }
}
