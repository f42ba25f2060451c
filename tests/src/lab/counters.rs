//! Counting packets at the router, independently of what the members claim.

use anyhow::{Context, Result};
use serde_json::Value;

use super::network::{Network, VIP, VIP6};

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
        let text = self
            .router
            .output("nft", &["-j", "list", "counters", "table", "inet", "count"])?;
        parse(&text, self.plan.members)
    }
}

fn parse(text: &str, members: u8) -> Result<Vec<Sent>> {
    let listing: Value = serde_json::from_str(text).context("nft's listing")?;
    let entries = listing["nftables"]
        .as_array()
        .context("nft's listing has no entries")?;
    let packets = |name: String| {
        entries
            .iter()
            .map(|entry| &entry["counter"])
            .find(|counter| counter["name"].as_str() == Some(&name))
            .and_then(|counter| counter["packets"].as_u64())
            .with_context(|| format!("nft lists no counter {name}"))
    };
    (1..=members)
        .map(|id| {
            Ok(Sent {
                ike: packets(format!("ike{id}"))?,
                esp: packets(format!("esp{id}"))?,
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
        assert_eq!(parse(text, 1).unwrap(), [Sent { ike: 7, esp: 2 }]);
        assert!(parse(text, 2).is_err());
    }
}
