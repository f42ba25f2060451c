//! The command line's end of the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::model::{Refusal, Reply, Request};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the socket may not be opened.
    #[error(
        "no answer on {}: {source} (is gatewayd running here, and are you root? \
         another socket can be named with --socket)", .socket.display()
    )]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The agent refused.
    #[error("{0}")]
    Refused(String),
    /// The agent speaks another version.
    #[error("the agent's answer was not understood ({0}): do gatewayd and gatewayctl differ?")]
    Malformed(#[from] serde_json::Error),
}

/// Sends `request` to the agent on `socket` and waits up to 10 s for its answer.
///
/// # Errors
/// [`ClientError`].
pub fn call<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, ClientError> {
    let connect = |source| ClientError::Connect {
        socket: socket.to_owned(),
        source,
    };
    let stream = UnixStream::connect(socket).map_err(connect)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .map_err(connect)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    (&stream).write_all(&line).map_err(connect)?;
    let mut answer = String::new();
    BufReader::new(&stream)
        .read_line(&mut answer)
        .map_err(connect)?;
    match serde_json::from_str(&answer)? {
        Reply::Ok(value) => Ok(serde_json::from_value(value)?),
        Reply::Error(reason) | Reply::Refused(Refusal { reason, .. }) => {
            Err(ClientError::Refused(reason))
        }
    }
}
