//! The control socket: a Unix stream, one JSON request per line, one JSON answer per line.

pub mod catalogue;
mod client;
mod cluster;
pub mod event;
mod explain;
mod failover;
mod forwarding;
mod listing;
pub mod model;
mod pages;
pub mod render;
mod server;
pub mod top;

pub use client::{ClientError, call};
pub use listing::{SaPages, ask, full_page};
pub use server::{Call, serve};

/// Default path of the control socket.
pub const DEFAULT_SOCKET: &str = "/run/gateway/gateway.sock";

/// Longest request line, in octets.
const MAX_REQUEST: u64 = 64 * 1024;
