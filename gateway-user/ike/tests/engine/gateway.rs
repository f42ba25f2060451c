//! The endpoint under test, a kernel that obeys, and everything that came out, in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::time::Instant;
use gateway_ike::config::Config;
use gateway_ike::endpoint::{Command, Endpoint};
use gateway_ike::output::{
    Change, ChildId, ChildSa, DecisionHandle, DeltaId, EventKind, KernelRequest, KernelResult,
    Output, Path, Question, Transmit, Verdict,
};
use gateway_ike::record::IkeSaRecord;
use gateway_ike::testing::Seeded;

use crate::aws_lc::AwsLc;

/// How the kernel answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    Installs,
    Refuses,
    IsSilent,
}

pub(crate) struct Gateway {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Instant,
    pub(crate) kernel: Kernel,
    /// All outputs so far.
    pub(crate) log: Vec<Output>,
}

pub(crate) fn path(local: &str, remote: &str) -> Path {
    Path::new(
        local.parse::<SocketAddr>().unwrap(),
        remote.parse::<SocketAddr>().unwrap(),
    )
}

pub(crate) fn crypto(seed: u64) -> Arc<Seeded<AwsLc>> {
    Arc::new(Seeded::new(AwsLc, seed))
}

impl Gateway {
    pub(crate) fn new(config: Config) -> Self {
        Self::seeded(config, 1)
    }

    pub(crate) fn seeded(config: Config, seed: u64) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        Self {
            endpoint: Endpoint::new(Arc::new(config), crypto(seed), now),
            now,
            kernel: Kernel::Installs,
            log: Vec::new(),
        }
    }

    /// Hands a datagram in and returns what is sent because of it.
    pub(crate) fn receive(&mut self, path: Path, bytes: &[u8]) -> Vec<Transmit> {
        self.endpoint.handle_datagram(self.now, path, bytes);
        self.drain()
    }

    /// As [`Self::receive`], where exactly one answer is due.
    pub(crate) fn exchange(&mut self, path: Path, bytes: &[u8]) -> Vec<u8> {
        let mut sent = self.receive(path, bytes);
        assert_eq!(sent.len(), 1, "one answer; events: {:?}", self.events());
        let answer = sent.pop().unwrap();
        assert_eq!(answer.path, path);
        answer.bytes
    }

    /// Asserts that nothing is sent.
    pub(crate) fn ignores(&mut self, path: Path, bytes: &[u8]) {
        let sent = self.receive(path, bytes);
        assert!(sent.is_empty(), "an answer to what must be ignored");
    }

    pub(crate) fn answer_kernel(&mut self, result: KernelResult) -> Vec<Transmit> {
        self.endpoint.handle_kernel(self.now, result);
        self.drain()
    }

    pub(crate) fn advance(&mut self, by: Duration) -> Vec<Transmit> {
        self.now = self.now + by;
        self.endpoint.handle_timeout(self.now);
        self.drain()
    }

    pub(crate) fn drain(&mut self) -> Vec<Transmit> {
        let mut sent = Vec::new();
        while let Some(output) = self.endpoint.poll_output() {
            match &output {
                Output::Kernel(KernelRequest::Install { child, .. }) => {
                    let child = child.id();
                    let result = match self.kernel {
                        Kernel::Installs => Some(KernelResult::Installed(child)),
                        Kernel::Refuses => Some(KernelResult::Failed {
                            child,
                            reason: "EEXIST".to_owned(),
                        }),
                        Kernel::IsSilent => None,
                    };
                    if let Some(result) = result {
                        self.endpoint.handle_kernel(self.now, result);
                    }
                }
                Output::Transmit(transmit) => sent.push(Transmit {
                    path: transmit.path,
                    bytes: transmit.bytes.clone(),
                    slot: transmit.slot,
                    after: transmit.after,
                }),
                _ => {}
            }
            self.log.push(output);
        }
        sent
    }

    pub(crate) fn events(&self) -> Vec<&EventKind> {
        self.log
            .iter()
            .filter_map(|output| match output {
                Output::Event(event) => Some(&event.kind),
                _ => None,
            })
            .collect()
    }

    /// What was asked so far.
    pub(crate) fn questions(&self) -> Vec<&Question> {
        let questions = self.log.iter().filter_map(|output| match output {
            Output::Decide(question) => Some(&**question),
            _ => None,
        });
        questions.collect()
    }

    /// Answers a question.
    pub(crate) fn decide(&mut self, handle: DecisionHandle, verdict: Verdict) -> Vec<Transmit> {
        let decided = Command::Decided { handle, verdict };
        self.endpoint.handle_command(self.now, decided);
        self.drain()
    }

    /// Reasons of all failures and drops so far.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.events()
            .into_iter()
            .filter_map(|kind| match kind {
                EventKind::ExchangeFailed { reason } | EventKind::DatagramDropped { reason } => {
                    Some(reason.clone())
                }
                _ => None,
            })
            .collect()
    }

    pub(crate) fn installs(&self) -> Vec<(&ChildSa, Option<ChildId>)> {
        self.log
            .iter()
            .filter_map(|output| match output {
                Output::Kernel(KernelRequest::Install { child, replaces }) => {
                    Some((&**child, *replaces))
                }
                _ => None,
            })
            .collect()
    }

    pub(crate) fn removals(&self) -> Vec<ChildId> {
        self.log
            .iter()
            .filter_map(|output| match output {
                Output::Kernel(KernelRequest::Remove { child }) => Some(*child),
                _ => None,
            })
            .collect()
    }

    /// The last record that went out.
    pub(crate) fn last_record(&self) -> (DeltaId, &IkeSaRecord) {
        self.log
            .iter()
            .rev()
            .find_map(|output| match output {
                Output::Delta(delta) => match &delta.change {
                    Change::Upsert(record) => Some((delta.id, &**record)),
                    _ => None,
                },
                _ => None,
            })
            .expect("a record")
    }

    /// One word per output since `from`, to assert on their order.
    pub(crate) fn order(&self, from: usize) -> Vec<String> {
        self.log[from..].iter().map(word).collect()
    }
}

fn word(output: &Output) -> String {
    match output {
        Output::Transmit(transmit) => match transmit.after {
            Some(DeltaId(id)) => format!("transmit after {id}"),
            None => "transmit".to_owned(),
        },
        Output::Kernel(KernelRequest::Install { .. }) => "install".to_owned(),
        Output::Kernel(KernelRequest::Remove { .. }) => "remove".to_owned(),
        Output::Kernel(KernelRequest::Promote { .. }) => "promote".to_owned(),
        Output::Kernel(KernelRequest::Update { .. }) => "update".to_owned(),
        Output::Delta(delta) => {
            let what = match &delta.change {
                Change::NegotiationOpened { .. } => "opened",
                Change::NegotiationClosed { .. } => "closed",
                Change::Upsert(_) => "upsert",
                Change::Removed { .. } => "removed",
            };
            format!("delta {} {what}", delta.id.0)
        }
        Output::Decide(_) => "decide".to_owned(),
        Output::Event(_) => "event".to_owned(),
    }
}
