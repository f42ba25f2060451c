//! The lab: hosts as network namespaces on one machine.
//!
//! Everything made here is removed when it is dropped, on a panic, on Ctrl-C, and, if the run was
//! killed outright, by the next run.

mod charon;
mod cluster;
mod counters;
mod enter;
mod esp;
mod flood;
mod member;
mod network;
mod node;
mod run;
mod wait;

pub use charon::{Charon, Connection, Esp, Settings};
pub use cluster::{
    Cluster, ESP_PROPOSAL, GATEWAY_ID, INSIDE_NETWORK, PROPOSAL, Settings as ClusterSettings,
    secret, site_connection,
};
pub use counters::Sent;
pub use esp::{kernel_has_esp, load_modules};
pub use flood::{exchange, flood, ike_sa_init};
pub use member::Member;
pub use network::{
    INSIDE_HOST, MAX_SITES, NAT_OUTSIDE, Network, Plan, SPOOFED, Spray, VIP, VIP6, inside_address,
    public_address, site_address, site_address6, site_host, sync_address,
};
pub use node::{Node, Process, command, tail};
pub use run::{Run, clean_up_on_signals, clean_up_stale};
pub use wait::{patience, wait_until};
