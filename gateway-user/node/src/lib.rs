//! One member without its IO: the IKE engine ([`gateway_ike`]) and the cluster core
//! ([`gateway_cluster`]) as one deterministic state machine.
//!
//! What the agent carries out with sockets, netlink and BPF maps, the simulator carries out with
//! models: both drive the same code.

pub mod effect;
