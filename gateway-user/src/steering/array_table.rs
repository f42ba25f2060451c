//! A pinned array of plain values that several threads write without waiting for each other.

use std::os::fd::{AsFd, OwnedFd};

use aya::Pod;
use aya::maps::{Array, Map, MapData, MapError};

use super::batch;
use super::hash_table::failed;
use super::tables::TableError;

/// An array map. Reads and writes take no lock: the kernel replaces each element in one step.
pub(super) struct ArrayTable<V: Pod> {
    name: &'static str,
    map: Array<MapData, V>,
    fd: OwnedFd,
}

impl<V: Pod> ArrayTable<V> {
    /// Wraps `map`; refuses it when its value size is not that of `V`.
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, TableError> {
        let Map::Array(data) = &map else {
            return Err(TableError::Invalid {
                table: name,
                reason: "not an array",
            });
        };
        let fd = data
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| failed(name, "open", error))?;
        let map = Array::try_from(map).map_err(|error: MapError| failed(name, "open", error))?;
        Ok(Self { name, map, fd })
    }

    /// Writes the first `values.len()` elements with one system call, in order.
    pub(super) fn write(&self, values: &[V]) -> Result<(), TableError> {
        if values.len() > self.map.len() as usize {
            return Err(TableError::Invalid {
                table: self.name,
                reason: "more values than elements",
            });
        }
        // Array::try_from has checked that V is as long as the kernel's values.
        batch::write_array(self.fd.as_fd(), values).map_err(|error| failed(self.name, "set", error))
    }

    /// Reads one element.
    pub(super) fn get(&self, index: u32) -> Result<V, TableError> {
        self.map
            .get(&index, 0)
            .map_err(|error| failed(self.name, "read", error))
    }

    /// Reads all elements.
    pub(super) fn read(&self) -> Result<Vec<V>, TableError> {
        (0..self.map.len()).map(|index| self.get(index)).collect()
    }
}
