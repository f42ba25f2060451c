//! What this thread may do.

use std::fs;

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// A capability: its number, its name, and whether `CAP_SYS_ADMIN` contains it.
pub(super) type Capability = (u32, &'static str, bool);

/// What steering needs.
pub(super) const BPF: [Capability; 3] = [
    (CAP_NET_ADMIN, "CAP_NET_ADMIN", false),
    (CAP_BPF, "CAP_BPF", true),
    (CAP_PERFMON, "CAP_PERFMON", true),
];
/// What the rest of the agent needs besides.
pub(super) const SOCKETS: [Capability; 1] = [(CAP_NET_RAW, "CAP_NET_RAW", false)];

/// The effective set of this thread; `None` if procfs does not tell.
pub(super) fn held() -> Option<u64> {
    effective(&fs::read_to_string("/proc/thread-self/status").ok()?)
}

/// The effective set in the text of `/proc/<pid>/status`.
pub(super) fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The names of those of `wanted` that the effective set `held` lacks.
pub(super) fn missing(held: u64, wanted: &[Capability]) -> Vec<&'static str> {
    let has = |capability: u32| held & (1 << capability) != 0;
    wanted
        .iter()
        .filter(|(capability, _, by_admin)| !(has(*capability) || *by_admin && has(CAP_SYS_ADMIN)))
        .map(|(_, name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_decides() {
        let root = effective("Name:\tx\nCapEff:\t000001ffffffffff\n").unwrap();
        assert!(missing(root, &BPF).is_empty());
        // CAP_NET_ADMIN and CAP_NET_RAW alone.
        let plain = effective("CapEff:\t0000000000003000").unwrap();
        assert_eq!(missing(plain, &BPF), ["CAP_BPF", "CAP_PERFMON"]);
        assert!(missing(plain, &SOCKETS).is_empty());
        // CAP_SYS_ADMIN contains the newer two, not the older.
        let admin = 1 << CAP_SYS_ADMIN;
        assert_eq!(missing(admin, &BPF), ["CAP_NET_ADMIN"]);
        assert_eq!(effective("CapEff: xyz"), None);
        assert_eq!(effective(""), None);
    }
}
