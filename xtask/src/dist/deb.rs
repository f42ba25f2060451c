//! The Debian package, laid out by hand and packed by `dpkg-deb`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{host, process};

/// Which package is made.
pub(super) struct Package<'a> {
    /// For example `0.1.0-1`.
    pub(super) version: &'a str,
    /// Folder of `gatewayd` and `gatewayctl`.
    pub(super) binaries: &'a Path,
    /// Where the package goes.
    pub(super) dist: &'a Path,
}

/// Files and folders of the repository, their places, and their modes.
const FILES: [(&str, &str, u32); 18] = [
    (
        "deploy/systemd/gatewayd.service",
        "usr/lib/systemd/system/gatewayd.service",
        0o644,
    ),
    (
        "deploy/systemd/gateway-witness.service",
        "usr/lib/systemd/system/gateway-witness.service",
        0o644,
    ),
    (
        "deploy/apparmor/usr.sbin.gatewayd",
        "etc/apparmor.d/usr.sbin.gatewayd",
        0o644,
    ),
    (
        "deploy/routing/health-check.sh",
        "usr/share/gateway/health-check.sh",
        0o755,
    ),
    (
        "deploy/routing/frr-announce.sh",
        "usr/share/gateway/frr-announce.sh",
        0o755,
    ),
    (
        "deploy/gateway.toml",
        "usr/share/doc/gateway/examples/gateway.toml",
        0o644,
    ),
    (
        "deploy/witness.toml",
        "usr/share/doc/gateway/examples/witness.toml",
        0o644,
    ),
    (
        "deploy/routing",
        "usr/share/doc/gateway/examples/routing",
        0o755,
    ),
    (
        "deploy/examples/ha-witness",
        "usr/share/doc/gateway/examples/ha-witness",
        0o755,
    ),
    (
        "deploy/examples/ha-keepalived",
        "usr/share/doc/gateway/examples/ha-keepalived",
        0o755,
    ),
    (
        "deploy/examples/ecmp-bird",
        "usr/share/doc/gateway/examples/ecmp-bird",
        0o755,
    ),
    (
        "deploy/examples/authorize",
        "usr/share/doc/gateway/examples/authorize",
        0o755,
    ),
    (
        "deploy/examples/ecmp-frr",
        "usr/share/doc/gateway/examples/ecmp-frr",
        0o755,
    ),
    (
        "deploy/sysctl.d",
        "usr/share/doc/gateway/examples/sysctl.d",
        0o755,
    ),
    (
        "deploy/grafana",
        "usr/share/doc/gateway/examples/grafana",
        0o755,
    ),
    (
        "deploy/prometheus",
        "usr/share/doc/gateway/examples/prometheus",
        0o755,
    ),
    ("README.md", "usr/share/doc/gateway/README.md", 0o644),
    // Where the text looks for it.
    ("deploy/doc", "usr/share/doc/gateway/deploy/doc", 0o755),
];

const MAINTAINER_SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// JSON schemas of the configuration files, and the options that choose them.
const SCHEMAS: [(&str, &[&str]); 2] = [
    ("gateway.schema.json", &[]),
    ("witness.schema.json", &["--witness"]),
];

/// Shells, and where they look for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/gatewayctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_gatewayctl"),
    (
        "fish",
        "usr/share/fish/vendor_completions.d/gatewayctl.fish",
    ),
];

impl Package<'_> {
    /// Writes `gateway_<version>_<architecture>.deb` and returns its path.
    ///
    /// # Errors
    /// A file is missing, or one of Debian's tools.
    pub(super) fn build(&self) -> Result<PathBuf> {
        for tool in ["dpkg-deb", "dpkg-shlibdeps"] {
            if process::find(tool).is_none() {
                bail!(
                    "{tool} is missing: apt-get install dpkg-dev, or `cargo xtask dist --no-deb`"
                );
            }
        }
        let stage = empty(self.dist.join("deb"))?;
        self.binaries(&stage)?;
        for (from, to, mode) in FILES {
            install(&host::root().join(from), &stage.join(to), mode)?;
        }
        self.generated(&stage)?;
        copyright(&stage)?;
        let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
        let architecture = architecture.trim();
        self.control(&stage, architecture)?;
        let package = self
            .dist
            .join(format!("gateway_{}_{architecture}.deb", self.version));
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--root-owner-group", "-Zxz", "--build"]);
        process::run(pack.arg(&stage).arg(&package))?;
        Ok(package)
    }

    fn binaries(&self, stage: &Path) -> Result<()> {
        for binary in ["gatewayd", "gatewayctl"] {
            let to = stage.join("usr/sbin").join(binary);
            install(&self.binaries.join(binary), &to, 0o755)?;
            if process::find("strip").is_some() {
                process::run(Command::new("strip").arg(&to))?;
            }
        }
        Ok(())
    }

    /// Manual pages, schemas and completions: the binaries write them themselves.
    fn generated(&self, stage: &Path) -> Result<()> {
        let pages = stage.join("usr/share/man/man8");
        for binary in ["gatewayd", "gatewayctl"] {
            let mut write = Command::new(self.binaries.join(binary));
            process::run(write.arg("man").arg(&pages))?;
        }
        let formats = stage.join("usr/share/man/man5");
        fs::create_dir_all(&formats)?;
        let about = stage.join("usr/share/man/man7");
        install(&host::root().join("deploy/man"), &about, 0o755)?;
        let mut compress = Command::new("gzip");
        compress.arg("-9n");
        for page in fs::read_dir(&pages)?.chain(fs::read_dir(&about)?) {
            let mut page = page?.path();
            if page.extension().is_some_and(|section| section == "5") {
                let to = formats.join(page.file_name().context("no name")?);
                fs::rename(&page, &to)?;
                page = to;
            }
            compress.arg(page);
        }
        process::run(&mut compress)?;
        for (name, options) in SCHEMAS {
            let mut write = Command::new(self.binaries.join("gatewayd"));
            let text = output(write.args(options).arg("config-schema"))?;
            let examples = stage.join("usr/share/doc/gateway/examples");
            fs::write(examples.join(name), text)?;
        }
        for (shell, to) in COMPLETIONS {
            let mut write = Command::new(self.binaries.join("gatewayctl"));
            let text = output(write.args(["completions", shell]))?;
            let to = stage.join(to);
            fs::create_dir_all(to.parent().context("no folder")?)?;
            fs::write(to, text)?;
        }
        Ok(())
    }

    fn control(&self, stage: &Path, architecture: &str) -> Result<()> {
        let debian = stage.join("DEBIAN");
        fs::create_dir_all(&debian)?;
        let template = host::root().join("deploy/debian/control");
        let text = fs::read_to_string(&template)
            .with_context(|| template.display().to_string())?
            .replace("@VERSION@", self.version)
            .replace("@ARCHITECTURE@", architecture)
            .replace("@DEPENDS@", &self.libraries(stage)?);
        fs::write(debian.join("control"), text)?;
        fs::write(
            debian.join("conffiles"),
            "/etc/apparmor.d/usr.sbin.gatewayd\n",
        )?;
        for script in MAINTAINER_SCRIPTS {
            let from = host::root().join("deploy/debian").join(script);
            install(&from, &debian.join(script), 0o755)?;
        }
        Ok(())
    }

    /// The packages of the libraries that the binaries need, in the versions of this host.
    fn libraries(&self, stage: &Path) -> Result<String> {
        // The tool wants to stand in a source package.
        let source = empty(self.dist.join("shlibs"))?;
        fs::create_dir(source.join("debian"))?;
        fs::write(
            source.join("debian/control"),
            "Source: gateway\n\nPackage: gateway\nArchitecture: any\n",
        )?;
        let mut find = Command::new("dpkg-shlibdeps");
        find.current_dir(source).arg("-O");
        for binary in ["gatewayd", "gatewayctl"] {
            find.arg("-e").arg(stage.join("usr/sbin").join(binary));
        }
        let found = output(&mut find)?;
        let depends = found.trim().strip_prefix("shlibs:Depends=");
        depends
            .map(str::to_owned)
            .with_context(|| format!("dpkg-shlibdeps said {found:?}"))
    }
}

fn copyright(stage: &Path) -> Result<()> {
    let mut text = String::from(
        "Licence: MIT or Apache-2.0, at your choice; the eBPF programs: Dual MIT/GPL.\n",
    );
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        text += "\n----\n\n";
        text += &fs::read_to_string(host::root().join(file)).context(file)?;
    }
    Ok(fs::write(
        stage.join("usr/share/doc/gateway/copyright"),
        text,
    )?)
}

/// The folder, made anew.
fn empty(dir: PathBuf) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(to.parent().context("no folder")?)?;
    process::run(Command::new("cp").arg("-r").arg(from).arg(to))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

fn output(command: &mut Command) -> Result<String> {
    process::capture(command).with_context(|| format!("`{}` failed", process::shown(command)))
}
