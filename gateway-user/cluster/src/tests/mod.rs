//! Cores joined by a deterministic network in memory.

mod convergence;
mod feeding;
mod halves;
mod moves;
mod net;
mod protocol;
mod routing;
mod timing;
mod views;
mod wire;
mod world;
