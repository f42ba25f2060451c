//! Many elements of a map in one system call.

use std::io;
use std::os::fd::BorrowedFd;

use aya_obj::generated::bpf_cmd;

use super::sys::{bpf, number};

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Writes the first `values.len()` elements of an array map, in order. Each element is replaced in
/// one step, the whole is not: a packet may meet some of the old ones for a few microseconds.
pub(super) fn write_array<V: aya::Pod>(map: BorrowedFd<'_>, values: &[V]) -> io::Result<()> {
    let keys: Vec<u32> = (0u32..).take(values.len()).collect();
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(values.len()).map_err(io::Error::other)?,
        map: number(map),
        ..BatchAttr::default()
    };
    // SAFETY: the layout is BPF_MAP_UPDATE_BATCH's; keys and values hold `count` elements each
    // (the caller states the map's types) and outlive the call.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr) }.map(|_| ())
}

/// Reads every entry of a hash map, bucket by bucket. Unlike a walk from key to key this neither
/// starts over nor loops when entries vanish meanwhile.
pub(super) fn read_hash<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    max_entries: u32,
) -> io::Result<Vec<(K, V)>> {
    // A chunk must hold the largest bucket; the kernel says ENOSPC if it does not.
    let mut chunk = 1024usize.min(max_entries.max(1) as usize);
    let mut entries: Vec<(K, V)> = Vec::new();
    let mut cursor: Option<u64> = None;
    loop {
        let mut keys: Vec<std::mem::MaybeUninit<K>> = Vec::with_capacity(chunk);
        let mut values: Vec<std::mem::MaybeUninit<V>> = Vec::with_capacity(chunk);
        let mut next = 0u64;
        let mut attr = BatchAttr {
            in_batch: cursor
                .as_ref()
                .map_or(0, |at| std::ptr::from_ref(at) as u64),
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: chunk as u32,
            map: number(map),
            ..BatchAttr::default()
        };
        // SAFETY: the layout is BPF_MAP_LOOKUP_BATCH's; keys and values have room for `count`
        // elements (the caller states the map's types), a hash map's cursor is a u32.
        let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
        let end = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && chunk < 1 << 20 => {
                chunk *= 4;
                continue;
            }
            Err(error) => return Err(error),
        };
        let read = (attr.count as usize).min(chunk);
        // SAFETY: the kernel initialised the first `read` elements of both, and `read` is within
        // their capacity; K and V are plain data, valid for every bit pattern.
        unsafe {
            keys.set_len(read);
            values.set_len(read);
            entries.extend(
                keys.iter()
                    .zip(&values)
                    .map(|(key, value)| (key.assume_init_read(), value.assume_init_read())),
            );
        }
        if end {
            return Ok(entries);
        }
        cursor = Some(next);
    }
}
