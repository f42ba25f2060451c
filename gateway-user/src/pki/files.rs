//! Files that hold keys and certificates.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::PkiError;

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_path_buf();
    move |source| PkiError::Io {
        action,
        path,
        source,
    }
}

/// With `force` nothing is in the way.
pub(super) fn check_absent(paths: &[PathBuf], force: bool) -> Result<(), PkiError> {
    // A dangling link is in the way, too.
    let present = |path: &&PathBuf| path.symlink_metadata().is_ok();
    match paths.iter().find(present) {
        Some(path) if !force => Err(PkiError::Exists { path: path.clone() }),
        _ => Ok(()),
    }
}

/// Mode 0700, unless it exists.
pub(super) fn create_dir(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("create", dir))
}

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(io_error("read", path))
}

/// Whether `path` has exactly this content.
pub(super) fn holds(path: &Path, content: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == content)
}

/// Mode 0600 from the first moment on.
pub(super) fn write_secret(path: &Path, content: String, force: bool) -> Result<(), PkiError> {
    let content = Zeroizing::new(content);
    write(path, &content, 0o600, force)
}

/// Mode 0644.
pub(super) fn write_public(path: &Path, content: &str, force: bool) -> Result<(), PkiError> {
    write(path, content, 0o644, force)
}

fn write(path: &Path, content: &str, mode: u32, force: bool) -> Result<(), PkiError> {
    if force {
        // Beside it and renamed, so that what was there stays whole until it is replaced.
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let temporary = PathBuf::from(name);
        let _ = fs::remove_file(&temporary);
        create(&temporary, content, mode).map_err(io_error("write", &temporary))?;
        return fs::rename(&temporary, path).map_err(io_error("write", path));
    }
    create(path, content, mode).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => PkiError::Exists {
            path: path.to_path_buf(),
        },
        _ => io_error("write", path)(source),
    })
}

fn create(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // Whatever the umask took away.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}
