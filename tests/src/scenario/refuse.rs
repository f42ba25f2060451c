//! Messages that must be refused, in the right way and with one line in the log.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::harness::{Lab, Wishes};
use crate::lab::{exchange, ike_sa_init, site_address};

/// RFC 7296 §3.10.1.
const UNSUPPORTED_CRITICAL_PAYLOAD: u16 = 1;
const INVALID_MAJOR_VERSION: u16 = 5;

/// A peer with another key than ours.
pub(super) fn wrong_psk(context: &Context) -> Result<String> {
    let change = |connection: &mut crate::lab::Connection| connection.secret = "guessed".into();
    refused(context, "wrong-psk", 0, change, "AUTHENTICATION_FAILED")
}

/// A peer with nothing in common with us.
pub(super) fn no_proposal(context: &Context) -> Result<String> {
    let change = |connection: &mut crate::lab::Connection| {
        connection.proposal = "aes256-sha512-modp4096".into();
    };
    refused(context, "no-proposal", 1, change, "NO_PROPOSAL_CHOSEN")
}

/// The peer is told `notify`, one member logs one line about it, and nothing stays behind.
fn refused(
    context: &Context,
    name: &str,
    stateless: u64,
    change: fn(&mut crate::lab::Connection),
    notify: &str,
) -> Result<String> {
    let wishes = Wishes {
        change: Some(change),
        ..Wishes::default()
    };
    let lab = Lab::sprayed(context, name, &wishes)?;
    ensure!(
        lab.peer.initiate("site-1", 20).is_err(),
        "the tunnel came up"
    );
    let log = lab.peer.log();
    ensure!(
        log.contains(&format!("received {notify} notify error"))
            || log.contains(&format!("N({})", short(notify))),
        "the peer was not told {notify}; its log ends with:\n{}",
        crate::lab::tail(&log, 6)
    );
    ensure!(
        lab.cluster.ike_sas()?.is_empty(),
        "an IKE SA was left behind"
    );
    let lines = lab.log_lines(&[&notify.replace('_', " ")]);
    ensure!(
        lines.len() == 1,
        "{} lines about it instead of one: {lines:?}",
        lines.len()
    );
    ensure!(
        lines[0].contains(&site_address(&lab.network.plan, 0).to_string()),
        "the line does not name the peer: {}",
        lines[0]
    );
    lab.every_exchange_once(stateless)?;
    Ok(format!(
        "peer told {notify}; member logged: {}",
        lines[0].trim()
    ))
}

/// charon's abbreviation of a notify in its list of payloads.
fn short(notify: &str) -> &str {
    match notify {
        "AUTHENTICATION_FAILED" => "AUTH_FAILED",
        "NO_PROPOSAL_CHOSEN" => "NO_PROP",
        other => other,
    }
}

/// Hostile messages from a raw socket; afterwards a real peer comes up as if nothing had been.
pub(super) fn malformed(context: &Context) -> Result<String> {
    let lab = Lab::sprayed(context, "malformed", &Wishes::default())?;
    let ask = |bytes: &[u8]| {
        let from = site_address(&lab.network.plan, 0);
        exchange(&lab.network.peer, from, bytes, Duration::from_millis(700))
    };
    // Silence: no header, lengths that lie, half a payload, a response to nothing, garbage.
    let good = ike_sa_init(1);
    let silent = [
        good[..20].to_vec(),
        changed(&good, |m| m[27] = m[27].wrapping_add(40)),
        changed(&good, |m| m[19] |= 0x20),
        vec![0xa5; 300],
    ];
    for (index, message) in silent.iter().enumerate() {
        let answer = ask(message)?;
        ensure!(
            answer.is_none(),
            "hostile message {index} was answered: {answer:02x?}"
        );
    }
    let future = changed(&good, |m| m[17] = 0x30);
    expect_notify(ask(&future)?, INVALID_MAJOR_VERSION)?;
    // An unknown payload type marked critical in front of the SA payload (RFC 7296 §2.5).
    expect_notify(
        ask(&with_critical_payload(&good))?,
        UNSUPPORTED_CRITICAL_PAYLOAD,
    )?;
    ensure!(
        ask(&ike_sa_init(2))?.is_some(),
        "a good request was not answered"
    );
    lab.bring_up(0)?;
    for member in &lab.cluster.members {
        ensure!(
            !member.log().contains("panicked"),
            "member {} panicked",
            member.id
        );
    }
    Ok(format!(
        "{} hostile messages met silence, 2 the right NOTIFY",
        silent.len()
    ))
}

fn changed(message: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut message = message.to_vec();
    change(&mut message);
    message
}

/// Puts an empty critical payload of the unassigned type 200 first.
fn with_critical_payload(message: &[u8]) -> Vec<u8> {
    let mut changed = message[..28].to_vec();
    changed[16] = 200;
    changed.extend([message[16], 0x80, 0, 4]);
    changed.extend(&message[28..]);
    let length = (changed.len() as u32).to_be_bytes();
    changed[24..28].copy_from_slice(&length);
    changed
}

/// The answer is a response whose only payload is this notification.
fn expect_notify(answer: Option<Vec<u8>>, kind: u16) -> Result<()> {
    let answer = answer.with_context(|| format!("silence instead of notification {kind}"))?;
    ensure!(answer.len() >= 36, "a short answer: {answer:02x?}");
    ensure!(
        answer[16] == 41 && answer[19] & 0x20 != 0,
        "no response with N: {answer:02x?}"
    );
    let found = u16::from_be_bytes([answer[34], answer[35]]);
    ensure!(found == kind, "notification {found} instead of {kind}");
    Ok(())
}
