//! The lab in network namespaces, and the scenarios that run in it.

pub mod bench;
pub mod fuzz;
pub mod lab;
pub mod mutate;
pub mod scenario;
