//! What peers, kernels and members count, read without asking an agent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData, PerCpuArray};
use gateway_common::abi::{Counter, map};
use gateway_common::reason::{Program, Reason};

use super::charon::Charon;
use super::network::Network;
use super::node::Node;

/// One established IKE SA of charon's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSa {
    /// charon's number for it; a rekeyed SA has another.
    pub number: u32,
    /// Both SPIs, as charon prints them.
    pub spis: String,
}

impl Charon {
    /// The established IKE SAs by the name of their connection; several SAs of one connection are
    /// several entries.
    ///
    /// # Errors
    /// swanctl fails.
    pub fn ike_sas(&self) -> Result<BTreeMap<String, Vec<PeerSa>>> {
        Ok(parse_sas(&self.swanctl(&["--list-sas"])?))
    }

    /// ESP packets that charon's own ESP threw away as repeated (kernel-libipsec only).
    pub fn replays_refused(&self) -> u64 {
        let refused = |line: &&str| line.contains("sequence number verification failed");
        self.log().lines().filter(refused).count() as u64
    }
}

/// Lines such as `site-1: #3, ESTABLISHED, IKEv2, 0123456789abcdef_i* fedcba9876543210_r`.
fn parse_sas(text: &str) -> BTreeMap<String, Vec<PeerSa>> {
    let mut found: BTreeMap<String, Vec<PeerSa>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with(' ')) {
        let Some((name, rest)) = line.split_once(": #") else {
            continue;
        };
        let mut words = rest.split(", ");
        let (number, state) = (words.next(), words.next());
        let spis = words.nth(1).unwrap_or_default();
        if state == Some("ESTABLISHED")
            && let Some(number) = number.and_then(|number| number.parse().ok())
        {
            let spis = spis.to_owned();
            found
                .entry(name.to_owned())
                .or_default()
                .push(PeerSa { number, spis });
        }
    }
    found
}

/// The kernel's IPsec error counters of a node (`/proc/net/xfrm_stat`), those that are not zero.
/// Empty where the kernel has none.
///
/// # Errors
/// The file cannot be read although it is there.
pub fn xfrm_errors(node: &Node) -> Result<BTreeMap<String, u64>> {
    node.inside(|| {
        // The thread's own: /proc/net shows the namespace of the process.
        let file = Path::new("/proc/thread-self/net/xfrm_stat");
        if !file.exists() {
            return Ok(BTreeMap::new());
        }
        Ok(parse_counters(&std::fs::read_to_string(file)?))
    })
}

fn parse_counters(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines()
        .filter_map(pair)
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Packets that a node's kernel refused because of their sequence number: repeated, or beyond the
/// window; and those that failed authentication, which is what a wrong guess of the upper half of
/// an extended sequence number looks like.
///
/// # Errors
/// The counters cannot be read.
pub fn replay_drops(node: &Node) -> Result<u64> {
    let errors = xfrm_errors(node)?;
    let names = ["XfrmInStateSeqError", "XfrmInStateProtoError"];
    Ok(names.iter().filter_map(|name| errors.get(*name)).sum())
}

/// Packets that the outbound SAs of a node have produced, by SPI as `ip` prints it: what the
/// kernel encrypted, whether the fence let it out or not.
///
/// # Errors
/// `ip` fails.
pub fn produced(node: &Node, source: &str) -> Result<BTreeMap<String, u64>> {
    Ok(parse_states(
        &node.output("ip", &["-s", "xfrm", "state"])?,
        source,
    ))
}

/// The SAs whose source is `source`: SPI → packets of "lifetime current".
fn parse_states(text: &str, source: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let (mut ours, mut spi, mut current) = (false, String::new(), false);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["src", from, "dst", ..] if !line.starts_with(char::is_whitespace) => {
                ours = from == source;
            }
            ["proto", "esp", "spi", number, ..] => number.clone_into(&mut spi),
            ["lifetime", "current:"] => current = true,
            [_octets, packets] if current => {
                let packets = packets.trim_end_matches("(packets)").parse().unwrap_or(0);
                if ours {
                    found.insert(spi.clone(), packets);
                }
                current = false;
            }
            _ => {}
        }
    }
    found
}

/// How many frames each program of a member's data path ended with which reason, read from the
/// pinned map: a member whose agent is dead is still counting.
///
/// # Errors
/// The member has pinned no counters.
pub fn reasons(node: &Node) -> Result<BTreeMap<&'static str, u64>> {
    let array = pinned_counters(node)?;
    let mut found = BTreeMap::new();
    for reason in Reason::ALL {
        let packets: u64 = array
            .get(&reason.index(), 0)?
            .iter()
            .map(|one| one.packets)
            .sum();
        if packets > 0 {
            found.insert(reason.as_str(), packets);
        }
    }
    Ok(found)
}

/// The fence's part of [`reasons`].
///
/// # Errors
/// As for [`reasons`].
pub fn fence(node: &Node) -> Result<BTreeMap<&'static str, u64>> {
    let of_fence = |word: &str| {
        Reason::from_word(word).is_some_and(|reason| reason.program() == Program::Egress)
    };
    let mut all = reasons(node)?;
    all.retain(|word, _| of_fence(word));
    Ok(all)
}

/// What the kernels of the members, the peer and the inside host, and the members' fences refused
/// until now, a node a line: for the text of an error.
pub fn refusals(network: &Network) -> String {
    let line = |node: &Node| {
        let fence = fence(node).unwrap_or_default();
        match xfrm_errors(node) {
            Ok(errors) => format!("{}: {errors:?}, fence {fence:?}\n", node.name),
            Err(error) => format!("{}: {error:#}\n", node.name),
        }
    };
    let ends = [&network.peer, &network.host];
    network.members.iter().chain(ends).map(line).collect()
}

fn pinned_counters(node: &Node) -> Result<PerCpuArray<MapData, Counter>> {
    let pin = find_pin(node.bpf_dir().context("no BPF file system")?, map::STATS)?;
    let data = MapData::from_pin(&pin).with_context(|| pin.display().to_string())?;
    Ok(Map::PerCpuArray(data).try_into()?)
}

/// The pinned map or link `name` somewhere below `root`.
///
/// # Errors
/// There is none.
pub fn find_pin(root: &Path, name: &str) -> Result<PathBuf> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|file| file == name) {
                return Ok(path);
            }
        }
    }
    bail!("no pinned map {name} below {}", root.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charons_list() {
        let text = "site-1: #3, ESTABLISHED, IKEv2, 0123456789abcdef_i* fedcba9876543210_r\n  \
                    local  'site-1' @ 198.51.100.10[500]\n  net: #4, reqid 1, INSTALLED, TUNNEL, ESP:AES_GCM_16-128\n\
                    site-2: #5, CONNECTING, IKEv2, 0123456789abcdef_i* 0000000000000000_r\n";
        let found = parse_sas(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found["site-1"][0].number, 3);
        assert_eq!(
            found["site-1"][0].spis,
            "0123456789abcdef_i* fedcba9876543210_r"
        );
    }

    #[test]
    fn counters_that_are_not_zero() {
        let found = parse_counters("XfrmInError             \t0\nXfrmInStateSeqError     \t3\n");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("XfrmInStateSeqError".to_owned(), 3)]
        );
    }

    #[test]
    fn packets_of_outbound_states() {
        let text = "src 203.0.113.10 dst 198.51.100.10\n\tproto esp spi 0xc1a2b3c4(3248665540) reqid 7(0x7) mode tunnel\n\
                    \treplay-window 0 seq 0x00000000 flag af-unspec (0x00100000)\n\
                    \tlifetime config:\n\t  limit: soft (INF)(bytes), hard (INF)(bytes)\n\
                    \tlifetime current:\n\t  840(bytes), 10(packets)\n\t  add 2026-01-01 00:00:00 use -\n\
                    src 198.51.100.10 dst 203.0.113.10\n\tproto esp spi 0xc1a2b3c5(3248665541) reqid 7(0x7) mode tunnel\n\
                    \tlifetime current:\n\t  84(bytes), 1(packets)\n";
        let found = parse_states(text, "203.0.113.10");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("0xc1a2b3c4(3248665540)".to_owned(), 10)]
        );
    }
}
