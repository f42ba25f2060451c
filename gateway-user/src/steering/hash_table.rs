//! A pinned hash map, typed, locked, with batched reads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};

use super::batch;
use super::tables::TableError;

/// Locks; a panic elsewhere leaves a map no less valid than before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error of an operation on a map.
pub(super) fn failed(
    table: &'static str,
    operation: &'static str,
    error: impl Into<anyhow::Error>,
) -> TableError {
    let error: anyhow::Error = error.into();
    let number = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    // E2BIG: a hash map without room; ENOSPC: a trie without room.
    if operation == "insert" && matches!(number, Some(libc::E2BIG | libc::ENOSPC)) {
        return TableError::Full(table);
    }
    TableError::Kernel {
        table,
        operation,
        reason: format!("{error:#}"),
    }
}

/// Whether a removal found its entry.
pub(super) fn removed(
    result: Result<(), MapError>,
    table: &'static str,
) -> Result<bool, TableError> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(false),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(false)
        }
        Err(error) => Err(failed(table, "remove", error)),
    }
}

/// A hash or LRU hash map.
pub(super) struct HashTable<K, V> {
    name: &'static str,
    map: Mutex<HashMap<MapData, K, V>>,
    fd: OwnedFd,
    max_entries: u32,
}

impl<K: Pod, V: Pod> HashTable<K, V> {
    /// Wraps `map`; refuses it when its sizes are not those of `K` and `V`.
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, TableError> {
        let (Map::HashMap(data) | Map::LruHashMap(data)) = &map else {
            return Err(TableError::Invalid {
                table: name,
                reason: "not a hash map",
            });
        };
        let open = |error: anyhow::Error| failed(name, "open", error);
        let fd = data
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| open(error.into()))?;
        let max_entries = data
            .info()
            .map_err(|error| open(error.into()))?
            .max_entries();
        let map = HashMap::try_from(map).map_err(|error| open(error.into()))?;
        Ok(Self {
            name,
            map: Mutex::new(map),
            fd,
            max_entries,
        })
    }

    /// Number of entries that fit.
    pub(super) const fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// Inserts or overwrites.
    pub(super) fn put(&self, key: &K, value: &V) -> Result<(), TableError> {
        lock(&self.map)
            .insert(key, value, 0)
            .map_err(|error| failed(self.name, "insert", error))
    }

    /// Reads one value.
    pub(super) fn get(&self, key: &K) -> Result<Option<V>, TableError> {
        match lock(&self.map).get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(self.name, "read", error)),
        }
    }

    /// Removes; `false` if there was no such entry.
    pub(super) fn remove(&self, key: &K) -> Result<bool, TableError> {
        removed(lock(&self.map).remove(key), self.name)
    }

    /// Copies all entries. Writers go on meanwhile: the kernel replaces whole elements, so that each
    /// entry is one that was there.
    pub(super) fn read(&self) -> Result<Vec<(K, V)>, TableError> {
        // HashMap::try_from has checked that K and V are as long as the kernel's keys and values.
        batch::read_hash(self.fd.as_fd(), self.max_entries)
            .map_err(|error| failed(self.name, "read", error))
    }
}
