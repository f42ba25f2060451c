//! See DESIGN: sync.
