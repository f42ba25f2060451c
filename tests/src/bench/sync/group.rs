//! Members in one process, and what is between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gateway_cluster::frame::Incarnation;
use gateway_cluster::secret::Secret;
use gateway_cluster::slot_map::{Mode, SlotMap, Weighted};
use gateway_cluster::view::{Epoch, SyncReport, Tenure, Tenures, View};
use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use gateway_ike::config::{Config as Engine, Limits};
use gateway_ike::output::{ChildId, KernelRequest, KernelResult, Path, Transmit};
use gateway_node::effect::{Effect, KernelEvent, KernelOp};
use gateway_node::{Config, Node};

use crate::fuzz::endpoint::setup;
use gateway_ike::testing::Toy;

/// The address that the peers talk to.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Virtual time that a wait may take: far more than any timer of the protocol.
const PATIENCE: Duration = Duration::from_secs(60);

struct Member {
    node: Node,
    report: SyncReport,
    children: BTreeSet<ChildId>,
    kernel_requests: u64,
    lost: bool,
}

/// All members, and the frames between them.
pub(super) struct Group {
    now: Instant,
    epoch: u64,
    members: BTreeMap<MemberId, Member>,
    frames: VecDeque<(MemberId, MemberId, Arc<Secret>)>,
    octets: BTreeMap<(MemberId, MemberId), u64>,
    sent: VecDeque<Transmit>,
}

fn id(number: u8) -> Result<MemberId> {
    MemberId::new(number).with_context(|| format!("member {number}"))
}

impl Group {
    pub(super) fn new(count: u8) -> Result<Self> {
        let ids = (1..=count).map(id).collect::<Result<Vec<_>>>()?;
        let all = ids.iter().map(|member| Weighted {
            member: *member,
            weight: 1,
        });
        let all: Vec<Weighted> = all.collect();
        let now = Instant::from_nanos(1_000_000_000);
        let mut members = BTreeMap::new();
        for member in ids {
            let config = config(member, all.clone());
            let crypto = Toy::new(u64::from(member.get()));
            let row = Member {
                node: Node::new(config, Arc::new(crypto), now),
                report: SyncReport::default(),
                children: BTreeSet::new(),
                kernel_requests: 0,
                lost: false,
            };
            members.insert(member, row);
        }
        Ok(Self {
            now,
            epoch: 0,
            members,
            frames: VecDeque::new(),
            octets: BTreeMap::new(),
            sent: VecDeque::new(),
        })
    }

    fn member(&mut self, number: u8) -> Result<&mut Member> {
        let found = self.members.get_mut(&id(number)?);
        found.with_context(|| format!("there is no member {number}"))
    }

    fn look(&self, number: u8) -> Option<&Member> {
        self.members.get(&MemberId::new(number)?)
    }

    /// Connects two members.
    pub(super) fn connect(&mut self, a: u8, b: u8) -> Result<()> {
        let (now, first, second) = (self.now, id(a)?, id(b)?);
        self.member(a)?.node.handle_connected(now, second);
        self.carry_out(first)?;
        self.member(b)?.node.handle_connected(now, first);
        self.carry_out(second)
    }

    /// A member's host is gone.
    pub(super) fn lose(&mut self, number: u8) {
        let Some(lost) = MemberId::new(number) else {
            return;
        };
        let now = self.now;
        for (member, row) in &mut self.members {
            if *member == lost {
                row.lost = true;
            } else {
                row.node.handle_disconnected(now, lost);
            }
        }
        self.frames
            .retain(|(from, to, _)| *from != lost && *to != lost);
    }

    /// The next view: these members, of which the first owns every slot, at once active.
    pub(super) fn view(&mut self, members: &[u8]) -> Result<()> {
        self.epoch += 1;
        let live = members.iter().map(|number| {
            let member = id(*number)?;
            Ok(Weighted { member, weight: 1 })
        });
        // All slots go to the lowest id.
        let slots =
            SlotMap::default().next(&live.collect::<Result<Vec<_>>>()?, Mode::HighAvailability);
        let admitted = members
            .iter()
            .map(|number| Ok((id(*number)?, incarnation())));
        let view = View {
            epoch: Epoch(self.epoch),
            members: admitted.collect::<Result<_>>()?,
            slots,
            tenures: Tenures::all(Tenure(self.epoch)),
        };
        let now = self.now;
        for number in members {
            let lease = now + Duration::from_secs(1_000_000);
            let node = &mut self.member(*number)?.node;
            node.set_lease(lease);
            node.handle_view(now, view.clone());
            node.handle_active(now, view.epoch);
            self.carry_out(id(*number)?)?;
        }
        Ok(())
    }

    /// Whether the member has its streams in order for the last view.
    pub(super) fn serves(&self, number: u8) -> bool {
        self.look(number)
            .is_some_and(|row| row.report.levelled == Epoch(self.epoch))
    }

    /// IKE SAs of the cluster that the member has.
    pub(super) fn known(&self, number: u8) -> usize {
        self.look(number).map_or(0, |row| row.node.status().ike_sas)
    }

    /// Octets of frames from one member to another.
    pub(super) fn octets(&self, from: u8, to: u8) -> u64 {
        let pair = MemberId::new(from).zip(MemberId::new(to));
        pair.and_then(|pair| self.octets.get(&pair))
            .copied()
            .unwrap_or(0)
    }

    /// Requests to the member's kernel.
    pub(super) fn kernel_requests(&self, number: u8) -> u64 {
        self.look(number).map_or(0, |row| row.kernel_requests)
    }

    /// CHILD_SAs that the member has installed as its own.
    pub(super) fn children(&self, number: u8) -> Vec<ChildId> {
        self.look(number)
            .map_or(Vec::new(), |row| row.children.iter().copied().collect())
    }

    /// The member's kernel says how far it has counted an outbound SA.
    pub(super) fn has_sent(&mut self, number: u8, child: ChildId, sequence: u64) -> Result<()> {
        let now = self.now;
        let event = KernelEvent::SentUpTo { child, sequence };
        self.member(number)?.node.handle_kernel_event(now, event);
        self.carry_out(id(number)?)
    }

    /// A datagram reaches a member; returns the answer.
    pub(super) fn exchange(
        &mut self,
        entry: u8,
        path: Path,
        bytes: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        self.sent.clear();
        let now = self.now;
        self.member(entry)?.node.handle_datagram(now, path, bytes);
        self.carry_out(id(entry)?)?;
        self.deliver()?;
        let is_response = |one: &Transmit| one.bytes.get(19).is_some_and(|flags| flags & 0x20 != 0);
        let answer = self.sent.drain(..).find(is_response);
        Ok(answer.map(|answer| answer.bytes))
    }

    /// Lets some time pass: what waits for others to go with it goes.
    pub(super) fn pass(&mut self, time: Duration) -> Result<()> {
        let end = self.now + time;
        self.settle(|group| group.next_timer().is_none_or(|due| due > end))
    }

    /// When the first of the members wants to do something.
    fn next_timer(&self) -> Option<Instant> {
        let live = self.members.values().filter(|row| !row.lost);
        live.filter_map(|row| row.node.poll_timeout()).min()
    }

    /// Delivers everything and lets timers run until `done`.
    pub(super) fn settle(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        let end = self.now + PATIENCE;
        loop {
            self.deliver()?;
            if done(self) {
                return Ok(());
            }
            let due = self
                .next_timer()
                .context("nobody has anything left to do")?;
            if due > end {
                bail!("waited in vain");
            }
            self.now = self.now.max(due);
            let ids: Vec<MemberId> = self.members.keys().copied().collect();
            for member in ids {
                let now = self.now;
                if let Some(row) = self.members.get_mut(&member).filter(|row| !row.lost) {
                    row.node.handle_timeout(now);
                }
                self.carry_out(member)?;
            }
        }
    }

    fn deliver(&mut self) -> Result<()> {
        while let Some((from, to, frame)) = self.frames.pop_front() {
            let now = self.now;
            if let Some(row) = self.members.get_mut(&to).filter(|row| !row.lost) {
                row.node.handle_frame(now, from, frame.expose());
            }
            self.carry_out(to)?;
        }
        Ok(())
    }

    /// Does what a member wants done.
    fn carry_out(&mut self, member: MemberId) -> Result<()> {
        let now = self.now;
        while let Some(row) = self.members.get_mut(&member) {
            let Some(effect) = row.node.poll_effect() else {
                break;
            };
            match effect {
                Effect::Frame { to, frame, .. } => {
                    *self.octets.entry((member, to)).or_default() += frame.expose().len() as u64;
                    self.frames.push_back((member, to, frame));
                }
                Effect::Transmit(transmit) => self.sent.push_back(transmit),
                Effect::Kernel(op) => row.request(now, op),
                Effect::Report(report) => row.report = report,
                Effect::Disconnect(other) => bail!("member {member} gives up on member {other}"),
                Effect::Table(_) | Effect::Event(_) | Effect::Shared { .. } | Effect::Decide(_) => {
                }
            }
        }
        Ok(())
    }
}

impl Member {
    fn request(&mut self, now: Instant, op: KernelOp) {
        self.kernel_requests += 1;
        let KernelOp::Own { request, .. } = op else {
            return;
        };
        match request {
            KernelRequest::Install { child, .. } => {
                self.children.insert(child.id());
                self.node
                    .handle_kernel(now, KernelResult::Installed(child.id()));
            }
            KernelRequest::Remove { child } => drop(self.children.remove(&child)),
            KernelRequest::Promote { .. } | KernelRequest::Update { .. } => {}
        }
    }
}

fn incarnation() -> Incarnation {
    Incarnation(1)
}

fn config(local: MemberId, members: Vec<Weighted>) -> Config {
    let mut engine: Engine = setup::config(local.get(), 1);
    engine.limits = Limits::default();
    Config {
        ike: Arc::new(engine),
        cluster: gateway_cluster::config::Config {
            local,
            members,
            cluster_id: 1,
            cluster_name: "bench".into(),
            config_hash: [0; 32],
            incarnation: incarnation(),
            limits: gateway_cluster::config::Limits::default(),
        },
        walk: gateway_node::WalkLimits::default(),
    }
}
