//! A terminal that is drawn upon in place and asked for single keys.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Ctrl-C, which comes as an octet while [`Screen`] is there.
const INTERRUPT: u8 = 3;

/// The alternate screen with the cursor hidden; the terminal is as before when it is dropped.
pub(crate) struct Screen {
    /// How the keyboard was; `None` if it is no terminal.
    before: Option<Termios>,
}

impl Screen {
    /// Takes over the terminal; `None` if output goes elsewhere.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub(crate) fn open() -> io::Result<Option<Self>> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let before = io::stdin()
            .is_terminal()
            .then(|| tcgetattr(io::stdin()).ok())
            .flatten();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        }
        let screen = Self { before };
        write(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Some(screen))
    }

    /// Draws over what was there. What is longer than the window is cut off.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub(crate) fn draw(&self, text: &str) -> io::Result<()> {
        let (rows, columns) = size();
        write(picture(text, rows, columns).as_bytes())
    }

    /// Waits; whether `q` or Ctrl-C was pressed meanwhile.
    ///
    /// # Errors
    /// The keyboard cannot be read.
    pub(crate) fn wait(&self, pause: Duration) -> io::Result<bool> {
        if self.before.is_none() {
            std::thread::sleep(pause);
            return Ok(false);
        }
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let stdin = io::stdin();
            let mut polled = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(0) => return Ok(false),
                // The window's size changed, say.
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            let mut keys = [0; 64];
            // Not through the buffer of `Stdin`: what poll does not see would wait there.
            match rustix::io::read(&stdin, &mut keys)? {
                // The terminal is gone.
                0 => return Ok(true),
                read if ends(&keys[..read]) => return Ok(true),
                _ => {}
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = write(b"\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn ends(keys: &[u8]) -> bool {
    keys.iter()
        .any(|key| matches!(*key, b'q' | b'Q' | INTERRUPT))
}

/// Rows and columns of the window.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    // A terminal that does not know its size says zero.
    let known = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
    known.map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()))
}

/// From the upper left corner, each line cleared to its end, then the rest of the window.
fn picture(text: &str, rows: usize, columns: usize) -> String {
    let lines = text.lines().take(rows.max(1));
    let cut = lines.map(|line| line.chars().take(columns).collect::<String>());
    let lines: Vec<String> = cut.map(|line| format!("{line}\x1b[K")).collect();
    format!("\x1b[H{}\x1b[J", lines.join("\r\n"))
}

fn write(octets: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(octets)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_into_the_window_and_leaves_nothing_behind() {
        let text = "first line\nsécond\nthird\n";
        let drawn = picture(text, 2, 5);
        assert_eq!(drawn, "\x1b[Hfirst\x1b[K\r\nsécon\x1b[K\x1b[J");
    }

    #[test]
    fn q_and_ctrl_c_end_it() {
        assert!(ends(b"q") && ends(b"xQ") && ends(&[INTERRUPT]));
        assert!(!ends(b"x") && !ends(b""));
    }
}
