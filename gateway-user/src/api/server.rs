//! The agent's end of the control socket.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};

use super::model::{Reply, Request};
use super::{MAX_REQUEST, listing};
use crate::local_socket;

/// A request on its way to the agent's loop.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// Binds `socket` (mode 0600, its folder is made) and hands every request to `calls` until the
/// receiver is dropped.
///
/// # Errors
/// If the socket cannot be bound, or an agent already answers on it.
pub async fn serve(socket: &Path, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let listener = local_socket::bind(socket, 0o600, None, "gatewayd").await?;
    tokio::spawn(async move {
        while !calls.is_closed() {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, calls.clone()))),
                // Out of descriptors, say: the next client may have more luck.
                Err(error) => {
                    tracing::warn!("control socket: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, calls: mpsc::Sender<Call>) {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    loop {
        let mut line = String::new();
        match (&mut reader).take(MAX_REQUEST).read_line(&mut line).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        let complete = line.ends_with('\n');
        let request = if complete {
            serde_json::from_str(&line).map_err(|error| format!("not a request: {error}"))
        } else {
            Err(too_long())
        };
        let written = match request {
            Ok(Request::Sas { all }) => listing::write_sas(&mut write, &calls, all).await,
            Ok(request) => {
                let answer = listing::ask(&calls, request).await;
                let stopping = || Reply::Error("the agent is stopping".into());
                send(&mut write, answer.unwrap_or_else(stopping)).await
            }
            Err(problem) => send(&mut write, Reply::Error(problem)).await,
        };
        if written.is_err() || !complete {
            return;
        }
    }
}

/// Writes an answer. A long one is put into words on a thread of its own: others wait for this one's.
async fn send(write: &mut OwnedWriteHalf, reply: Reply) -> io::Result<()> {
    let text = tokio::task::spawn_blocking(move || serde_json::to_vec(&reply)).await;
    let mut text = text.map_err(io::Error::other)??;
    text.push(b'\n');
    write.write_all(&text).await
}

fn too_long() -> String {
    format!("not a request: a line of at most {MAX_REQUEST} octets is expected")
}
