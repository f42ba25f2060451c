//! What a [`crate::Node`] is made of.

use std::sync::Arc;

use crate::walk::WalkLimits;

/// Configuration of a [`crate::Node`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the IKE engine. Its member and that of `cluster` are the same.
    pub ike: Arc<gateway_ike::config::Config>,
    /// Of the cluster core.
    pub cluster: gateway_cluster::config::Config,
    /// How fast SAs are looked after that came by takeover.
    pub walk: WalkLimits,
}
