//! Why a tunnel does not come up: each side says it in one line, from which an operator can tell
//! what to change. The refusals of certificates are in `certificates.rs`.

use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::{Childless, Config, Connection, PpkPolicy};
use gateway_ike::proposal::{EspProposal, IkeProposal};
use gateway_ike::secret::SecretBytes;

use super::link::{Link, configs};
use crate::config::{id, ts};
use crate::gateway::Kernel;

/// A cause, and the words that the initiator's and the responder's line have to contain.
struct Case {
    cause: &'static str,
    spoil: fn(&mut [Config; 2]),
    initiator: &'static [&'static str],
    responder: &'static [&'static str],
}

fn connection(config: &mut Config) -> &mut Connection {
    Arc::make_mut(&mut config.connections[0])
}

const CASES: [Case; 10] = [
    Case {
        cause: "IKE proposals do not meet",
        spoil: |configs| {
            let suite = ["aes128gcm16-prfsha256-x25519", "aes256-sha384-modp3072"];
            for (config, suite) in configs.iter_mut().zip(suite) {
                connection(config).proposals = IkeProposal::parse(suite).unwrap();
            }
        },
        initiator: &[
            "NO_PROPOSAL_CHOSEN",
            "offered: aes128gcm16-prfsha256-x25519",
        ],
        responder: &[
            "no proposal chosen",
            "the peer offers IKE:AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519",
            "configured: IKE:AES_CBC-256/PRF_HMAC_SHA2_384/HMAC_SHA2_384_192/MODP_3072",
        ],
    },
    Case {
        cause: "no connection for the address",
        spoil: |configs| connection(&mut configs[1]).remote_addrs.clear(),
        initiator: &["NO_PROPOSAL_CHOSEN"],
        responder: &["no connection for these addresses"],
    },
    Case {
        cause: "the identity is nobody's",
        spoil: |configs| connection(&mut configs[0]).local_id = id("stranger.example.org"),
        initiator: &["no pre-shared key configured for stranger.example.org"],
        responder: &[],
    },
    Case {
        cause: "the identity is not the one of the connection",
        spoil: |configs| {
            connection(&mut configs[0]).local_id = id("stranger.example.org");
            configs[0].secrets[0].ids.clear();
        },
        initiator: &["AUTHENTICATION_FAILED", "stranger.example.org"],
        responder: &[
            "no connection for stranger.example.org that wants to talk to peer.example.org",
            "configured for these addresses: site (peer.example.org with gw.example.org)",
        ],
    },
    Case {
        cause: "no key for the identity",
        spoil: |configs| configs[1].secrets.clear(),
        initiator: &["AUTHENTICATION_FAILED", "gw.example.org"],
        responder: &["no pre-shared key configured for peer.example.org and gw.example.org"],
    },
    Case {
        cause: "another key",
        spoil: |configs| {
            configs[1].secrets[0].secret = SecretBytes::from(&b"another"[..]);
        },
        initiator: &["AUTHENTICATION_FAILED"],
        responder: &["gw.example.org used another pre-shared key than the one configured"],
    },
    Case {
        cause: "ESP proposals do not meet",
        spoil: |configs| {
            for (config, suite) in configs.iter_mut().zip(["aes256gcm16", "aes128-sha256"]) {
                let mut child = (*connection(config).children[0]).clone();
                child.esp_proposals = EspProposal::parse(suite).unwrap();
                connection(config).children = vec![Arc::new(child)];
            }
        },
        initiator: &["CHILD_SA net", "NO_PROPOSAL_CHOSEN", "aes256gcm16"],
        responder: &[
            "CHILD_SA",
            "the peer offers ESP:AES_GCM_16-256",
            "configured: ESP:AES_CBC-128/HMAC_SHA2_256_128",
        ],
    },
    Case {
        cause: "traffic selectors do not meet",
        spoil: |configs| {
            let mut child = (*connection(&mut configs[1]).children[0]).clone();
            child.local_ts = vec![ts("192.0.2.0/24").into()];
            connection(&mut configs[1]).children = vec![Arc::new(child)];
        },
        initiator: &["CHILD_SA net", "TS_UNACCEPTABLE", "10.2.0.0/16"],
        responder: &[
            "traffic selectors unacceptable",
            "10.2.0.0/16",
            "192.0.2.0/24",
        ],
    },
    Case {
        cause: "no CHILD_SA at first is not allowed",
        spoil: |configs| {
            connection(&mut configs[1]).transport.childless = Childless::Force;
            connection(&mut configs[0]).transport.childless = Childless::Never;
        },
        initiator: &["INVALID_SYNTAX"],
        responder: &["childless = force"],
    },
    Case {
        cause: "an insisted-on post-quantum key is missing",
        spoil: |configs| {
            connection(&mut configs[1]).auth.ppk = Some(PpkPolicy {
                id: None,
                required: true,
            });
        },
        initiator: &["AUTHENTICATION_FAILED"],
        responder: &["ppk_required"],
    },
];

#[test]
fn each_cause_is_named_on_both_sides() {
    let mut unsaid = Vec::new();
    for (seed, case) in (900..).zip(CASES) {
        let mut configs = configs(|_, _, _| ());
        (case.spoil)(&mut configs);
        let mut link = Link::with(seed, configs);
        link.initiate(0);
        link.pass(Duration::from_secs(200), &mut |_, t| Some(t.bytes.clone()));
        for (side, words) in [(0, case.initiator), (1, case.responder)] {
            let said = link.sides[side].complaints();
            let told = |line: &String| words.iter().all(|word| line.contains(word));
            if !words.is_empty() && !said.iter().any(told) {
                unsaid.push((case.cause, side, words, said.clone()));
            }
            assert!(said.iter().all(|line| !line.contains("correct horse")));
        }
        assert_eq!(link.sides[0].endpoint.child_sas(), 0, "{}", case.cause);
    }
    assert!(unsaid.is_empty(), "{unsaid:#?}");
}

#[test]
fn a_peer_that_is_not_there_and_a_kernel_that_refuses_are_named() {
    let mut link = Link::new(950);
    link.initiate(0);
    link.assert_one_tunnel();
    let mut silent = Link::new(951);
    silent.order(0, super::link::order());
    silent.pass(Duration::from_secs(300), &mut |_, _| None);
    let said = silent.sides[0].complaints().join("\n");
    assert!(
        said.contains("initiation to 203.0.113.10 failed: IKE_SA_INIT: the peer does not answer"),
        "{said}"
    );
    for side in 0..2 {
        let mut link = Link::new(952);
        link.sides[side].kernel = Kernel::Refuses;
        link.initiate(0);
        let said = link.sides[side].complaints().join("\n");
        assert!(
            said.contains("the kernel did not install"),
            "{side}: {said}"
        );
    }
}
