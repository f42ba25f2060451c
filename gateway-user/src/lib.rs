//! The shell around the sans-IO cores: sockets, kernel interfaces, configuration and faces.

pub mod agent;
pub mod api;
mod authorize;
mod clock;
pub mod config;
pub mod crypto;
pub mod heartbeat;
mod local_socket;
pub mod manual;
pub mod pki;
mod places;
pub mod recent;
pub mod rest;
mod rtnl;
mod state_dir;
pub mod steering;
pub mod sync;
pub mod vici;
pub mod vip;
pub mod xfrm;
