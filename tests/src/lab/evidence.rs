//! What captures prove: judgements over everything that all taps saw.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result};

use super::network::{Network, VIP, VIP6};
use super::node::Node;
use super::tap::{IKE_SA_INIT, Moment, Seen, Tap, What};

/// The captures of a run: at the peer, and on the public interface of every member.
#[derive(Debug)]
pub struct Taps {
    peer: Tap,
    members: Vec<(u8, Tap)>,
}

/// What they saw.
#[derive(Debug, Default)]
pub struct Evidence {
    /// At the peer's interface.
    pub peer: Vec<Seen>,
    /// On the public interfaces, by member.
    pub members: Vec<(u8, Vec<Seen>)>,
}

impl Taps {
    /// Starts all captures.
    ///
    /// # Errors
    /// A node has no `eth0`.
    pub fn start(network: &Network) -> Result<Self> {
        let mut taps = Self {
            peer: Tap::start(&network.peer, "eth0")?,
            members: Vec::new(),
        };
        for (id, node) in (1u8..).zip(&network.members) {
            taps.add_member(id, node)?;
        }
        Ok(taps)
    }

    /// Also captures on a member that came later, or came again with new interfaces.
    ///
    /// # Errors
    /// It has no `eth0`.
    pub fn add_member(&mut self, id: u8, node: &Node) -> Result<()> {
        self.members.push((id, Tap::start(node, "eth0")?));
        Ok(())
    }

    /// Ends all captures.
    ///
    /// # Errors
    /// One of them has holes.
    pub fn finish(self) -> Result<Evidence> {
        let peer = self.peer.finish().context("at the peer")?;
        let mut members = Vec::new();
        for (id, tap) in self.members {
            members.push((id, tap.finish()?));
        }
        Ok(Evidence { peer, members })
    }
}

/// An (SPI, sequence number) that was sent more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repetition {
    /// The SPI.
    pub spi: u32,
    /// The sequence number.
    pub sequence: u32,
    /// Who sent it.
    pub members: Vec<u8>,
}

/// An SPI that a member went on using after another had begun to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relapse {
    /// The SPI.
    pub spi: u32,
    /// Who sent it, in order, each named once per turn.
    pub turns: Vec<u8>,
}

impl Evidence {
    /// What members sent from a VIP, in time order: (member, packet).
    fn sent(&self) -> Vec<(u8, Seen)> {
        let mut sent: Vec<(u8, Seen)> = self
            .members
            .iter()
            .flat_map(|(id, seen)| seen.iter().map(|packet| (*id, *packet)))
            .filter(|(_, packet)| packet.out && from_vip(packet))
            .collect();
        sent.sort_by_key(|(_, packet)| packet.at);
        sent
    }

    /// ESP that members sent: (member, when, SPI, sequence number), in time order.
    fn esp_sent(&self) -> Vec<(u8, Moment, u32, u32)> {
        let esp = |(id, packet): (u8, Seen)| match packet.what {
            What::Esp { spi, sequence } => Some((id, packet.at, spi, sequence)),
            _ => None,
        };
        self.sent().into_iter().filter_map(esp).collect()
    }

    /// How many ESP packets all members sent.
    pub fn esp_packets(&self) -> usize {
        self.esp_sent().len()
    }

    /// How many packets of IKE and ESP a member sent.
    pub fn sent_by(&self, member: u8) -> u64 {
        let concerned = |(id, packet): &(u8, Seen)| *id == member && packet.what != What::Plain;
        self.sent().iter().filter(|row| concerned(row)).count() as u64
    }

    /// Sequence numbers that were used twice, over the whole run and all members. Every outbound
    /// SPI is the peer's choice, and there is one peer, so the SPI names the SA.
    pub fn repeated(&self) -> Vec<Repetition> {
        let mut used: HashMap<(u32, u32), Vec<u8>> = HashMap::new();
        for (member, _, spi, sequence) in self.esp_sent() {
            used.entry((spi, sequence)).or_default().push(member);
        }
        let twice = used.into_iter().filter(|(_, members)| members.len() > 1);
        twice
            .map(|((spi, sequence), members)| Repetition {
                spi,
                sequence,
                members,
            })
            .collect()
    }

    /// Packets that a peer with an anti-replay window of `window` packets refuses (RFC 4303 §3.4.3),
    /// in the order in which they reached it.
    pub fn refused_by_window(&self, window: u32) -> usize {
        let mut highest: HashMap<u32, (u32, HashSet<u32>)> = HashMap::new();
        let mut refused = 0;
        for packet in self.peer.iter().filter(|packet| !packet.out) {
            let What::Esp { spi, sequence } = packet.what else {
                continue;
            };
            let (top, seen) = highest.entry(spi).or_default();
            let too_old = sequence.saturating_add(window) <= *top;
            if too_old || !seen.insert(sequence) {
                refused += 1;
            }
            *top = sequence.max(*top);
        }
        refused
    }

    /// SPIs whose sender changed more than `moves` times.
    pub fn relapses(&self, moves: usize) -> Vec<Relapse> {
        let mut turns: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (member, _, spi, _) in self.esp_sent() {
            let turns = turns.entry(spi).or_default();
            if turns.last() != Some(&member) {
                turns.push(member);
            }
        }
        let odd = turns
            .into_iter()
            .filter(|(_, turns)| turns.len() > moves + 1);
        odd.map(|(spi, turns)| Relapse { spi, turns }).collect()
    }

    /// How many SPIs were used by more than one member in the course of the run.
    pub fn moved_spis(&self) -> usize {
        let mut users: BTreeMap<u32, BTreeSet<u8>> = BTreeMap::new();
        for (member, _, spi, _) in self.esp_sent() {
            users.entry(spi).or_default().insert(member);
        }
        users.values().filter(|members| members.len() > 1).count()
    }

    /// How many packets of IKE and ESP `member` sent between two moments, and when the last.
    pub fn sent_between(&self, member: u8, begin: Moment, end: Moment) -> (usize, Option<Moment>) {
        let sent = self.sent();
        let within = |(id, packet): &&(u8, Seen)| {
            *id == member && (begin..end).contains(&packet.at) && packet.what != What::Plain
        };
        let moments: Vec<Moment> = sent
            .iter()
            .filter(within)
            .map(|(_, packet)| packet.at)
            .collect();
        (moments.len(), moments.last().copied())
    }

    /// When a member other than `before` first sent ESP after `fault` on an SPI of `before`'s.
    pub fn taken_over_at(&self, before: u8, fault: Moment) -> Option<Moment> {
        let sent = self.esp_sent();
        let old: HashSet<u32> = sent
            .iter()
            .filter(|(id, at, ..)| *id == before && *at <= fault.plus(Duration::from_millis(200)))
            .map(|(_, _, spi, _)| *spi)
            .collect();
        let new = |(id, at, spi, _): &&(u8, Moment, u32, u32)| {
            *id != before && *at > fault && old.contains(spi)
        };
        sent.iter().find(new).map(|(_, at, ..)| *at)
    }

    /// Packets between the protected networks that left a member's public interface in clear.
    pub fn leaked(&self) -> Vec<(u8, Seen)> {
        let leak = |packet: &Seen| {
            packet.out && (protected(packet.source) || protected(packet.destination))
        };
        let all = self
            .members
            .iter()
            .flat_map(|(id, seen)| seen.iter().map(|packet| (*id, *packet)));
        all.filter(|(_, packet)| leak(packet)).collect()
    }

    /// Distinct IKE SAs that the peer began with IKE_SA_INIT after `from`.
    pub fn new_negotiations(&self, from: Moment) -> usize {
        let begun = |packet: &Seen| match packet.what {
            What::Ike {
                exchange: IKE_SA_INIT,
                response: false,
                initiator_spi,
                ..
            } if packet.out && packet.at > from => Some(initiator_spi),
            _ => None,
        };
        self.peer
            .iter()
            .filter_map(begun)
            .collect::<HashSet<_>>()
            .len()
    }
}

fn from_vip(packet: &Seen) -> bool {
    packet.source == IpAddr::from(VIP) || packet.source == IpAddr::from(VIP6)
}

/// 10.1.0.0/16 and 10.2.0.0/16: what the tunnels connect.
fn protected(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if matches!(Ipv4Addr::octets(&v4), [10, 1 | 2, ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn esp(at: u64, spi: u32, sequence: u32) -> Seen {
        Seen {
            at: Moment(at),
            out: true,
            source: VIP.into(),
            destination: "198.51.100.10".parse().unwrap(),
            what: What::Esp { spi, sequence },
        }
    }

    fn evidence(members: Vec<(u8, Vec<Seen>)>) -> Evidence {
        Evidence {
            peer: Vec::new(),
            members,
        }
    }

    #[test]
    fn a_sequence_number_used_by_two_members_is_found() {
        let good = evidence(vec![
            (1, vec![esp(1, 9, 1), esp(2, 9, 2)]),
            (2, vec![esp(3, 9, 500)]),
        ]);
        assert!(good.repeated().is_empty());
        assert_eq!((good.moved_spis(), good.esp_packets()), (1, 3));
        let bad = evidence(vec![
            (1, vec![esp(1, 9, 1), esp(2, 9, 2)]),
            (2, vec![esp(3, 9, 2), esp(3, 8, 2)]),
        ]);
        let found = bad.repeated();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].spi, found[0].sequence, &found[0].members[..]),
            (9, 2, &[1, 2][..])
        );
    }

    #[test]
    fn a_member_that_goes_on_sending_is_found() {
        let rows = vec![
            (1, vec![esp(1, 9, 1), esp(4, 9, 2)]),
            (2, vec![esp(3, 9, 500)]),
        ];
        let bad = evidence(rows);
        assert!(bad.relapses(2).is_empty(), "moved and moved back");
        assert_eq!(bad.relapses(1)[0].turns, [1, 2, 1]);
        assert_eq!(
            bad.sent_between(1, Moment(2), Moment(5)),
            (1, Some(Moment(4)))
        );
        assert_eq!(bad.sent_between(1, Moment(2), Moment(4)), (0, None));
        assert_eq!(bad.taken_over_at(1, Moment(2)), Some(Moment(3)));
    }

    #[test]
    fn a_window_refuses_what_is_repeated_or_too_old() {
        let arrived = |sequences: &[u32]| Evidence {
            peer: sequences
                .iter()
                .map(|one| Seen {
                    out: false,
                    ..esp(1, 9, *one)
                })
                .collect(),
            members: Vec::new(),
        };
        assert_eq!(arrived(&[1, 3, 2, 4, 5000, 4990]).refused_by_window(32), 0);
        assert_eq!(arrived(&[1, 2, 2]).refused_by_window(32), 1);
        assert_eq!(arrived(&[1, 100, 68, 69]).refused_by_window(32), 1);
    }

    #[test]
    fn cleartext_is_a_leak_only_when_it_leaves() {
        let clear = |out| Seen {
            out,
            source: "10.1.0.100".parse().unwrap(),
            destination: "198.51.100.10".parse().unwrap(),
            what: What::Plain,
            at: Moment(1),
        };
        assert!(evidence(vec![(1, vec![clear(false)])]).leaked().is_empty());
        assert_eq!(evidence(vec![(1, vec![clear(true)])]).leaked().len(), 1);
    }

    #[test]
    fn a_retransmitted_init_is_one_negotiation() {
        let init = |at, spi, out| Seen {
            what: What::Ike {
                initiator_spi: spi,
                exchange: IKE_SA_INIT,
                response: false,
                message_id: 0,
            },
            out,
            ..esp(at, 0, 0)
        };
        let evidence = Evidence {
            peer: vec![
                init(1, 7, true),
                init(5, 8, true),
                init(6, 8, true),
                init(7, 9, false),
            ],
            members: Vec::new(),
        };
        assert_eq!(evidence.new_negotiations(Moment(0)), 2);
        assert_eq!(evidence.new_negotiations(Moment(1)), 1);
    }
}
