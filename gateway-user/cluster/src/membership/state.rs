//! States of a member, as ClusterXL's glossary names them.

use std::fmt;

/// State of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// Went out of the cluster with a goodbye, or was never heard.
    #[default]
    Dead,
    /// Not heard for the silence time.
    Lost,
    /// From the start until the full sync is complete.
    Init,
    /// In sync, waits for a view that admits it.
    Ready,
    /// A critical device has a problem, it was drained, or it has no majority: it serves nothing.
    Down,
    /// Leaves: hands its slots over.
    Dying,
    /// HA: third in line or later.
    Backup,
    /// In the view without slots, next in line.
    Standby,
    /// Serves.
    Active,
    /// `ACTIVE(!)`: serves although it has a problem, because nobody is better.
    ActiveAttention,
}

impl MemberState {
    /// All, in the order of their numbers on the wire.
    pub const ALL: [Self; 10] = [
        Self::Dead,
        Self::Lost,
        Self::Init,
        Self::Ready,
        Self::Down,
        Self::Dying,
        Self::Backup,
        Self::Standby,
        Self::Active,
        Self::ActiveAttention,
    ];

    /// Its number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The state with this number on the wire.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// The letters behind a state: `ACTIVE(!FP)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// F: frozen, its own timers came late.
    pub frozen: bool,
    /// P: the pivot, which holds the VIPs in load sharing.
    pub pivot: bool,
}

/// A state with its flags, as `gatewayctl members` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The state.
    pub state: MemberState,
    /// Its flags.
    pub flags: Flags,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown {
            state: *self,
            flags: Flags::default(),
        }
        .fmt(f)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.state {
            MemberState::Dead => "DEAD",
            MemberState::Lost => "LOST",
            MemberState::Init => "INIT",
            MemberState::Ready => "READY",
            MemberState::Down => "DOWN",
            MemberState::Dying => "DYING",
            MemberState::Backup => "BACKUP",
            MemberState::Standby => "STANDBY",
            MemberState::Active | MemberState::ActiveAttention => "ACTIVE",
        };
        let mut letters = String::new();
        if self.state == MemberState::ActiveAttention {
            letters.push('!');
        }
        if self.flags.frozen {
            letters.push('F');
        }
        if self.flags.pivot {
            letters.push('P');
        }
        if letters.is_empty() {
            f.pad(name)
        } else {
            f.pad(&format!("{name}({letters})"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_the_glossary_writes_them() {
        let shown = |state, frozen, pivot| {
            let flags = Flags { frozen, pivot };
            Shown { state, flags }.to_string()
        };
        assert_eq!(
            shown(MemberState::ActiveAttention, false, false),
            "ACTIVE(!)"
        );
        assert_eq!(
            shown(MemberState::ActiveAttention, true, true),
            "ACTIVE(!FP)"
        );
        assert_eq!(shown(MemberState::Active, false, true), "ACTIVE(P)");
        assert_eq!(shown(MemberState::Standby, false, false), "STANDBY");
    }

    #[test]
    fn codes_are_the_positions() {
        for state in MemberState::ALL {
            assert_eq!(MemberState::from_code(state.code()), Some(state));
        }
        assert_eq!(MemberState::from_code(10), None);
    }
}
