//! See DESIGN: crypto.
