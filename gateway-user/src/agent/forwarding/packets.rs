//! Steps with a given packet.

use std::net::{IpAddr, SocketAddr};

use data_encoding::HEXLOWER_PERMISSIVE;
use gateway_cluster::route::{Origin, Route};
use gateway_common::member::MemberId;
use gateway_common::packet::{Direction, IkeHeader};
use gateway_common::route::Via;
use gateway_ike::output::Path;

use super::{precondition, table};
use crate::agent::Agent;
use crate::agent::live::{Live, frame, ike_of};
use crate::agent::pages::{hex, invalid};
use crate::agent::socket::{IKE_PORT, NAT_T_PORT};
use crate::api::model::{Classified, Handled, Injected, Packet, Refusal, Resolved};
use crate::clock;
use crate::config::Mode;

impl Agent {
    /// What the data path does with a packet.
    pub(super) fn classify_packet(&self, packet: &Packet) -> Result<Classified, Refusal> {
        let frame = self.frame_of(packet)?;
        let tables = self.steering.tables();
        let vips = &self.config.cluster.vips;
        let lease = self.membership.lease();
        let live = Live::new(tables.as_ref(), vips, lease, clock::now()).map_err(table)?;
        let outcome = live.ingress(&frame).map_err(table)?;
        Ok(Classified {
            reason: outcome.reason.as_str().into(),
            action: outcome.action.into(),
            cluster_peer: outcome.member.and_then(|member| self.sync_address(member)),
            local: outcome.member == Some(self.config.cluster.local),
            steps: outcome.steps,
        })
    }

    /// Cookie, message id and member of an IKE packet.
    pub(super) fn resolve_cookie(&self, packet: &Packet) -> Result<Resolved, Refusal> {
        if self.config.cluster.mode != Mode::LoadSharing {
            return Err(precondition(
                "load_sharing_mode: this cluster is in High Availability mode, use ha-ownership",
            ));
        }
        let frame = self.frame_of(packet)?;
        let (header, peer) =
            ike_of(&frame).ok_or_else(|| invalid("the packet is no IKE message".into()))?;
        let tables = self.steering.tables();
        let vips = &self.config.cluster.vips;
        let lease = self.membership.lease();
        let live = Live::new(tables.as_ref(), vips, lease, clock::now()).map_err(table)?;
        let route = live.route(&header, peer).map_err(table)?;
        let ours = header.our_cookie(Direction::Received);
        let member = u8::try_from(route.member).ok().and_then(MemberId::new);
        Ok(Resolved {
            cookie: hex(ours.unwrap_or(header.initiator)),
            message_id: u32::from_be_bytes(header.message_id),
            ours: ours.is_some(),
            phase: if header.opens() { 1 } else { 2 },
            slot: route.slot.0,
            via: match route.via {
                Via::Sa => "IKE_SA",
                Via::Negotiation => "SEP_my_IKE_packet",
                Via::Decision => "decision-function",
            }
            .into(),
            cluster_peer: member.and_then(|member| self.sync_address(member)),
        })
    }

    /// Gives a packet of this member's to its engine.
    pub(super) fn handle_locally(&mut self, wish: &Injected) -> Result<Handled, Refusal> {
        let (path, message, route) = self.route_injected(wish)?;
        let local = self.config.cluster.local;
        match route {
            Route::Local => Ok(self.inject(wish, path, &message, local)),
            Route::Relay(owner) => Err(precondition(format!(
                "local_member_ownership: this packet is member {}'s, use remote-forward",
                owner.get()
            ))),
            Route::Drop => Err(precondition(
                "local_member_ownership: nobody who can be reached serves this packet",
            )),
        }
    }

    /// Relays a packet of another member's to it.
    pub(super) fn forward_remotely(&mut self, wish: &Injected) -> Result<Handled, Refusal> {
        let (path, message, route) = self.route_injected(wish)?;
        match route {
            Route::Relay(owner) => Ok(self.inject(wish, path, &message, owner)),
            Route::Local => Err(precondition(
                "remote_member_ownership: this packet is this member's own, use local-handling",
            )),
            Route::Drop => Err(precondition(
                "remote_member_ownership: nobody who can be reached serves this packet",
            )),
        }
    }

    /// The same way as a datagram from the network.
    fn inject(&mut self, wish: &Injected, path: Path, message: &[u8], member: MemberId) -> Handled {
        if !wish.dry_run {
            self.node.handle_datagram(clock::now(), path, message);
            self.carry_out();
        }
        Handled {
            cluster_member_ip: self.sync_address(member).unwrap_or_default(),
            dry_run: wish.dry_run,
        }
    }

    fn route_injected(&self, wish: &Injected) -> Result<(Path, Vec<u8>, Route), Refusal> {
        let message = octets("message", &wish.message)?;
        let header = IkeHeader::parse(&message)
            .map_err(|error| invalid(format!("the message is {error}")))?;
        if wish.destination_port != IKE_PORT && wish.destination_port != NAT_T_PORT {
            return Err(invalid(format!(
                "destination_port is {}, not 500 or 4500",
                wish.destination_port
            )));
        }
        if wish.source_port == 0 {
            return Err(invalid("source_port is 0".into()));
        }
        let vip = self.vip(wish.source, wish.destination)?;
        let path = Path::new(
            SocketAddr::new(vip, wish.destination_port),
            SocketAddr::new(wish.source, wish.source_port),
        );
        let cluster = self.node.cluster();
        let lease = self.membership.lease();
        let route = cluster.route(&header, wish.source, Origin::Network, clock::now(), lease);
        Ok((path, message, route))
    }

    /// The frame of a packet, made up if only its message is given.
    pub(in crate::agent) fn frame_of(&self, packet: &Packet) -> Result<Vec<u8>, Refusal> {
        match packet {
            Packet {
                frame: Some(text),
                message: None,
                source: None,
                destination: None,
            } => octets("frame", text),
            Packet {
                frame: None,
                message: Some(text),
                source: Some(source),
                destination,
            } => {
                let message = octets("message", text)?;
                let vip = self.vip(*source, *destination)?;
                frame(&message, *source, vip, self.own_mac()?)
                    .ok_or_else(|| invalid("the message is too long for a packet".into()))
            }
            _ => Err(invalid(
                "either `frame` alone, or `message` with `source` and maybe `destination`".into(),
            )),
        }
    }

    pub(in crate::agent) fn vip(
        &self,
        source: IpAddr,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, Refusal> {
        let mut vips = self.config.cluster.vips.iter().copied();
        let family = |vip: &IpAddr| vip.is_ipv4() == source.is_ipv4();
        let found = vips.find(|vip| family(vip) && wanted.is_none_or(|wanted| wanted == *vip));
        found.ok_or_else(|| match wanted {
            Some(wanted) => invalid(format!(
                "{wanted} is no VIP of this cluster, or not of the family of {source}"
            )),
            None => invalid(format!("this cluster has no VIP of the family of {source}")),
        })
    }
}

fn octets(name: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    let decoded = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    decoded.map_err(|_| {
        invalid(format!(
            "`{name}` is not in hexadecimal digits, two an octet"
        ))
    })
}
