//! The shell around the sans-IO cores: sockets, kernel interfaces, configuration and faces.

pub mod agent;
pub mod api;
pub mod config;
pub mod crypto;
pub mod pki;
mod rtnl;
pub mod steering;
pub mod sync;
pub mod vip;
pub mod xfrm;
