//! Two gateways with static keys and a host behind the first.

use std::net::{IpAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gateway_common::abi::{MARK_MASK, MARK_SA, mark};
use gateway_common::slot::Slot;
use gateway_ike::crypto::Encryption;
use gateway_ike::output::{ChildSa, TrafficSelector};
use gateway_ike::secret::SecretBytes;
use gateway_user::xfrm::{Tunnels, Xfrm, bypass};

use crate::lab::{Node, Run, answered, load_modules};
use crate::scenario::Context;

/// The slot of all children here; its mark is what the fence would look for.
pub(super) const SLOT: Slot = Slot(7);
const HOST: &str = "10.1.5.1";
const NEAR: &str = "10.1.0.1";
const FAR: &str = "10.2.0.1";
const FAR6: &str = "fd00:2::1";

/// What differs from tunnel to tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) outer_v6: bool,
    pub(super) encap: Option<(u16, u16)>,
    pub(super) esn: bool,
    pub(super) window: u32,
    pub(super) encryption: Encryption,
}

/// Native ESP over IPv4 with what the configuration defaults to.
pub(super) const PLAIN: Kind = Kind {
    name: "ESP over IPv4",
    outer_v6: false,
    encap: None,
    esn: false,
    window: 32,
    encryption: Encryption::AesGcm16Key128,
};

/// Gateway `a` with host `h` inside, gateway `b`, and what is in their kernels.
pub(super) struct Pair {
    pub(super) near: Tunnels,
    pub(super) far: Tunnels,
    pub(super) a: Node,
    pub(super) b: Node,
    pub(super) h: Node,
    // They must be open for UDP-encapsulated ESP to be taken in.
    _encap: Vec<UdpSocket>,
    _run: Run,
}

impl Pair {
    pub(super) fn new(context: &Context, name: &str) -> Result<Self> {
        load_modules();
        let run = Run::new(&context.logs, name)?;
        let a = Node::new(&run, "a")?;
        let b = Node::new(&run, "b")?;
        let h = Node::new(&run, "h")?;
        wire(&a, &b, &h)?;
        watch(&a)?;
        let near = Tunnels::new(Box::new(a.inside(|| Ok(Xfrm::open()?))?));
        let far = Tunnels::new(Box::new(b.inside(|| Ok(Xfrm::open()?))?));
        let mut encap = Vec::new();
        for node in [&a, &b] {
            for address in ["0.0.0.0", "::"] {
                for port in [4500, 61234] {
                    encap.push(node.inside(|| esp_in_udp(address.parse()?, port))?);
                }
            }
        }
        Ok(Self {
            near,
            far,
            a,
            b,
            h,
            _encap: encap,
            _run: run,
        })
    }

    /// Blocks cleartext as the agent does at its start.
    pub(super) fn protect(&mut self) -> Result<()> {
        let (near, far) = (networks(1), networks(2));
        self.near.protect(&far, &[])?;
        self.far.protect(&near, &[])?;
        Ok(())
    }

    /// Both ends of a child, installed.
    pub(super) fn install(&mut self, kind: Kind, number: u8) -> Result<(ChildSa, ChildSa)> {
        let (near, far) = ends(kind, number);
        self.near.install_child(&near, None)?;
        self.far.install_child(&far, None)?;
        Ok((near, far))
    }

    pub(super) fn remove(&mut self, near: &ChildSa, far: &ChildSa) -> Result<()> {
        self.near.remove_child(near.id())?;
        self.far.remove_child(far.id())?;
        Ok(())
    }

    /// Pings in every direction that a tunnel has; `count` answers each or an error.
    pub(super) fn ping_all(&self, count: u32) -> Result<u32> {
        let mut sent = 0;
        for (node, from, to) in [
            (&self.a, Some(NEAR), FAR),
            (&self.h, None, FAR),
            (&self.b, Some(FAR), HOST),
            (&self.a, Some("fd00:1::1"), FAR6),
        ] {
            let from: Option<IpAddr> = from.map(str::parse).transpose()?;
            let answered = node.ping(from, to.parse()?, count, 5)?;
            ensure!(
                answered == count,
                "{answered} of {count} answered, {} to {to}",
                node.name
            );
            sent += count;
        }
        Ok(sent)
    }

    /// Pings that nothing may answer.
    pub(super) fn ping_in_vain(&self) -> Result<()> {
        for (node, from) in [(&self.a, Some(NEAR)), (&self.h, None)] {
            let from: Option<IpAddr> = from.map(str::parse).transpose()?;
            let answered = node.ping(from, FAR.parse()?, 2, 1)?;
            ensure!(answered == 0, "{} got {answered} answers", node.name);
        }
        Ok(())
    }

    /// Starts `count` pings from the host through the tunnel, 20 a second.
    pub(super) fn ping_on(&self, count: u32) -> Result<Pinging> {
        let interval = Duration::from_millis(50);
        let mut command = self.h.echoes(None, FAR.parse()?, count, interval, 5)?;
        command.stderr(Stdio::piped());
        let fping = command.spawn().context("cannot start fping")?;
        Ok(Pinging { fping, count })
    }

    /// Packets that left gateway `a` with this name in [`watch`].
    pub(super) fn left(&self, counter: &str) -> Result<u64> {
        let text = self
            .a
            .output("nft", &["list", "counter", "netdev", "lab", counter])?;
        let mut words = text
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        let number = words.nth(1).with_context(|| text.clone())?;
        Ok(number.parse()?)
    }

    /// A line of gateway `a`'s xfrm_stat.
    pub(super) fn xfrm_stat(&self, name: &str) -> Result<u64> {
        let text = self.a.output("cat", &["/proc/self/net/xfrm_stat"])?;
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .with_context(|| format!("no {name} in {text}"))?;
        Ok(line.split_whitespace().nth(1).unwrap_or("").parse()?)
    }

    /// Nothing but block policies may be left in either kernel.
    pub(super) fn expect_empty(&mut self) -> Result<()> {
        for tunnels in [&mut self.near, &mut self.far] {
            let sas = tunnels.kernel().dump_sas()?;
            ensure!(sas.is_empty(), "left behind: {sas:?}");
            let policies = tunnels.kernel().dump_policies()?;
            let blocks = policies
                .iter()
                .filter(|p| p.action == gateway_user::xfrm::Action::Block)
                .count();
            ensure!(
                policies.len() == 6 && blocks == 6,
                "left behind: {policies:?}"
            );
        }
        // The kernel's own tools agree.
        for node in [&self.a, &self.b] {
            let text = node.output("ip", &["xfrm", "state"])?;
            ensure!(text.is_empty(), "left behind: {text}");
        }
        Ok(())
    }
}

/// A ping that runs. Killed when dropped.
pub(super) struct Pinging {
    fping: Child,
    count: u32,
}

impl Pinging {
    /// Waits for its end; every request must have been answered.
    pub(super) fn finish(mut self) -> Result<String> {
        use std::io::Read as _;
        let mut text = String::new();
        if let Some(stderr) = self.fping.stderr.as_mut() {
            stderr.read_to_string(&mut text)?;
        }
        self.fping.wait()?;
        let (sent, answered) = (self.count, answered(&text).context("fping told nothing")?);
        ensure!(answered == sent, "{answered} of {sent} answered: {text}");
        Ok(format!("{answered} of {sent} pings answered"))
    }
}

impl Drop for Pinging {
    fn drop(&mut self) {
        // Fails when it has ended, which is as good.
        let _ = self.fping.kill();
        let _ = self.fping.wait();
    }
}

fn wire(a: &Node, b: &Node, h: &Node) -> Result<()> {
    a.ip(&format!(
        "link add out type veth peer name out netns {}\n\
         link add in type veth peer name in netns {}",
        b.namespace(),
        h.namespace()
    ))?;
    let end = |ours: u8, theirs: u8| {
        format!(
            "addr add 192.0.2.{ours}/24 dev out\n\
             -6 addr add 2001:db8::{ours}/64 dev out nodad\n\
             addr add 10.{ours}.0.1/32 dev lo\n\
             -6 addr add fd00:{ours}::1/128 dev lo nodad\n\
             link set out up\n\
             route add 10.{theirs}.0.0/16 via 192.0.2.{theirs} src 10.{ours}.0.1\n\
             -6 route add fd00:{theirs}::/64 via 2001:db8::{theirs} src fd00:{ours}::1"
        )
    };
    a.ip(&end(1, 2))?;
    b.ip(&end(2, 1))?;
    a.ip("addr add 10.1.5.254/24 dev in\nlink set in up")?;
    h.ip(&format!(
        "addr add {HOST}/24 dev in\nlink set in up\nroute add default via 10.1.5.254"
    ))?;
    a.sysctl(&["net.ipv4.ip_forward=1"])
}

/// Counts what leaves gateway `a` towards `b`, where the fence would stand: after encryption.
fn watch(a: &Node) -> Result<()> {
    let mark = mark(MARK_SA, SLOT.0);
    a.nft(&format!(
        "table netdev lab {{\n\
           counter marked {{ }}\n\
           counter unmarked {{ }}\n\
           counter cleartext {{ }}\n\
           chain fence {{\n\
             type filter hook egress device out priority 0;\n\
             ip daddr 10.2.0.0/16 counter name cleartext\n\
             ip6 daddr fd00:2::/64 counter name cleartext\n\
             meta l4proto {{ esp, udp }} meta mark & {MARK_MASK:#x} == {mark:#x} counter name marked\n\
             meta l4proto {{ esp, udp }} meta mark & {MARK_MASK:#x} != {mark:#x} counter name unmarked\n\
           }}\n\
         }}\n"
    ))
}

fn esp_in_udp(address: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = if address.is_ipv6() {
        // Next to the IPv4 socket on the same port.
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)?;
        socket.set_only_v6(true)?;
        socket.bind(&std::net::SocketAddr::new(address, port).into())?;
        socket.into()
    } else {
        UdpSocket::bind((address, port))?
    };
    bypass::exempt_from_policies(&socket, address)?;
    bypass::decapsulate_esp(&socket)?;
    Ok(socket)
}

/// The protected networks of gateway 1 or 2: one of each family.
pub(super) fn networks(gateway: u8) -> Vec<TrafficSelector> {
    let range = |start: String, end: String| TrafficSelector {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
        start: start.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])),
        end: end.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])),
    };
    vec![
        range(format!("10.{gateway}.0.0"), format!("10.{gateway}.255.255")),
        range(
            format!("fd00:{gateway}::"),
            format!("fd00:{gateway}::ffff:ffff:ffff:ffff"),
        ),
    ]
}

/// Both ends of the child with this number.
pub(super) fn ends(kind: Kind, number: u8) -> (ChildSa, ChildSa) {
    let outer = |gateway: u8| -> IpAddr {
        if kind.outer_v6 {
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(gateway)])
        } else {
            IpAddr::from([192, 0, 2, gateway])
        }
    };
    let key = |direction: u8| {
        let octets = (0..kind.encryption.keymat_len()).map(|i| i as u8 ^ number ^ direction);
        SecretBytes::new(octets.collect())
    };
    let near = ChildSa {
        name: "net".into(),
        connection: kind.name.into(),
        slot: SLOT,
        spi_in: [0xca, 0, 0, number],
        spi_out: [0xcb, 0, 0, number],
        local: outer(1),
        remote: outer(2),
        encap: kind.encap,
        encryption: kind.encryption,
        key_in: key(0x80),
        key_out: key(0x40),
        esn: kind.esn,
        replay_window: kind.window,
        local_ts: networks(1),
        remote_ts: networks(2),
        if_id_in: 0,
        if_id_out: 0,
        marks: gateway_ike::mark::Marks::default(),
        hard_lifetime_seconds: 3600,
        quota: gateway_ike::output::Quota::default(),
    };
    let far = ChildSa {
        spi_in: near.spi_out,
        spi_out: near.spi_in,
        local: near.remote,
        remote: near.local,
        encap: near.encap.map(|(ours, theirs)| (theirs, ours)),
        key_in: near.key_out.clone(),
        key_out: near.key_in.clone(),
        local_ts: near.remote_ts.clone(),
        remote_ts: near.local_ts.clone(),
        ..near.clone()
    };
    (near, far)
}
