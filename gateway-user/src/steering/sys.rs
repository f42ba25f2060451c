//! The bpf(2) commands that aya does not offer, or not with the control needed here: links that
//! are created without a silent fall-back, their interface, and the order of tcx programs.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_type};

/// `BPF_F_BEFORE`: with no relative object it means "first".
const BPF_F_BEFORE: u32 = 1 << 3;
/// More programs than this on one hook and the kernel refuses anyway (`BPF_MPROG_MAX`).
const MPROG_MAX: usize = 64;

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_link_info`; XDP and tcx have the interface index behind it.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Its id: the same object has the same id, whoever opened it.
    pub(super) id: u32,
    /// The program that it runs.
    pub(super) program_id: u32,
    /// The interface it is attached to; 0 once that interface is gone.
    pub(super) interface: u32,
}

/// Where in the kernel's hooks a link sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// XDP.
    Xdp,
    /// tc express, egress.
    TcxEgress,
}

/// Runs one bpf(2) command.
///
/// # Safety
/// `attr` must be the layout that `command` expects, and every address in it must be valid for
/// what the kernel does with it.
pub(super) unsafe fn bpf<T>(command: bpf_cmd, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: attr is a live, exclusive reference of the given size; the rest is the caller's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// A descriptor as bpf(2) takes it.
pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    let mut attr = ObjAttr {
        path: name.as_ptr() as u64,
        ..ObjAttr::default()
    };
    // SAFETY: the layout is BPF_OBJ_GET's and the path is NUL-terminated and outlives the call.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an object.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = c_path(path)?;
    let mut attr = ObjAttr {
        path: name.as_ptr() as u64,
        fd: number(object),
        flags: 0,
    };
    // SAFETY: the layout is BPF_OBJ_PIN's and the path is NUL-terminated and outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map(|_| ())
}

/// Attaches an XDP program by a link. `flags` is one of the `XDP_FLAGS_*_MODE` bits.
///
/// aya's own attach falls back to a netlink attachment when the kernel answers `EINVAL`, which
/// ends with the process and cannot be updated in place; here that is an error.
pub(super) fn attach_xdp(
    program: BorrowedFd<'_>,
    interface: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    create_link(LinkCreateAttr {
        program: number(program),
        target: interface,
        attach_type: bpf_attach_type::BPF_XDP as u32,
        flags,
        ..LinkCreateAttr::default()
    })
}

/// Attaches a tc program in front of everything else on an interface's tcx egress hook.
pub(super) fn attach_tcx_first(program: BorrowedFd<'_>, interface: u32) -> io::Result<OwnedFd> {
    create_link(LinkCreateAttr {
        program: number(program),
        target: interface,
        attach_type: bpf_attach_type::BPF_TCX_EGRESS as u32,
        flags: BPF_F_BEFORE,
        ..LinkCreateAttr::default()
    })
}

fn create_link(mut attr: LinkCreateAttr) -> io::Result<OwnedFd> {
    // SAFETY: the layout is BPF_LINK_CREATE's and holds no addresses.
    let fd = unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Swaps the program of a link in one step.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link: number(link),
        program: number(program),
        ..LinkUpdateAttr::default()
    };
    // SAFETY: the layout is BPF_LINK_UPDATE's and holds no addresses.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map(|_| ())
}

/// Detaches a link at once; without it, a link whose last pin and descriptor are gone detaches
/// some time later.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut fd = number(link);
    // SAFETY: BPF_LINK_DETACH takes the descriptor alone.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut fd) }.map(|_| ())
}

/// Reads what a link is; `InvalidData` if it is not of `kind`.
pub(super) fn link_info(link: BorrowedFd<'_>, kind: LinkKind) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attr = InfoAttr {
        fd: number(link),
        length: size_of::<RawLinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the layout is BPF_OBJ_GET_INFO_BY_FD's; info is live and of the stated length. It is
    // plain integers, so whatever the kernel writes is valid.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let expected = match kind {
        LinkKind::Xdp => bpf_link_type::BPF_LINK_TYPE_XDP as u32,
        LinkKind::TcxEgress => bpf_link_type::BPF_LINK_TYPE_TCX as u32,
    };
    if info.kind != expected {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a bpf object of another kind ({})", info.kind),
        ));
    }
    Ok(LinkInfo {
        id: info.id,
        program_id: info.program_id,
        interface: info.interface,
    })
}

/// The ids of the programs on an interface's tcx egress hook, in the order in which they run.
pub(super) fn tcx_egress_programs(interface: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MPROG_MAX];
    let mut attr = QueryAttr {
        target: interface,
        attach_type: bpf_attach_type::BPF_TCX_EGRESS as u32,
        program_ids: ids.as_mut_ptr() as u64,
        count: MPROG_MAX as u32,
        ..QueryAttr::default()
    };
    // SAFETY: the layout is BPF_PROG_QUERY's; ids has room for the stated count.
    match unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) } {
        Ok(_) => {}
        // Nothing was ever attached there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    ids.truncate(attr.count as usize);
    Ok(ids)
}
