//! Peers that establish SAs.

use anyhow::{Context, Result, ensure};
use gateway_ike::identity::Identity;
use gateway_ike::wire::ExchangeType;

use super::group::{Group, VIP};
use crate::fuzz::endpoint::draft::Draft;
use crate::fuzz::endpoint::peer::Peer;
use crate::fuzz::endpoint::setup::{ESP_SUITES, IKE_SUITES, secret, traffic};

/// Addresses that the peers share; each SA has an identity of its own.
const ADDRESSES: u8 = 250;

pub(super) struct Peers {
    peers: Vec<Peer>,
    count: usize,
}

impl Peers {
    pub(super) fn new() -> Self {
        let peer = |number| Peer::new(number, (VIP, 500).into());
        Self {
            peers: (1..=ADDRESSES).map(peer).collect(),
            count: 0,
        }
    }

    /// How many SAs were established.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// One more IKE SA with one CHILD_SA. `entry` is the member that the datagrams reach.
    pub(super) fn establish(&mut self, group: &mut Group, entry: u8) -> Result<()> {
        let number = self.count;
        let place = number % self.peers.len();
        let peer = &mut self.peers[place];
        peer.identity = Identity::Fqdn(format!("site-{number}.example.org"));
        let init = peer.init(IKE_SUITES[0], false).in_clear();
        peer.init_sent(Some(&init));
        let answer = group.exchange(entry, peer.path, &init)?;
        peer.receive(&answer.context("IKE_SA_INIT was not answered")?);
        let auth = peer.auth(
            &secret(),
            (true, false),
            ESP_SUITES[0],
            traffic(false, false),
        );
        let auth = auth.context("no keys came out of IKE_SA_INIT")?;
        let session = peer.sessions.len() - 1;
        let auth = peer.seal(session, &auth);
        let answer = group.exchange(entry, peer.path, &auth)?;
        peer.receive(&answer.context("IKE_AUTH was not answered")?);
        self.count += 1;
        Ok(())
    }

    /// The first peer asks whether the gateway lives.
    pub(super) fn ask_first(&mut self, group: &mut Group, entry: u8) -> Result<()> {
        let peer = self.peers.first_mut().context("there are no peers")?;
        let header = peer.sessions[0].header(ExchangeType::INFORMATIONAL);
        let request = peer.seal(0, &Draft::new(header, &[]));
        let answer = group.exchange(entry, peer.path, &request)?;
        ensure!(answer.is_some(), "the new owner does not answer");
        Ok(())
    }
}
