//! Cores joined by a deterministic network in memory.

mod convergence;
mod net;
mod protocol;
mod routing;
mod timing;
mod views;
mod world;
