//! The membership of whole clusters, in simulated time.

mod net;
mod operations;
mod storm;
mod takeover;
