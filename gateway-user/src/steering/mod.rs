//! The data path's control side: loads the eBPF object, pins maps and links, attaches the XDP
//! programs and the egress fence, and writes the ownership tables that they read.
//!
//! Pins live under `<bpffs>/gateway/v<ABI>/{maps,links}` and outlive the process: after SIGKILL
//! steering and fence go on with the last tables, and the next [`Steering::start`] takes maps and
//! links over without a gap. Only [`uninstall`] detaches.
//!
//! Interface indices resolve in the calling thread's network namespace, as everywhere in BPF:
//! call from a thread that is in the gateway's namespace.

mod config;
mod error;
mod memory;
mod object;
mod tables;

pub use config::{AttachMode, MemberLink, Role, SteeringConfig};
pub use error::SteeringError;
pub use memory::MemoryTables;
pub use object::OBJECT;
pub use tables::{Counters, Dump, Fill, TableError, Tables};
