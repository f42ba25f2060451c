//! Cluster core.
