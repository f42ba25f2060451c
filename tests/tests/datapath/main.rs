//! The eBPF programs in the running kernel: every case of the packet logic, a storm of hostile
//! frames against the host model, what the verifier has to do, and loading by bpftool. Needs root;
//! skips loudly without.

mod bpftool;
mod cases;
mod kernel;
mod storm;
mod verifier;
