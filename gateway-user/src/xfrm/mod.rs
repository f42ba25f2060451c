//! See DESIGN: xfrm.
