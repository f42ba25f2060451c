//! See DESIGN: vip.
