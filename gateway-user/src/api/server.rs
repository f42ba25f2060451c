//! The agent's end of the control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};

use super::MAX_REQUEST;
use super::listing::{self, within};
use super::model::{Reply, Request};
use crate::local_socket::{self, Limits};

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
    serve_within(socket, calls, Limits::default()).await
}

async fn serve_within(socket: &Path, calls: mpsc::Sender<Call>, limits: Limits) -> io::Result<()> {
    let listener = local_socket::bind(socket, 0o600, None, "gatewayd").await?;
    tokio::spawn(async move {
        let handle = |stream, _| answer(stream, calls.clone(), limits.patience);
        let stopped = || calls.is_closed();
        local_socket::serve(listener, "control socket", limits, stopped, handle).await;
    });
    Ok(())
}

async fn answer(stream: UnixStream, calls: mpsc::Sender<Call>, patience: Duration) {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    loop {
        let mut line = String::new();
        let mut request = (&mut reader).take(MAX_REQUEST);
        match within(patience, request.read_line(&mut line)).await {
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
            Ok(Request::Sas { all }) => listing::write_sas(&mut write, &calls, all, patience).await,
            Ok(request) => {
                let answer = listing::ask(&calls, request).await;
                let stopping = || Reply::Error("the agent is stopping".into());
                send(&mut write, answer.unwrap_or_else(stopping), patience).await
            }
            Err(problem) => send(&mut write, Reply::Error(problem), patience).await,
        };
        if written.is_err() || !complete {
            return;
        }
    }
}

/// Writes an answer. A long one is put into words on a thread of its own: others wait for this one's.
async fn send(write: &mut OwnedWriteHalf, reply: Reply, patience: Duration) -> io::Result<()> {
    let text = tokio::task::spawn_blocking(move || serde_json::to_vec(&reply)).await;
    let mut text = text.map_err(io::Error::other)??;
    text.push(b'\n');
    within(patience, write.write_all(&text)).await
}

fn too_long() -> String {
    format!("not a request: a line of at most {MAX_REQUEST} octets is expected")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        clients: 2,
        per_user: 2,
        patience: Duration::from_millis(300),
    };

    /// A socket before an agent whose answer is long.
    async fn socket(folder: &tempfile::TempDir) -> std::path::PathBuf {
        let path = folder.path().join("gateway.sock");
        let (calls, mut received) = mpsc::channel::<Call>(1);
        tokio::spawn(async move {
            while let Some(call) = received.recv().await {
                let long = serde_json::Value::from("x".repeat(4 << 20));
                let _ = call.reply.send(Reply::Ok(long));
            }
        });
        serve_within(&path, calls, LIMITS).await.unwrap();
        path
    }

    async fn ends(stream: &mut UnixStream) -> usize {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
        // A connection that was reset has ended, too.
        let _ = read.await.expect("the connection is still open");
        rest.len()
    }

    #[tokio::test]
    async fn there_are_so_many_places_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(&folder).await;
        let first = UnixStream::connect(&path).await.unwrap();
        let _second = UnixStream::connect(&path).await.unwrap();
        let mut third = UnixStream::connect(&path).await.unwrap();
        assert_eq!(ends(&mut third).await, 0);
        drop(first);
        loop {
            let mut next = UnixStream::connect(&path).await.unwrap();
            let mut octet = [0];
            if next.write_all(b"nonsense\n").await.is_ok()
                && next.read(&mut octet).await.is_ok_and(|read| read == 1)
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_is_slow_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(&folder).await;
        let mut unfinished = UnixStream::connect(&path).await.unwrap();
        unfinished.write_all(br#"{"command":"#).await.unwrap();
        let mut unread = UnixStream::connect(&path).await.unwrap();
        unread.write_all(b"{\"command\":\"view\"}\n").await.unwrap();
        assert_eq!(ends(&mut unfinished).await, 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let read = ends(&mut unread).await;
        assert!(
            read < 4 << 20,
            "{read} octets, though nobody read for a second"
        );
    }
}
