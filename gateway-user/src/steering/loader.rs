//! Loads the object onto its pinned maps.
//!
//! aya reuses whatever is pinned under a map's name without a look at it: a map of another layout
//! would be read and written with this build's sizes. So every pin is compared with the object's
//! definition first.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapInfo};
use aya::programs::{Program, ProgramError};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_obj::generated::bpf_map_type;
use gateway_common::abi::{NegotiationKey, NegotiationValue, map};

use super::batch;
use super::error::SteeringError;
use super::pins::{Pins, pin_error};

/// The kernel sets it on every devmap by itself.
const BPF_F_RDONLY_PROG: u32 = 1 << 7;
/// As often as libbpf tries to load a program that a signal interrupts.
const LOAD_ATTEMPTS: u32 = 5;
/// Where a negotiation table of another size is filled before it takes the old one's name.
/// bpffs allows no dots.
const RESIZED: &str = "SEP_my_IKE_packet_resized";

/// All maps that are pinned.
pub(super) const MAPS: [&str; 15] = [
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
];

/// Loads the object: reuses pinned maps of the right layout, creates and pins the others, loads
/// every program. Attaches nothing.
pub(super) fn load(object: &[u8], pins: &Pins, max_entries: u32) -> Result<Ebpf, SteeringError> {
    let max_entries = max_entries.max(1);
    let resize = prepare_negotiations(object, pins, max_entries)?;
    let mut loader = EbpfLoader::new();
    for name in MAPS {
        let path = match &resize {
            Some(resized) if name == map::NEGOTIATIONS => resized.clone(),
            _ => pins.map(name),
        };
        loader.map_pin_path(name, path);
    }
    loader.map_max_entries(map::NEGOTIATIONS, max_entries);
    let object = fit_to_kernel(object, &mut loader);
    let mut ebpf = loader.load(&object).map_err(load_error)?;
    for (name, program) in ebpf.programs_mut() {
        load_program(name, program)?;
    }
    if let Some(resized) = resize {
        move_negotiations(&mut ebpf, pins, &resized)?;
    }
    Ok(ebpf)
}

/// The object as this kernel takes it: before 5.18 there are no multi-buffer frames, and programs
/// that say they can cope with them are refused.
fn fit_to_kernel<'a>(object: &'a [u8], loader: &mut EbpfLoader<'_>) -> Cow<'a, [u8]> {
    let old = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 18, 0));
    if old {
        loader.override_global("MULTI_BUFFER", &0u8, true);
        Cow::Owned(without_frags(object))
    } else {
        Cow::Borrowed(object)
    }
}

/// Renames the section `xdp.frags` to `xdp`, by ending its name earlier wherever it stands: in
/// the ELF section names and in the type information that refers to them.
pub(super) fn without_frags(object: &[u8]) -> Vec<u8> {
    // Without a NUL in front: it shares its place with the end of `.relxdp.frags`.
    const NAME: &[u8] = b"xdp.frags\0";
    const KEPT: usize = b"xdp".len();
    let mut patched = object.to_vec();
    let mut start = 0;
    while let Some(found) = patched
        .get(start..)
        .and_then(|rest| rest.windows(NAME.len()).position(|part| part == NAME))
    {
        start += found;
        patched[start + KEPT] = 0;
    }
    patched
}

/// Loads one program into the kernel.
fn load_program(name: &str, program: &mut Program) -> Result<(), SteeringError> {
    let mut attempts = 0;
    loop {
        let result = match program {
            Program::Xdp(xdp) => xdp.load(),
            Program::SchedClassifier(classifier) => classifier.load(),
            _ => Ok(()),
        };
        attempts += 1;
        match result {
            Err(error) if is_interrupted(&error) && attempts < LOAD_ATTEMPTS => {}
            result => return result.map_err(|error| program_error(name, &error)),
        }
    }
}

/// The verifier gives up when a signal comes, whatever the signal.
fn is_interrupted(error: &ProgramError) -> bool {
    matches!(
        error,
        ProgramError::LoadError { io_error, .. } if io_error.kind() == io::ErrorKind::WouldBlock
    )
}

fn program_error(name: &str, error: &ProgramError) -> SteeringError {
    if let ProgramError::LoadError { io_error, .. } = error
        && io_error.raw_os_error() == Some(libc::EPERM)
    {
        return SteeringError::Permission {
            operation: format!("load program {name}"),
        };
    }
    SteeringError::Object {
        reason: format!("program {name}: {error}"),
        fix: "run a kernel from 5.15 on; if it is, report the verifier's words above",
    }
}

fn load_error(error: EbpfError) -> SteeringError {
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(inner) = source {
        if let Some(io_error) = inner.downcast_ref::<io::Error>()
            && io_error.raw_os_error() == Some(libc::EPERM)
        {
            return SteeringError::Permission {
                operation: format!("load the eBPF object ({error})"),
            };
        }
        source = inner.source();
    }
    SteeringError::Object {
        reason: anyhow::Error::from(error)
            .chain()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": "),
        fix: "run a kernel from 5.15 on; rebuild gatewayd if its object is damaged",
    }
}

/// Compares all pins with the object's definitions. Answers where to build a negotiation table
/// when the pinned one has another size than `max_entries`.
fn prepare_negotiations(
    object: &[u8],
    pins: &Pins,
    max_entries: u32,
) -> Result<Option<PathBuf>, SteeringError> {
    let parsed = aya_obj::Object::parse(object).map_err(|error| SteeringError::Object {
        reason: error.to_string(),
        fix: "rebuild gatewayd",
    })?;
    let mut resize = None;
    for name in MAPS {
        let Some(wanted) = parsed.maps.get(name) else {
            return Err(SteeringError::Object {
                reason: format!("it has no map {name}"),
                fix: "rebuild gatewayd",
            });
        };
        let path = pins.map(name);
        let found = match MapInfo::from_pin(&path) {
            Ok(found) => found,
            Err(_) if !path.exists() => continue,
            Err(error) => {
                return Err(pin_error("open map", &path, io::Error::other(error)));
            }
        };
        compare(&found, wanted, &path, pins)?;
        if name == map::NEGOTIATIONS && found.max_entries() != max_entries {
            resize = Some(pins.map(RESIZED));
        }
    }
    // Left by a start that was killed while it moved entries; the old table still has them all.
    let stale = pins.map(RESIZED);
    if stale.exists() {
        fs::remove_file(&stale).map_err(|source| pin_error("remove", &stale, source))?;
    }
    Ok(resize)
}

fn compare(
    found: &MapInfo,
    wanted: &aya_obj::Map,
    path: &Path,
    pins: &Pins,
) -> Result<(), SteeringError> {
    let kind = wanted.map_type();
    let devmap = kind == bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32;
    let found_kind = found.map_type().map_or(u32::MAX, |kind| kind as u32);
    let found_flags = if devmap {
        found.map_flags() & !BPF_F_RDONLY_PROG
    } else {
        found.map_flags()
    };
    // aya gives devmaps the larger value where the kernel has it (5.8), whatever the object says.
    let value_size = if devmap { 8 } else { wanted.value_size() };
    let resizable = path.ends_with(map::NEGOTIATIONS);
    let fields = [
        ("its type", found_kind, kind),
        ("its key size", found.key_size(), wanted.key_size()),
        ("its value size", found.value_size(), value_size),
        (
            "its number of entries",
            found.max_entries(),
            if resizable {
                found.max_entries()
            } else {
                wanted.max_entries()
            },
        ),
        ("its flags", found_flags, wanted.map_flags()),
    ];
    for (field, found, wanted) in fields {
        if found != wanted {
            return Err(SteeringError::Layout {
                path: path.to_owned(),
                field,
                found: found.to_string(),
                wanted: wanted.to_string(),
                root: pins.root().to_owned(),
            });
        }
    }
    Ok(())
}

/// Copies the negotiations from the pinned table into the one of the new size, oldest first, so
/// that a smaller table keeps the youngest; then gives it the old one's name. The programs that
/// still run read the old table until their links are updated.
fn move_negotiations(ebpf: &mut Ebpf, pins: &Pins, resized: &Path) -> Result<(), SteeringError> {
    let path = pins.map(map::NEGOTIATIONS);
    let failed = |source: io::Error| pin_error("move the entries of", &path, source);
    let old = MapData::from_pin(&path).map_err(|error| failed(io::Error::other(error)))?;
    let size = old
        .info()
        .map_err(|error| failed(io::Error::other(error)))?
        .max_entries();
    let mut entries = batch::read_hash::<NegotiationKey, NegotiationValue>(old.fd().as_fd(), size)
        .map_err(failed)?;
    entries.sort_by_key(|(_, value)| value.created_ns);
    let new = ebpf
        .map_mut(map::NEGOTIATIONS)
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let mut new = aya::maps::HashMap::<_, NegotiationKey, NegotiationValue>::try_from(new)
        .map_err(|error| failed(io::Error::other(error)))?;
    for (key, value) in &entries {
        new.insert(key, value, 0)
            .map_err(|error| failed(io::Error::other(error)))?;
    }
    fs::rename(resized, &path).map_err(|source| pin_error("rename", resized, source))?;
    tracing::info!(
        entries = entries.len(),
        old_size = size,
        "moved the negotiations into a table of another size"
    );
    Ok(())
}

/// The program called `name`.
pub(super) fn program<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a Program, SteeringError> {
    ebpf.program(name).ok_or_else(|| SteeringError::Object {
        reason: format!("it has no program {name}"),
        fix: "rebuild gatewayd",
    })
}

/// A loaded program's descriptor.
pub(super) fn program_fd(program: &Program) -> Result<BorrowedFd<'_>, SteeringError> {
    program
        .fd()
        .map(AsFd::as_fd)
        .map_err(|error| program_error("without a descriptor", &error))
}

/// A loaded program's id.
pub(super) fn program_id(program: &Program) -> Result<u32, SteeringError> {
    program
        .info()
        .map(|info| info.id())
        .map_err(|error| program_error("without an id", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_section_name_is_patched() {
        let object = b"a\0.relxdp.frags\0xdp.frags\0xdp.fragsx\0";
        assert_eq!(
            without_frags(object),
            b"a\0.relxdp\0frags\0xdp\0frags\0xdp.fragsx\0"
        );
    }

    #[test]
    fn the_shipped_object_has_the_section_and_parses_without_it() {
        let frags = |object: &[u8]| {
            let parsed = aya_obj::Object::parse(object).unwrap();
            let is_frags = |program: &&aya_obj::Program| {
                matches!(
                    program.section,
                    aya_obj::ProgramSection::Xdp { frags: true, .. }
                )
            };
            let count = parsed.programs.values().filter(is_frags).count();
            (parsed.programs.len(), count)
        };
        assert_eq!(frags(super::super::OBJECT), (4, 3));
        assert_eq!(frags(&without_frags(super::super::OBJECT)), (4, 0));
    }
}
