//! The responder's answer to TSi and TSr (RFC 7296 §2.9).

use super::{TrafficSelector, common_protocol};

/// Most selectors of one side that are looked at, and that an answer has. What a peer proposes
/// beyond is left out, as narrowing allows; the configuration refuses more. It bounds the policies
/// that one peer can make us install: a pair of selectors is one policy per direction.
pub const MAX_SELECTORS: usize = 32;

/// Nothing is both configured and proposed (RFC 7296 §2.9: TS_UNACCEPTABLE).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no common traffic selectors: proposed {proposed}; configured {configured}")]
pub struct TsUnacceptable {
    /// Both sides' proposed selectors.
    pub proposed: String,
    /// Both sides' configured selectors.
    pub configured: String,
}

/// The selectors of a CHILD_SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowed {
    /// Our side's: TSr if we respond.
    pub local: Vec<TrafficSelector>,
    /// The peer's side's: TSi if we respond.
    pub remote: Vec<TrafficSelector>,
}

/// What of one side's `proposed` selectors is also in `configured`, in the order of `proposed`, at
/// most [`MAX_SELECTORS`], none contained in another.
///
/// The initiator's hint is honoured without looking for it: if the first proposed selector is that
/// of the packet that made it ask, its intersection is the first of the answer, or is contained in
/// one that is (RFC 7296 §2.9: the choice must include it).
pub fn narrow(
    configured: &[TrafficSelector],
    proposed: &[TrafficSelector],
) -> Vec<TrafficSelector> {
    let mut answer: Vec<TrafficSelector> = Vec::new();
    for proposal in proposed.iter().take(MAX_SELECTORS) {
        for policy in configured.iter().take(MAX_SELECTORS) {
            if let Some(both) = policy.intersect(proposal) {
                add(&mut answer, both);
            }
        }
    }
    answer
}

/// Adds `new` unless it is covered. It takes the place of the first one that it covers, so that the
/// hint stays in front and is never cut off.
fn add(answer: &mut Vec<TrafficSelector>, new: TrafficSelector) {
    if answer.iter().any(|old| old.contains(&new)) {
        return;
    }
    let place = answer.iter().position(|old| new.contains(old));
    answer.retain(|old| !new.contains(old));
    match place {
        Some(place) => answer.insert(place, new),
        None if answer.len() < MAX_SELECTORS => answer.push(new),
        None => {}
    }
}

/// Whether packets can have one end in `a` and the other in `b`.
fn go_together(a: &TrafficSelector, b: &TrafficSelector) -> bool {
    a.is_ipv4() == b.is_ipv4() && common_protocol(a.protocol, b.protocol).is_some()
}

/// [`narrow`] for both sides. Selectors to which nothing on the other side fits (another address
/// family or protocol) are left out: no packet could ever match them.
pub fn narrow_both(
    configured: (&[TrafficSelector], &[TrafficSelector]),
    proposed: (&[TrafficSelector], &[TrafficSelector]),
) -> Result<Narrowed, TsUnacceptable> {
    let mut local = narrow(configured.0, proposed.0);
    let mut remote = narrow(configured.1, proposed.1);
    local.retain(|a| remote.iter().any(|b| go_together(a, b)));
    remote.retain(|b| local.iter().any(|a| go_together(a, b)));
    if local.is_empty() || remote.is_empty() {
        return Err(TsUnacceptable {
            proposed: describe(proposed.0, proposed.1),
            configured: describe(configured.0, configured.1),
        });
    }
    Ok(Narrowed { local, remote })
}

/// `local === remote`, as strongSwan logs it; long lists are cut.
fn describe(local: &[TrafficSelector], remote: &[TrafficSelector]) -> String {
    format!("{} === {}", list(local), list(remote))
}

fn list(selectors: &[TrafficSelector]) -> String {
    const SHOWN: usize = 8;
    let mut words: Vec<_> = selectors
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    if words.is_empty() {
        words.push("(none)".to_owned());
    }
    if selectors.len() > SHOWN {
        words.push(format!("(and {} more)", selectors.len() - SHOWN));
    }
    words.join(" ")
}
