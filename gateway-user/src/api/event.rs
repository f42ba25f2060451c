//! What happens in the gateway, as the faces tell it: Server-Sent Events and the history.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A view was installed.
    View,
    /// Slots of a view have other owners than in the one before.
    Failover,
    /// A member's state changed.
    MemberState,
    /// The sync channel to a member is up.
    PeerUp,
    /// The sync channel to a member is down.
    PeerDown,
    /// An IKE SA was established.
    IkeSaUp,
    /// An IKE SA is over.
    IkeSaDown,
    /// A CHILD_SA was installed.
    ChildSaUp,
    /// A CHILD_SA was removed.
    ChildSaDown,
    /// An exchange failed. At most a few per second are told: strangers can cause them.
    Failure,
}

impl EventKind {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Failover => "failover",
            Self::MemberState => "member-state",
            Self::PeerUp => "peer-up",
            Self::PeerDown => "peer-down",
            Self::IkeSaUp => "ike-sa-up",
            Self::IkeSaDown => "ike-sa-down",
            Self::ChildSaUp => "child-sa-up",
            Self::ChildSaDown => "child-sa-down",
            Self::Failure => "failure",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiEvent {
    /// When, in seconds since 1970.
    pub time: f64,
    /// What kind of thing.
    pub kind: EventKind,
    /// In words.
    pub text: String,
    /// The member that it is about.
    pub member: Option<u8>,
    /// Number of the view.
    pub epoch: Option<u64>,
    /// Slots that have another owner now.
    pub slots: Option<usize>,
    /// Name of the connection.
    pub connection: Option<String>,
    /// The peer's address and port.
    pub peer: Option<String>,
    /// Our SPI of the IKE SA, 16 hexadecimal digits.
    pub local_spi: Option<String>,
}

impl ApiEvent {
    /// Something that happens now.
    pub fn now(kind: EventKind, text: impl Into<String>) -> Self {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            time: since_1970.map_or(0.0, |time| time.as_secs_f64()),
            kind,
            text: text.into(),
            member: None,
            epoch: None,
            slots: None,
            connection: None,
            peer: None,
            local_spi: None,
        }
    }
}
