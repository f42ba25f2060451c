//! Builds the eBPF object from source, so that a plain `cargo build` is complete.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with xtask, which uses other parts of it"
)]
#[path = "../xtask/src/bpf_toolchain.rs"]
mod bpf_toolchain;

const TARGET: &str = "bpfel-unknown-none";

/// What the object is made of, relative to the workspace. The shared manifests are left out: a
/// dependency added for the agent must not rebuild the programs, and a changed `aya-ebpf` comes
/// with a changed lock entry only when somebody edits the pinned version.
const SOURCES: [&str; 6] = [
    "gateway-ebpf/src",
    "gateway-ebpf/Cargo.toml",
    "gateway-common/src",
    "gateway-common/Cargo.toml",
    "xtask/src/bpf_toolchain.rs",
    "Cargo.toml",
];

/// Binary of gateway-ebpf → the variable that tells the library where its object is.
const OBJECTS: [(&str, &str); 2] = [
    ("gateway", "GATEWAY_BPF_OBJECT"),
    ("bench", "GATEWAY_BENCH_OBJECT"),
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the crate lies in a workspace")?;
    println!("cargo::rerun-if-changed=build.rs");
    for source in SOURCES {
        let source = workspace.join(source);
        println!("cargo::rerun-if-changed={}", source.display());
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let target_dir = shared_target_dir(&out);
    compile(workspace, &target_dir)?;
    for (binary, variable) in OBJECTS {
        let object = target_dir.join(TARGET).join("release").join(binary);
        let copy = out.join(format!("{binary}.bpf.o"));
        std::fs::copy(&object, &copy).map_err(|error| format!("{}: {error}", object.display()))?;
        println!("cargo::rustc-env={variable}={}", copy.display());
    }
    Ok(())
}

/// `target/bpf`: one folder for all profiles and for clippy, so that `core` is compiled once.
/// `OUT_DIR` is `target/<profile>/build/<package>/out`.
fn shared_target_dir(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).join("bpf")
}

fn compile(workspace: &Path, target_dir: &Path) -> Result<(), Box<dyn Error>> {
    let toolchain = bpf_toolchain::Toolchain::find()?;
    let status = cargo_build(&toolchain, workspace, target_dir)?.status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "the eBPF programs do not build (compiler: {}, linker: {}; the linker must have been built \
         with LLVM {}). fix: see the messages above, or cargo xtask setup",
        toolchain.version,
        toolchain.linker.display(),
        toolchain.llvm,
    )
    .into())
}

fn cargo_build(
    toolchain: &bpf_toolchain::Toolchain,
    workspace: &Path,
    target_dir: &Path,
) -> Result<Command, Box<dyn Error>> {
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    // debuginfo=2 and --btf: without full debug information the linker has no types to make BTF of.
    // --disable-expand-memcpy-in-order: else LLVM calls a function that works octet by octet to
    // clear a key on the stack.
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
    ];
    let mut command = toolchain.cargo();
    command
        .current_dir(workspace)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--package", "gateway-ebpf", "--bins"])
        .args(["--target", TARGET, "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(target_dir)
        // Across crates bpf-linker optimises.
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    Ok(command)
}
