//! One member without its IO: the IKE engine ([`gateway_ike`]) and the cluster core
//! ([`gateway_cluster`]) as one deterministic state machine.
//!
//! What the agent carries out with sockets, netlink and BPF maps, the simulator carries out with
//! models: both drive the same code.

mod batch;
mod carry;
mod children;
mod config;
mod configure;
mod cookies;
mod divided;
pub mod effect;
mod fresh;
mod hand_over;
mod held;
mod moves;
mod node;
mod order;
mod pins;
mod records;
mod redirect;
#[cfg(feature = "simulator")]
pub mod sim;
mod start;
mod status;
mod translate;
mod walk;

pub use config::Config;
pub use configure::{Configuration, shared_octets};
pub use node::Node;
pub use order::{Only, Order, Outcome, PATIENCE, Refused, What};
pub use pins::PinError;
pub use records::ConnectionCount;
pub use status::{Counters, Status};
pub use walk::WalkLimits;
