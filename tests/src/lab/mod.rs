//! The lab: hosts as network namespaces on one machine.
//!
//! Everything made here is removed when it is dropped, on a panic, on Ctrl-C, and, if the run was
//! killed outright, by the next run.

mod attack;
mod authority;
mod browser;
mod charon;
mod cluster;
mod container;
mod counters;
mod crowd;
mod device;
mod enter;
mod esp;
mod evidence;
mod example;
mod facts;
mod fault;
mod flood;
mod forwarder;
pub mod frr;
mod limit;
mod member;
mod mixed;
mod network;
mod node;
mod pluto;
mod push;
mod rest;
mod run;
mod synthetic;
mod tap;
mod timing;
mod traffic;
mod vici;
mod wait;
mod witness;

pub use attack::{Wire, udp_frame, udp_ports};
pub use authority::{Authority, secret_file};
pub use browser::Browser;
pub use charon::{Charon, Connection, Esp, Settings};
pub use cluster::{
    Cluster, ESP_PROPOSAL, GATEWAY_ID, INSIDE_NETWORK, PROPOSAL, SITE_NETWORKS,
    Settings as ClusterSettings, secret, site_connection,
};
pub use container::{Container, SHARED};
pub use counters::{Sent, packets_counted};
pub use crowd::{Asked, CROWD_NETWORK, CROWD_SECRET, Crowd};
pub use esp::{kernel_has_esp, load_modules};
pub use evidence::{Evidence, Relapse, Repetition, Taps};
pub use example::{Example, ExampleHost, Skipped, program, repository, unit_line};
pub use facts::{PeerSa, fence, find_pin, produced, reasons, refusals, replay_drops, xfrm_errors};
pub use fault::{Fault, HEARTBEATS, SYNC};
pub use flood::{exchange, flood, ike_sa_init};
pub use forwarder::Forwarder;
pub use member::Member;
pub use mixed::{FRAGMENT_SIZE, mix, mixed_indeed};
pub use network::{
    Cable, INSIDE_HOST, INSIDE_PUSHER, MAX_SITES, NAT_OUTSIDE, Network, Plan, SPOOFED, Spray, VIP,
    VIP6, inside_address, public_address, segment_address, site_address, site_address6, site_host,
    sync_address,
};
pub(crate) use node::answered;
pub use node::{Node, Process, command, tail};
pub use pluto::{Pluto, PlutoConnection, PlutoIdentity, PlutoSettings};
pub use push::Push;
pub use rest::{Answer, Rest};
pub use run::{Run, clean_up_on_signals, clean_up_stale};
pub use synthetic::{BLOCK, StandIn, Tunnel};
pub use tap::{IKE_SA_INIT, Moment, Seen, Tap, What};
pub use timing::Timing;
pub use traffic::{Probes, Traffic, probe_interval};
pub use vici::{Listener, Swanctl};
pub use wait::{patience, wait_until};
pub use witness::{WITNESS, WITNESS_PORT, Witness};
