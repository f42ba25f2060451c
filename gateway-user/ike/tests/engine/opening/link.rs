//! Two gateways with nothing but a wire between them.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::config::{ChildConfig, Config, Connection, Initiation, RemoteAddress};
use gateway_ike::endpoint::{Command, InitiateOrder};
use gateway_ike::output::{Path, Transmit};

use crate::config::{child, config, connection, id};
use crate::gateway::Gateway;

pub(crate) const HERE: &str = "198.51.100.7";
pub(crate) const THERE: &str = "203.0.113.10";

/// What the wire does to a datagram: lets it pass, changes it, or drops it.
type Tap<'a> = &'a mut dyn FnMut(usize, &Transmit) -> Option<Vec<u8>>;

/// The initiator, and the responder.
pub(crate) struct Link {
    pub(crate) sides: [Gateway; 2],
}

fn single(address: &str) -> RemoteAddress {
    RemoteAddress::Network {
        address: address.parse().unwrap(),
        prefix_len: 32,
    }
}

/// Configurations that fit each other.
pub(crate) fn configs(tweak: impl Fn(usize, &mut Connection, &mut ChildConfig)) -> [Config; 2] {
    let names = ["gw.example.org", "peer.example.org"];
    let nets = ["10.1.0.0/16", "10.2.0.0/16"];
    let addresses = [HERE, THERE];
    [0, 1].map(|side| {
        let mut connection = connection("site", names[1 - side]);
        connection.local_id = id(names[side]);
        connection.remote_addrs = vec![single(addresses[1 - side])];
        connection.initiation = Initiation {
            source_addrs: vec![addresses[side].parse().unwrap()],
            ..Initiation::default()
        };
        let mut child = child("net", nets[side], nets[1 - side]);
        tweak(side, &mut connection, &mut child);
        connection.children = vec![Arc::new(child)];
        let mut config = config();
        config.member = MemberId::new(5 + 20 * u8::try_from(side).unwrap()).unwrap();
        config.connections = vec![Arc::new(connection)];
        config
    })
}

pub(crate) fn order() -> InitiateOrder {
    InitiateOrder {
        connection: "site".to_owned(),
        ..InitiateOrder::default()
    }
}

impl Link {
    pub(crate) fn new(seed: u64) -> Self {
        Self::tweaked(seed, |_, _, _| ())
    }

    pub(crate) fn tweaked(
        seed: u64,
        tweak: impl Fn(usize, &mut Connection, &mut ChildConfig),
    ) -> Self {
        Self::with(seed, configs(tweak))
    }

    pub(crate) fn with(seed: u64, configs: [Config; 2]) -> Self {
        let [a, b] = configs;
        Self {
            sides: [
                Gateway::seeded(a, 2 * seed),
                Gateway::seeded(b, 2 * seed + 1),
            ],
        }
    }

    /// Lets a side initiate, and everything follow from it.
    pub(crate) fn initiate(&mut self, side: usize) {
        self.order(side, order());
        self.run();
    }

    pub(crate) fn order(&mut self, side: usize, order: InitiateOrder) {
        let gateway = &mut self.sides[side];
        gateway
            .endpoint
            .handle_command(gateway.now, Command::Initiate(order));
    }

    pub(crate) fn run(&mut self) {
        self.run_with(&mut |_, transmit| Some(transmit.bytes.clone()));
    }

    /// Carries datagrams until nobody has one.
    pub(crate) fn run_with(&mut self, tap: Tap<'_>) {
        for _ in 0..1000 {
            let mut idle = true;
            for from in 0..2 {
                for transmit in self.sides[from].drain() {
                    idle = false;
                    if let Some(bytes) = tap(from, &transmit) {
                        let path = Path::new(transmit.path.remote, transmit.path.local);
                        let to = &mut self.sides[1 - from];
                        to.endpoint.handle_datagram(to.now, path, &bytes);
                    }
                }
            }
            if idle {
                return;
            }
        }
        panic!("they never stop talking");
    }

    /// Lets time pass in steps, with everything that is sent meanwhile.
    pub(crate) fn pass(&mut self, time: Duration, tap: Tap<'_>) {
        let end = self.sides[0].now + time;
        loop {
            let due = self.sides.iter().filter_map(|s| s.endpoint.poll_timeout());
            let Some(due) = due.min().filter(|due| *due <= end) else {
                break;
            };
            for side in &mut self.sides {
                side.now = side.now.max(due);
                side.endpoint.handle_timeout(side.now);
            }
            self.run_with(tap);
        }
        for side in &mut self.sides {
            side.now = end;
        }
    }

    /// IKE SAs and CHILD_SAs of a side.
    pub(crate) fn count(&self, side: usize) -> (usize, usize) {
        let endpoint = &self.sides[side].endpoint;
        (endpoint.sas().count(), endpoint.child_sas())
    }

    /// One IKE SA with one CHILD_SA, the same on both sides.
    pub(crate) fn assert_one_tunnel(&self) {
        let complaints = || format!("{:?}", [0, 1].map(|side| self.sides[side].complaints()));
        assert_eq!(self.count(0), (1, 1), "{}", complaints());
        assert_eq!(self.count(1), (1, 1), "{}", complaints());
        let [a, b] = [0, 1].map(|side| self.sides[side].last_record().1);
        assert_eq!((a.local_spi, a.remote_spi), (b.remote_spi, b.local_spi));
        assert!(a.keys == b.keys);
        assert_ne!(a.role, b.role);
        let (x, y) = (&a.children[0].sa, &b.children[0].sa);
        assert_eq!((x.spi_in, x.spi_out), (y.spi_out, y.spi_in));
        assert_eq!((&x.key_in, &x.key_out), (&y.key_out, &y.key_in));
        assert_eq!(x.encap, y.encap.map(|(ours, theirs)| (theirs, ours)));
    }
}
