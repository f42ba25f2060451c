//! The compiled eBPF programs, built by the build script and carried in the binary.

/// Gives the bytes behind it the alignment that an ELF reader needs.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("GATEWAY_BPF_OBJECT")));

/// The eBPF object (ELF, little endian): programs and maps as named in
/// [`gateway_common::abi`]. Aligned to eight octets.
pub static OBJECT: &[u8] = &ALIGNED.0;

static BENCH_ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("GATEWAY_BENCH_OBJECT")));

/// What the steering bench compares with: an empty XDP program, a bare redirect, a sink and an
/// empty tc program. The linker leaves it out of binaries that do not name it.
#[doc(hidden)]
pub static BENCH_OBJECT: &[u8] = &BENCH_ALIGNED.0;
