//! The fuzz targets' bodies, shared with gateway-tests, which cannot be a dependency: it needs the
//! eBPF toolchain, and nothing in it but the bodies wants a sanitizer.

#[path = "../../src/fuzz/mod.rs"]
pub mod fuzz;
