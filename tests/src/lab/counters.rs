//! Counting packets at the router, independently of what the members claim.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::network::{Network, VIP, VIP6};
use super::node::Node;

/// What the router sent to one member for the VIP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// IKE: UDP port 500, and 4500 with the non-ESP marker.
    pub ike: u64,
    /// ESP, native and in UDP.
    pub esp: u64,
}

impl Network {
    /// Starts counting what goes to each member, from zero.
    ///
    /// # Errors
    /// nft refuses the rules.
    pub fn count_at_router(&self) -> Result<()> {
        let mut counters = String::new();
        let mut rules = String::new();
        for id in 1..=self.plan.members {
            counters += &format!("counter ike{id} {{}}\ncounter esp{id} {{}}\n");
            for vip in [format!("ip daddr {VIP}"), format!("ip6 daddr {VIP6}")] {
                let to = format!("oifname \"m{id}\" {vip}");
                // The 32 bits behind the UDP header: zero is the non-ESP marker (RFC 3948 §2.2).
                rules += &format!(
                    "{to} udp dport 500 counter name ike{id}\n\
                     {to} udp dport 4500 @th,64,32 0 counter name ike{id}\n\
                     {to} udp dport 4500 udp length > 12 @th,64,32 != 0 counter name esp{id}\n\
                     {to} meta l4proto esp counter name esp{id}\n"
                );
            }
        }
        self.router.nft(&format!(
            "table inet count {{}}\ndelete table inet count\ntable inet count {{\n{counters}\
             chain post {{ type filter hook postrouting priority 0;\n{rules}\n}}\n}}"
        ))
    }

    /// What was counted since, by member, the first member first.
    ///
    /// # Errors
    /// nft fails, or nothing is being counted.
    pub fn sent_to_members(&self) -> Result<Vec<Sent>> {
        let packets = packets_counted(&self.router, "count")?;
        sent(&packets, self.plan.members)
    }
}

/// What the named counters of a node's table of family inet say, in packets.
///
/// # Errors
/// nft fails, or there is no such table.
pub fn packets_counted(node: &Node, table: &str) -> Result<BTreeMap<String, u64>> {
    let args = ["-j", "list", "counters", "table", "inet", table];
    parse(&node.output("nft", &args)?)
}

fn parse(text: &str) -> Result<BTreeMap<String, u64>> {
    let listing: Value = serde_json::from_str(text).context("nft's listing")?;
    let entries = listing["nftables"]
        .as_array()
        .context("nft's listing has no entries")?;
    let counters = entries.iter().filter_map(|entry| {
        let counter = &entry["counter"];
        Some((
            counter["name"].as_str()?.to_owned(),
            counter["packets"].as_u64()?,
        ))
    });
    Ok(counters.collect())
}

fn sent(packets: &BTreeMap<String, u64>, members: u8) -> Result<Vec<Sent>> {
    let counted = |name: String| {
        let packets = packets.get(&name).copied();
        packets.with_context(|| format!("nft lists no counter {name}"))
    };
    (1..=members)
        .map(|id| {
            Ok(Sent {
                ike: counted(format!("ike{id}"))?,
                esp: counted(format!("esp{id}"))?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing() {
        let text = r#"{"nftables": [{"metainfo": {}}, {"counter": {"name": "ike1", "packets": 7}},
                       {"counter": {"name": "esp1", "packets": 2}}]}"#;
        let packets = parse(text).unwrap();
        assert_eq!(sent(&packets, 1).unwrap(), [Sent { ike: 7, esp: 2 }]);
        assert!(sent(&packets, 2).is_err());
    }
}
