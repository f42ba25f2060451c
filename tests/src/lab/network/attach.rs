//! Plugging members in and pulling them out.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::super::node::Node;
use super::super::run::Run;
use super::{
    BASICS, FORWARDING, Network, ROUTER_SEGMENT, VIP, VIP6, Veth, connect, inside_address,
    public_address, segment_address, sync_address,
};

impl Network {
    /// The node of a member (1-based).
    ///
    /// # Errors
    /// There is no such member.
    pub fn member(&self, id: u8) -> Result<&Node> {
        let node = usize::from(id)
            .checked_sub(1)
            .and_then(|index| self.members.get(index));
        node.with_context(|| format!("there is no member {id}"))
    }

    /// What a member is set to before it has links.
    pub(super) fn prepare_member(&self, id: u8) -> Result<()> {
        let member = self.member(id)?;
        member.sysctl(BASICS)?;
        member.sysctl(FORWARDING)?;
        // What the pre-flight of the agent demands: no member may claim the VIP by ARP, unless it
        // has it on its public interface.
        member.sysctl(&[
            "net.ipv4.conf.all.arp_ignore=1",
            "net.ipv4.conf.default.arp_ignore=1",
            "net.ipv4.conf.all.arp_announce=2",
            "net.ipv4.conf.default.arp_announce=2",
        ])
    }

    /// A member's links.
    pub(super) fn member_cables(&self, id: u8) -> Result<Vec<Veth<'_>>> {
        let member = self.member(id)?;
        let name = &member.name;
        let public = if self.plan.segment {
            Veth::new(member, "eth0", &self.switch, &format!("p-{name}"))
        } else {
            Veth::new(member, "eth0", &self.router, name)
        };
        Ok(vec![
            Veth::new(member, "eth1", &self.switch, &format!("s-{name}")),
            Veth::new(member, "eth2", &self.switch, &format!("i-{name}")),
            public,
        ])
    }

    /// Addresses and routes of one member. The routes by which the router reaches the VIP
    /// through it alone are made here; who is used is [`Network::upstream`]'s business.
    pub(super) fn configure_member(&self, id: u8) -> Result<()> {
        let member = self.member(id)?;
        let name = &member.name;
        self.switch.ip(&format!(
            "link set s-{name} master sync\nlink set i-{name} master inside"
        ))?;
        member.ip(&format!(
            "addr add {}/24 dev eth1\naddr add {}/16 dev eth2",
            sync_address(id),
            inside_address(id)
        ))?;
        if self.plan.segment {
            self.join_segment(id, member)
        } else {
            self.own_link(id, member)
        }
    }

    fn join_segment(&self, id: u8, member: &Node) -> Result<()> {
        let name = &member.name;
        self.switch
            .ip(&format!("link set p-{name} master public"))?;
        member.ip(&format!(
            "addr add {}/24 dev eth0\naddr add 2001:db8:1::{}/64 dev eth0 nodad\n\
             route add default via {ROUTER_SEGMENT}\n-6 route add default via 2001:db8:1::1",
            segment_address(id),
            100 + u16::from(id),
        ))
    }

    fn own_link(&self, id: u8, member: &Node) -> Result<()> {
        let name = &member.name;
        let (public, router) = (public_address(id), Ipv4Addr::new(192, 0, 2, 4 * id + 1));
        member.ip(&format!(
            "addr add {public}/30 dev eth0\naddr add 2001:db8:2:{id}::2/64 dev eth0 nodad\n\
             route add default via {router}\n-6 route add default via 2001:db8:2:{id}::1"
        ))?;
        let table = 100 + u16::from(id);
        self.router.ip(&format!(
            "addr add {router}/30 dev {name}\naddr add 2001:db8:2:{id}::1/64 dev {name} nodad\n\
             route replace {VIP} via {public} table {table}\n\
             -6 route replace {VIP6} via 2001:db8:2:{id}::2 table {table}"
        ))?;
        // A member that is replaced finds the rules of its predecessor.
        for line in [
            format!("rule add fwmark {id} lookup {table} priority {table}"),
            format!("-6 rule add fwmark {id} lookup {table} priority {table}"),
        ] {
            if let Err(error) = self.router.ip(&line)
                && !format!("{error:#}").contains("File exists")
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// A host that belongs to nobody, on the sync network or on the inside network.
    ///
    /// # Errors
    /// Its namespace or link cannot be made.
    pub fn stranger(&self, run: &Run, which: Cable, address: Ipv4Addr) -> Result<Node> {
        self.host_on(run, "x", which, address)
    }

    /// One more host on the sync network or on the inside network.
    ///
    /// # Errors
    /// Its namespace or link cannot be made.
    pub fn host_on(&self, run: &Run, name: &str, which: Cable, address: Ipv4Addr) -> Result<Node> {
        let node = Node::new(run, name)?;
        let (bridge, length) = match which {
            Cable::Sync => ("sync", 24),
            Cable::Inside => ("inside", 16),
            Cable::Public => ("public", 24),
        };
        connect(&[Veth::new(&node, "eth0", &self.switch, name)])?;
        self.switch
            .ip(&format!("link set {name} master {bridge}"))?;
        node.ip(&format!("addr add {address}/{length} dev eth0"))?;
        Ok(node)
    }

    /// Pulls every cable of a member at once, as a host that loses power does. Its processes, if
    /// any still run, talk to nobody from here on.
    ///
    /// # Errors
    /// The links cannot be deleted.
    pub fn unplug(&self, id: u8) -> Result<()> {
        self.member(id)?
            .ip("link del eth0\nlink del eth1\nlink del eth2")
    }

    /// A new host in the place of a member that was unplugged: empty folders, new links with new
    /// Ethernet addresses, the old IP addresses.
    ///
    /// # Errors
    /// The namespace cannot be made.
    pub fn replace(&mut self, run: &Run, id: u8, generation: u32) -> Result<()> {
        let name = format!("m{id}");
        let node = Node::another(run, &name, generation)?;
        let node = node.with_bpffs(run)?;
        let index = usize::from(id)
            .checked_sub(1)
            .context("members count from 1")?;
        *self
            .members
            .get_mut(index)
            .with_context(|| format!("there is no member {id}"))? = node;
        self.prepare_member(id)?;
        connect(&self.member_cables(id)?)?;
        self.configure_member(id)
    }

    /// Cuts or mends a member's cable: `public`, `sync` or `inside`. Both ends lose their carrier.
    ///
    /// # Errors
    /// There is no such cable.
    pub fn cable(&self, id: u8, which: Cable, up: bool) -> Result<()> {
        let name = &self.member(id)?.name;
        let word = if up { "up" } else { "down" };
        let far = match which {
            Cable::Public if !self.plan.segment => {
                self.router.ip(&format!("link set {name} {word}"))?;
                // The router forgets the routes of a link that went down.
                return if up { self.restore_routes(id) } else { Ok(()) };
            }
            Cable::Public => format!("p-{name}"),
            Cable::Sync => format!("s-{name}"),
            Cable::Inside => format!("i-{name}"),
        };
        self.switch.ip(&format!("link set {far} {word}"))
    }

    /// Divides the members, or joins them again: none reaches another one over any network, and router,
    /// inside host and peers reach all of them.
    ///
    /// # Errors
    /// A bridge or the router refuses it.
    pub fn divide(&self, divided: bool) -> Result<()> {
        let word = if divided { "on" } else { "off" };
        for member in &self.members {
            let name = &member.name;
            // Isolated ports of a bridge reach only those that are not.
            self.switch.ip(&format!(
                "link set s-{name} type bridge_slave isolated {word}\n\
                 link set i-{name} type bridge_slave isolated {word}"
            ))?;
        }
        let rule = match divided {
            true => "ip saddr 192.0.2.0/24 ip daddr 192.0.2.0/24 drop",
            false => "",
        };
        self.router.nft(&format!(
            "table inet divided {{}}\ndelete table inet divided\ntable inet divided {{\n\
             chain forward {{ type filter hook forward priority 0;\n{rule}\n}}\n}}"
        ))
    }

    fn restore_routes(&self, id: u8) -> Result<()> {
        let name = &self.member(id)?.name;
        let table = 100 + u16::from(id);
        self.router.ip(&format!(
            "route replace {VIP} via {} table {table}\n\
             -6 addr replace 2001:db8:2:{id}::1/64 dev {name} nodad\n\
             -6 route replace {VIP6} via 2001:db8:2:{id}::2 table {table}",
            public_address(id)
        ))
    }
}

/// One of a member's cables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// Towards the router.
    Public,
    /// Towards the other members.
    Sync,
    /// Towards the inside host.
    Inside,
}
