//! The object in the hands of bpftool: loadable by libbpf, maps readable by field name.

use std::path::Path;
use std::process::Command;

use gateway_common::abi::{map, program};

use crate::kernel::is_root;

/// In a private mount namespace with its own bpf file system, so that no pin is left behind and
/// none is met.
const SCRIPT: &str = r#"
set -eu
mount -t bpf bpf /sys/fs/bpf
mkdir /sys/fs/bpf/maps
bpftool prog loadall "$1" /sys/fs/bpf/programs pinmaps /sys/fs/bpf/maps
ls /sys/fs/bpf/programs /sys/fs/bpf/maps
negotiations=/sys/fs/bpf/maps/SEP_my_IKE_packet
bpftool map update pinned $negotiations \
    key hex 11 22 33 44 55 66 77 88  ff ff ff ff  0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 \
    value hex 02 2a 01 0 0 0 0 0  1 0 0 0 0 0 0 0  2 0 0 0 0 0 0 0
bpftool map dump pinned $negotiations
esp_out=/sys/fs/bpf/maps/ESP_OUT
bpftool map update pinned $esp_out \
    key hex c0 de 00 01  0 0 0 0 0 0 0 0 0 0 ff ff c6 33 64 07 \
    value hex 2a 00 00 00  00 40 00 00
bpftool map dump pinned $esp_out
bpftool prog show pinned /sys/fs/bpf/programs/gateway_ingress
"#;

fn has_bpftool() -> bool {
    Command::new("bpftool").arg("version").output().is_ok()
}

#[test]
fn bpftool_loads_the_object_and_prints_fields_by_name() {
    if !is_root("loading by bpftool") {
        return;
    }
    if !has_bpftool() {
        eprintln!("SKIPPED loading by bpftool: it is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let object = folder.path().join("gateway.bpf.o");
    std::fs::write(&object, gateway_user::steering::OBJECT).expect("written");
    let output = run(&object);
    for name in [
        program::INGRESS,
        program::SYNC,
        program::INSIDE,
        program::EGRESS,
    ] {
        assert!(output.contains(name), "{name} in {output}");
    }
    for name in [
        map::NEGOTIATIONS,
        map::IKE_SA,
        map::ESP_SA,
        map::ESP_OUT,
        map::REMOTE_NET,
        map::SLOT_OWNER,
        map::LEASE,
        map::MEMBER,
        map::LIVE,
        map::VIP,
        map::VIP_FEW,
        map::SYNC_DEV,
        map::SETTINGS,
        map::STATS,
        map::PEER_STATS,
    ] {
        assert!(output.contains(name), "{name} in {output}");
    }
    // Octet by octet in the order of the wire, whatever way the tool wraps arrays.
    let flat: String = output.split_whitespace().collect();
    for field in [
        r#""cookie":[17,34,51,68,85,102,119,136]"#,
        r#""message_id":[255,255,255,255]"#,
        r#""peer":"#,
        r#""member":2,"slot":42,"state":1"#,
        r#""created_ns":1,"expires_ns":2"#,
        r#""spi":[192,222,0,1]"#,
        r#""slot":42,"flags":0"#,
        r#""ceiling":16384"#,
    ] {
        assert!(flat.contains(field), "{field} in {output}");
    }
    assert!(output.contains("gpl"), "licence in {output}");
}

fn run(object: &Path) -> String {
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT, "sh"])
        .arg(object)
        .output()
        .expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

/// The names of the sections of a 64-bit little-endian ELF file.
fn sections(elf: &[u8]) -> Vec<String> {
    let number = |at: usize, octets: usize| {
        let mut value = [0; 8];
        value[..octets].copy_from_slice(&elf[at..at + octets]);
        usize::try_from(u64::from_le_bytes(value)).expect("fits")
    };
    let (table, size, count, names) = (
        number(0x28, 8),
        number(0x3a, 2),
        number(0x3c, 2),
        number(0x3e, 2),
    );
    let header = |index: usize| table + index * size;
    let strings = number(header(names) + 0x18, 8);
    let name = |index: usize| {
        let start = strings + number(header(index), 4);
        let octets = elf[start..].iter().take_while(|octet| **octet != 0);
        octets.map(|octet| char::from(*octet)).collect()
    };
    (0..count).map(name).collect()
}

/// libbpf refuses objects with maps in the old form.
#[test]
fn the_object_has_no_legacy_map() {
    let sections = sections(gateway_user::steering::OBJECT);
    for name in [".maps", ".BTF", "license", "xdp.frags", "classifier"] {
        assert!(sections.iter().any(|section| section == name), "{name}");
    }
    assert!(!sections.iter().any(|section| section == "maps"));
}
