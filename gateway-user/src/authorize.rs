//! Asks a service of this host whether a peer that has proved who it is may have an IKE SA:
//! `authorize` of a connection, gateway-authorize(7).
//!
//! A service behind a Unix socket and no program that the agent starts: a child of the agent would
//! have its capabilities (the kernel's SAs, BPF), its real-time share of the processor and its
//! hardening, of which MemoryDenyWriteExecute= and the system call filter break many interpreters,
//! and AppArmor would have to let the agent run programs. A service has a user and a unit of its own;
//! for one program per question there is socket activation (`Accept=yes`), see
//! `examples/authorize`. All that the agent needs is to connect.
//!
//! One connection per question. The question is lines `name=value`, ended by an empty line, as in
//! Postfix' policy protocol; the answer is one line, `accept` or `refuse`, with a reason for the log
//! behind it if there is one. Whatever else happens is a refusal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_ike::output::{DecisionHandle, Question, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};

/// Questions to one service at the same time; further ones wait, which counts as waiting for the
/// answer.
const AT_A_TIME: usize = 32;

/// The longest answer, in octets; what follows is not read.
const LONGEST_ANSWER: u64 = 1024;

/// What became of a question.
#[derive(Debug)]
pub(crate) struct Decision {
    /// What was asked.
    pub(crate) question: Question,
    /// The answer.
    pub(crate) verdict: Verdict,
    /// Why the peer is let in, in the service's words; may be empty.
    pub(crate) reason: String,
}

impl Decision {
    /// For the engine.
    pub(crate) fn handle(&self) -> DecisionHandle {
        self.question.handle
    }
}

/// Asks, without anybody's waiting for it; the decisions come out of a channel.
#[derive(Debug)]
pub(crate) struct Porters {
    places: BTreeMap<PathBuf, Arc<Semaphore>>,
    /// As many as there are questions, which the engine's half-open limit bounds.
    decisions: mpsc::UnboundedSender<Decision>,
}

impl Porters {
    /// And where the decisions come out.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Decision>) {
        let (decisions, receiver) = mpsc::unbounded_channel();
        let places = BTreeMap::new();
        (Self { places, decisions }, receiver)
    }

    /// Asks the service that the connection names. There is a decision in any case, after the
    /// question's patience at the latest.
    pub(crate) fn ask(&mut self, question: Question) {
        let socket = PathBuf::from(&question.authorization.by);
        let places = self.places.entry(socket.clone());
        let places = places.or_insert_with(|| Arc::new(Semaphore::new(AT_A_TIME)));
        let (places, decisions) = (Arc::clone(places), self.decisions.clone());
        tokio::spawn(async move {
            let patience = question.authorization.patience;
            let asked = async {
                // Never closed.
                let _place = places.acquire().await;
                ask(&socket, &question).await
            };
            let answered = tokio::time::timeout(patience, asked).await;
            let answer = answered
                .unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs_f64())));
            let (verdict, reason) = match answer {
                Ok(Answer::Accept(reason)) => (Verdict::Accept, reason),
                Ok(Answer::Refuse(reason)) | Err(reason) => {
                    (Verdict::Refuse { reason }, String::new())
                }
            };
            // The agent ends.
            let _ = decisions.send(Decision {
                question,
                verdict,
                reason,
            });
        });
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Accept(String),
    Refuse(String),
}

/// One connection, one question, one answer.
async fn ask(socket: &Path, question: &Question) -> Result<Answer, String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(|error| failed("nobody answers there", error))?;
    let text = words(question);
    stream
        .write_all(text.as_bytes())
        .await
        .map_err(|error| failed("the question was not read", error))?;
    let mut octets = Vec::new();
    let mut answer = stream.take(LONGEST_ANSWER);
    // A line is all that counts: whoever answers need not close the connection.
    while !octets.contains(&b'\n') {
        let read = answer.read_buf(&mut octets).await;
        if read.map_err(|error| failed("the answer cannot be read", error))? == 0 {
            break;
        }
    }
    understand(&octets)
}

/// The question on the wire.
fn words(question: &Question) -> String {
    let Question {
        connection,
        remote_id,
        local_id,
        path,
        ..
    } = question;
    let mut text = String::from("protocol=gateway-authorize/1\n");
    let (remote, local) = (path.remote, path.local);
    for (name, value) in [
        ("connection", plain(connection)),
        ("remote_id", plain(remote_id)),
        ("remote_address", remote.ip().to_string()),
        ("remote_port", remote.port().to_string()),
        ("local_id", plain(local_id)),
        ("local_address", local.ip().to_string()),
        ("local_port", local.port().to_string()),
    ] {
        let _ = writeln!(text, "{name}={value}");
    }
    text.push('\n');
    text
}

/// The answer's first line.
fn understand(octets: &[u8]) -> Result<Answer, String> {
    let line = octets.split(|octet| *octet == b'\n').next();
    let line = plain(&String::from_utf8_lossy(line.unwrap_or_default()));
    let (verdict, reason) = line.split_once(' ').unwrap_or((&line, ""));
    let reason = reason.trim();
    match verdict {
        "accept" => Ok(Answer::Accept(reason.to_owned())),
        "refuse" if reason.is_empty() => Ok(Answer::Refuse("without a reason".to_owned())),
        "refuse" => Ok(Answer::Refuse(reason.to_owned())),
        "" => Err("it closed the connection without an answer".to_owned()),
        _ => Err(format!("it answers \"{line}\", not accept or refuse")),
    }
}

/// On one line, and without what a terminal would obey: identities come from peers.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let text: String = text.chars().map(shown).collect();
    text.trim_end_matches('\u{fffd}').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use gateway_ike::config::Authorization;
    use gateway_ike::output::Path as Addresses;
    use tempfile::TempDir;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::UnixListener;

    use super::*;

    fn question(by: &Path, patience: Duration) -> Question {
        Question {
            handle: DecisionHandle {
                local_spi: [1; 8],
                message_id: 1,
            },
            authorization: Authorization {
                by: by.display().to_string(),
                patience,
            },
            connection: "site".to_owned(),
            remote_id: "peer\n.example.org".to_owned(),
            local_id: "gw.example.org".to_owned(),
            path: Addresses::new(
                "192.0.2.1:4500".parse().unwrap(),
                "[2001:db8::1]:500".parse().unwrap(),
            ),
        }
    }

    /// A service that answers each question with `answer`, and keeps the connection; the questions.
    fn service(
        folder: &TempDir,
        answer: &'static str,
    ) -> (PathBuf, mpsc::UnboundedReceiver<String>) {
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (heard, questions) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut text = String::new();
                while !text.ends_with("\n\n") {
                    stream.read_line(&mut text).await.unwrap();
                }
                heard.send(text).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                open.push(stream);
            }
        });
        (path, questions)
    }

    async fn decide(path: &Path, patience: Duration) -> Decision {
        let (mut porters, mut decisions) = Porters::new();
        porters.ask(question(path, patience));
        decisions.recv().await.unwrap()
    }

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_service_hears_who_it_is_and_its_word_counts() {
        let folder = TempDir::new().unwrap();
        let (path, mut questions) = service(&folder, "accept staff of the north\nmore\n");
        let decision = decide(&path, SOON).await;
        assert_eq!(decision.verdict, Verdict::Accept);
        assert_eq!(decision.reason, "staff of the north");
        assert_eq!(
            questions.recv().await.unwrap(),
            "protocol=gateway-authorize/1\nconnection=site\nremote_id=peer\u{fffd}.example.org\n\
             remote_address=2001:db8::1\nremote_port=500\nlocal_id=gw.example.org\n\
             local_address=192.0.2.1\nlocal_port=4500\n\n"
        );
    }

    #[test]
    fn only_a_clear_word_lets_anybody_in() {
        let refuse = |reason: &str| Ok(Answer::Refuse(reason.to_owned()));
        for (line, expected) in [
            ("accept", Ok(Answer::Accept(String::new()))),
            ("accept\r\n", Ok(Answer::Accept(String::new()))),
            ("refuse unpaid\n", refuse("unpaid")),
            ("refuse", refuse("without a reason")),
            ("refuse \x1b[31mred\n", refuse("\u{fffd}[31mred")),
            ("", Err("without an answer")),
            ("\naccept\n", Err("without an answer")),
            ("accepted\n", Err("not accept or refuse")),
            ("ACCEPT\n", Err("not accept or refuse")),
            ("refuse\0accept\n", Err("not accept or refuse")),
        ] {
            match (understand(line.as_bytes()), expected) {
                (Err(why), Err(words)) => assert!(why.contains(words), "{line:?}: {why}"),
                (answer, expected) => {
                    assert_eq!(answer, expected.map_err(str::to_owned), "{line:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn who_does_not_answer_refuses_and_takes_nobody_elses_time() {
        let folder = TempDir::new().unwrap();
        let silent = folder.path().join("silent");
        let _listener = UnixListener::bind(&silent).unwrap();
        let (good, _questions) = service(&folder, "accept\n");
        let (mut porters, mut decisions) = Porters::new();
        let patience = Duration::from_millis(300);
        let begin = Instant::now();
        // More than may be under way at a time: those that wait for their turn do not wait longer.
        for _ in 0..2 * AT_A_TIME {
            porters.ask(question(&silent, patience));
        }
        porters.ask(question(&good, SOON));
        let first = decisions.recv().await.unwrap();
        assert_eq!(first.verdict, Verdict::Accept);
        for _ in 0..2 * AT_A_TIME {
            let reason = "no answer within 0.3 s".to_owned();
            let late = decisions.recv().await.unwrap();
            assert_eq!(late.verdict, Verdict::Refuse { reason });
        }
        assert!(begin.elapsed() < SOON);
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_refuses() {
        let folder = TempDir::new().unwrap();
        let Verdict::Refuse { reason } = decide(&folder.path().join("none"), SOON).await.verdict
        else {
            panic!("nobody has let it in");
        };
        assert!(reason.contains("nobody answers there"), "{reason}");
    }
}
