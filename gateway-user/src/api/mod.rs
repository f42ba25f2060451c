//! See DESIGN: api.
