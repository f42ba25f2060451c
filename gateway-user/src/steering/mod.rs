//! See DESIGN: steering.
