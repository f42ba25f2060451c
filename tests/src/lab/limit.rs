//! Programs that the lab waits for: none of them for ever.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Longest that a program may take that is waited for. Nothing that works takes a quarter of it, on
/// an emulated machine either.
const LIMIT: Duration = Duration::from_secs(300);

/// As [`Command::output`], for at most five minutes; then the program is killed.
///
/// # Errors
/// It cannot be started, or did not end in time.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    within(LIMIT, command.stdin(Stdio::null()), None)
}

/// The same with `input` on the program's standard input.
///
/// # Errors
/// As for [`output`].
pub(crate) fn output_of_input(command: &mut Command, input: &str) -> io::Result<Output> {
    within(LIMIT, command.stdin(Stdio::piped()), Some(input))
}

fn within(limit: Duration, command: &mut Command, input: Option<&str>) -> io::Result<Output> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = child.id() as libc::pid_t;
    let (ended, end) = mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        let late = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if late {
            // SAFETY: kill(2) on a child that has not been waited for, or was this very moment.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        late
    });
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // Who ends without having read everything says why by its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output();
    drop(ended);
    if guard.join().unwrap_or(false) {
        let program = command.get_program().to_string_lossy().into_owned();
        let message = format!("{program} did not end in {} s", limit.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_end_is_killed() {
        let mut endless = Command::new("sleep");
        let late = within(Duration::from_millis(50), endless.arg("1000"), None);
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let told = output_of_input(&mut Command::new("cat"), "this").unwrap();
        assert_eq!(told.stdout, b"this");
    }
}
