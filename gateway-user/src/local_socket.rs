//! Sockets that programs of this host ask on.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

/// Binds `path` with `mode`, for `group` if there is one; its folder is made, and what an earlier run
/// left behind is replaced.
///
/// # Errors
/// If it cannot be bound, or if somebody answers on it, who is called `other` then.
pub(crate) async fn bind(
    path: &Path,
    mode: u32,
    group: Option<u32>,
    other: &str,
) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "another {other} answers on {}: stop it first",
                path.display()
            ),
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    if group.is_some() {
        chown(path, None, group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}
