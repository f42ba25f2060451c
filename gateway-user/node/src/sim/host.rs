//! One member: a host with a clock, a disk and a kernel, and the agent that runs on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gateway_cluster::frame::Incarnation;
use gateway_cluster::membership::{self, LinkId, Membership, Persisted, Sender};
use gateway_cluster::secret::Secret;
use gateway_cluster::slot_map::SlotMap;
use gateway_cluster::view::{Epoch, View};
use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use gateway_ike::output::Path;

use super::kernel::Kernel;
use crate::Node;
use crate::effect::KernelEvent;

/// What reaches an agent.
pub(super) enum Input {
    Heartbeat {
        from: Sender,
        link: LinkId,
        octets: Arc<[u8]>,
    },
    Membership(membership::Command),
    Node(NodeInput),
}

/// What reaches its main loop.
pub(super) enum NodeInput {
    Datagram { path: Path, bytes: Vec<u8> },
    Frame { from: MemberId, frame: Arc<Secret> },
    Connected(MemberId),
    Disconnected(MemberId),
    View { view: Box<View>, half: bool },
    Active(Epoch),
    Kernel(KernelEvent),
}

/// One run of the agent.
pub(super) struct Agent {
    pub(super) membership: Membership,
    pub(super) node: Node,
    pub(super) incarnation: Incarnation,
    /// The timer event that is under way, on the world's clock.
    pub(super) timer: Option<Instant>,
    pub(super) stopped: bool,
}

/// One member.
pub(super) struct Host {
    pub(super) id: MemberId,
    pub(super) powered: bool,
    pub(super) agent: Option<Box<Agent>>,
    /// Both of the agent's threads stand still until then (SIGSTOP).
    pub(super) paused: Option<Instant>,
    /// Only its main loop does.
    pub(super) slow: Option<Instant>,
    pub(super) backlog: VecDeque<Input>,
    pub(super) node_backlog: VecDeque<NodeInput>,
    pub(super) kernel: Kernel,
    /// What SLOT_OWNER shall say as soon as the main loop has come so far.
    slots: SlotMap,
    pub(super) disk: Persisted,
    pub(super) runs: u64,
    /// Its monotonic clock is ahead of the world's by so much.
    pub(super) offset: Duration,
}

impl Host {
    pub(super) fn new(id: MemberId, offset: Duration) -> Self {
        Self {
            id,
            powered: true,
            agent: None,
            paused: None,
            slow: None,
            backlog: VecDeque::new(),
            node_backlog: VecDeque::new(),
            kernel: Kernel::new(id),
            slots: SlotMap::UNSET,
            disk: Persisted::default(),
            runs: 0,
            offset,
        }
    }

    /// Its clock when the world's shows `now`.
    pub(super) fn clock(&self, now: Instant) -> Instant {
        now + self.offset
    }

    /// What the membership's thread writes to SLOT_OWNER: it takes slots away at once. Gained ones
    /// are written by the main loop, which has stopped to move copies then
    /// ([`Node::handle_active`]).
    pub(super) fn set_slots(&mut self, slots: SlotMap) {
        let mine = |owner: Option<MemberId>| owner == Some(self.id);
        let now = &self.kernel.slot_owner;
        let mut owners = [None; Slot::COUNT];
        for ((slot, owner), place) in slots.iter().zip(&mut owners) {
            *place = owner.filter(|_| !mine(owner) || mine(now.owner(slot)));
        }
        self.kernel.slot_owner = SlotMap::from_owners(owners);
        self.slots = slots;
    }

    /// The main loop has installed the view: what the membership gave last is written.
    pub(super) fn gain_slots(&mut self) {
        let Some(agent) = &self.agent else {
            return;
        };
        if agent.node.view().epoch == agent.membership.status(self.kernel.now).view.epoch {
            self.kernel.slot_owner = self.slots.clone();
        }
    }

    /// An agent runs and is not held up.
    pub(super) fn is_healthy(&self) -> bool {
        self.powered && self.agent.is_some() && self.paused.is_none() && self.slow.is_none()
    }

    /// When the agent wants to be woken, on the world's clock.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let agent = self.agent.as_ref()?;
        let node = match self.slow {
            Some(_) => None,
            None => agent.node.poll_timeout(),
        };
        let next = [agent.membership.poll_timeout(), node];
        let next = next.into_iter().flatten().min()?;
        Some(next.before(self.offset))
    }

    /// The agent dies; what waits for it goes.
    pub(super) fn kill_agent(&mut self) {
        self.agent = None;
        self.paused = None;
        self.slow = None;
        self.backlog.clear();
        self.node_backlog.clear();
    }
}
