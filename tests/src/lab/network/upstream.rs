//! Whom the router and the inside host send to.

use anyhow::Result;

use super::{Network, VIP, VIP6, inside_address, public_address};

/// How the router chooses a member for a packet to the VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spray {
    /// ECMP by the layer-4 flow: what a real router does.
    Flow,
    /// The next member for every packet, in turn.
    PerPacket,
    /// Always this member (1-based).
    Only(u8),
}

impl Network {
    /// Changes how the router distributes. Marks are set before the routing decision, packet by
    /// packet, and no flow is tracked, so nothing is cached.
    ///
    /// # Errors
    /// nft refuses the rules.
    pub fn spray(&self, spray: Spray) -> Result<()> {
        match spray {
            Spray::Flow => self.mark(None),
            Spray::PerPacket => self.spray_among(&(1..=self.plan.members).collect::<Vec<_>>()),
            Spray::Only(member) => self.spray_among(&[member]),
        }
    }

    /// The next of these members for every packet, in turn: what [`Spray::PerPacket`] does when
    /// the router has withdrawn the others.
    ///
    /// # Errors
    /// nft refuses the rules.
    pub fn spray_among(&self, members: &[u8]) -> Result<()> {
        let map: Vec<String> = members
            .iter()
            .enumerate()
            .map(|(turn, id)| format!("{turn} : {id}"))
            .collect();
        self.mark(Some(&format!(
            "numgen inc mod {} map {{ {} }}",
            members.len(),
            map.join(", ")
        )))
    }

    fn mark(&self, mark: Option<&str>) -> Result<()> {
        let rule = mark.map_or(String::new(), |mark| {
            format!(
                "iifname \"outside\" ip daddr {VIP} meta mark set {mark}\n\
                 iifname \"outside\" ip6 daddr {VIP6} meta mark set {mark}"
            )
        });
        self.router.nft(&format!(
            "table inet spray {{}}\ndelete table inet spray\ntable inet spray {{\n\
             chain pre {{ type filter hook prerouting priority mangle;\n{rule}\n}}\n}}"
        ))
    }

    /// Gives the router equal-cost routes to the VIP through these members, by flow. On a shared
    /// segment there is nothing to do: there the VIP is an on-link address.
    ///
    /// # Errors
    /// A route cannot be set.
    pub fn upstream(&self, members: &[u8]) -> Result<()> {
        self.mark(None)?;
        if self.plan.segment {
            return Ok(());
        }
        let hops = |via: &dyn Fn(u8) -> String| -> String {
            members
                .iter()
                .map(|id| format!(" nexthop via {}", via(*id)))
                .collect()
        };
        let v4 = hops(&|id| public_address(id).to_string());
        let v6 = hops(&|id| format!("2001:db8:2:{id}::2"));
        self.router.ip(&format!(
            "route replace {VIP}{v4}\n-6 route replace {VIP6}{v6}"
        ))
    }

    /// Takes the router's routes to the VIPs away: a routing daemon is to bring them.
    ///
    /// # Errors
    /// They cannot be taken away.
    pub fn no_upstream(&self) -> Result<()> {
        self.mark(None)?;
        self.router.ip(&format!(
            "route flush exact {VIP}/32\n-6 route flush exact {VIP6}/128"
        ))
    }

    /// Makes the inside host spread what goes to the networks behind the peer over these members.
    ///
    /// # Errors
    /// The route cannot be set.
    pub fn inside_among(&self, members: &[u8]) -> Result<()> {
        let hops: String = members
            .iter()
            .map(|id| format!(" nexthop via {}", inside_address(*id)))
            .collect();
        self.host.ip(&format!("route replace 10.2.0.0/16{hops}"))
    }

    /// Makes the inside host use one member (1-based) for the networks behind the peer.
    ///
    /// # Errors
    /// The route cannot be set.
    pub fn inside_via(&self, member: u8) -> Result<()> {
        self.inside_among(&[member])
    }

    /// Makes what comes from [`super::INSIDE_PUSHER`] enter this member, whatever the others do.
    ///
    /// # Errors
    /// The rule cannot be set.
    pub fn push_via(&self, member: u8) -> Result<()> {
        self.host.ip(&format!(
            "route replace 10.2.0.0/16 via {} table 77\nrule add from {} lookup 77 priority 77",
            inside_address(member),
            super::INSIDE_PUSHER
        ))
    }
}
