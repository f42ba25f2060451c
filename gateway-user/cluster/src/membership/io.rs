//! What goes into the membership and what comes out.

use std::time::Duration;

use gateway_common::{member::MemberId, time::Instant};

use super::set::MemberSet;
use super::state::MemberState;
use crate::frame::Incarnation;
use crate::slot_map::SlotMap;
use crate::view::{Epoch, Tenure, View};

/// Another party of the membership protocol; the shell authenticates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sender {
    /// A configured member.
    Member(MemberId),
    /// The responder on a third host.
    Witness,
}

/// Number of a cluster interface, the same on all members: 0..=31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u8);

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// One copy over every cluster interface.
    All,
    /// Over this one.
    One(LinkId),
}

/// State of a critical device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PnoteState {
    /// Fine.
    Ok,
    /// Takes the member down, unless nobody is better.
    Problem,
    /// Starting: counts as a problem.
    Init,
}

/// Report of a critical device. The first registers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pnote {
    /// Which device.
    pub name: String,
    /// How it is.
    pub state: PnoteState,
    /// Why, for `gatewayctl pnotes`.
    pub reason: String,
    /// A report that is not repeated in this time turns into a problem. `None` = stands.
    pub timeout: Option<Duration>,
}

/// What an operator or the agent's life cycle asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Own no slots from now on, but stay in the view as a replica.
    Drain,
    /// The opposite.
    Undrain,
    /// HA: `to` becomes the active member. Load sharing: this member is drained and `to` takes its
    /// share, until `Undrain`.
    Failover {
        /// Who takes over.
        to: MemberId,
    },
    /// Form a view with this member alone: the operator vouches that no other serves.
    Bootstrap,
    /// The configuration has changed: this is what heartbeats say of it from now on.
    Configured {
        /// Digest of what has to be alike on all members.
        hash: u64,
    },
    /// Leave: hand the slots over, say goodbye. [`Output::Stopped`] follows.
    Stop,
}

/// What [`Output::Probe`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// The member that was looked for.
    pub member: MemberId,
    /// This host's own interfaces are up and something answers on them.
    pub own_good: bool,
    /// The member answered ARP or ND on some interface.
    pub answered: bool,
}

/// What has to be on disk: the last view that this member knew, as far as a restart needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// Its number; never goes back.
    pub epoch: Epoch,
    /// Its members: a cold start without enough of them could be beside a live view.
    pub members: MemberSet,
    /// The latest ownership of any slot, in any view so far: a first view's come after it.
    pub latest: Tenure,
}

impl Persisted {
    /// Length of the encoded form, octets.
    pub const LEN: usize = 24;

    /// For a file.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut octets = [0; Self::LEN];
        let words = [self.epoch.0, self.members.bits(), self.latest.0];
        for (chunk, word) in octets.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        octets
    }

    /// From a file; of an earlier version, whose 16 octets do not tell the latest ownership, too.
    /// `None` if it is neither.
    pub fn decode(octets: &[u8]) -> Option<Self> {
        let (words, rest) = octets.as_chunks::<8>();
        let word = |index: usize| Some(u64::from_be_bytes(*words.get(index)?));
        let fits = rest.is_empty() && (2..=3).contains(&words.len());
        Some(Self {
            epoch: Epoch(word(0).filter(|_| fits)?),
            members: MemberSet::from_bits(word(1)?),
            latest: Tenure(word(2).unwrap_or(0)),
        })
    }
}

/// An effect. They have to be carried out in the order in which they come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Send {
        /// To whom.
        to: Sender,
        /// Over which interfaces.
        via: Via,
        /// Less than 1,200 octets.
        datagram: Vec<u8>,
    },
    /// On disk before the outputs that follow are carried out.
    Persist(Persisted),
    /// This is the view now; this member need not be in it.
    Install {
        /// The view.
        view: View,
        /// No majority stands behind it: a member outside may still be serving. Sequence numbers
        /// jump by 2^30 and keys are changed at once.
        unsafe_takeover: bool,
    },
    /// What `SLOT_OWNER` shall say: a lost slot names its new owner, a gained one is unset until the
    /// `Slots` before `Activate`.
    Slots(SlotMap),
    /// Every slot that the view of this epoch gives to this member is served by it from now on.
    Activate(Epoch),
    /// This member may transmit until then; the origin of time = not at all.
    Lease(Instant),
    /// HA mode, or with a pivot: hold the VIPs (and tell the neighbours), or drop them.
    Addresses(bool),
    /// Who is heard, this member included, in order.
    Alive(Vec<MemberId>),
    /// Look whether `member` is there in any way; answer with [`super::Membership::handle_probe`].
    /// Asked again until it is answered or moot.
    Probe(MemberId),
    /// `Command::Stop` is done: nothing follows.
    Stopped,
    /// For the log.
    Event(Event),
}

/// Something that an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member changed its state.
    State {
        /// Who.
        member: MemberId,
        /// Before.
        from: MemberState,
        /// Now.
        to: MemberState,
        /// Why.
        reason: String,
    },
    /// A view was installed.
    View {
        /// Its number.
        epoch: Epoch,
        /// Who is in it.
        members: MemberSet,
        /// No majority stands behind it; counted as `unsafe_takeover`.
        unsafe_takeover: bool,
    },
    /// This member's own timer came late: it judges nobody until it has heard the others again.
    Frozen {
        /// By how much.
        late: Duration,
    },
    /// The end of that.
    Thawed,
    /// This member's transmit right ran out although the view gives it slots.
    LeaseEnded(Epoch),
    /// A member came back as a new run.
    Restarted {
        /// Who.
        member: MemberId,
        /// Its new run.
        incarnation: Incarnation,
    },
    /// A member is configured differently.
    ConfigDiffers(MemberId),
    /// A cold start waits: too few of the configured members, or of the last known view's, are
    /// heard. `gatewayctl bootstrap` overrides.
    ColdStartWaits {
        /// Who is heard.
        heard: MemberSet,
    },
    /// A command could not be carried out.
    Refused {
        /// Which.
        command: Command,
        /// Why.
        reason: &'static str,
    },
}
