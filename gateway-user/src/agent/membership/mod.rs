//! The membership's thread, and the main loop's handle to it.
//!
//! Heartbeats and leases must not wait for IKE: [`thread`] runs apart from the main loop, with
//! real-time priority where it may, and writes to the data path itself: lease, owners of the slots,
//! live members. What concerns the SAs it tells the main loop ([`Notice`]).

mod schedule;
mod thread;
mod wake;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use gateway_cluster::membership::{Command, Event, Membership, Pnote, ProbeResult, Status};
use gateway_cluster::view::{Epoch, SyncReport, View};
use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use tokio::sync::mpsc as tokio_mpsc;

use crate::heartbeat::{HeartbeatCounters, Heartbeats, SessionKeys};
use crate::state_dir::Store;
use crate::steering::FenceHandle;
use crate::vip::{Keeper, Prober};
use crate::xfrm::Gate;

use self::thread::Runner;
use self::wake::Waker;

/// What the main loop tells the membership.
#[derive(Debug)]
enum Input {
    Report(SyncReport),
    Pnote(Pnote),
    Command(Command, Option<Answer>),
    Keys {
        member: MemberId,
        keys: Arc<SessionKeys>,
        shared: bool,
    },
    Probe(ProbeResult),
    /// The main loop has come to [`Notice::Gaining`] with this number.
    Gain(u64),
}

/// Where the outcome of a command goes: why it was refused, if it was.
pub(super) type Answer = tokio::sync::oneshot::Sender<Result<(), &'static str>>;

/// What the membership tells the main loop.
#[derive(Debug)]
pub(super) enum Notice {
    /// This is the view now.
    View {
        view: Box<View>,
        unsafe_takeover: bool,
    },
    /// This member gains slots, which wait for [`Handle::gain`] with this number: the views before
    /// have to be installed first.
    Gaining(u64),
    /// This member serves its slots of the view of this epoch.
    Active(Epoch),
    /// For the log.
    Event(Event),
    /// `Command::Stop` is done.
    Stopped,
}

/// What the faces show of the membership.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Views, members, pnotes.
    pub(super) status: Status,
    /// What the heartbeats' sockets counted.
    pub(super) heartbeats: HeartbeatCounters,
    /// Cluster interfaces by number: name, and whether it works.
    pub(super) links: Vec<(String, bool)>,
    /// Whether the thread has real-time priority.
    pub(super) real_time: bool,
}

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    /// This member may transmit until then, in nanoseconds of the agent's clock.
    lease: AtomicU64,
    snapshot: Mutex<Snapshot>,
}

/// What the thread works with.
pub(super) struct Parts {
    /// This member.
    pub(super) local: MemberId,
    pub(super) membership: Membership,
    pub(super) heartbeats: Heartbeats,
    pub(super) fence: FenceHandle,
    /// Told before and after slots change hands.
    pub(super) gate: Gate,
    pub(super) store: Store,
    pub(super) keeper: Keeper,
    /// How long a cluster interface may be silent.
    pub(super) silence: Duration,
    /// Asks whether a member answers ARP or ND.
    pub(super) prober: Prober,
}

/// The main loop's end.
#[derive(Debug)]
pub(super) struct Handle {
    inputs: mpsc::Sender<Input>,
    waker: Arc<Waker>,
    shared: Arc<Shared>,
}

impl Handle {
    /// Starts the thread; notices go to `notices`.
    ///
    /// # Errors
    /// The system has no thread or no socket pair for us.
    pub(super) fn start(
        parts: Parts,
        notices: tokio_mpsc::UnboundedSender<Notice>,
    ) -> std::io::Result<Self> {
        let (sender, inputs) = mpsc::channel();
        let (waker, wakes) = wake::pair()?;
        let waker = Arc::new(waker);
        let shared = Arc::new(Shared::default());
        let handle = Self {
            inputs: sender,
            waker,
            shared,
        };
        let runner = Runner::new(parts, handle.sibling(), inputs, notices, wakes);
        std::thread::Builder::new()
            .name("membership".into())
            .spawn(move || runner.run())?;
        Ok(handle)
    }

    fn sibling(&self) -> Self {
        Self {
            inputs: self.inputs.clone(),
            waker: Arc::clone(&self.waker),
            shared: Arc::clone(&self.shared),
        }
    }

    fn tell(&self, input: Input) {
        // The thread ends only with the process, or after `Stopped`.
        if self.inputs.send(input).is_ok() {
            self.waker.wake();
        }
    }

    /// How the synchronisation stands.
    pub(super) fn report(&self, report: SyncReport) {
        self.tell(Input::Report(report));
    }

    /// Report of a critical device.
    pub(super) fn pnote(&self, pnote: Pnote) {
        self.tell(Input::Pnote(pnote));
    }

    /// An operator's command.
    pub(super) fn command(&self, command: Command, answer: Option<Answer>) {
        self.tell(Input::Command(command, answer));
    }

    /// All notices before [`Notice::Gaining`] with this number are dealt with: the slots may be served.
    pub(super) fn gain(&self, number: u64) {
        self.tell(Input::Gain(number));
    }

    /// A sync session with `member`.
    pub(super) fn keys(&self, member: MemberId, keys: Arc<SessionKeys>, shared: bool) {
        self.tell(Input::Keys {
            member,
            keys,
            shared,
        });
    }

    /// This member may process and transmit until then.
    pub(super) fn lease(&self) -> Instant {
        Instant::from_nanos(self.shared.lease.load(Ordering::Acquire))
    }

    /// For the faces; at most a tenth of a second old.
    pub(super) fn snapshot(&self) -> Snapshot {
        let snapshot = self.shared.snapshot.lock();
        snapshot.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
