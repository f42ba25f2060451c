//! A member's REST API, over its Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// An HTTP client for one socket.
#[derive(Debug)]
pub struct Rest {
    socket: PathBuf,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl Rest {
    /// A client for the socket in a member's `/run`.
    pub fn new(run_dir: &Path) -> Self {
        Self {
            socket: run_dir.join("gateway/rest.sock"),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// One request, one connection.
    ///
    /// # Errors
    /// No answer.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let about = || format!("{method} {path}");
        let mut stream = UnixStream::connect(&self.socket).with_context(about)?;
        stream.set_read_timeout(Some(Duration::from_secs(10) * super::patience()))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/json\r\n"
        };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{kind}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text).with_context(about)?;
        let (head, body) = text.split_once("\r\n\r\n").with_context(about)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(Answer {
            status: status.with_context(about)?,
            text: body.to_owned(),
        })
    }

    /// A request that has to be answered with `status`; the answer's JSON.
    ///
    /// # Errors
    /// Another status; the error quotes the answer.
    pub fn expect(
        &self,
        status: u16,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let answer = self.call(method, path, body)?;
        ensure!(
            answer.status == status,
            "{method} {path} {body:?}: {} instead of {status}: {}",
            answer.status,
            answer.text
        );
        Ok(answer.json())
    }

    /// What is there to see.
    ///
    /// # Errors
    /// Another status than 200.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.expect(200, "GET", path, None)
    }
}
