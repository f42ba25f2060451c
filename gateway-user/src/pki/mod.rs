//! See DESIGN: pki.
