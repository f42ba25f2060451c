//! The safety mechanisms that a world can be run without, to see that the rules notice.

/// A safety mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A member transmits only until its lease ends.
    Lease,
    /// A lease counts from the time at which the heartbeat was sent that a majority acknowledged.
    SendTime,
    /// Slots are served when the leases of those who had them have ended.
    ActivationWait,
    /// Messages wait until the other members have the state behind them.
    FlushAndAck,
    /// Members agree on how far the streams of the dead came before they serve.
    Levelling,
    /// A ceiling rises when the other members have moved their copies above it.
    Ceiling,
    /// Each ownership of a slot has a block of sequence numbers of its own,
    DisjointBlocks,
    /// above those of the ones before.
    BlockOrder,
    /// What an earlier epoch wrote does not replace what a later one did.
    EpochCheck,
    /// Grants and votes are for one epoch.
    ViewEpochCheck,
    /// A restarted agent is a new member.
    Incarnation,
    /// A member owns nothing before it has been told everything.
    FullSyncGate,
    /// Half of a view leaves out what the other half may be using.
    Jump,
    /// A new SA sends nothing before all members know it.
    FirstNumbers,
    /// Each run of each member has IVs of its own.
    IvPrefix,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Lease,
        Self::SendTime,
        Self::ActivationWait,
        Self::FlushAndAck,
        Self::Levelling,
        Self::Ceiling,
        Self::DisjointBlocks,
        Self::BlockOrder,
        Self::EpochCheck,
        Self::ViewEpochCheck,
        Self::Incarnation,
        Self::FullSyncGate,
        Self::Jump,
        Self::FirstNumbers,
        Self::IvPrefix,
    ];

    /// The one that is called `name`, as on the command line of `simulate`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// As on the command line of `simulate`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::SendTime => "send-time",
            Self::ActivationWait => "activation-wait",
            Self::FlushAndAck => "flush-and-ack",
            Self::Levelling => "levelling",
            Self::Ceiling => "ceiling",
            Self::DisjointBlocks => "disjoint-blocks",
            Self::BlockOrder => "block-order",
            Self::EpochCheck => "epoch-check",
            Self::ViewEpochCheck => "view-epoch-check",
            Self::Incarnation => "incarnation",
            Self::FullSyncGate => "full-sync-gate",
            Self::Jump => "jump",
            Self::FirstNumbers => "first-numbers",
            Self::IvPrefix => "iv-prefix",
        }
    }

    /// The switches of the membership.
    pub(super) fn membership(self) -> gateway_cluster::membership::Mutations {
        gateway_cluster::membership::Mutations {
            no_lease: self == Self::Lease,
            lease_from_receipt: self == Self::SendTime,
            no_activation_wait: self == Self::ActivationWait,
            no_incarnation_check: self == Self::Incarnation,
            no_epoch_check: self == Self::ViewEpochCheck,
            no_jump: self == Self::Jump,
        }
    }

    /// The switches of the sync core.
    pub(super) fn cluster(self) -> gateway_cluster::config::Mutations {
        gateway_cluster::config::Mutations {
            no_flush_and_ack: self == Self::FlushAndAck,
            no_levelling: self == Self::Levelling,
            no_epoch_check: self == Self::EpochCheck,
            no_ceiling: self == Self::Ceiling,
            overlapping_blocks: self == Self::DisjointBlocks,
            blocks_by_member: self == Self::BlockOrder,
            no_jump: self == Self::Jump,
            no_first_wait: self == Self::FirstNumbers,
            no_full_sync_gate: self == Self::FullSyncGate,
        }
    }
}
