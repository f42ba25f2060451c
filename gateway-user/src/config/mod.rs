//! See DESIGN: config.
