//! The pin folders on the bpf file system: made, locked, taken over from other layouts, removed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::config::SteeringConfig;
use super::error::SteeringError;

/// `BPF_FS_MAGIC` of statfs(2).
const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;
/// A child that the earlier agent was just starting holds its lock until it runs its own program.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// The pin folders, locked against a second agent.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    maps: PathBuf,
    links: PathBuf,
    /// Holds the lock while it is open.
    _lock: File,
}

impl Pins {
    /// Checks the file system, makes the folders and takes the lock.
    pub(super) fn open(config: &SteeringConfig) -> Result<Self, SteeringError> {
        require_bpffs(&config.bpffs)?;
        let root = config.pin_root();
        let (maps, links) = (root.join("maps"), root.join("links"));
        for folder in [&maps, &links] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|source| pin_error("create", folder, source))?;
        }
        let lock = lock_folder(&root)?;
        Ok(Self {
            root,
            maps,
            links,
            _lock: lock,
        })
    }

    /// The folder of the links.
    pub(super) fn links(&self) -> &Path {
        &self.links
    }

    /// Moves the link pins of other layouts' folders here: an upgraded agent swaps the programs
    /// of their links in place, without a gap. Their maps stay with their programs.
    ///
    /// # Errors
    /// [`SteeringError::InUse`] if an agent of the other version still runs.
    pub(super) fn adopt_other_layouts(&self) -> Result<(), SteeringError> {
        for other in self.other_layouts() {
            let _lock = lock_folder(&other)?;
            let Ok(entries) = fs::read_dir(other.join("links")) else {
                continue;
            };
            for entry in entries.flatten() {
                let target = self.links.join(entry.file_name());
                if !target.exists() {
                    fs::rename(entry.path(), &target)
                        .map_err(|source| pin_error("rename", &entry.path(), source))?;
                }
            }
        }
        Ok(())
    }

    /// Removes the folders of other layouts, once nothing uses their maps any more.
    pub(super) fn remove_other_layouts(&self) {
        for other in self.other_layouts() {
            match fs::remove_dir_all(&other) {
                Ok(()) => {
                    tracing::info!(folder = %other.display(), "removed pins of another layout");
                }
                Err(error) => {
                    tracing::warn!(folder = %other.display(), %error, "could not remove pins of another layout");
                }
            }
        }
    }

    fn other_layouts(&self) -> Vec<PathBuf> {
        let Some(entries) = self
            .root
            .parent()
            .and_then(|parent| fs::read_dir(parent).ok())
        else {
            return Vec::new();
        };
        let is_layout = |path: &PathBuf| {
            let version = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_prefix('v'));
            *path != self.root && version.is_some_and(|version| version.parse::<u32>().is_ok())
        };
        entries
            .flatten()
            .map(|entry| entry.path())
            .filter(is_layout)
            .collect()
    }

    /// Removes all pins, and with the last of them whatever they kept alive.
    pub(super) fn remove_all(self) -> Result<(), SteeringError> {
        fs::remove_dir_all(&self.root).map_err(|source| pin_error("remove", &self.root, source))?;
        if let Some(parent) = self.root.parent() {
            // Fails while another layout has pins there; they stay.
            let _others = fs::remove_dir(parent);
        }
        Ok(())
    }

    /// The folder of this layout.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The pin of the map `name`.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }
}

/// Locks a folder of pins against a second agent, for as long as the answer lives.
fn lock_folder(folder: &Path) -> Result<File, SteeringError> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(folder)
        .map_err(|source| pin_error("open", folder, source))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        // SAFETY: flock(2) takes a live descriptor and no pointers.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(file);
        }
        let source = io::Error::last_os_error();
        if source.kind() != io::ErrorKind::WouldBlock {
            return Err(pin_error("lock", folder, source));
        }
        if Instant::now() >= deadline {
            return Err(SteeringError::InUse {
                path: folder.to_owned(),
            });
        }
        std::thread::sleep(LOCK_PATIENCE / 20);
    }
}

/// Refuses a folder that is not on a bpf file system.
pub(super) fn require_bpffs(path: &Path) -> Result<(), SteeringError> {
    match is_bpffs(path) {
        Ok(true) => Ok(()),
        _ => Err(SteeringError::NoBpffs {
            path: path.to_owned(),
        }),
    }
}

/// Whether `path` is on a bpf file system.
pub(super) fn is_bpffs(path: &Path) -> io::Result<bool> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: statfs is plain integers, for which zeros are valid.
    let mut info: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated and info is live for the call.
    if unsafe { libc::statfs(name.as_ptr(), &mut info) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info.f_type as libc::c_long == BPF_FS_MAGIC)
}

pub(super) fn pin_error(operation: &'static str, path: &Path, source: io::Error) -> SteeringError {
    SteeringError::Pin {
        operation,
        path: path.to_owned(),
        source,
    }
}
