//! Questions and answers that only the REST API has.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::event::ApiEvent;
use super::model::IkeSaInfo;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// There is nothing of that name.
    NotFound,
    /// The state does not allow it.
    Conflict,
    /// A condition that goes with the request does not hold.
    Precondition,
    /// A value cannot be right.
    Invalid,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub kind: RefusalKind,
    /// The cause and what to do about it.
    pub reason: String,
}

impl Refusal {
    /// A refusal with its reason.
    pub fn new(kind: RefusalKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }
}

/// Entries of a page at most, and the default.
pub const PAGE: u16 = 200;

/// Which IKE SAs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SaQuery {
    /// The page begins after this SPI of ours: `next` of the page before.
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    pub after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u16>,
    /// Only those of this connection.
    pub connection: Option<String>,
    /// Only those that this member owns.
    #[param(minimum = 1, maximum = 63)]
    pub owner: Option<u8>,
    /// Only those with this address of the peer.
    #[param(value_type = Option<String>)]
    pub remote: Option<std::net::IpAddr>,
    /// Only those with this identity of the peer.
    pub remote_id: Option<String>,
}

/// A page of IKE SAs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SaPage {
    /// In the order of our SPIs.
    pub ike_sas: Vec<IkeSaInfo>,
    /// `after` of the next page; `null`: this was the last one. A page can be short, even empty,
    /// when little matches the filter.
    pub next: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Views in which slots got another owner, since the agent started.
    pub failovers: u64,
    /// Newest first.
    pub events: Vec<ApiEvent>,
}

/// The interfaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Interfaces {
    /// The cluster's addresses.
    pub vips: Vec<String>,
    /// In the order public, sync, inside.
    pub interfaces: Vec<SteeredInterface>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SteeredInterface {
    /// Its name.
    pub name: String,
    /// "public", "inside" or "sync".
    pub role: String,
    /// How its XDP program runs: "native", "generic" or "none".
    pub mode: String,
    /// The hook of its fence; `null` without BPF.
    pub fence: Option<String>,
    /// Whether it is up and has a carrier; `null`: no heartbeats are sent on it.
    pub up: Option<bool>,
    /// Seconds since another member was heard on it.
    pub heard_seconds: Option<f64>,
}

/// A child of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChildName {
    /// Its name; absent: the IKE SA, or all children when it is initiated.
    #[serde(default)]
    pub child: Option<String>,
}

/// Where peers are to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectTo {
    /// An address or a domain name.
    pub to: String,
}

/// Whose the slots are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailoverTo {
    /// Id of another member.
    #[schema(minimum = 1, maximum = 63)]
    pub to: u8,
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// On or off.
    pub enabled: bool,
}
