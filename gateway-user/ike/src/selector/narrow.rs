//! The responder's answer to TSi and TSr (RFC 7296 §2.9).

use super::{SelectorConfig, TrafficSelector, common_protocol};

/// Most selectors of one side that are looked at, and that an answer has. What a peer proposes
/// beyond is left out, as narrowing allows; [`validate`] refuses a configuration of more.
pub const MAX_SELECTORS: usize = 64;

/// Most pairs of a local and a remote selector that an answer has. It bounds what one peer can make
/// us install: a pair is one policy per direction, if both are prefixes.
pub const MAX_PAIRS: usize = 256;

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
/// family or protocol) are left out: no packet could ever match them. Of more than [`MAX_PAIRS`]
/// the last ones of the longer side are.
pub fn narrow_both(
    configured: (&[TrafficSelector], &[TrafficSelector]),
    proposed: (&[TrafficSelector], &[TrafficSelector]),
) -> Result<Narrowed, TsUnacceptable> {
    let mut local = narrow(configured.0, proposed.0);
    let mut remote = narrow(configured.1, proposed.1);
    drop_lonely(&mut local, &mut remote);
    while local.len() * remote.len() > MAX_PAIRS {
        if local.len() > remote.len() {
            local.pop();
        } else {
            remote.pop();
        }
        drop_lonely(&mut local, &mut remote);
    }
    if local.is_empty() || remote.is_empty() {
        return Err(TsUnacceptable {
            proposed: describe(proposed.0, proposed.1),
            configured: describe(configured.0, configured.1),
        });
    }
    Ok(Narrowed { local, remote })
}

fn drop_lonely(local: &mut Vec<TrafficSelector>, remote: &mut Vec<TrafficSelector>) {
    local.retain(|a| remote.iter().any(|b| go_together(a, b)));
    remote.retain(|b| local.iter().any(|a| go_together(a, b)));
}

/// Configured selectors of a child that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorsError {
    /// One side has none.
    #[error("no traffic selectors; both local_ts and remote_ts need at least one")]
    Empty,
    /// Packets cannot have one end in each side.
    #[error(
        "no local_ts goes with a remote_ts: {0}; at least one pair must be of the same address \
         family and, if both have one, protocol"
    )]
    Disjoint(String),
    /// More than [`MAX_SELECTORS`] on a side or [`MAX_PAIRS`] in all.
    #[error(
        "{0} local and {1} remote traffic selectors are too many; at most {MAX_SELECTORS} each and \
         {MAX_PAIRS} pairs are allowed: merge them or spread them over several children"
    )]
    TooMany(usize, usize),
}

/// Whether a child can be configured with these selectors. What passes is never cut by
/// [`narrow_both`] because of its own length.
pub fn validate(local: &[SelectorConfig], remote: &[SelectorConfig]) -> Result<(), SelectorsError> {
    let (a, b) = (local.len(), remote.len());
    if a == 0 || b == 0 {
        return Err(SelectorsError::Empty);
    }
    if a > MAX_SELECTORS || b > MAX_SELECTORS || a * b > MAX_PAIRS {
        return Err(SelectorsError::TooMany(a, b));
    }
    let fits = |a: &SelectorConfig| remote.iter().any(|b| a.goes_with(b));
    if !local.iter().any(fits) {
        return Err(SelectorsError::Disjoint(describe(local, remote)));
    }
    Ok(())
}

/// `local === remote`, as strongSwan logs it; long lists are cut.
fn describe<T: ToString>(local: &[T], remote: &[T]) -> String {
    format!("{} === {}", list(local), list(remote))
}

fn list<T: ToString>(selectors: &[T]) -> String {
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
