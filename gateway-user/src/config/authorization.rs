//! `authorize` and `authorize_timeout` of a connection.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use gateway_ike::config::Authorization;

use super::error::ConfigError;
use super::{raw, value};

/// Unless `authorize_timeout` says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);

/// The service that is asked, if one is.
pub(super) fn check(
    key: &str,
    raw: &raw::Connection,
) -> Result<Option<Authorization>, ConfigError> {
    let timeout = format!("{key}.authorize_timeout");
    let Some(socket) = &raw.authorize else {
        return match &raw.authorize_timeout {
            None => Ok(None),
            Some(_) => Err(ConfigError::new(
                timeout,
                "is given, and authorize is not",
                "authorize with the socket of the service that is asked, or no authorize_timeout",
            )),
        };
    };
    let by = check_socket(&format!("{key}.authorize"), socket)?;
    let given = raw.authorize_timeout.as_ref();
    let patience = given.map(|text| value::duration(&timeout, text, SHORTEST, LONGEST));
    Ok(Some(Authorization {
        by,
        patience: patience.transpose()?.unwrap_or(PATIENCE),
    }))
}

/// Who could put a socket of his own there would let in whom he likes. It need not be there yet.
fn check_socket(key: &str, socket: &Path) -> Result<String, ConfigError> {
    const ALLOWED: &str = "the absolute path of a Unix socket, like \
                           /run/gateway-authorize/socket, below folders that only root can change";
    let wrong = |why: &str| ConfigError::new(key, format!("{}: {why}", socket.display()), ALLOWED);
    let text = socket.to_str().ok_or_else(|| wrong("is not UTF-8"))?;
    if !socket.is_absolute() {
        return Err(wrong("is not an absolute path"));
    }
    if text.len() > LONGEST_PATH {
        return Err(wrong("is longer than a socket's path can be"));
    }
    if std::fs::metadata(socket).is_ok_and(|about| !about.file_type().is_socket()) {
        return Err(wrong("is not a socket"));
    }
    for folder in socket.ancestors().skip(1) {
        let Ok(about) = std::fs::metadata(folder) else {
            continue;
        };
        let own = about.uid() == 0 || about.uid() == rustix::process::geteuid().as_raw();
        if !own || about.mode() & 0o022 != 0 {
            let (owner, mode) = (about.uid(), about.mode() & 0o7777);
            let folder = folder.display();
            return Err(wrong(&format!(
                "others than root can change {folder} (of user {owner}, mode {mode:04o})"
            )));
        }
    }
    Ok(text.to_owned())
}

/// What `sockaddr_un` holds, less the octet at its end.
const LONGEST_PATH: usize = 107;
