//! The agent's end of the control socket.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::MAX_REQUEST;
use super::model::{Reply, Request};
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
        let reply = if line.ends_with('\n') {
            ask(&line, &calls).await
        } else {
            too_long()
        };
        let Ok(mut text) = serde_json::to_vec(&reply) else {
            return;
        };
        text.push(b'\n');
        if write.write_all(&text).await.is_err() || !line.ends_with('\n') {
            return;
        }
    }
}

async fn ask(line: &str, calls: &mpsc::Sender<Call>) -> Reply {
    let request = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(error) => return Reply::Error(format!("not a request: {error}")),
    };
    let answer = super::ask(calls, request).await;
    answer.unwrap_or_else(|| Reply::Error("the agent is stopping".into()))
}

fn too_long() -> Reply {
    Reply::Error(format!(
        "not a request: a line of at most {MAX_REQUEST} octets is expected"
    ))
}
