//! Why a packet or a peer's packets go where they go.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::forwarding::LookUp;

/// Characters of [`ExplainQuery::subject`] at most: each may take twelve in a URI, which may have
/// 65,534.
pub const MAX_SUBJECT: usize = 5_000;

/// What is to be explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExplainQuery {
    /// A peer's address, or one in its protected networks; a connection's name; a peer's identity; a cookie (16 hexadecimal digits); an
    /// SPI (8); or a packet in hexadecimal digits, of 2,500 octets at most: an Ethernet frame, or with
    /// `source` an IKE message.
    #[param(min_length = 1, max_length = 5_000)]
    pub subject: String,
    /// Where the packet comes from, if it is an IKE message; else a peer's address, which decides what
    /// its next new negotiation meets.
    #[param(value_type = Option<String>)]
    pub source: Option<std::net::IpAddr>,
    /// SAs are looked through from this SPI of ours on: `next` of the answer before.
    #[param(pattern = "^[0-9a-fA-F]{16}$")]
    pub after: Option<String>,
}

/// Why packets go where they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// What was asked.
    pub subject: String,
    /// What it was taken for: "address", "connection", "identity", "cookie", "spi" or "packet".
    pub kind: String,
    /// One for each kind of packet that it concerns.
    pub findings: Vec<Finding>,
    /// `after` of the next part of the answer; `null`: this was the last.
    pub next: Option<String>,
}

/// What becomes of one kind of packet that arrives at the asked member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Which packets.
    pub about: String,
    /// The look-ups, in their order.
    pub steps: Vec<LookUp>,
    /// The slot; `null`: none is asked for.
    pub slot: Option<u8>,
    /// Id of the member that the packet is for; 0: nobody's, or the host's own.
    pub owner: u8,
    /// Its name.
    pub owner_name: Option<String>,
    /// Its state, as the asked member sees it.
    pub owner_state: Option<String>,
    /// What XDP would do: "pass", "drop" or "forward"; `null`: no packet was looked at.
    pub action: Option<String>,
    /// The reason under which it would be counted.
    pub reason: Option<String>,
    /// In words.
    pub meaning: String,
}
