//! Kernel, file systems, rights.

use std::fs;
use std::path::Path;

use aya::util::KernelVersion;

use super::super::capabilities;
use super::super::config::{AttachMode, SteeringConfig};
use super::super::pins;
use super::{Check, Severity, steering_severity, unreadable};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const FLOOR: (u8, u8) = (5, 15);

pub(super) fn checks(config: &SteeringConfig) -> Vec<Check> {
    let mut checks = vec![kernel(), rights(config), esp()];
    if config.attach != AttachMode::None {
        checks.push(btf());
        checks.push(bpffs(&config.bpffs));
    }
    checks
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let Ok(current) = KernelVersion::current() else {
        return unreadable("kernel", release, "no kernel version");
    };
    let (major, minor) = FLOOR;
    if current >= KernelVersion::new(major, minor, 0) {
        return Check::passed("kernel", release, format!("at least {major}.{minor}"));
    }
    Check::failed(
        "kernel",
        release,
        Severity::Error,
        format!("older than {major}.{minor}: programs and links may be refused"),
        "boot a newer kernel (Debian 12, Ubuntu 22.04, RHEL 9 or later)".to_owned(),
    )
}

fn btf() -> Check {
    if Path::new(BTF).exists() {
        return Check::passed("btf", BTF, "present".to_owned());
    }
    Check::failed(
        "btf",
        BTF,
        Severity::Error,
        "missing: the kernel was built without CONFIG_DEBUG_INFO_BTF".to_owned(),
        "boot a distribution kernel (Debian 12, Ubuntu 22.04, RHEL 9 or later)".to_owned(),
    )
}

fn bpffs(path: &Path) -> Check {
    let subject = path.display().to_string();
    match pins::is_bpffs(path) {
        Ok(true) => Check::passed("bpffs", &subject, "mounted".to_owned()),
        Ok(false) => Check::failed(
            "bpffs",
            &subject,
            Severity::Error,
            "not a bpf file system".to_owned(),
            format!("mount -t bpf bpf {subject}"),
        ),
        Err(error) => Check::failed(
            "bpffs",
            &subject,
            Severity::Error,
            error.to_string(),
            format!("mkdir -p {subject} && mount -t bpf bpf {subject}"),
        ),
    }
}

fn rights(config: &SteeringConfig) -> Check {
    let Some(held) = capabilities::held() else {
        return unreadable("capabilities", "/proc/thread-self/status", "no CapEff line");
    };
    let mut missing = capabilities::missing(held, &capabilities::SOCKETS);
    if config.attach != AttachMode::None {
        missing.extend(capabilities::missing(held, &capabilities::BPF));
    }
    if missing.is_empty() {
        return Check::passed("capabilities", "process", "sufficient".to_owned());
    }
    let missing = missing.join(" ");
    Check::failed(
        "capabilities",
        "process",
        steering_severity(config),
        format!("missing {missing}"),
        format!("run as root, or add AmbientCapabilities={missing} to the systemd unit"),
    )
}

/// ESP cannot be asked for without trying to install an SA; what can be told is whether the
/// module is there.
fn esp() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = Path::new("/lib/modules").join(release.trim());
    let listed = |file: &str| {
        fs::read_to_string(folder.join(file)).is_ok_and(|text| text.contains("/esp4.ko"))
    };
    let built_in = listed("modules.builtin");
    let loaded = Path::new("/sys/module/esp4").exists();
    if loaded || built_in || listed("modules.dep") {
        return Check::passed("esp", "kernel", "esp4 is available".to_owned());
    }
    Check::failed(
        "esp",
        "kernel",
        Severity::Warning,
        "no esp4 module found for this kernel: SAs may be refused".to_owned(),
        "boot a distribution kernel, or set kernel.backend = \"recording\" in a lab".to_owned(),
    )
}
