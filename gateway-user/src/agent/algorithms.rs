//! The kernel's ESP algorithms, made ready while the agent runs already.

use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use gateway_ike::proposal::EspProposal;

use super::Agent;
use crate::config::Backend;
use crate::xfrm::{CryptoApi, transform_name};

/// A thread that ends when everything is ready that the configured tunnels may need.
///
/// Otherwise the main loop would wait for the first SA of each kind, and with it all tunnels of this
/// member.
#[derive(Debug, Default)]
pub(super) struct Preparation(Option<JoinHandle<()>>);

impl Preparation {
    /// Begins, if tunnels with these proposals need anything of the kernel.
    pub(super) fn start<'a>(
        backend: Backend,
        proposals: impl Iterator<Item = &'a EspProposal>,
    ) -> Self {
        let names = match backend {
            Backend::Xfrm => transforms(proposals),
            Backend::Recording => Vec::new(),
        };
        if names.is_empty() {
            return Self(None);
        }
        let thread = Builder::new().name("algorithms".into());
        match thread.spawn(move || prepare(&names)) {
            Ok(thread) => Self(Some(thread)),
            Err(error) => {
                later(&error);
                Self(None)
            }
        }
    }

    /// Whether no SA waits for its algorithm any more, or nothing can be done about that.
    pub(super) fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

fn prepare(names: &[String]) {
    let begin = Instant::now();
    let mut api = match CryptoApi::open() {
        Ok(api) => api,
        Err(error) => return later(&error),
    };
    for name in names {
        match api.load(name) {
            Ok(()) => {}
            Err(error) if error.errno() == Some(libc::ENOENT) => lacks(name),
            Err(error) => return later(&error),
        }
    }
    tracing::debug!(
        "{} ESP algorithms were made ready in {} ms",
        names.len(),
        begin.elapsed().as_millis()
    );
}

fn lacks(name: &str) {
    tracing::warn!(
        "this kernel has no {name}: tunnels that agree on it will not come up (fix: load the modules \
         of its parts, or leave it out of esp_proposals)"
    );
}

fn later(why: &dyn std::fmt::Display) {
    tracing::info!(
        "the kernel's algorithms are loaded when a tunnel first needs them, and all of this member's \
         tunnels wait for it: {why}"
    );
}

impl Agent {
    /// Makes the kernel ready for the connections as they are now.
    pub(super) fn prepare_algorithms(&mut self) {
        let children = self.all_connections().flat_map(|one| &one.children);
        let proposals = children.flat_map(|child| &child.esp_proposals);
        self.preparation = Preparation::start(self.config.backend, proposals);
    }
}

/// What tunnels with these proposals make the kernel use, each once.
fn transforms<'a>(proposals: impl Iterator<Item = &'a EspProposal>) -> Vec<String> {
    let mut names = Vec::new();
    for proposal in proposals {
        let name = transform_name(proposal.encryption, proposal.esn);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_prepared_once() {
        let proposals: Vec<EspProposal> = [
            "aes256gcm16-x25519-esn",
            "aes128gcm16",
            "aes128-sha256-esn-noesn",
        ]
        .iter()
        .flat_map(|text| EspProposal::parse(text).unwrap())
        .collect();
        assert_eq!(proposals.len(), 4);
        assert_eq!(
            transforms(proposals.iter()).len(),
            3,
            "keys of other lengths and key exchanges are no other algorithms"
        );
    }
}
