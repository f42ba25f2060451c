//! Which compiler builds the eBPF programs.
//!
//! One answer for two askers: `gateway-user/build.rs` includes this file to build the object, and
//! `cargo xtask setup` uses it to tell what is missing. Only the standard library, no dependency.
//!
//! The BPF targets have no pre-built `core`, so the compiler needs its own library source and the
//! unstable `-Z build-std`: either a rustup nightly with `rust-src`, or any compiler of a recent
//! enough release whose unstable options `RUSTC_BOOTSTRAP=1` opens, such as Debian's.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest minor release of Rust 1 that builds the workspace.
pub const MINIMUM_MINOR: u32 = 95;

/// Packages of Debian that together make a BPF-capable compiler.
pub const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A compiler that can build for `bpfel-unknown-none`, with the linker it needs.
#[derive(Clone, Debug)]
pub struct Toolchain {
    cargo: Invocation,
    rustc: Invocation,
    /// First line of `rustc -V`.
    pub version: String,
    /// Major version of the compiler's LLVM; bpf-linker must have been built with the same.
    pub llvm: u32,
    /// Where `bpf-linker` is.
    pub linker: PathBuf,
}

/// A program and the arguments that select it, such as `rustup run nightly cargo`.
#[derive(Clone, Debug)]
struct Invocation(Vec<OsString>);

impl Invocation {
    fn path(program: &str) -> Self {
        Self(vec![program.into()])
    }

    fn rustup(toolchain: &str, program: &str) -> Self {
        Self(
            ["rustup", "run", toolchain, program]
                .map(OsString::from)
                .into(),
        )
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]);
        isolate(&mut command);
        command
    }
}

/// Why there is no usable toolchain: one line per candidate. Printing it names the fix.
#[derive(Debug)]
pub struct Missing {
    /// What was tried and what is wrong with it.
    pub causes: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "nothing here can build the eBPF programs:")?;
        for cause in &self.causes {
            writeln!(f, "  - {cause}")?;
        }
        write!(f, "fix: cargo xtask setup")
    }
}

impl std::error::Error for Missing {}

impl Toolchain {
    /// The first usable toolchain: the system's, then a rustup nightly, then rustup's default. The
    /// system's comes first because its release is fixed, and with it the LLVM that the linker
    /// must match.
    ///
    /// # Errors
    /// [`Missing`] if no candidate has its library source, or `bpf-linker` is not found.
    pub fn find() -> Result<Self, Missing> {
        let mut causes = Vec::new();
        let linker = find_linker();
        if linker.is_none() {
            causes.push("bpf-linker is neither in PATH nor in cargo's bin folder".to_owned());
        }
        let system = (
            "/usr/bin/rustc",
            Invocation::path("/usr/bin/cargo"),
            Invocation::path("/usr/bin/rustc"),
        );
        let rustup = ["nightly", "stable"].map(|name| {
            (
                name,
                Invocation::rustup(name, "cargo"),
                Invocation::rustup(name, "rustc"),
            )
        });
        for (name, cargo, rustc) in std::iter::once(system).chain(rustup) {
            match (probe(&cargo, &rustc), &linker) {
                (Ok((version, llvm)), Some(linker)) => {
                    return Ok(Self {
                        cargo,
                        rustc,
                        version,
                        llvm,
                        linker: linker.clone(),
                    });
                }
                (Ok(_), None) => break,
                (Err(cause), _) => causes.push(format!("{name}: {cause}")),
            }
        }
        Err(Missing { causes })
    }

    /// `cargo` of this toolchain, with the environment that makes it build for BPF and without
    /// whatever a surrounding cargo has set.
    pub fn cargo(&self) -> Command {
        let mut command = self.cargo.command();
        // rustup's proxy finds its own rustc; a system cargo must not find rustup's in PATH.
        if let [rustc] = self.rustc.0.as_slice() {
            command.env("RUSTC", rustc);
        }
        command.env("RUSTC_BOOTSTRAP", "1");
        if let Some(folder) = self.linker.parent() {
            command.env("PATH", with_folder_first(folder));
        }
        command
    }
}

/// `bpf-linker` in PATH, or where `cargo install` puts it.
pub fn find_linker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    std::env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.is_file())
}

/// Version and LLVM major of `rustc`, if it and its cargo run, are recent enough and have their
/// library source.
fn probe(cargo: &Invocation, rustc: &Invocation) -> Result<(String, u32), String> {
    let verbose = output(rustc, &["-vV"])?;
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let release = field("release:").unwrap_or("unknown");
    let minor = release
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < MINIMUM_MINOR) {
        return Err(format!("release {release} is older than 1.{MINIMUM_MINOR}"));
    }
    let sysroot = output(rustc, &["--print", "sysroot"])?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if !library.join("Cargo.lock").is_file() {
        return Err(format!(
            "no library source in {} (component rust-src)",
            library.display()
        ));
    }
    output(cargo, &["-V"])?;
    let llvm = field("LLVM version:")
        .and_then(|version| version.split('.').next())
        .and_then(|major| major.parse().ok())
        .unwrap_or(0);
    Ok((verbose.lines().next().unwrap_or(release).to_owned(), llvm))
}

fn output(program: &Invocation, arguments: &[&str]) -> Result<String, String> {
    let output = program
        .command()
        .args(arguments)
        .output()
        .map_err(|error| format!("does not run: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(stderr.lines().next().unwrap_or("fails").trim().to_owned())
    }
}

/// Removes what a surrounding cargo, clippy or rustup has put into the environment and what would
/// select another compiler, other flags or another target folder. Settings of the user's network
/// and registries stay.
fn isolate(command: &mut Command) {
    const DROP: [&str; 12] = [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "CARGO_TARGET_DIR",
        "MAKEFLAGS",
        "MFLAGS",
        "RUSTC",
        "RUSTC_LINKER",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    const DROP_PREFIXES: [&str; 7] = [
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
    ];
    for name in DROP {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        if let Some(text) = name.to_str()
            && DROP_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
}

fn with_folder_first(folder: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap_or(path)
}
